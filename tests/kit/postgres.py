"""PostgreSQL servers for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tools.servers.postgres import PostgresMissing, Server, running


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Run a server of the test's own; skip the test where this machine has no PostgreSQL."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except PostgresMissing as missing:
            pytest.skip(str(missing))
        yield server
