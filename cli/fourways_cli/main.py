"""The command line: ``fourways``, and ``kubectl fourways``."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from .api_keys import key
from .applying import apply, delete
from .convert import convert
from .cp import cp
from .doctor import doctor
from .explain import explain
from .init import init
from .inspecting import describe, events, logs
from .opening import open_page
from .pausing import pause, resume
from .plan import plan
from .purge import purge
from .push import push
from .queries import get, predict
from .runs import diff, rejects, rollback, run, runs
from .secrets import secret
from .serve import serve
from .store import store
from .terminal import say
from .up import up
from .validate import validate

EXIT_CODES = "Exit codes: 0 done; 1 not done, or not all of it; 2 invalid input or usage."

app = typer.Typer(
    name="fourways",
    help="Take a trained model to production: batch, real-time, streaming, edge.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    init,
    convert,
    validate,
    explain,
    plan,
    serve,
    up,
    run,
    runs,
    diff,
    rollback,
    rejects,
    purge,
    push,
    cp,
    apply,
    get,
    describe,
    events,
    logs,
    pause,
    resume,
    delete,
    predict,
    doctor,
)
for command in COMMANDS:
    app.command(epilog=EXIT_CODES)(command)
app.command("status", epilog=EXIT_CODES)(get)
app.command("open", epilog=EXIT_CODES)(open_page)
app.add_typer(secret, name="secret", epilog=EXIT_CODES)
app.add_typer(key, epilog=EXIT_CODES)
app.add_typer(store, name="store", epilog=EXIT_CODES)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            say(f"fourways {version('fourways')}")
        except PackageNotFoundError:
            say("fourways, not installed as a package")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Take a trained model to production: batch, real-time, streaming, edge."""


def main() -> None:
    """Run the command line."""
    app()
