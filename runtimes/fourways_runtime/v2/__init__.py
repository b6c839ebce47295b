"""The Open Inference Protocol V2: reads requests, batches them, renders responses.

The one home of the protocol for the model server, the gateway and the device agent. Knows
``scoring`` and ``fourways_http``; asks no database and no broker itself.
"""
