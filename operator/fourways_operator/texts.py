"""Make text from the cluster, from users or from models safe to display."""

from __future__ import annotations


def on_one_line(text: object, limit: int) -> str:
    """Return text on one line of at most ``limit`` characters, control characters escaped."""
    line = " ".join(str(text).split())
    return shortened("".join(map(_printable, line)), limit)


def shortened(text: str, limit: int) -> str:
    """Return text of at most ``limit`` characters, keeping its line breaks."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()
