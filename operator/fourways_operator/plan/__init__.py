"""The objects that a mode needs, one module per mode, and the gateway's. Pure.

No clock, no client, no event loop: the operator, ``fourways plan`` and the embedded host all get
the same objects from the same spec. Objects contain only the desired state: no uid of their own and
no defaults that the server sets. ``fourways_operator.planning`` chooses the mode.
"""
