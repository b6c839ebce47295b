"""The Open Inference Protocol V2: reads requests, batches them, renders responses.

The only implementation of the protocol, used by the model server, the gateway and the device agent.
Depends on ``scoring`` and ``fourways_http``; accesses no database and no broker itself.
"""
