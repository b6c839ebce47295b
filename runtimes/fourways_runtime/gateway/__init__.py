"""The gateway: one address that answers for every deployment of a namespace.

Stateless: the store describes itself, so any number of gateways answer the same. Run by
``python -m fourways_runtime gateway``.
"""

from .shell import main

__all__ = ["main"]
