"""The device agent: fetches signed bundles, switches to them safely, predicts offline.

``Device(STATE).predict({...})`` predicts in this process; ``fourways-agent run`` serves other
programs on the device over the Open Inference Protocol V2 on the loopback address. Records go
through the same pipeline as in every other mode. Importing this package imports no heavy
dependencies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import AgentError, NoModel

if TYPE_CHECKING:
    from .device import Device

__all__ = ["AgentError", "Device", "NoModel"]


def __getattr__(name: str) -> Any:
    if name == "Device":
        from .device import Device

        return Device
    raise AttributeError(name)
