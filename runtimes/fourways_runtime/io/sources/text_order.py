"""Texts as watermarks: whether their order is that of what they say. Pure."""

from __future__ import annotations

import re
from typing import Any

import pyarrow.compute as pc

from fourways_runtime.scoring.cells import Cells, is_text, texts_of
from fourways_runtime.scoring.values import shown

_DATE = re.compile(
    r"\d{1,2}[./ -]+(\d{1,2}|[^\W\d]{3,9}\.?)[./, -]+(19|20)\d\d\b"  # 31.12.2025, 31 Dec 2025
    r"|([^\W\d]{3,9}[.,]? )+\d{1,2}[, ]"  # Dec 31, 2025
    r"|\d{4}[./-](\d[./-]\d{1,2}|\d\d[./-]\d)(\D|$)"  # 2025-9-30
)
"""Dates of which the highest text is not the latest."""


def why_unordered(column: Cells, top: Any) -> str | None:
    """Say why the highest text of a column, ``top``, is not its highest value; None if it may be.

    Texts are compared letter by letter, so 9 is above 10, and 31.12.2025 above 01.01.2026: the
    rows that follow would never be scored.
    """
    if not isinstance(top, str) or not is_text(column.type):
        return None
    if _DATE.match(top):
        return f"{shown(top)} is a date as text, which is not ordered by time: write 2026-01-31"
    if top.isascii() and top.isdigit():
        texts, _, _ = texts_of(column)
        numbers = texts.filter(pc.utf8_is_digit(texts))
        lengths: Any = pc.min_max(pc.utf8_length(numbers)).as_py()
        if lengths["min"] != lengths["max"]:
            return "whole numbers as text are not ordered by value: write them as numbers"
    return None
