"""Messages name a command of pip that finds the project."""

from __future__ import annotations

import ast
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fourways_api import installing
from fourways_api.installing import install_command
from fourways_runtime.extras import extra_of


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    installing._source.cache_clear()
    yield
    installing._source.cache_clear()


def installed_from(monkeypatch: pytest.MonkeyPatch, told: dict[str, Any] | None) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if told is None else json.dumps(told)

    monkeypatch.setattr(installing, "distribution", lambda name: Distribution())


def test_an_installed_release_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(monkeypatch, None)
    assert install_command("runtime", "sklearn") == "pip install 'fourways[runtime,sklearn]'"


@pytest.mark.parametrize("editable", [True, False])
def test_a_checkout_is_named_by_its_path(
    editable: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = tmp_path / "check out"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    installed_from(monkeypatch, {"url": checkout.as_uri(), "dir_info": {"editable": editable}})
    words = shlex.split(install_command("edge"))
    assert words == ["pip", "install", *(["-e"] if editable else []), f"{checkout}[edge]"]


@pytest.mark.parametrize("url", ["file:///nowhere/source", "https://example.com/fourways.whl"])
def test_a_source_that_is_not_here_is_not_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image was built from a folder that it does not hold."""
    installed_from(monkeypatch, {"url": url})
    assert install_command("runtime") == "pip install 'fourways[runtime]'"


def test_no_message_writes_the_command_itself() -> None:
    """The name alone is found by no package index where the project was installed from a folder."""
    root = Path(__file__).parents[2]
    folders = ("crds", "operator", "runtimes", "cli", "client")
    files = (file for folder in folders for file in (root / folder).rglob("*.py"))
    written = [str(file) for file in files if "install fourways[" in file.read_text()]
    assert written == []


BASE = {"orjson", "pydantic", "yaml"}
"""Libraries that every installation has."""


def test_each_library_of_the_runtime_has_an_extra_that_installs_it() -> None:
    assert sorted(name for name in _imported() - BASE if extra_of(name) is None) == []


@pytest.mark.parametrize(
    ("library", "extra"),
    [
        ("confluent_kafka", "kafka"),
        ("lightgbm", "lightgbm"),
        ("model_signing", "edge"),
        ("nats", "nats"),
        ("onnx", "edge"),
        ("PIL", "images"),
        ("skops", "sklearn"),
        ("httpx", "runtime"),
        ("a_library_of_the_user", None),
    ],
)
def test_a_library_belongs_to_the_extra_that_lists_it(library: str, extra: str | None) -> None:
    assert extra_of(library) == extra


def _imported() -> set[str]:
    """Return the top-level packages of others that the runtime's modules import."""
    runtime = Path(__file__).parents[2] / "runtimes" / "fourways_runtime"
    modules: set[str] = set()
    for file in runtime.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add((node.module or "").partition(".")[0])
    return {name for name in modules - sys.stdlib_module_names if not name.startswith("fourways")}
