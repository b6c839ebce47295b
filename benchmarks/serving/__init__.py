"""Compare our model server with the bare model, an empty handler and other model servers."""
