"""Folders and buckets that results are written to, without ever following a link."""
