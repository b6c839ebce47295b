"""The HTTP layer under the gateway and the model server: asyncio.Protocol on httptools.

Owns sockets, limits, timeouts, response order, draining and routing; and, for the gateway, the
pooled connections to other servers. Knows nothing about models, stores or the Open Inference
Protocol. httptools does all the parsing; no code here parses HTTP by hand. Why not a framework: in
a benchmark, an empty handler on this stack serves several times as many requests.
"""

from .client import Origin, Pool, TooManyWaiting
from .exchange import (
    ByteRoom,
    ClientError,
    NoRoom,
    OriginAnswer,
    OriginUnreachable,
    TimedOut,
    TooLarge,
)
from .limits import Limits
from .message import (
    BodySource,
    HttpError,
    HttpRoute,
    Request,
    Response,
    SizedResponse,
    json_response,
)
from .promise import Promise
from .router import Router
from .server import Server, run_until_signal

__all__ = [
    "BodySource",
    "ByteRoom",
    "ClientError",
    "HttpError",
    "HttpRoute",
    "Limits",
    "NoRoom",
    "Origin",
    "OriginAnswer",
    "OriginUnreachable",
    "Pool",
    "Promise",
    "Request",
    "Response",
    "Router",
    "Server",
    "SizedResponse",
    "TimedOut",
    "TooLarge",
    "TooManyWaiting",
    "json_response",
    "run_until_signal",
]
