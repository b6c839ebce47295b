"""Servers killed and a login changed under load: no wrong answer, back soon, and a cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.servers.postgres import PostgresMissing
from tools.torture.kills import torture

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

SOME = ("model server", "PostgreSQL", "NATS Secret")


def test_servers_are_killed_and_a_login_is_rotated_under_load(tmp_path: Path) -> None:
    try:
        assert torture(tmp_path, times=1, rate=40, only=SOME) == []
    except PostgresMissing as missing:
        pytest.skip(str(missing))
