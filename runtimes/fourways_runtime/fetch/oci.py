"""Models in an OCI registry. Not read yet."""

from __future__ import annotations
