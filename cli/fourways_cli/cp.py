"""``fourways cp``: files of this machine into a claim."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import typer

from .copying.cluster import copy_to_claim
from .copying.files import LocalFile, NoFiles, local_files
from .copying.receive import receive
from .target_command import Scope, failed, given, invalid, open_scope, or_exit, wait_option
from .targets import ClusterTarget, EmbeddedTarget
from .terminal import say


def _check_place(text: str) -> str:
    """Refuse what is not a place in a claim before a target is opened."""
    claim, _, _ = text.removeprefix("pvc://").partition("/")
    if not text.startswith("pvc://") or not claim:
        raise invalid(f"{text}: write pvc://CLAIM/PATH, or pvc://CLAIM/FOLDER/")
    return text


@given(open_scope)
def cp(
    scope: Scope,
    sources: Annotated[
        list[Path], typer.Argument(help="Files and folders of this machine.", metavar="FILE...")
    ],
    place: Annotated[
        str,
        typer.Argument(
            metavar="pvc://CLAIM/PATH",
            help="Destination; a folder if it ends with /.",
            callback=_check_place,
        ),
    ],
    image: Annotated[
        str | None,
        typer.Option(help="Image of the pod; default: that of the namespace's gateway."),
    ] = None,
    wait: Annotated[float, wait_option("Seconds to wait until the pod runs.")] = 120.0,
) -> None:
    """Copy files into a claim, where a manifest reads them as pvc://CLAIM/PATH.

    On a cluster a pod without rights mounts the claim, and is deleted afterwards: this needs the
    rights to create pods and pods/exec. With `fourways up`, files are copied into the folder of the
    claim. Each file is replaced as a whole, or stays as it was.
    """
    claim, _, path = place.removeprefix("pvc://").partition("/")
    try:
        files = local_files(sources, unquote(path))
    except NoFiles as error:
        raise invalid(str(error)) from None

    def copied(file: LocalFile) -> None:
        say(f"pvc://{claim}/{file.relative}  {file.size:,} bytes")

    target = scope.target
    if isinstance(target, ClusterTarget):
        or_exit(
            lambda: copy_to_claim(
                target, scope.namespace, claim, files, image=image, wait=wait, copied=copied
            )
        )
    elif isinstance(target, EmbeddedTarget):
        folder = or_exit(lambda: target.claim(claim))
        for file in files:
            try:
                with file.path.open("rb") as opened:
                    receive(str(folder), file.relative, file.size, file.digest, opened)
            except (OSError, ValueError) as error:
                raise failed(f"{file.path} was not copied: {error}") from None
            copied(file)
    say(f"copied {len(files)} file{'s' if len(files) > 1 else ''} ({scope.where})")
