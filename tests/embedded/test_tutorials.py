"""Every command of a tutorial runs as it is written, in an empty folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.walkthrough import Reader
from tools.installation import ROOT

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

PAGES = sorted(path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.stem != "README")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_it_is_written(page: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        ran = list(Reader(tmp_path, stack).follow(page))
    assert len(ran) > 4
