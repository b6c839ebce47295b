"""Compare complete batch workers: a Parquet table, a model, and a destination for predictions."""
