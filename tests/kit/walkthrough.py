"""Runs a tutorial as a reader does: its files are written, its commands run, its output compared.

Code blocks of a page, in order:

* ``python title="train.py"``: a file to write;
* ``sh``: commands to run;
* ``sh title="first terminal"``: a command that goes on until the page ends;
* ``text``: what the block before it prints: these lines, in this order, perhaps with others between
  them. ``…`` stands for any text.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fourways_cli.embedded.ports import free_port
from tests.kit.waiting import until

_BLOCK = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_PORT = "8080"
SECONDS = 100.0


@dataclass(frozen=True)
class Block:
    """A code block: its language, its title and its text."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in order."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text("utf-8"))]


def requirements(page: Path) -> list[str]:
    """Return what a page has its reader install: the words after ``pip install``."""
    lines = [line for block in blocks(page) for line in block.text.splitlines()]
    return [
        word
        for line in lines
        if line.startswith("pip install ")
        for word in shlex.split(line.removeprefix("pip install "))
    ]


def agrees(printed: str, expected: str) -> bool:
    """Tell whether output has the expected lines in their order."""
    lines = iter(printed.splitlines())
    return all(
        any(_line(wanted).search(line) for line in lines)
        for wanted in expected.splitlines()
        if wanted.strip()
    )


def _line(wanted: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in wanted.strip().split("…")))


class Reader:
    """Follows a page in an empty folder."""

    def __init__(self, folder: Path, stack: ExitStack, programs: Path | None = None) -> None:
        """``programs`` is the folder of the reader's programs; by default those of the tests."""
        self._folder = folder
        self._stack = stack
        self._port = str(free_port())
        first = programs or Path(sys.executable).parent
        environment = {**os.environ, "COLUMNS": "400", "PIP_NO_INPUT": "1"}
        environment["PATH"] = os.pathsep.join((str(first), environment["PATH"]))
        self._environment = environment

    def follow(self, page: Path) -> Iterator[Block]:
        """Run each block of commands; yield the ones that were run."""
        every = blocks(page)
        for at, block in enumerate(every):
            after = every[at + 1] if at + 1 < len(every) else None
            expected = self._here(after.text) if after and after.language == "text" else ""
            if block.language == "python":
                (self._folder / block.title).write_text(self._here(block.text))
            elif block.language == "sh" and block.title:
                self._go_on(block.text, expected)
                yield block
            elif block.language == "sh" and "pip install" not in block.text:  # it is installed
                self._run(block.text, expected)
                yield block

    def _here(self, text: str) -> str:
        return text.replace(_PORT, self._port)

    def _run(self, commands: str, expected: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._here(commands)],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}"
        assert agrees(done.stdout, expected), (
            f"{commands}\n{done.stdout}\nnot as on the page:\n{expected}"
        )

    def _go_on(self, command: str, expected: str) -> None:
        log = self._folder / "first-terminal.log"
        with log.open("wb") as file:
            started = subprocess.Popen(
                ["bash", "-c", f"exec {command.strip()} --port {self._port}"],
                cwd=self._folder,
                env=self._environment,
                stdout=file,
                stderr=file,
            )
        self._stack.callback(_end, started)
        until(
            lambda: agrees(log.read_text(), expected) or started.poll() is not None,
            lambda: f"{command} prints what the page says: {log.read_text()}",
            seconds=SECONDS,
        )
        assert started.poll() is None, log.read_text()


def _end(started: subprocess.Popen[bytes]) -> None:
    started.send_signal(signal.SIGINT)
    try:
        started.wait(30)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()
