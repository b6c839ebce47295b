"""Foreign text is printed as it is: no markup is read from it, and nothing steers the terminal."""

from __future__ import annotations

import ast
import io
import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from rich.console import Console

import fourways_cli
from fourways_cli import terminal
from fourways_cli.main import app
from fourways_cli.tables import conditions_of, deployments_table, rejects_table, runs_table
from fourways_cli.terminal import Branch, Heading
from fourways_cli.watch import RunProgressBars
from tests.kit.cli import CliRunner

PACKAGE = Path(fourways_cli.__file__).parent
RICH_ALLOWED = {
    "terminal.py": {"rich.console", "rich.table", "rich.text", "rich.tree"},
    # Bars are updated in place; their columns read no markup.
    "watch.py": {"rich.console", "rich.progress"},
}
PRINTERS = {"echo", "secho", "print", "print_json", "log", "input", "getpass"}
EVIL = "[/x] [red]a[/red] :smile: \x1b[31m\x07\u202eb"
SHOWN = r"[/x] [red]a[/red] :smile: \x1b[31m\x07\u202eb"


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.Module) -> list[str]:
    """Return the modules a file imports when it runs: not those for annotations only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found


def prints(tree: ast.Module) -> list[str]:
    """Return the calls that print by themselves, past the one module that makes text safe."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        owner, _, last = name.rpartition(".")
        direct = owner in {"typer", "click", "sys.stdout", "sys.stderr", ""} or "onsole" in owner
        if direct and last in PRINTERS | {"write", "Console", "Table", "Tree"}:
            own = {"print_json"} if owner == "" else set()
            found += [] if last in own else [f"line {node.lineno}: {name}"]
    return found


def test_only_the_terminal_module_prints() -> None:
    for path in sources():
        tree = ast.parse(path.read_text())
        rich = {m for m in imported(tree) if m.split(".")[0] == "rich"}
        assert rich <= RICH_ALLOWED.get(path.name, set()), path
        if path.name != "terminal.py":
            assert prints(tree) == [], path


def test_the_check_of_printing_can_fail() -> None:
    bad = "import typer\ntyper.echo(x)\nconsole.print(x)\nprint(x)\nsys.stdout.write(x)\n"
    assert len(prints(ast.parse(bad))) == 4
    assert imported(ast.parse("from rich.markup import escape")) == ["rich.markup"]


def rendered(content: object, width: int = 300) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(content)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def condition(kind: str, status: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": "TooManyRejects", "message": message}


@pytest.mark.parametrize("message", [EVIL, "columns [age, sex] are missing", "cannot read [eu]/x"])
def test_a_condition_is_shown_as_it_is(message: str) -> None:
    shown = SHOWN if message is EVIL else message
    status = {"conditions": [condition("Ready", "False", message)]}
    assert f"TooManyRejects: {shown}" in rendered(conditions_of(status))
    document = {"metadata": {"name": "m"}, "status": status}
    assert shown in rendered(deployments_table([document]))


def test_conditions_of_one_text_are_shown_once() -> None:
    both = [condition("Degraded", "True", "m"), condition("Ready", "False", "m")]
    assert conditions_of({"conditions": both}).plain == "TooManyRejects: m"
    ready = [condition("Ready", "True", "m")]
    assert conditions_of({"conditions": ready}).plain == "Ready: m"


def test_rejects_and_runs_are_shown_as_they_are() -> None:
    reject = {"row": 1, "key": EVIL, "field": EVIL, "reason": EVIL}
    assert rendered(rejects_table([reject])).count(SHOWN) == 3
    run = {
        "name": "m-1",
        "state": EVIL,
        "version": EVIL,
        "started_at": "2026-03-01T03:00:00+00:00",
        "published_at": None,
        "rows": 1,
        "rejects": 0,
        "current": False,
        "kind": "full",
        "carried": 0,
        "reason": "Why",
        "message": EVIL,
    }
    assert rendered(runs_table([run], wide=True)).count(SHOWN) == 3


def test_names_are_whole_where_the_terminal_is_narrow() -> None:
    name = "a-rather-long-name-of-a-deployment-batch-1795984963"
    rows = [(name, "published", "2026-03-01 03:00:00", "a message that folds " * 9)]
    content = terminal.table((Heading("Run", copied=True), "State", "Started", "Why"), rows)
    for width in (80, 40, 10):
        lines = rendered(content, width=max(width, len(name) + 12)).splitlines()
        assert any(name in line for line in lines), (width, lines)


def test_a_terminal_narrower_than_a_name_shows_it_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_console", lambda width: Console(width=width or 20))
    name = "m-" + "0" * 60
    headings = ("State", Heading("Run", copied=True), "Why")
    terminal.print_table(terminal.table(headings, [("published", name, "w" * 50)]))
    shown = capsys.readouterr().out
    assert name in shown
    assert shown.count("w") == 50
    assert shown.split()[:3] == ["State", "Run", "Why"]
    assert "published"[: terminal.FOLD_WIDTH] in shown


def test_progress_reads_no_markup() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    worker = {"name": EVIL, "rows": 1, "rows_per_second": 1.0, "alive": True}
    progress = {
        "state": EVIL,
        "rows": 1,
        "total_rows": 2,
        "rejects": 0,
        "rows_per_second": 1.0,
        "workers": [worker, {**worker, "name": "b"}],
    }
    with RunProgressBars(console) as bars:
        bars.show(progress)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count(SHOWN) >= 2
    without_csi = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert {c for c in without_csi if unicodedata.category(c) in ("Cc", "Cf")} <= {"\n", "\r"}


def test_a_tree_reads_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    root = Branch((EVIL,))
    root.add((EVIL, "red")).add(EVIL)
    terminal.print_tree(root)
    assert capsys.readouterr().out.count(SHOWN) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("validate", EVIL),
        ("status", "-o", EVIL),
        ("list-runs", "m", EVIL, EVIL),
        (EVIL,),
        ("up", "x.yaml", "--port", EVIL),
        ("predict", "m", "k", "--input", EVIL),
    ],
)
def test_a_wrong_argument_steers_no_terminal(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 2
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert not {"\x07", "\x1b"} & set(done.output)


@pytest.mark.parametrize(
    ("where", "code", "says"),
    [("> /dev/full", 1, "cannot be written: No space left on device\n"), (">&-", 0, "")],
)
def test_output_that_goes_nowhere_is_no_crash(where: str, code: int, says: str) -> None:
    program = shlex.join([sys.executable, "-m", "fourways_cli", "--version"])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{program} {where}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, says)
