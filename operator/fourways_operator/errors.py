"""What can go wrong between the operator and the API, as one tree.

::

    OperatorError
    ├── DependencyNotReady               the world is not ready: says what is waited for
    ├── GatewaySilent        a gateway did not tell how far runs are: nothing waits for that
    └── ApiFault             the API server did not do it
        ├── ObjectFault      it is about this object: others may go on
        │   ├── Conflict     409: it changed, is another one (uid), or a field is somebody's
        │   ├── ObjectGone         404, 410: object, kind or namespace is not there (any more)
        │   ├── Forbidden    403: names verb and resource
        │   ├── Invalid      400, 422: carries the server's words
        │   └── HookFailed   500: who else must agree to the object does not answer
        └── ServerFault      nothing else would fare better now
            ├── Throttled    429, or 503 with Retry-After
            ├── ApiUnreachable  no answer in time, or none at all
            └── ServerError  any other answer

A bad spec is not in it: that is ``InvalidSpec`` of the API, an answer and no fault. Whatever else
is raised is a bug: it is logged with its key and its stack, and tried again with backoff.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Expected: told in one line, tried again with backoff."""

    retry_after: float = 0.0
    """Seconds the other side asked to be left alone for."""


class DependencyNotReady(OperatorError):
    """The world is not ready; the text says what is waited for."""


class GatewaySilent(OperatorError):
    """A namespace's gateway does not answer, or not in words that make sense."""


class ApiFault(OperatorError):
    """The API server did not do what was asked; the text says what and why."""


class ObjectFault(ApiFault):
    """A fault of one object: the others may go on."""


class Conflict(ObjectFault):
    """The object changed, is another one than was meant, or a field belongs to somebody else."""


class ObjectGone(ObjectFault):
    """The object, its kind or its namespace is not there, or is going away."""


class Forbidden(ObjectFault):
    """The operator may not do this."""


class Invalid(ObjectFault):
    """The API server refuses the object."""


class HookFailed(ObjectFault):
    """An admission webhook that the API server asks about the object does not answer."""


class ServerFault(ApiFault):
    """A fault of the API server as a whole."""


class Throttled(ServerFault):
    """The API server asks for a pause of ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ApiUnreachable(ServerFault):
    """No answer came, or none in time."""


class ServerError(ServerFault):
    """The API server failed."""
