"""The errors between the operator and the API, as one tree.

::

    OperatorError
    ├── DependencyNotReady    something must happen first: the text says what is waited for
    ├── GatewaySilent         a gateway gave no usable answer about runs: nothing waits for it
    └── ApiFault              the API server did not do what was requested
        ├── ObjectFault       the fault concerns one object: work on the others continues
        │   ├── Conflict      409: the object changed, has another uid, or another manager's field
        │   ├── ObjectGone    404, 410: object, kind or namespace does not exist (any more)
        │   ├── Forbidden     403: the text names verb and resource
        │   ├── Invalid       400, 422: the text is the server's message
        │   └── HookFailed    500: an admission webhook does not answer
        └── ServerFault       no other request would succeed now
            ├── Throttled     429, or 503 with Retry-After
            ├── ApiUnreachable  no answer, or none in time
            └── ServerError   any other answer

An invalid spec is not an error of the operator: ``InvalidSpec`` of the API is an answer. Any other
exception is a bug: it is logged with its key and its stack, and retried with backoff.
"""

from __future__ import annotations


class OperatorError(Exception):
    """Expected: logged in one line, retried with backoff."""

    retry_after: float = 0.0
    """Minimum pause in seconds that the server requested."""


class DependencyNotReady(OperatorError):
    """Something must happen first; the text says what is waited for."""


class GatewaySilent(OperatorError):
    """A namespace's gateway does not answer, or its answer cannot be used."""


class ApiFault(OperatorError):
    """The API server did not do what was requested; the text says what and why."""


class ObjectFault(ApiFault):
    """A fault of one object: work on the others continues."""


class Conflict(ObjectFault):
    """The object changed, has another uid, or a field belongs to another manager."""


class ObjectGone(ObjectFault):
    """The object, its kind or its namespace does not exist, or is being deleted."""


class Forbidden(ObjectFault):
    """The operator may not do this."""


class Invalid(ObjectFault):
    """The API server refuses the object."""


class HookFailed(ObjectFault):
    """An admission webhook for the object does not answer."""


NEEDS_ACTION = (Forbidden, Invalid, HookFailed)
"""Faults that somebody has to act on; the others are transient."""


class ServerFault(ApiFault):
    """A fault of the API server as a whole."""


class Throttled(ServerFault):
    """The API server requests a pause of ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ApiUnreachable(ServerFault):
    """There was no answer, or none in time."""


class ServerError(ServerFault):
    """The API server failed."""
