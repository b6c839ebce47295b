"""``fourways push``: a model's file into an OCI registry, where clusters read it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from fourways_api.installing import install_command

from .target_command import TableOutput, TableOutputOption, failed, invalid, print_result
from .terminal import say


def push(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER", help="Model file, a folder with one, or an MLflow model folder."
        ),
    ],
    uri: Annotated[str, typer.Argument(metavar="oci://HOST/REPOSITORY:TAG", help="Destination.")],
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Manifest to write spec.model.uri and spec.model.digest into; the rest of its "
            "text stays.",
            metavar="FILE",
        ),
    ] = None,
    output: TableOutputOption = TableOutput.TABLE,
) -> None:
    """Push a model's file to an OCI registry, and print the URI and digest that serve it.

    The login is that of `docker login` or `podman login`. The same file pushed again changes
    nothing. Plain http is used for registries on this machine only.
    """
    try:
        from .artifacts.errors import NotEdited, PushFailed
        from .artifacts.logins import login_of
        from .artifacts.manifest_edit import set_model
        from .artifacts.registry import push_model
        from .first_manifest.errors import NoManifest
        from .first_manifest.model_source import model_file
    except ImportError as error:
        raise failed(f"{error.name} is missing: {install_command('runtime')}") from None
    if not uri.startswith("oci://"):
        raise invalid(f"{uri}: write oci://HOST/REPOSITORY:TAG")
    if not model.exists():
        raise invalid(f"{model} does not exist")
    try:
        file, _ = model_file(model)
        pushed = push_model(file, uri, login_of(urlsplit(uri).netloc))
        if manifest is not None:
            set_model(manifest, pushed.uri, pushed.digest)
    except NoManifest as error:
        raise invalid(str(error)) from None
    except PushFailed as error:
        raise failed(f"{model} was not pushed: {error}") from None
    except NotEdited as error:
        raise failed(f"pushed to {pushed.uri}; {error}") from None
    if output is not TableOutput.TABLE:
        print_result(asdict(pushed), output, lambda: "")
        return
    say(f"{file} pushed, {pushed.size:,} bytes")
    say(("uri", "bold"), f"     {pushed.uri}")
    say(("digest", "bold"), f"  {pushed.digest}")
    if manifest is not None:
        say(f"written into {manifest}; next: fourways apply {manifest}")
