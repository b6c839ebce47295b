"""The model server: one model, answering the Open Inference Protocol V2 over HTTP.

Run by ``python -m fourways_runtime serve``. Nothing heavy is imported until the server listens, so
that a pod is seen to live while its model loads.
"""

from .shell import main

__all__ = ["main"]
