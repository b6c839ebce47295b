"""The command line: ``fourways``, and ``kubectl fourways``.

Exit codes: 0 done, 1 could not be done, 2 invalid input.
"""

from __future__ import annotations

import typer

from .ask import predict, status
from .explain import explain
from .plan import plan
from .runs import diff, rejects, rollback, run, runs
from .up import up
from .validate import validate

app = typer.Typer(
    name="fourways",
    help="Take a trained model to production: batch, real-time, streaming, edge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    validate,
    explain,
    plan,
    up,
    run,
    runs,
    diff,
    rollback,
    rejects,
    predict,
    status,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
