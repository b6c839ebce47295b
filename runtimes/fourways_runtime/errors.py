"""What can go wrong in a workload, as a tree. Shells map it to exit codes and HTTP codes.

::

    WorkloadError                 reason (a ``Reason``) and message are safe to show
    ├── ConfigError               what we were told makes no sense          (exit 2, not retried)
    │   └── FeaturesMismatch      the feature table has no such columns
    ├── ModelError                the model is not what its reference says   (exit 3, not retried)
    │   ├── DigestMismatch
    │   ├── ModelNotLoadable
    │   ├── ContractMismatch      the model's tensors are not the contract's
    │   └── GoldenMismatch        golden vectors came out differently
    ├── SourceError               the table is missing or has other columns  (exit 4, not retried)
    │   ├── TopicNotFound
    │   └── RetentionLosesEvents  the stream deletes events before they are scored
    ├── NotPublishable            the run is not fit to be published         (exit 5, not retried)
    │   ├── TooManyRejects        more rows refused than maxRejects allows
    │   └── CheckFailed           it differs from the last run by more than the spec allows
    ├── FetchRefused              the policy forbids it, or it is too large (exit 6, not retried)
    ├── EventTooLarge         the broker takes no event of this size     (told to the client)
    ├── BudgetExceeded            no variant of the model fits the device   (exit 7, not retried)
    └── Unavailable               the world is not ready: try again           (exit 75, retried)
        ├── FetchFailed
        ├── StoreUnavailable
        │   ├── StoreFull
        │   └── SinkUnavailable
        ├── BrokerUnavailable
        ├── FeaturesUnavailable
        ├── ModelHangs            the model does not come back from what it was given
        └── PublishFailed

The exit codes are read by the Job's pod-failure policy: only ``Unavailable``, and what is not
foreseen, is tried again.
"""

from __future__ import annotations

from typing import ClassVar

from fourways_api.display import displayed
from fourways_api.reasons import Reason

MESSAGE_CHARACTERS = 8_000
"""Maximum characters of an error's message: names and texts of models and data stand in it."""


class WorkloadError(Exception):
    """A failure with a reason a person can act on; ``str()`` is it, and never a remote body.

    The message is escaped and bounded here, whatever it quotes. Line breaks stay: the table of a
    bundle build has some. So a name that may hold one is escaped where it is quoted.
    """

    def __init__(self, message: object = "") -> None:
        """``message`` is for people: what is wrong, and what to do."""
        super().__init__(displayed(message, MESSAGE_CHARACTERS, lines=True))

    exit_code: ClassVar[int] = 1
    reason: ClassVar[Reason] = Reason.InternalError
    """The member of ``Reason`` with the class's name, or the base class's where there is none."""

    def __init_subclass__(cls) -> None:
        """Give a class the reason that has its name."""
        super().__init_subclass__()
        cls.reason = Reason.known(cls.__name__) or cls.reason


class ConfigError(WorkloadError):
    """What the workload was told makes no sense."""

    exit_code = 2


class FeaturesMismatch(ConfigError):
    """The feature table or query does not give what the contract's inputs need."""


class ModelError(WorkloadError):
    """The model is not what its reference says."""

    exit_code = 3


class DigestMismatch(ModelError):
    """The bytes fetched have another sha256."""


class ModelNotLoadable(ModelError):
    """The file is not a model of the format named, or it is one we refuse to load."""


class ContractMismatch(ModelError):
    """The model's tensors do not fit the data contract."""


class GoldenMismatch(ModelError):
    """Golden vectors came out differently."""


class SourceError(WorkloadError):
    """The source is missing, unreadable or has other columns than the contract."""

    exit_code = 4


class TopicNotFound(SourceError):
    """The broker has no such topic or stream."""


class RetentionLosesEvents(SourceError):
    """The broker's stream deletes events as soon as they are delivered, before they are scored."""


class NotPublishable(WorkloadError):
    """The run is not fit to be published; the run before stays."""

    exit_code = 5


class TooManyRejects(NotPublishable):
    """More rows were refused than maxRejects allows."""


class CheckFailed(NotPublishable):
    """The run's predictions do not pass one of the checks of the spec."""


class FetchRefused(WorkloadError):
    """The fetch policy forbids the URI, or the body is larger than allowed."""

    exit_code = 6


class EventTooLarge(WorkloadError):
    """An event is larger than its broker takes."""


class BudgetExceeded(WorkloadError):
    """No variant of the model fits what a device can spare."""

    exit_code = 7


class Unavailable(WorkloadError):
    """The world is not ready; trying again may help."""

    exit_code = 75
    login_refused: bool = False
    """The server refused the login: the Secret is wrong, or was rotated and not read again yet."""


class FetchFailed(Unavailable):
    """A download broke off, timed out or was answered with an error."""


class StoreUnavailable(Unavailable):
    """The prediction store cannot be reached, or refuses us."""


class StoreFull(StoreUnavailable):
    """The prediction store has no room left."""


class SinkUnavailable(StoreUnavailable):
    """The place predictions go to cannot be reached, or refuses us."""


class BrokerUnavailable(Unavailable):
    """The broker cannot be reached, or refuses us."""


class FeaturesUnavailable(Unavailable):
    """The feature database cannot be reached, or refuses us."""


class ModelHangs(Unavailable):
    """The model does not come back from what it was given."""


class PublishFailed(Unavailable):
    """A bundle could not be written to where it is published."""
