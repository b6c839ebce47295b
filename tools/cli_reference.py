"""Lists the commands of ``fourways`` with their arguments and options, read from the program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from typer.main import get_command

from fourways_api.crd import update_or_check
from fourways_cli.commands import EXIT_CODES, program

KINDS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}
"""What the options that name nothing themselves take."""

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"


def commands(group: Any, prefix: str = "fourways") -> Iterator[tuple[str, Any]]:
    """Yield the commands below a group by their full names, without hidden ones."""
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def page() -> str:
    """Return the reference as Markdown."""
    found = list(commands(get_command(program())))
    lines = [
        "# The command line",
        "",
        "Written by `make update` from the program. `kubectl fourways …` is the same program.",
        "",
        EXIT_CODES,
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    for name, command in found:
        anchor = name.replace(" ", "-")
        lines.append(f"| [`{name}`](#{anchor}) | {_cell(_summary(command))} |")
    for name, command in found:
        lines += ["", *_section(name, command)]
    return "\n".join(lines) + "\n"


def _summary(command: Any) -> str:
    return str(command.help or "").strip().partition("\n\n")[0].replace("\n", " ")


def _section(name: str, command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join([name, *map(_usage, arguments), *(["[OPTION…]"] if options else [])])
    paragraphs = str(command.help or "").strip().split("\n\n")
    lines = [f"## {name}", "", "```", usage, "```"]
    for paragraph in paragraphs:
        lines += ["", " ".join(paragraph.split())]
    rows = [(_metavar(p), str(p.help or "")) for p in arguments]
    rows += [(_flags(p), _help(p)) for p in options]
    if rows:
        lines += ["", "| argument or option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(left)}` | {_cell(right)} |" for left, right in rows]
    return lines


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _usage(argument: Any) -> str:
    text = _metavar(argument)
    if argument.nargs == -1 and not text.endswith(("...", "…")):
        text += "…"
    return text if argument.required else f"[{text}]"


def _flags(option: Any) -> str:
    names = [*option.opts, *option.secondary_opts]
    if option.is_flag:
        return ", ".join(names)
    annotation = option.type_descriptor.annotation
    kind = next(iter(get_args(annotation)), annotation)
    values = [str(each.value) for each in kind] if issubclass(kind, Enum) else []
    value = "|".join(values) or option.metavar or KINDS[kind]
    return f"{', '.join(names)} {value}"


def _help(option: Any) -> str:
    default = option.default
    plain = default not in (None, "", False, True, ()) and not callable(default)
    shown = f" Default: `{getattr(default, 'value', default)}`." if plain else ""
    return f"{option.help or ''}{shown}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the page, or with --check report whether it is up to date."""
    return update_or_check(PAGE, page(), "tools.cli_reference", "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
