"""Our model server beside the bare model, an empty handler, and what others serve models with."""
