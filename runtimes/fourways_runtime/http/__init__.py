"""The HTTP layer under the gateway and the model server: one asyncio.Protocol on httptools.

Owns sockets, limits, time-outs, order of answers, draining and routing. Knows nothing of models,
stores or the Open Inference Protocol. httptools parses; nothing here reads HTTP by hand. Why not
a framework: measured, an empty handler on this stack answers several times as many requests.
"""

from .limits import Limits
from .message import HttpError, Request, Response, json_response
from .router import Route, Router
from .server import Server, run_until_signal

__all__ = [
    "HttpError",
    "Limits",
    "Request",
    "Response",
    "Route",
    "Router",
    "Server",
    "json_response",
    "run_until_signal",
]
