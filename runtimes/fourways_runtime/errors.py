"""What can go wrong in a workload, as a tree. Shells map it to exit codes and HTTP codes.

::

    WorkloadError                 reason and message are for people; both are safe to show
    ├── ConfigError               what we were told makes no sense          (exit 2, not retried)
    ├── ModelError                the model is not what its reference says   (exit 3, not retried)
    │   ├── DigestMismatch
    │   ├── ModelNotLoadable
    │   ├── ContractMismatch      the model's tensors are not the contract's
    │   └── GoldenMismatch        golden vectors came out differently
    ├── SourceError               the table is missing or has other columns  (exit 4, not retried)
    ├── TooManyRejects            more rows refused than maxRejects allows   (exit 5, not retried)
    ├── FetchRefused              the policy forbids it, or it is too large (exit 6, not retried)
    └── Unavailable               the world is not ready: try again           (exit 75, retried)
        ├── FetchFailed
        └── StoreUnavailable

The exit codes are read by the Job's pod-failure policy: only ``Unavailable``, and what is not
foreseen, is tried again.
"""

from __future__ import annotations

from typing import ClassVar


class WorkloadError(Exception):
    """A failure with a reason a person can act on; ``str()`` is it, and never a remote body."""

    exit_code: ClassVar[int] = 1

    @property
    def reason(self) -> str:
        """One word for programs: the class's name."""
        return type(self).__name__


class ConfigError(WorkloadError):
    """What the workload was told makes no sense."""

    exit_code = 2


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


class TooManyRejects(WorkloadError):
    """More rows were refused than maxRejects allows."""

    exit_code = 5


class FetchRefused(WorkloadError):
    """The fetch policy forbids the URI, or the body is larger than allowed."""

    exit_code = 6


class Unavailable(WorkloadError):
    """The world is not ready; trying again may help."""

    exit_code = 75


class FetchFailed(Unavailable):
    """A download broke off, timed out or was answered with an error."""


class StoreUnavailable(Unavailable):
    """The prediction store cannot be reached, or refuses us."""
