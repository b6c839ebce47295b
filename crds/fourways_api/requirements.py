"""What the users of a model need. ``mode: auto`` turns this into a mode.

Needs that exclude each other are refused here, by rules, so that the API server refuses them
too and the decision tree (``strategy.py``) only ever sees needs that can be met.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import ApiModel, Rule
from .values import Duration


class Requirements(ApiModel):
    """What the users of the model need, in their own terms."""

    latency: Duration | None = None
    """How long a caller waits for an answer at the most."""

    staleness: Duration | None = None
    """How old an answer may be. Absent: it must reflect the input of this moment."""

    offline: bool = False
    """The answer is needed without a network."""

    arrival: Literal["OnRequest", "Scheduled", "Continuous"] = "OnRequest"
    """How inputs come about: asked by a caller, known ahead of time, or as events on their own."""

    inputs_known_ahead: bool = False
    """The set of keys that will be asked for is known before anyone asks."""

    requests_per_second: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Average rate of questions."""

    bursty: bool = False
    """Traffic comes in bursts with long silence between."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.offline || self.arrival != 'Continuous'",
            "offline devices cannot consume a stream of a cluster's events",
            "drop offline, or set arrival to OnRequest",
            ".offline",
        ),
        Rule(
            "!self.offline || self.arrival != 'Scheduled'",
            "an offline device cannot be reached by a scheduled run",
            "drop offline, or set arrival to OnRequest",
            ".offline",
        ),
        Rule(
            "self.arrival != 'Scheduled' || !has(self.staleness)"
            " || duration(self.staleness) >= duration('1m')",
            "scheduled runs cannot keep answers younger than a minute",
            "allow staleness of 1m or more, or set arrival to OnRequest or Continuous",
            ".staleness",
        ),
        Rule(
            "self.arrival != 'Continuous' || !has(self.staleness)"
            " || duration(self.staleness) >= duration('1s')",
            "a stream cannot promise answers younger than a second",
            "allow staleness of 1s or more, or set arrival to OnRequest",
            ".staleness",
        ),
        Rule(
            "!has(self.latency) || duration(self.latency) > duration('0s')",
            "no answer comes in no time",
            "allow latency of 1ms or more, or leave it out",
            ".latency",
        ),
    )
