"""From raw columns to predictions: decode, model, outputs. No network, no database, no event loop.

A model's file is read from a path; everything else comes as arguments. The device agent imports
this layer, so no module here may import more than numpy and the model's own library.
"""
