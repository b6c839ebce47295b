"""Keeps the old address of tests.kit.edge_plane for scripts outside the project."""

from tests.kit.edge_plane import edge_config, key_pair

__all__ = ["edge_config", "key_pair"]
