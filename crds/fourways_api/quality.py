"""How predictions are compared with labels that become known later (late truth)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import ApiModel, Rule
from .modes import BatchSource
from .modes.batch import Share
from .values import Duration, FieldName

Metric = Literal["AUC", "LogLoss", "Calibration", "Accuracy", "MAE", "RMSE"]


class Quality(ApiModel):
    """Comparison of stored predictions with labels that become known later."""

    truth: BatchSource | None = None
    """Table of labels. Each row has the entity key under its name, a label, and its time. Rows may
    come late, again and in any order."""

    topic: Annotated[str, Field(pattern=r"^[^\x00-\x20\x7f]+$", max_length=249)] | None = None
    """Kafka topic or NATS subject with labels, on the broker of streaming.source, instead of a
    table. Each event is a JSON object like a row of the table; without the entity key, the event's
    key is used. Only for mode streaming."""

    label: FieldName
    """Column of the label."""

    time: FieldName
    """Column of the time that the label is about, such as the day of a purchase. The label is
    compared with the newest prediction that its key had at this time."""

    output: FieldName
    """Output of the contract that predicts the label: the probability of label 1 for AUC, LogLoss
    and Calibration."""

    metrics: Annotated[tuple[Metric, ...], Field(min_length=1, max_length=6)]
    """Metrics to compute. Calibration is the expected calibration error over ten equal bins.
    Accuracy takes a number with a fraction as a probability and 0.5 as its threshold."""

    window: Duration = "168h"
    """Predictions of this time are kept and compared (modes streaming and realtime). Mode batch
    compares those of the runs in the store."""

    share: Share = "100%"
    """Share of the entity keys that are compared, chosen by a hash of the key. A smaller share
    keeps the predictions of a fast stream, or of many requests, for longer."""

    interval: Duration = "5m"
    """Time between two comparisons (modes streaming and realtime). Mode batch compares with each
    run."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.truth) != has(self.topic)",
            "labels come either from a table or from a topic",
            "set exactly one of truth and topic",
        ),
        Rule(
            "self.metrics.all(m, self.metrics.exists_one(n, n == m))",
            "a metric is listed twice",
            "list each metric once",
            ".metrics",
        ),
        Rule(
            "self.label != self.time",
            "label and time name one column",
            "name the column of each",
            ".time",
        ),
        Rule(
            "!self.share.matches('^0+([.]0+)?%$')",
            "share is 0%: no key is compared",
            "set a share such as 5%",
            ".share",
        ),
        Rule(
            "duration(self.window) >= duration('1m') && duration(self.window) <= duration('2160h')",
            "window is shorter than 1m or longer than 2160h",
            "set a window such as 168h",
            ".window",
        ),
        Rule(
            "duration(self.interval) >= duration('1s')"
            " && duration(self.interval) <= duration('24h')",
            "interval is shorter than 1s or longer than 24h",
            "set an interval such as 5m",
            ".interval",
        ),
    )
