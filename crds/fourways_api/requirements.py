"""What the users of a model need, from which ``mode: auto`` selects a mode.

Rules refuse contradictory requirements here, so that the API server refuses them too and the
decision tree (``strategy.py``) only ever sees requirements that can be met.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import ApiModel, Rule
from .values import Duration


class Requirements(ApiModel):
    """What the users of the model need."""

    latency: Duration | None = None
    """Maximum time that a caller waits for an answer."""

    staleness: Duration | None = None
    """Maximum age of an answer. Without it, an answer must reflect the current input."""

    offline: bool = False
    """Answers are needed without a network connection."""

    arrival: Literal["OnRequest", "Scheduled", "Continuous"] = "OnRequest"
    """How inputs arrive: with a request (OnRequest), on a schedule (Scheduled) or as a stream of
    events (Continuous)."""

    inputs_known_ahead: bool = False
    """The keys are known before predictions are requested."""

    requests_per_second: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Average number of requests per second."""

    bursty: bool = False
    """Requests come in bursts with long pauses between them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.offline || self.arrival != 'Continuous'",
            "offline devices cannot consume a stream of events",
            "remove offline, or set arrival to OnRequest",
            ".offline",
        ),
        Rule(
            "!self.offline || self.arrival != 'Scheduled'",
            "a scheduled run cannot reach offline devices",
            "remove offline, or set arrival to OnRequest",
            ".offline",
        ),
        Rule(
            "self.arrival != 'Scheduled' || !has(self.staleness)"
            " || duration(self.staleness) >= duration('1m')",
            "scheduled runs cannot keep answers fresher than one minute",
            "set staleness to 1m or more, or set arrival to OnRequest or Continuous",
            ".staleness",
        ),
        Rule(
            "self.arrival != 'Continuous' || !has(self.staleness)"
            " || duration(self.staleness) >= duration('1s')",
            "a stream cannot keep answers fresher than one second",
            "set staleness to 1s or more, or set arrival to OnRequest",
            ".staleness",
        ),
        Rule(
            "!has(self.latency) || duration(self.latency) > duration('0s')",
            "latency is zero",
            "set it to 1ms or more, or remove it",
            ".latency",
        ),
    )
