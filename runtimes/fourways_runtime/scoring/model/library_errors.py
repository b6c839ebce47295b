"""Makes the error messages of a format's library fit to show."""

from __future__ import annotations

import re

from fourways_api.display import displayed

_MAX_CHARACTERS = 300

# XGBoost begins with the time, LightGBM with its name; both name a source file of their build.
_NOISE = re.compile(r"^(\[\d\d:\d\d:\d\d\]|\[LightGBM\] \[\w+\])?\s*(/\S+?:\d+:)?\s*")


def model_error(error: BaseException) -> str:
    """Return why a model failed: the library's own words, if they were its reason.

    Only for failures while loading, as :func:`library_error`.
    """
    return str(error) if error.__cause__ is None else library_error(error.__cause__)


def library_error(error: BaseException) -> str:
    """Return an error's type and the first line of its text, escaped and bounded.

    Only for failures while loading, when the library has seen only the model's file and synthetic
    rows: the text of a failed prediction may quote a record.
    """
    lines = [line for line in (_NOISE.sub("", it).strip() for it in _lines(error)) if line]
    name = type(error).__name__
    return f"{name}: {displayed(lines[0], _MAX_CHARACTERS)}" if lines else name


def _lines(error: BaseException) -> list[str]:
    # A library's str() may itself fail, and a text of megabytes must not be split.
    try:
        return str(error)[:10_000].splitlines()
    except Exception:  # noqa: BLE001  (the type alone is better than another failure)
        return []
