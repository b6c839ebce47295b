"""The command that installs what is missing, for messages.

Before a release is published, no package index has the project: where it was installed from a
checkout, the command names that.
"""

from __future__ import annotations

import json
import shlex
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "fourways"


def install_command(*extras: str) -> str:
    """Return the command of pip that installs extras of this package."""
    where, *options = _source()
    named = f"{where}[{','.join(extras)}]"
    # Quoted always: a shell may take the brackets for a pattern.
    quoted = f"'{named}'" if shlex.quote(named) == named else shlex.quote(named)
    return " ".join(("pip install", *options, quoted))


@cache
def _source() -> tuple[str, ...]:
    """Return what pip is to install, without extras, and its options."""
    try:
        direct_url = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return (NAME,)
    url = urlsplit(str(direct_url.get("url", "")))
    folder = Path(unquote(url.path))
    if url.scheme != "file" or not (folder / "pyproject.toml").is_file():
        return (NAME,)
    editable = bool((direct_url.get("dir_info") or {}).get("editable"))
    return (str(folder), "-e") if editable else (str(folder),)
