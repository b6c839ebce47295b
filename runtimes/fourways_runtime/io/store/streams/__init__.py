"""Streams in the prediction store: positions, live predictions and dead letters."""
