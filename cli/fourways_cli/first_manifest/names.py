"""Names: of contract fields, and which columns of a table probably are the key or the target."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fourways_api.deployment import MAX_NAME

MAX_FIELD_NAME = 63
_KEY = re.compile(r"^(id|key|uuid|.*[_ -](id|key|no|number|uuid)|(id|key)[_ -].*|index)$", re.I)
_TARGET = re.compile(r"^(target|label|class|y|outcome|response|species|quality)$", re.I)


def field_names(texts: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Return a name for each text that the contract accepts, each once."""
    used = set(taken)
    found = []
    for text in texts:
        name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")[:MAX_FIELD_NAME].strip("_")
        if not name or name[0].isdigit():
            name = f"f_{name}".strip("_")[:MAX_FIELD_NAME]
        if name in used:
            number = 2
            while f"{name[: MAX_FIELD_NAME - 5]}_{number}" in used:
                number += 1
            name = f"{name[: MAX_FIELD_NAME - 5]}_{number}"
        used.add(name)
        found.append(name)
    return found


def name_of(text: str) -> str:
    """Make a deployment's name of a text; empty if nothing of the text is left."""
    stem = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if stem and not stem[0].isalpha():
        stem = f"model-{stem}"
    return stem[:MAX_NAME].strip("-")


def comparable(name: str) -> str:
    """Return what of a name counts when a field is matched to the model's column."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def looks_like_key(name: str) -> bool:
    """Return whether a column's name is one of an identifier."""
    return _KEY.match(name) is not None


def looks_like_target(name: str) -> bool:
    """Return whether a column's name is one of what a model was trained to predict."""
    return _TARGET.match(name) is not None
