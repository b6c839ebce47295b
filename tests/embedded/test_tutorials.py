"""Every command of a tutorial runs as it is written, in an empty folder."""

from __future__ import annotations

from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest

from tests.kit.walkthrough import Reader, requirements
from tools.installation import ROOT
from tools.venvs import python_of

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

PAGES = sorted(path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.stem != "README")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_it_is_written(page: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        ran = list(Reader(tmp_path, stack).follow(page))
    assert len(ran) > 4


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_tutorial_installs_is_enough(page: Path, tmp_path: Path) -> None:
    """The tests' own environment has every extra, so it does not notice one that a page forgot."""
    wanted = [
        part
        for word in requirements(page)
        for part in (
            ("-e", f"{ROOT}{word.removeprefix('fourways')}")
            if word.startswith("fourways[")
            else (word,)
        )
    ]
    assert "-e" in wanted
    project = sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    programs = python_of("tutorial", tuple(wanted), project).parent
    with ExitStack() as stack:
        list(Reader(tmp_path, stack, programs).follow(page))
