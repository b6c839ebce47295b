"""Keeps the old address of tests.kit.edge_rig for scripts outside the project."""

from tests.kit.edge_rig import Publisher, golden, model
from tools.kit.models import LINEAR

__all__ = ["LINEAR", "Publisher", "golden", "model"]
