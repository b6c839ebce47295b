"""Batch runs in the prediction store: the ledger, its chunks, publishing and history."""
