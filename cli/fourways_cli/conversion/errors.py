"""The errors of a conversion."""

from __future__ import annotations


class NotConverted(Exception):
    """The model cannot be converted; the text names the fault and the fix."""


class NotEqual(Exception):
    """The converted model answers differently; the text says where and how much."""
