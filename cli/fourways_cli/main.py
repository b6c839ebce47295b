"""The command line: ``fourways``, and ``kubectl fourways``."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .api_keys import key
from .applying import apply, delete
from .convert import convert
from .cp import cp
from .differing import diff
from .doctor import doctor
from .explain import explain
from .init import init
from .inspecting import describe, events, logs
from .opening import open_page
from .output import FAILED
from .pausing import pause, resume
from .plan import plan
from .purge import purge
from .push import push
from .queries import get, predict
from .runs import compare_runs, list_runs, rejects, rollback, start_run
from .secrets import secret
from .serve import serve
from .store import store
from .terminal import discard_stdout, open_closed_streams, say, warn
from .up import up
from .validate import validate
from .version import own_version, version

EXIT_CODES = "Exit codes: 0 done; 1 not done, or not all of it; 2 invalid input or usage."


class Commands(TyperGroup):
    """The commands; an option of theirs that is written before them is told where it belongs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what stands before the command."""
        option = args[0].partition("=")[0] if args else ""
        own = _names(self)
        if option not in own and any(option in _names(each) for each in self.commands.values()):
            ctx.fail(f"No such option: {option}. It follows a command: fourways get {option} …")
        return super().parse_args(ctx, args)


def _names(command: Any) -> set[str]:
    """Return the options of a command, as they are written."""
    found = (parameter for parameter in command.params if parameter.param_type_name == "option")
    return {name for parameter in found for name in parameter.opts}


app = typer.Typer(
    name="fourways",
    cls=Commands,
    help="Take a trained model to production: batch, real-time, streaming, edge.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "init": init,
    "convert": convert,
    "validate": validate,
    "explain": explain,
    "plan": plan,
    "serve": serve,
    "up": up,
    "push": push,
    "cp": cp,
    "diff": diff,
    "apply": apply,
    "get": get,
    "status": get,
    "describe": describe,
    "events": events,
    "logs": logs,
    "open": open_page,
    "predict": predict,
    "start-run": start_run,
    "list-runs": list_runs,
    "compare-runs": compare_runs,
    "rejects": rejects,
    "rollback": rollback,
    "pause": pause,
    "resume": resume,
    "delete": delete,
    "purge": purge,
    "doctor": doctor,
    "version": version,
}
FOR_PROGRAMS = ("json", "yaml", "name")
"""Outputs beside which nothing is said that concerns only people."""

RENAMED = {"run": "start-run", "runs": "list-runs"}
"""Old names and what they are now; they go away with the version after the next."""


def _under_old_name(old: str, new: str) -> Callable[..., None]:
    command = COMMANDS[new]

    # It takes the signature over, from which Typer reads the options.
    @functools.wraps(command)
    def renamed(**options: Any) -> None:
        if str(options.get("output", "")) not in FOR_PROGRAMS:
            warn(f"`fourways {old}` is now `fourways {new}`: the old name goes away")
        command(**options)

    return renamed


for name, command in COMMANDS.items():
    app.command(name, epilog=EXIT_CODES)(command)
for old, new in RENAMED.items():
    app.command(old, hidden=True, epilog=EXIT_CODES)(_under_old_name(old, new))
app.add_typer(secret, name="secret", epilog=EXIT_CODES)
app.add_typer(key, epilog=EXIT_CODES)
app.add_typer(store, name="store", epilog=EXIT_CODES)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"fourways {own_version()}")
        raise typer.Exit


@app.callback()
def _options(
    shown: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Take a trained model to production: batch, real-time, streaming, edge."""


def main() -> None:
    """Run the command line."""
    open_closed_streams()
    try:
        app()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Whatever was to be written, here or by the shell to a file, has no room.
        warn(f"cannot be written: {error.strerror}")
        discard_stdout()
        sys.exit(FAILED)
