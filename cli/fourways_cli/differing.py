"""``fourways diff``: what applying manifests would change on a cluster."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fourways_api import dump_yaml

from .applying import documents_of
from .output import FAILED, TextOutput, TextOutputOption, print_as
from .runs import compare
from .target_command import Scope, TableOutput, given, open_scope, or_exit
from .targets import Json
from .terminal import say, warn

_SERVER_S = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")
"""Metadata that the API server writes."""

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_COLOURS = {"+": "green", "-": "red"}


@given(open_scope)
def diff(
    scope: Scope,
    files: Annotated[
        list[Path], typer.Argument(help="Manifests; - reads standard input.", metavar="FILE...")
    ],
    output: TextOutputOption = TextOutput.TEXT,
) -> None:
    """Show what `fourways apply` would change on the cluster, as the API server sees it.

    Exits with 1 if there are differences. Values of Secrets are not shown.
    """
    if len(files) == 3 and not any(each.exists() for each in files):
        warn("`fourways diff NAME RUN RUN` is now `fourways compare-runs`: the old form goes away")
        name, before, after = map(str, files)
        compare(scope, name, before, after, TableOutput(output.replace("text", "table")))
        return
    objects = scope.cluster("compare manifests").objects
    found: list[Json] = []
    documents = documents_of(files)
    for document in documents:
        path = or_exit(partial(objects.path, document, scope.namespace))
        live = or_exit(partial(objects.read, path))
        applied = or_exit(partial(objects.apply, path, document, dry_run=True, force=True))
        title = f"{document['kind']} {document['metadata']['name']}"
        if lines := _difference(live, applied):
            found.append({"object": title, "new": live is None, "difference": lines})
    if output is not TextOutput.TEXT:
        print_as(output, found)
    elif not found:
        say(f"no difference ({scope.where})")
    else:
        say(f"{len(found)} of {len(documents)} objects differ ({scope.where})")
        for each in found:
            say((f"{each['object']}{' is new' if each['new'] else ''}", "bold"))
            for line in each["difference"]:
                say((line, _COLOURS.get(line[:1], "")))
    if found:
        raise typer.Exit(FAILED)


def _difference(live: Json | None, applied: Json) -> list[str]:
    """Return the lines that differ, with those around them."""
    texts = _text(live, applied, "live"), _text(applied, live, "manifest")
    return list(difflib.unified_diff(*texts, "live", "manifest", n=2, lineterm=""))


def _text(document: Json | None, other: Json | None, side: str) -> list[str]:
    if document is None:
        return []
    metadata = {k: v for k, v in document["metadata"].items() if k not in _SERVER_S}
    if annotations := metadata.get("annotations"):
        # kubectl's copy of the manifest, with the values of a Secret.
        kept = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
        metadata["annotations"] = kept
    shown: Json = {**document, "metadata": metadata}
    shown.pop("status", None)
    if document.get("kind") == "Secret":
        for field in ("data", "stringData"):
            if field in shown:
                shown[field] = _masked(shown[field], (other or {}).get(field) or {}, side)
    return dump_yaml(shown).splitlines()


def _masked(values: dict[str, Any], others: dict[str, Any], side: str) -> dict[str, str]:
    """Return a Secret's keys; its values say only whether they are those of the other side."""
    return {k: "***" if others.get(k) == v else f"*** ({side})" for k, v in values.items()}
