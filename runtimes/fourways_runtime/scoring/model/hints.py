"""What a model file says about its data beyond names, types and shapes.

Labels of classes, categories of texts, the range that training saw: none of it is needed to serve a
model, so it is read only to write a first manifest (``fourways init``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_TEXTS = 1_000
"""Maximum number of labels or categories that are read for one tensor."""


@dataclass(frozen=True, slots=True)
class Hints:
    """Everything is text or numbers from the file: escape it where it is shown."""

    labels: tuple[str, ...] = ()
    """The classes, in the order of the model's probabilities; empty if it does not name them."""

    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The texts that training saw, by the model's name of the input or column."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Minimum and maximum that training saw, by the model's name of the column."""

    notes: tuple[str, ...] = ()
    """What else it says, such as its objective."""

    external: bool = False
    """Whether weights are in other files (``allowExternalData``)."""


def texts(values: object) -> tuple[str, ...]:
    """Return values as texts; nothing if there are too many, or two are equal."""
    found = tuple(map(str, values if isinstance(values, (list, tuple)) else ()))
    return found if len(found) <= MAX_TEXTS and len(set(found)) == len(found) else ()
