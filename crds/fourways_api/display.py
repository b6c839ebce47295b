"""Make foreign text safe to display: limit its length and escape terminal control characters.

Foreign text is any text that the program did not write itself: from data, models, users, the
cluster and other services. It can contain escape sequences that recolour or overwrite a terminal,
direction marks that make a line read as another one, and it can be megabytes long. All such text
that people read passes through :func:`displayed`. JSON for programs passes through
:func:`json_displayed`, which is lossless. This module knows nothing about consoles: a module that
uses a library with markup must keep that library from parsing foreign text as markup
(``fourways_cli.terminal``).
"""

from __future__ import annotations

import re

DISPLAY_LIMIT = 2_000
"""Maximum number of characters of one displayed text."""

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
        limit: maximum number of characters to keep, at least 1. A longer text loses its middle,
            because messages name the cause first and the fix last.
        lines: whether to keep line breaks.

    """
    text = bounded(value if isinstance(value, str) else str(value), limit)
    return (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_escaped, text)


def bounded(text: str, limit: int = DISPLAY_LIMIT) -> str:
    """Shorten a text to about ``limit`` characters, stating how many were omitted."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    head = limit - tail
    left_out = f"… [{len(text) - limit:,} characters left out] …"
    return f"{text[:head]}{left_out}{text[len(text) - tail :]}"


_LOGIN = re.compile(r"(?<=://)\S*@|(?<![^\s,'\"])[^\s,/@'\"]+:[^\s,/'\"]*@(?!sha256:)")
_QUERY = re.compile(r"(?<=\?)[^\s'\"]+")


def without_credentials(text: str) -> str:
    """Leave out what may be credentials in the addresses of a text: logins and query strings.

    For texts that are quoted because they have no valid form, so no parser can find the parts.
    """
    shown = _LOGIN.sub("…@", text)
    return _QUERY.sub("…", shown) if "://" in shown else shown


def has_hidden(text: str) -> bool:
    """Tell whether a text contains a character, other than newline, that must be escaped."""
    return _UNSAFE_IN_LINES.search(text) is not None


def json_displayed(text: str) -> str:
    r"""Escape hidden characters in a JSON text as ``\uXXXX``; the document stays the same.

    Outside strings, JSON contains no such characters except line breaks, so each may be escaped.
    """
    return _UNSAFE_IN_LINES.sub(_json_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    # Not repr(): which characters it escapes depends on Python's Unicode version.
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
