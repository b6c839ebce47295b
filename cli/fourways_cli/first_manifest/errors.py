"""The one error of the package."""

from __future__ import annotations


class NoManifest(Exception):
    """No manifest can be made; the text names the fault and the fix. It may quote foreign text."""
