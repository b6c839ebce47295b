"""Writes the first manifest of a model file: what the file says, completed from a sample table.

The package decides nothing that the operator or the runtime decides: it reads the model with the
loaders that serve it, binds the contract with the runtime's own code, and validates the text that
it made. What it cannot know it says in a comment of the manifest.
"""

from __future__ import annotations
