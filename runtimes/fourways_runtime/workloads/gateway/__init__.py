"""The gateway: one address that answers for every deployment of a namespace.

Stateless: the store describes itself and its configuration names the other modes' routes, so any
number of gateways answer the same. What one remembers only saves work. Run by
``python -m fourways_runtime gateway``.
"""

from .shell import main

__all__ = ["main"]
