"""How the tests themselves are kept: what they share is in tests/kit, and nothing sleeps."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.source import ROOT, statements
from tests.kit.waiting import until, until_async

TESTS = ROOT / "tests"
MODULES = sorted(TESTS.rglob("*.py"))
HELPER = TESTS / "kit" / "waiting.py"

SLEEPS = {
    "kit/fetch_servers.py::dripping": "a server that sends slowly",
    "kit/fetch_servers.py::dripping_header": "a server that sends slowly",
    "kit/fetch_servers.py::silent": "a server that does not answer",
    "kit/hosts.py::patiently": "waits as long as the server's Retry-After asks for",
    "unit/test_batch_prefetch.py::score": "items that take different times to score",
    "unit/test_progress.py::trickling": "a server that sends slowly",
    "unit/test_serving_loading.py::predict": "a model that is slow",
    "kit/stream_worker.py::poll": "a broker without events, which takes time to say so",
    "unit/test_brokers.py::poll": "a source without events waits for one",
    "unit/test_gateway_forward.py::answer": "a server whose answer comes in pieces",
    "unit/test_http_limits.py::test_dripping_bytes_does_not_buy_time": "a client that sends slowly",
    "unit/test_http_limits.py::test_a_slow_handler_is_no_slow_client": (
        "nothing may happen within the idle period"
    ),
    "unit/test_http_limits.py::test_a_loop_that_stood_still_blames_no_client": (
        "the event loop stands still for the idle period"
    ),
    "unit/test_gateway_stream.py::test_equal_questions_are_joined": (
        "no figure shows that five equal questions have arrived, because they are joined"
    ),
    "unit/test_gateway_stream.py::test_prefer_wait_holds_until_the_answer_is_there": (
        "counts how often the store is read within a period"
    ),
    "unit/test_http_limits.py::asks_while_the_loop_stands_still": (
        "the event loop stands still for a moment"
    ),
    "unit/test_gateway_pool.py::answer": "a server that is slow",
    "cluster/test_operator_process.py::still": "nothing may be written within the period",
}
"""Where a test may sleep, and why: to play someone slow, or to show that nothing happens."""


def imports(module: Path) -> Iterator[str]:
    """Yield the full names of what a module imports, wherever in it."""
    package = module.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in statements(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*parents, node.module or "")).rstrip(".")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def sleeps(module: Path) -> Iterator[str]:
    """Yield the functions that call `time.sleep` or `asyncio.sleep`, as "file::function"."""

    def visit(node: ast.AST, function: str) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in names or called in ("time.sleep", "asyncio.sleep"):
                yield f"{module.relative_to(TESTS)}::{function}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    text = module.read_text("utf-8")
    if "sleep" not in text:
        return
    tree = ast.parse(text)
    names = {
        alias.asname or alias.name
        for node in statements(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "asyncio")
        for alias in node.names
        if alias.name == "sleep"
    }
    yield from visit(tree, "")


@pytest.mark.thorough
def test_no_test_module_is_imported() -> None:
    """What two files need goes to tests/kit; tests/conftest.py registers the fixtures."""
    found = [
        f"{module.relative_to(TESTS)}: {name}"
        for module in MODULES
        for name in imports(module)
        if any(part.startswith("test_") for part in name.split("."))
        or (module.name.startswith("test_") and name.startswith("tests.kit.fixtures."))
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["tools", "benchmarks", "examples"])
def test_nothing_but_tests_imports_tests(folder: str) -> None:
    found = {
        str(module.relative_to(ROOT)): name
        for module in (ROOT / folder).rglob("*.py")
        for name in imports(module)
        if name.split(".")[0] == "tests"
    }
    assert found == {}


def test_nothing_sleeps_where_a_condition_can_be_awaited() -> None:
    found = {place for module in MODULES if module != HELPER for place in sleeps(module)}
    assert found - SLEEPS.keys() == set(), "wait with tests.kit.waiting, or say here why not"
    assert SLEEPS.keys() - found == set(), "these sleep no longer: take them off the list"


def test_the_wait_for_a_condition_returns_what_it_found() -> None:
    found = iter([0, 0, 7])
    assert until(lambda: next(found), "there") == 7
    asked = iter([None, None, 3])
    assert until(lambda: 6 // next(asked), "a number", ignoring=TypeError) == 2  # type: ignore[operator]


def test_a_wait_in_vain_names_what_it_waited_for_and_what_it_saw() -> None:
    with pytest.raises(AssertionError, match=r"after 0\.01 s still not: the end \(last: \[\]\)"):
        until(list, "the end", seconds=0.01)
    with pytest.raises(AssertionError, match=r"not: the end of 3 \(last: KeyError\('x'\)\)"):
        until(lambda: {}["x"], lambda: "the end of 3", seconds=0, ignoring=KeyError)
    with pytest.raises(KeyError):
        until(lambda: {}["x"], "an error that is not expected ends it at once")


async def test_the_same_holds_in_an_event_loop() -> None:
    found = iter([0, 7])

    async def look() -> int:
        return next(found)

    assert await until_async(look, "there") == 7
    assert await until_async(lambda: "at once", "there") == "at once"
    with pytest.raises(AssertionError, match=r"after 0\.02 s still not: the end \(last: 0\)"):
        await until_async(lambda: 0, "the end", seconds=0.02)
