"""From raw columns to predictions: decode, model, answers. No network, no database, no event loop.

A model's file is read from a path; everything else comes as arguments. The device agent imports
this floor, so nothing here may need more than numpy and the model's own library at import.
"""
