"""The agent's exceptions, as a tree. The command line maps them to exit codes.

::

    AgentError                    the message is for people, and safe to show
    ├── AgentConfigError          an option or setting is invalid                       (exit 2)
    ├── BundleRefused             the published bundle is not trusted, or not for us    (exit 3)
    │   └── ModelUnusable         the model is genuine but does not work on this device
    ├── NoModel                   no model on this device works                         (exit 4)
    └── TemporaryFailure          a dependency is not ready: try again                  (exit 75)
        ├── GatewayUnreachable    the gateway does not respond
        ├── NoSpace               the state folder cannot be written
        └── Busy                  another process is updating

After any of these, the previous model keeps serving.
"""

from __future__ import annotations

from typing import ClassVar


class AgentError(Exception):
    """A failure with an actionable message."""

    exit_code: ClassVar[int] = 1


class AgentConfigError(AgentError):
    """An option or a setting is invalid; the message names it."""

    exit_code = 2


class BundleRefused(AgentError):
    """The bundle failed a check; no part of it is used."""

    exit_code = 3


class ModelUnusable(BundleRefused):
    """The model is genuine but does not work on this device."""


class NoModel(AgentError):
    """No model on this device works."""

    exit_code = 4


class TemporaryFailure(AgentError):
    """A dependency is not ready; a retry may help."""

    exit_code = 75


class GatewayUnreachable(TemporaryFailure):
    """The gateway cannot be reached, or responds with an error."""


class NoSpace(TemporaryFailure):
    """The state folder cannot be written: the disk is full, read-only or failing."""


class Busy(TemporaryFailure):
    """Another process is updating this device."""
