"""What the users of a model need. ``mode: auto`` turns this into a mode."""

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
    )
