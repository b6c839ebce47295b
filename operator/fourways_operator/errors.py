"""The errors between the operator and the API, as one tree.

::

    OperatorError
    ├── DependencyNotReady    something else must happen first: the text names it
    ├── GatewaySilent         a gateway gave no usable response about runs: nothing waits for it
    └── ApiFault              the API server did not do what was requested
        ├── ObjectFault       the fault concerns one object: work on the others continues
        │   ├── Conflict      409: the object changed, has another uid, or another manager's field
        │   ├── ObjectGone    404, 410: object, kind or namespace does not exist, or no longer
        │   ├── Forbidden     403: the text names verb and resource
        │   ├── Invalid       400, 422: the text is the server's message
        │   └── HookFailed    500: an admission webhook does not answer
        └── ServerFault       no other request would succeed now
            ├── Throttled     429, or 503 with Retry-After
            ├── ApiUnreachable  no response, or none in time
            └── ServerError   any other response

An invalid spec is not an error of the operator: the API's ``InvalidSpec`` is a regular result. Any
other exception is a bug: it is logged with its key and its stack, and retried with backoff.
"""

from __future__ import annotations


class OperatorError(Exception):
    """An expected error: logged on one line, retried with backoff."""

    retry_after: float = 0.0
    """Minimum pause in seconds that the server requested."""


class DependencyNotReady(OperatorError):
    """Something else must happen first; the text names it."""


class GatewaySilent(OperatorError):
    """A namespace's gateway does not respond, or its response cannot be used."""

    def __init__(self, text: str, http_status: int | None = None) -> None:
        """``http_status``: the status code of the response, if there was one."""
        super().__init__(text)
        self.http_status = http_status


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
    """An admission webhook for the object does not respond."""


NEEDS_ACTION = (Forbidden, Invalid, HookFailed)
"""Faults that need human action; the others are transient."""


class ServerFault(ApiFault):
    """A fault of the API server as a whole."""


class Throttled(ServerFault):
    """The API server requests a pause of ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ApiUnreachable(ServerFault):
    """There was no response, or none in time."""


class ServerError(ServerFault):
    """The API server failed."""
