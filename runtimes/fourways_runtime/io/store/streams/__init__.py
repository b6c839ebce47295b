"""Streams in the prediction store: positions, live answers and dead letters."""
