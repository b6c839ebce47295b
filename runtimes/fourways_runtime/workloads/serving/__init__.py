"""The model server: serves one model with the Open Inference Protocol V2 over HTTP.

Started with ``python -m fourways_runtime serve``. Nothing heavy is imported until the server
listens, so that a pod passes its liveness probe while its model loads.
"""

from .shell import main

__all__ = ["main"]
