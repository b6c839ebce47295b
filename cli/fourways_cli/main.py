"""The command line: ``fourways``, and ``kubectl fourways``."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from .commands import program
from .output import FAILED
from .terminal import discard_stdout, open_closed_streams, warn

if TYPE_CHECKING:
    import typer

    app: typer.Typer


def main() -> None:
    """Run the command line."""
    open_closed_streams()
    try:
        program(sys.argv[1] if len(sys.argv) > 1 else None)()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Whatever was to be written, here or by the shell to a file, has no room.
        warn(f"cannot be written: {error.strerror}")
        discard_stdout()
        sys.exit(FAILED)


def __getattr__(name: str) -> object:
    """Return ``app``, the program with all commands, made when it is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()["app"] = program()
    return found
