"""The errors of a workload, as a tree. Entry points map them to exit codes and HTTP codes.

::

    WorkloadError                 reason (a ``Reason``) and message are safe to show
    ├── ConfigError               the configuration is invalid              (exit 2, not retried)
    │   ├── FeaturesMismatch      the feature table lacks the columns
    │   └── ProfileInvalid        the training profile is not one of the contract
    ├── ModelError                the model does not match its reference    (exit 3, not retried)
    │   ├── DigestMismatch
    │   ├── ModelNotLoadable
    │   ├── ContractMismatch      the model's tensors do not match the contract
    │   └── GoldenMismatch        the model does not reproduce its golden vectors
    ├── SourceError               the table is missing or has other columns  (exit 4, not retried)
    │   ├── TopicNotFound
    │   ├── QueryRefused          the SQL is not one statement that only reads
    │   └── RetentionLosesEvents  the stream deletes events before they are scored
    ├── NotPublishable            the run must not be published              (exit 5, not retried)
    │   ├── TooManyRejects        more rows rejected than maxRejects allows
    │   └── CheckFailed           it differs from the last run by more than the spec allows
    ├── FetchRefused              the policy forbids it, or it is too large (exit 6, not retried)
    │   └── SecretRefused         a Secret does not list the deployment or the host
    ├── EventTooLarge             the broker rejects events of this size    (reported to the client)
    ├── BudgetExceeded            no variant of the model fits the device   (exit 7, not retried)
    └── Unavailable               a dependency is not ready: try again      (exit 75, retried)
        ├── FetchFailed
        ├── StoreUnavailable
        │   ├── StoreFull
        │   ├── StoreReadOnly
        │   └── SinkUnavailable
        ├── BrokerUnavailable
        ├── FeaturesUnavailable
        ├── CertificateInvalid    gateways do not accept the server's certificate
        ├── ModelHangs            a call into the model does not return
        └── PublishFailed

The Job's pod-failure policy reads the exit codes: only ``Unavailable`` and unexpected errors are
retried.
"""

from __future__ import annotations

from typing import ClassVar

from fourways_api.display import displayed
from fourways_api.reasons import Reason

MESSAGE_CHARACTERS = 8_000
"""Maximum characters of an error's message: it may quote names and texts of models and data."""


class WorkloadError(Exception):
    """A failure with an actionable message, ``str()``, which never quotes a remote body.

    The message is escaped and bounded here, whatever it quotes. Line breaks are kept, because the
    table of a bundle build contains some. A name that may contain one is therefore escaped where it
    is quoted.
    """

    def __init__(self, message: object = "") -> None:
        """``message`` is for people: what is wrong, and what to do."""
        super().__init__(displayed(message, MESSAGE_CHARACTERS, lines=True))

    exit_code: ClassVar[int] = 1
    reason: ClassVar[Reason] = Reason.InternalError
    """The member of ``Reason`` with the class's name, or the base class's if there is none."""

    def __init_subclass__(cls) -> None:
        """Set a class's reason to the one with its name."""
        super().__init_subclass__()
        cls.reason = Reason.known(cls.__name__) or cls.reason


class ConfigError(WorkloadError):
    """The configuration of the workload is invalid."""

    exit_code = 2


class FeaturesMismatch(ConfigError):
    """The feature table or query does not provide what the contract's inputs need."""


class ProfileInvalid(ConfigError):
    """The training profile cannot be read, or is not one of the contract."""


class ModelError(WorkloadError):
    """The model does not match its reference."""

    exit_code = 3


class DigestMismatch(ModelError):
    """The fetched bytes have a different sha256."""


class ModelNotLoadable(ModelError):
    """The file is not a model of the given format, or it is rejected for safety."""


class ContractMismatch(ModelError):
    """The model's tensors do not fit the data contract."""


class GoldenMismatch(ModelError):
    """The model does not reproduce its golden vectors."""


class SourceError(WorkloadError):
    """The source is missing, unreadable or has other columns than the contract."""

    exit_code = 4


class TopicNotFound(SourceError):
    """The broker has no such topic or stream."""


class RetentionLosesEvents(SourceError):
    """The broker's stream deletes events as soon as they are delivered, before they are scored."""


class QueryRefused(SourceError):
    """The source's SQL is not a single statement that only reads."""


class NotPublishable(WorkloadError):
    """The run must not be published; the previous one stays published."""

    exit_code = 5


class TooManyRejects(NotPublishable):
    """More rows were rejected than maxRejects allows."""


class CheckFailed(NotPublishable):
    """The run's predictions fail one of the spec's checks."""


class FetchRefused(WorkloadError):
    """The fetch policy forbids the URI, or the body is larger than allowed."""

    exit_code = 6


class SecretRefused(FetchRefused):
    """The Secret does not list the deployment, or the host it would be sent to."""


class EventTooLarge(WorkloadError):
    """An event is larger than its broker accepts."""


class BudgetExceeded(WorkloadError):
    """No variant of the model fits the budget of the device."""

    exit_code = 7


class Unavailable(WorkloadError):
    """A dependency is not ready; a retry may help."""

    exit_code = 75
    login_refused: bool = False
    """The server rejected the login: the Secret is wrong, or was rotated and not read again yet."""


class FetchFailed(Unavailable):
    """A download broke off, timed out or got an error response."""


class StoreUnavailable(Unavailable):
    """The prediction store cannot be reached, or rejects the connection."""


class StoreFull(StoreUnavailable):
    """The prediction store has no room left."""


class StoreReadOnly(StoreUnavailable):
    """The prediction store does not allow this login, or this server, to write."""


class SinkUnavailable(StoreUnavailable):
    """The sink cannot be reached, or rejects the connection."""


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached, or rejects the connection."""


class FeaturesUnavailable(Unavailable):
    """The feature database cannot be reached, or rejects the connection."""


class CertificateInvalid(Unavailable):
    """Gateways do not accept the certificate of a model server, or it has none."""


class ModelHangs(Unavailable):
    """A call into the model did not return in time."""


class PublishFailed(Unavailable):
    """The bundle could not be written to the location where it is published."""
