"""The gateway: one address that serves every deployment of a namespace.

Stateless: the store describes itself, and the configuration names the routes of the other modes, so
all gateways of a namespace answer alike. What a gateway remembers only saves work. Started with
``python -m fourways_runtime gateway``.
"""

from .shell import main

__all__ = ["main"]
