"""``fourways store init``: the database of a namespace's prediction store, with least rights."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from .terminal import print_yaml, warn

store = typer.Typer(help="Prepare the prediction store.", no_args_is_help=True)


@store.callback()
def _store() -> None:
    """Prepare the prediction store."""


@store.command()
def init(
    namespace: Annotated[
        str,
        typer.Option("--namespace", "-n", help="Namespace that uses the store.", metavar="NAME"),
    ],
    admin_uri_file: Annotated[
        Path,
        typer.Option(
            help="File with postgresql://USER:PASSWORD@HOST:PORT/DATABASE of a role that may "
            "create roles and databases; - for standard input. Options can be read by other users "
            "of this machine.",
            metavar="FILE",
        ),
    ],
    database: Annotated[
        str, typer.Option(help="Name of the database; by default fourways_NAMESPACE.")
    ] = "",
    address: Annotated[
        str,
        typer.Option(
            help="Where workers reach the server, if not where this command does.",
            metavar="HOST:PORT",
        ),
    ] = "",
    ca_file: Annotated[
        Path | None,
        typer.Option(
            help="Certificate of the authority that the server's certificate is from. With it, "
            "workers and gateways verify the server (sslmode=verify-full).",
            metavar="FILE",
        ),
    ] = None,
    secret: Annotated[
        str, typer.Option(help="Name of the workers' Secret; the gateway's ends in -gateway.")
    ] = "fourways-store",  # noqa: S107  (a name)
    new_passwords: Annotated[
        bool, typer.Option("--new-passwords", help="Give existing roles new passwords.")
    ] = False,
) -> None:
    """Create or upgrade a namespace's database, tables and two roles; print their Secrets.

    Pipe the Secrets to `kubectl apply -f -`, and set the chart's value store.gatewaySecretName to
    the second one's name. Run the command again before an upgrade that changes the tables.
    """
    from fourways_runtime.errors import WorkloadError
    from fourways_runtime.io.store.roles import database_name, prepare_store

    try:
        raw = sys.stdin.read() if str(admin_uri_file) == "-" else admin_uri_file.read_text("utf-8")
        authority = None if ca_file is None else ca_file.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"{getattr(error, 'filename', None) or admin_uri_file}: cannot be read", 2)
    try:
        made = prepare_store(
            raw.strip(),
            database or database_name(namespace),
            address=address,
            new_passwords=new_passwords,
        )
    except WorkloadError as error:
        _fail(str(error), error.exit_code if error.exit_code == 2 else 1)
    documents = []
    for name, role in ((secret, made.worker), (f"{secret}-gateway", made.gateway)):
        if role.uri is None:
            warn(f"role {role.name} keeps its password: Secret {name} is not printed")
            continue
        values = {"uri": role.uri.encode()} | ({"ca.crt": authority} if authority else {})
        data = {key: base64.b64encode(value).decode() for key, value in values.items()}
        metadata = {"name": name, "namespace": namespace}
        documents.append({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    if documents:
        print_yaml(*documents)
    warn(f"database {made.database}: tables and rights are up to date")


def _fail(message: str, code: int) -> NoReturn:
    warn(message)
    raise typer.Exit(code)
