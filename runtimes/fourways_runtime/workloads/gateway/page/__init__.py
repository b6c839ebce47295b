"""The gateway's pages for people, made from the same JSON as programs get."""

from .pages import Pages

__all__ = ["Pages"]
