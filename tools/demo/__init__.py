"""``make demo`` and ``make demo-cluster``: the examples, from manifest to prediction.

Both end with the same table, fetched over HTTP as a backend would.
"""
