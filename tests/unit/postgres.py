"""Keeps the old address of the PostgreSQL server for scripts outside the project."""

from tools.servers.postgres import Server

__all__ = ["Server"]
