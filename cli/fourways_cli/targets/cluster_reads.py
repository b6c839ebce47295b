"""The pods, events and logs of a deployment on a cluster."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, get_args
from urllib.parse import quote

from fourways_api import KIND, Mode
from fourways_operator.plan.parts import DEPLOYMENT_LABEL
from fourways_operator.pods import container_of

from .base import Json, TargetError
from .observed import Inspection, LogLine, LogQuery, last_lines, newest

List = Callable[..., list[Json]]
"""Lists the objects of a path. Raises TargetError."""

MAX_EVENTS = 5_000
"""Number of a namespace's events that are read."""

_OWNED = (
    "{}-(?:"
    + "|".join(get_args(Mode))
    + ")(?:-predictor)?(?:-(?:[0-9]+|[0-9a-f]{{8}}|[bcdfghjklmnpqrstvwxz2456789]{{5,10}}))*"
)
"""A name of an object of a deployment: of its mode, a run, a worker, a revision, a pod."""

MAX_LOG_BYTES = 16 << 20


def pods_of(read: List, namespace: str, name: str) -> list[Json]:
    """Return the pods of a deployment."""
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
    return read(path, label_selector=f"{DEPLOYMENT_LABEL}={name}")


def inspect(read: List, namespace: str, name: str) -> Inspection:
    """Return the pods of a deployment, and its events and those of what it owns."""
    pods = pods_of(read, namespace, name)
    events = read(f"/api/v1/namespaces/{quote(namespace, safe='')}/events", limit=MAX_EVENTS)
    ours = [event for event in events if concerns(event["involvedObject"], name)]
    return Inspection(pods, sorted(map(_event, ours), key=lambda event: event["time"]))


def concerns(about: Json, name: str) -> bool:
    """Tell whether an object is a deployment, or one that the cluster made for it.

    By name, since the objects of many events are gone. The names that controllers add have no
    vowels, so the objects of a deployment a-batch are not taken for those of a deployment a.
    """
    other = str(about.get("name"))
    if about.get("kind") == KIND:
        return other == name
    return bool(re.fullmatch(_OWNED.format(re.escape(name)), other))


def _event(event: Json) -> Json:
    about = event["involvedObject"]
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return {
        "time": str(next(filter(None, times), "")),
        "type": str(event.get("type") or ""),
        "reason": str(event.get("reason") or ""),
        "message": str(event.get("message") or ""),
        "object": f"{about.get('kind')}/{about.get('name')}",
        "count": series.get("count") or event.get("count") or 1,
    }


def logs(read: Callable[..., Any], pods: Sequence[Json], query: LogQuery) -> Iterator[LogLine]:
    """Yield lines of the pods' logs: one pod after the other, or as they come if followed.

    ``read`` opens a pod's log. Raises TargetError.
    """
    if query.pod is not None:
        names = [str(pod["metadata"]["name"]) for pod in pods]
        pods = [pod for pod in pods if pod["metadata"]["name"] == query.pod]
        if not pods:
            raise TargetError(f"no pod {query.pod}; there are: {', '.join(names) or 'none'}")
    chosen = pods if query.pod is not None else newest(pods)
    if query.follow:
        return _followed(read, chosen, query)
    return _read(read, chosen, query)


def _read(read: Callable[..., Any], pods: Sequence[Json], query: LogQuery) -> Iterator[LogLine]:
    for pod in pods:
        source = str(pod["metadata"]["name"])
        try:
            response = _open(read, pod, query, limit_bytes=MAX_LOG_BYTES)
        except TargetError as error:
            # A pod that has not started has no log; the others' are still of use.
            yield LogLine(source, f"(no log: {error})")
            continue
        text = response.read().decode(errors="replace")
        for line in last_lines(text, query.tail):
            yield LogLine(source, line)


def _followed(read: Callable[..., Any], pods: Sequence[Json], query: LogQuery) -> Iterator[LogLine]:
    lines: SimpleQueue[LogLine | None] = SimpleQueue()

    def follow(pod: Json) -> None:
        source = str(pod["metadata"]["name"])
        try:
            response = _open(read, pod, query, follow=True, _request_timeout=None)
            for line in _lines(response):
                lines.put(LogLine(source, line))
        except TargetError as error:
            lines.put(LogLine(source, f"(no log: {error})"))
        finally:
            lines.put(None)

    for pod in pods:
        threading.Thread(target=follow, args=(pod,), daemon=True).start()
    for _ in pods:
        while (line := lines.get()) is not None:
            yield line


def _lines(response: Any) -> Iterator[str]:
    rest = b""
    for part in response.stream(4096, decode_content=True):
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _open(read: Callable[..., Any], pod: Json, query: LogQuery, **options: Any) -> Any:
    metadata = pod["metadata"]
    return read(
        metadata["name"],
        metadata["namespace"],
        container=container_of(pod)["name"],
        tail_lines=query.tail,
        previous=query.previous,
        **options,
    )
