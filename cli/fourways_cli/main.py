"""The command line: ``fourways``, and ``kubectl fourways``.

Exit codes: 0 done, 1 could not be done, 2 invalid input.
"""

from __future__ import annotations

import typer

from .ask import predict, run, status
from .explain import explain
from .plan import plan
from .up import up
from .validate import validate

app = typer.Typer(
    name="fourways",
    help="Take a trained model to production: batch, real-time, streaming, edge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (validate, explain, plan, up, run, predict, status):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
