"""What can go wrong on a device, as a tree. The command line maps it to exit codes.

::

    AgentError                    the message is for people, and safe to show
    ├── ConfigError               what we were told makes no sense                      (exit 2)
    ├── Refused                   what was published is not to be trusted, or not ours  (exit 3)
    │   └── Failed                the model does not answer as it should, on this device
    ├── NoModel                   there is no model on this device yet                  (exit 4)
    └── Unavailable               the world is not ready: try again                    (exit 75)
        ├── Unreachable           the gateway does not answer
        ├── NoSpace               the disk is full
        └── Busy                  another process is updating

Whatever it is, the model that answered before goes on answering.
"""

from __future__ import annotations

from typing import ClassVar


class AgentError(Exception):
    """A failure with a message a person can act on."""

    exit_code: ClassVar[int] = 1


class ConfigError(AgentError):
    """What the agent was told makes no sense."""

    exit_code = 2


class Refused(AgentError):
    """What was published is not what it should be; nothing of it is used."""

    exit_code = 3


class Failed(Refused):
    """The model is genuine and does not work on this device; it is not fetched again."""


class NoModel(AgentError):
    """There is no model on this device that answers."""

    exit_code = 4


class Unavailable(AgentError):
    """The world is not ready; trying again may help."""

    exit_code = 75


class Unreachable(Unavailable):
    """The gateway cannot be reached, or answers with an error."""


class NoSpace(Unavailable):
    """The disk has no room for the bundle."""


class Busy(Unavailable):
    """Another process is updating this device."""
