"""A model server killed under load: no wrong answer, back soon, and its condition says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.torture.kills import torture

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]


def test_a_model_server_is_killed_under_load(tmp_path: Path) -> None:
    assert torture(tmp_path, times=1, rate=40, only="model server") == []
