"""The commands of ``fourways``: where each is, and the program made of them.

A command's module is imported only when that command is asked for, because most of them need
libraries that take longer to import than a light command takes to run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .own_version import own_version
from .terminal import say, warn

EXIT_CODES = "Exit codes: 0 done; 1 not done, or not all of it; 2 invalid input or usage."

COMMANDS = {
    "init": "init:init",
    "convert": "convert:convert",
    "validate": "validate:validate",
    "explain": "explain:explain",
    "plan": "plan:plan",
    "serve": "serve:serve",
    "up": "up:up",
    "push": "push:push",
    "cp": "cp:cp",
    "diff": "differing:diff",
    "apply": "applying:apply",
    "get": "queries:get",
    "status": "queries:get",
    "describe": "inspecting:describe",
    "events": "inspecting:events",
    "logs": "inspecting:logs",
    "open": "opening:open_page",
    "predict": "queries:predict",
    "start-run": "runs:start_run",
    "list-runs": "runs:list_runs",
    "compare-runs": "runs:compare_runs",
    "rejects": "runs:rejects",
    "rollback": "runs:rollback",
    "pause": "pausing:pause",
    "resume": "pausing:resume",
    "delete": "applying:delete",
    "purge": "purge:purge",
    "doctor": "doctor:doctor",
    "version": "version:version",
}
"""Module and function of each command, in the order of the help."""

GROUPS = {"secret": "secrets:secret", "key": "api_keys:key", "store": "store:store"}
"""Module and Typer program of each command that has commands of its own."""

RENAMED = {"run": "start-run", "runs": "list-runs"}
"""Old names and what they are now; they go away with the version after the next."""

FOR_PROGRAMS = ("json", "yaml", "name")
"""Outputs beside which nothing is said that concerns only people."""


class Commands(TyperGroup):
    """The commands; an option written before them is refused with its right place."""

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


def program(first: str | None = None) -> typer.Typer:
    """Return the program, with all commands.

    ``first`` is the first argument of a command line: if it names a command, the program has only
    that one, and starts sooner.
    """
    app = typer.Typer(
        name="fourways",
        cls=Commands,
        help="Take a trained model to production: batch, real-time, streaming, edge.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    known = first in {*COMMANDS, *GROUPS, *RENAMED}
    for name in COMMANDS:
        if not known or name == first:
            app.command(name, epilog=EXIT_CODES)(_found(COMMANDS[name]))
    for old, new in RENAMED.items():
        if not known or old == first:
            app.command(old, hidden=True, epilog=EXIT_CODES)(_under_old_name(old, new))
    for name in GROUPS:
        if not known or name == first:
            app.add_typer(_found(GROUPS[name]), name=name, epilog=EXIT_CODES)
    return app


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f".{module}", __package__), name)


def _under_old_name(old: str, new: str) -> Callable[..., None]:
    command: Callable[..., None] = _found(COMMANDS[new])

    # It takes the signature over, from which Typer reads the options.
    @functools.wraps(command)
    def renamed(**options: Any) -> None:
        if str(options.get("output", "")) not in FOR_PROGRAMS:
            warn(f"`fourways {old}` is now `fourways {new}`: the old name goes away")
        command(**options)

    return renamed


def _version(wanted: bool) -> None:
    if wanted:
        say(f"fourways {own_version()}")
        raise typer.Exit


def _options(
    shown: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Take a trained model to production: batch, real-time, streaming, edge."""
