"""``fourways apply|delete``: change what there is on a cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer

from fourways_api import API_VERSION, PLURAL

from .completion import deployment_names
from .manifests import read_manifests
from .output import FAILED, INVALID, print_findings
from .tables import conditions_of, is_ready, next_step
from .target_command import Scope, failed, given, open_scope, or_exit, wait_option
from .targets import ClusterTarget, Json, TargetError, named
from .terminal import say, warn

POLL_SECONDS = 1.0
GROUP_KIND = "modeldeployment.fourways.dev"


@dataclass(frozen=True, slots=True)
class _Applied:
    kind: str
    name: str
    namespace: str
    outcome: str

    @property
    def resource(self) -> str:
        return f"{self.kind}/{self.name}"


@given(open_scope)
def apply(
    scope: Scope,
    files: Annotated[
        list[Path], typer.Argument(help="Manifests; - reads standard input.", metavar="FILE...")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check, and change nothing.")
    ] = False,
    force_conflicts: Annotated[
        bool,
        typer.Option(
            "--force-conflicts", help="Take over fields that others set, such as kubectl edit."
        ),
    ] = False,
    wait: Annotated[
        float, wait_option("Seconds to wait until the deployments are ready (0 = don't wait).")
    ] = 0.0,
) -> None:
    """Apply the objects of manifests to a cluster, as `kubectl apply --server-side` does.

    All are read and checked before the first is applied. Other objects, such as Secrets and claims,
    are applied before the deployments. Says the next step once a deployment is ready.
    """
    cluster = scope.cluster("apply manifests")
    documents = documents_of(files)
    paths = [or_exit(partial(cluster.objects.path, d, scope.namespace)) for d in documents]
    applied = [
        _apply(cluster, scope, path, document, dry_run, force_conflicts)
        for path, document in zip(paths, documents, strict=True)
    ]
    if dry_run:
        say(f"nothing was changed: checked by {scope.where}")
        return
    waited = [each for each in applied if each.kind == GROUP_KIND]
    unready = [each for each in waited if wait and not _await_ready(cluster, each, wait)]
    if unready:
        raise typer.Exit(FAILED)
    if not wait and waited:
        say(f"next: fourways describe {waited[0].name}{_of(scope, waited[0].namespace)}")


def documents_of(files: list[Path]) -> list[Json]:
    """Return the objects of files, deployments last; end the command if one is not valid."""
    read = read_manifests(files, for_cluster=True)
    print_findings(read.findings)
    if read.findings:
        raise typer.Exit(INVALID)
    found = [skipped.document.data for skipped in read.skipped]
    found += [manifest.document.data for manifest in read.valid]
    if not found:
        warn(f"no objects in {', '.join(map(str, files))}")
        raise typer.Exit(INVALID)
    return found


def _apply(
    cluster: ClusterTarget, scope: Scope, path: str, document: Json, dry_run: bool, force: bool
) -> _Applied:
    objects = cluster.objects
    metadata = document["metadata"]
    title = f"{document['kind']} {metadata['name']}"
    try:
        before = objects.read(path)
        after = objects.apply(path, document, dry_run=dry_run, force=force)
    except TargetError as error:
        hint = ""
        if error.code == HTTPStatus.CONFLICT:
            hint = "; to take these fields over, add --force-conflicts"
        raise failed(f"{title} was not applied to {scope.where}: {error}{hint}") from None
    outcome = "created" if before is None else _change(before, after)
    namespace = str(metadata.get("namespace") or scope.namespace)
    group = str(document["apiVersion"]).partition("/")[0] if "/" in document["apiVersion"] else ""
    kind = ".".join(filter(None, (document["kind"].lower(), group)))
    made = _Applied(kind, metadata["name"], namespace, outcome)
    say(f"{made.resource} {outcome} ({cluster.where(namespace)})")
    return made


def _change(before: Json, after: Json) -> str:
    versions = [each["metadata"].get("resourceVersion") for each in (before, after)]
    return "unchanged" if versions[0] == versions[1] else "configured"


def _await_ready(cluster: ClusterTarget, applied: _Applied, seconds: float) -> bool:
    """Wait until a deployment is ready, and print the next step, or else why it is not ready."""
    deadline = time.monotonic() + seconds
    while True:
        documents = or_exit(partial(cluster.deployments, applied.namespace))
        document = or_exit(partial(named, documents, applied.namespace, applied.name))
        conditions = conditions_of(document.get("status") or {})
        if is_ready(document):
            say((applied.name, "bold"), "  ", conditions)
            if step := next_step(document):
                say(f"next: {step}")
            return True
        if time.monotonic() >= deadline:
            warn(f"{applied.resource} is not ready after {seconds:g} s: ", conditions)
            return False
        time.sleep(POLL_SECONDS)


def _of(scope: Scope, namespace: str) -> str:
    return "" if namespace == or_exit(scope.target.default_namespace) else f" -n {namespace}"


@given(open_scope)
def delete(
    scope: Scope,
    names: Annotated[
        list[str],
        typer.Argument(help="Deployments.", metavar="NAME...", autocompletion=deployment_names),
    ],
    wait: Annotated[
        float, wait_option("Seconds to wait until they are gone (0 = don't wait).")
    ] = 60.0,
) -> None:
    """Delete deployments from a cluster, with all objects that the operator made for them.

    Their predictions stay in the store unless the deployment says `deletionPolicy: Delete`;
    `fourways purge` removes them.
    """
    cluster = scope.cluster("delete deployments")
    documents = or_exit(lambda: cluster.deployments(scope.namespace))
    doomed = [or_exit(partial(named, documents, scope.namespace, name)) for name in names]
    for document in doomed:
        name = document["metadata"]["name"]
        or_exit(partial(cluster.objects.delete, path_of(scope.namespace, document)))
        say(f"{GROUP_KIND}/{name} deleted ({scope.where})")
        if (document.get("spec") or {}).get("deletionPolicy", "Retain") == "Retain":
            say(f"its predictions stay in the store: fourways purge {scope.namespace}/{name}")
    deadline = time.monotonic() + wait
    while wait:
        there = or_exit(lambda: cluster.deployments(scope.namespace))
        uids = {each["metadata"].get("uid") for each in there}
        left = [d["metadata"]["name"] for d in doomed if d["metadata"].get("uid") in uids]
        if not left:
            return
        if time.monotonic() >= deadline:
            raise failed(f"still there after {wait:g} s: {', '.join(left)}")
        time.sleep(POLL_SECONDS)


def path_of(namespace: str, document: Json) -> str:
    """Return the path of a deployment in the cluster's API."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{document['metadata']['name']}"
