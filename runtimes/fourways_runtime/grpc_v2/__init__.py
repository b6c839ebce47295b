"""The Open Inference Protocol V2 over gRPC: the same answers as over HTTP, from the same handlers.

Imported only where gRPC is switched on: the library takes about 20 MB of memory.
"""
