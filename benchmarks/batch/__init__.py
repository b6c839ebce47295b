"""Whole batch workers side by side: a table of Parquet, a model, and where predictions go."""
