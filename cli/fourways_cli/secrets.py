"""``fourways secret create``: a Secret with its audience, for a cluster or for ``fourways up``."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fourways_api.addresses import SUBDOMAIN
from fourways_api.audience import AUDIENCE_KEYS, DEPLOYMENTS_KEY, HOSTS_KEY, listed

from .terminal import print_yaml, say, warn

_NAME = re.compile(SUBDOMAIN)
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}")
MAX_BYTES = 1 << 20
"""Kubernetes' limit for a Secret."""

secret = typer.Typer(
    help="Create Secrets that name the deployments and hosts that may use them.",
    no_args_is_help=True,
)


@secret.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the Secret.")],
    deployments: Annotated[
        str, typer.Option(help="Deployments that may use it, separated by commas; * for all.")
    ],
    hosts: Annotated[
        str,
        typer.Option(
            help="Hosts that it may be sent to, such as models.example.com or *.example.com. "
            "Not needed for a database, a bucket or a signing key."
        ),
    ] = "",
    from_literal: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A key and its value.")
    ] = None,
    from_file: Annotated[
        list[str] | None,
        typer.Option(metavar="[KEY=]FILE", help="A file, under its own name or a key."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Write a folder for `fourways up --secret NAME=FOLDER` instead."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace.", metavar="NAME")
    ] = None,
) -> None:
    """Print a Secret with its audience, for `kubectl apply -f -`.

    A Secret without these keys is used for no deployment and sent to no host.
    """
    if not _NAME.fullmatch(name):
        _fail(f"{name!r} is no name of a Secret; use lower-case letters, digits, - and .", 2)
    values = {
        DEPLOYMENTS_KEY: _names(deployments, "--deployments").encode(),
        **({HOSTS_KEY: _names(hosts, "--hosts").encode()} if hosts else {}),
        **dict(_literal(each) for each in from_literal or ()),
        **dict(_file(each) for each in from_file or ()),
    }
    if sum(map(len, values.values())) > MAX_BYTES:
        _fail(f"a Secret holds at most {MAX_BYTES} bytes", 2)
    if folder is not None:
        _write(folder, values)
        say(f"{name}: {folder}; give it as --secret {name}={folder}")
        return
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    data = {key: base64.b64encode(value).decode() for key, value in values.items()}
    print_yaml({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


def _names(text: str, option: str) -> str:
    names = listed(text)
    if not names:
        _fail(f"{option} names nothing; write names separated by commas", 2)
    if option == "--hosts" and "*" in names:
        _fail("--hosts *: a Secret is not for every host; name them, or *.DOMAIN", 2)
    return ",".join(names)


def _literal(text: str) -> tuple[str, bytes]:
    key, separator, value = text.partition("=")
    if not separator:
        # Without quoting the text, which may be the value.
        _fail("--from-literal has no =; write KEY=VALUE", 2)
    return _key(key), value.encode()


def _file(text: str) -> tuple[str, bytes]:
    key, separator, path = text.partition("=")
    file = Path(path if separator else text)
    try:
        return _key(key if separator else file.name), file.read_bytes()
    except OSError as error:
        _fail(f"--from-file {file}: {error.strerror}", 2)


def _key(key: str) -> str:
    if not _KEY.fullmatch(key) or ".." in key:
        _fail(f"{key!r} is no key of a Secret; use letters, digits, -, _ and .", 2)
    if key in AUDIENCE_KEYS:
        _fail(f"{key} is written by --deployments and --hosts", 2)
    return key


def _write(folder: Path, values: dict[str, bytes]) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for key, value in values.items():
            handle = os.open(folder / key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(value)
    except OSError as error:
        _fail(f"{folder}: {error.strerror}", 1)


def _fail(message: str, code: int) -> NoReturn:
    warn(message)
    raise typer.Exit(code)
