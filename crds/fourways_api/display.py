"""Foreign text made fit to show: bounded, and without characters that steer a terminal.

Foreign is whatever the program did not write itself: text of data, models, users, the cluster and
other services. Such text can hold escape sequences that recolour or overwrite a terminal,
direction marks that make a line read as another one, and megabytes. It is passed through
:func:`displayed` wherever people read it, and JSON for programs through :func:`json_displayed`,
which loses nothing. Knows nothing of consoles: where a library reads markup, its own module must
see that none is read from foreign text (``fourways_cli.terminal``).
"""

from __future__ import annotations

import re

DISPLAY_LIMIT = 2_000
"""Maximum characters of one text that is shown."""

# Controls (Cc), format characters such as direction marks (Cf), lone surrogates (Cs), and the
# line and paragraph separators. Written out because ``re`` has no classes of Unicode categories.
_HIDDEN = (
    "\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f"
)
_UNSAFE = re.compile(f"[{_HIDDEN}]")
_UNSAFE_IN_LINES = re.compile(f"(?!\n)[{_HIDDEN}]")


def displayed(value: object, limit: int = DISPLAY_LIMIT, *, lines: bool = False) -> str:
    r"""Return ``str(value)`` with hidden characters escaped as Python writes them (``\x1b``).

    Args:
        value: what to show.
        limit: maximum characters that are kept, at least 1. Of a longer text the beginning and
            the end are kept, because messages name the cause first and the fix last.
        lines: keep line breaks as they are.

    """
    text = bounded(value if isinstance(value, str) else str(value), limit)
    return (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_escaped, text)


def bounded(text: str, limit: int = DISPLAY_LIMIT) -> str:
    """Return a text of at most about ``limit`` characters, saying how much was left out."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    head = limit - tail
    left_out = f"… [{len(text) - limit:,} characters left out] …"
    return f"{text[:head]}{left_out}{text[len(text) - tail :]}"


def has_hidden(text: str) -> bool:
    """Tell whether a text holds a character that is not shown as itself, other than newline."""
    return _UNSAFE_IN_LINES.search(text) is not None


def json_displayed(text: str) -> str:
    r"""Escape hidden characters in a JSON text as ``\uXXXX``; the document stays the same.

    Outside its strings JSON has no such characters but line breaks, so each may be escaped.
    """
    return _UNSAFE_IN_LINES.sub(_json_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    # Not repr(): whether that escapes a character depends on Python's version of Unicode.
    character = found[0]
    short = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character)
    code = ord(character)
    if short is not None:
        return short
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def _json_escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
