"""Reasons are members of one enum: documented, used, and never written as a string."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from fourways_api import Condition, Mode, RunReport, reasons
from fourways_api.reasons import Reason, known_or
from fourways_runtime import errors
from fourways_runtime.errors import WorkloadError
from fourways_runtime.process import failure
from tests.kit.source import ROOT, production

ENUM = ROOT / "crds" / "fourways_api" / "reasons.py"

NO_REASONS: dict[str, str] = {
    "runtimes/fourways_runtime/io/fetch/objects.py: InternalError": "an error code of S3",
}
"""Strings equal to a reason that are none, as ``FILE: STRING``, with what they are."""


def _modules_with(words: str) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the modules, but for the enum's, whose text matches: only those are parsed."""
    asked = re.compile(words)
    for path, text in production().items():
        if path != ENUM and asked.search(text):
            yield path, ast.parse(text)


def _skipped(tree: ast.Module) -> set[int]:
    """Return the ids of strings that name things of Python: docstrings and ``__all__``."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(ast.Constant(str())):
                found.add(id(node.value))
            case ast.Assign([ast.Name("__all__")], value):
                found |= {id(part) for part in ast.walk(value)}
    return found


def test_no_reason_is_a_string_outside_the_enum() -> None:
    words = set(Reason.__members__)
    found = []
    for path, tree in _modules_with(rf"(?<!\bReason\.)\b({'|'.join(words)})\b"):
        skipped = _skipped(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in words and id(node) not in skipped:
                name = path.relative_to(ROOT)
                if f"{name}: {node.value}" not in NO_REASONS:
                    found.append(f"{name}:{node.lineno}: {node.value}")
    assert not found, "use the members of fourways_api.reasons.Reason: " + ", ".join(found)


def test_every_reason_is_used() -> None:
    used = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    for _, tree in _modules_with(r"\bReason\b"):
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(ast.Name("Reason"), name):
                    used.add(name)
    assert not set(Reason.__members__) - used


def test_a_reason_is_documented() -> None:
    for reason in Reason:
        assert reason.name == reason.value
        assert reason.meaning.endswith("."), reason
        assert reason.action.endswith("."), reason
        assert reason.modes, reason
        assert set(reason.modes) <= set(Mode.__args__), reason  # type: ignore[attr-defined]
        assert "|" not in reason.meaning + reason.action, f"{reason} would break the table"


def test_the_table_in_the_docs_is_current() -> None:
    assert reasons.FILE.read_text() == reasons.render(), "run make update"


def _errors(kind: type[WorkloadError]) -> Iterator[type[WorkloadError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _errors(child)


def test_every_error_of_a_workload_has_a_reason_of_its_own_or_its_parents() -> None:
    own = {kind for kind in _errors(WorkloadError) if kind.__module__ == errors.__name__}
    assert own
    assert {kind.__name__: kind.reason for kind in own} == {
        kind.__name__: kind.__name__ for kind in own
    }

    class Misplaced(errors.FetchFailed):
        """Not in the enum."""

    assert Misplaced("x").reason is Reason.FetchFailed
    assert WorkloadError("x").reason is Reason.InternalError


def test_a_report_and_a_condition_hold_the_word() -> None:
    log = SimpleNamespace(error=lambda *_, **__: None)
    report, code = failure(errors.StoreFull("no room"), None, log)  # type: ignore[arg-type]
    assert code == 75
    assert orjson.loads(report.model_dump_json())["reason"] == "StoreFull"
    assert RunReport.model_validate_json(report.model_dump_json()).reason == Reason.StoreFull
    condition = Condition(
        type="Ready",
        status="True",
        last_transition_time="2026-01-01T00:00:00Z",
        reason=Reason.Valid,
        message="",
    )
    assert condition.to_json()["reason"] == "Valid"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("OOMKilled", Reason.OOMKilled),
        ("FromAnotherVersion", "FromAnotherVersion"),
        ("", Reason.WorkerFailed),
        (None, Reason.WorkerFailed),
        ("two words", Reason.WorkerFailed),
        ("[red]x", Reason.WorkerFailed),
        ("x" * 129, Reason.WorkerFailed),
    ],
)
def test_a_foreign_reason_is_passed_on_where_it_has_the_form_of_one(
    text: object, reason: str
) -> None:
    assert known_or(text, Reason.WorkerFailed) == reason
