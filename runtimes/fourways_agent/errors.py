"""What can go wrong on a device, as a tree. The command line maps it to exit codes.

::

    AgentError                    the message is for people, and safe to show
    ├── AgentConfigError          an option or setting makes no sense                   (exit 2)
    ├── BundleRefused             the published bundle is not trusted, or not for us    (exit 3)
    │   └── ModelUnusable         the model is genuine and does not work on this device
    ├── NoModel                   no model on this device answers                       (exit 4)
    └── TemporaryFailure          something is not ready: try again                     (exit 75)
        ├── GatewayUnreachable    the gateway does not answer
        ├── NoSpace               the state folder cannot be written
        └── Busy                  another process is updating

After any of these the model that answered before goes on answering.
"""

from __future__ import annotations

from typing import ClassVar


class AgentError(Exception):
    """A failure with a message a person can act on."""

    exit_code: ClassVar[int] = 1


class AgentConfigError(AgentError):
    """An option or a setting makes no sense; the message names it."""

    exit_code = 2


class BundleRefused(AgentError):
    """The bundle is not what it should be; nothing of it is used."""

    exit_code = 3


class ModelUnusable(BundleRefused):
    """The model is genuine and does not work on this device."""


class NoModel(AgentError):
    """No model on this device answers."""

    exit_code = 4


class TemporaryFailure(AgentError):
    """Something is not ready; trying again may help."""

    exit_code = 75


class GatewayUnreachable(TemporaryFailure):
    """The gateway cannot be reached, or answers with an error."""


class NoSpace(TemporaryFailure):
    """The state folder cannot be written: the disk is full, read-only or failing."""


class Busy(TemporaryFailure):
    """Another process is updating this device."""
