"""Copies files into a claim of a cluster with a pod that is deleted afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import quote

from ..targets import ClusterTarget, Json, TargetError
from .files import LocalFile
from .pod import CONTAINER, copy_pod, receive_command, why_waiting

POLL_SECONDS = 0.5
PART_BYTES = 1 << 18


def copy_to_claim(
    target: ClusterTarget,
    namespace: str,
    claim: str,
    files: Iterable[LocalFile],
    *,
    image: str | None,
    wait: float,
    copied: Callable[[LocalFile], None],
) -> None:
    """Copy files into a claim, each whole or not at all; ``copied`` is called after each.

    ``image`` is the runtime image; None: that of the namespace's gateway. ``wait`` is the maximum
    number of seconds until the pod runs.

    Raises:
        TargetError: there is no such claim, or the pod does not run, or a file was not copied.

    """
    _check_claim(target, namespace, claim)
    template = target.gateway_pod(namespace) or {"spec": {}}
    spec = template["spec"]
    image = image or next((c["image"] for c in spec.get("containers", ())), None)
    if image is None:
        raise TargetError("the namespace has no gateway to take the image from: give --image")
    pods = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
    pod = copy_pod(namespace, claim, image, spec)
    name = str(target.objects.create(pods, pod)["metadata"]["name"])
    try:
        _await_running(target, f"{pods}/{name}", wait)
        for file in files:
            _send(target, namespace, name, file)
            copied(file)
    finally:
        with suppress(TargetError):
            target.objects.delete(f"{pods}/{name}")


def _check_claim(target: ClusterTarget, namespace: str, claim: str) -> None:
    base = f"/api/v1/namespaces/{quote(namespace, safe='')}/persistentvolumeclaims"
    try:
        there = target.objects.read(f"{base}/{quote(claim, safe='')}")
    except TargetError as error:
        if error.code == HTTPStatus.FORBIDDEN:
            return  # who may not read claims may still create the pod, which says what is wrong
        raise
    if there is None:
        raise TargetError(f"there is no PersistentVolumeClaim {claim} in namespace {namespace}")


def _await_running(target: ClusterTarget, path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        pod: Json = target.objects.read(path) or {}
        phase = (pod.get("status") or {}).get("phase")
        if phase == "Running":
            return
        if phase in ("Failed", "Succeeded") or not pod:
            raise TargetError(
                f"the pod that copies ended: {why_waiting(pod) or phase or 'deleted'}"
            )
        if time.monotonic() >= deadline:
            why = why_waiting(pod) or f"its phase is {phase or 'unknown'}"
            raise TargetError(f"the pod that copies does not run after {seconds:g} s: {why}")
        time.sleep(POLL_SECONDS)


def _send(target: ClusterTarget, namespace: str, pod: str, file: LocalFile) -> None:
    command = receive_command(file.relative, file.size, file.digest)
    with file.path.open("rb") as opened:
        parts = iter(lambda: opened.read(PART_BYTES), b"")
        code, said = target.execute(namespace, pod, CONTAINER, command, parts)
    if code != 0:
        raise TargetError(f"{file.path} was not copied: {said.strip() or f'exit code {code}'}")
