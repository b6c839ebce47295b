"""Topics that are read as a whole, each time anew: the labels of ``quality.topic``."""

from __future__ import annotations

from typing import NamedTuple

SECONDS = 10.0
"""Time that a broker may take for one answer."""

AT_ONCE = 1000
"""Maximum number of events in a page."""


class TopicEvent(NamedTuple):
    """An event of a topic."""

    key: bytes | None
    value: bytes | None
