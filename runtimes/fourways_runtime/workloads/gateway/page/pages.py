"""Renders the pages: the list of deployments, and one page for each deployment.

A page asks the gateway's own JSON paths, in this process and with the credentials of the request.
So it shows what the caller may see and nothing else, and reads no data in a second way. The page
itself needs no credentials: without any it is a form for an API key, which the script keeps for as
long as the tab is open and sends in a header. There are no cookies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from fourways_api.display import displayed
from fourways_http import HttpError, Request, Response, Router
from fourways_http.message import awaited

from ..mode import RETRY, deployment_of
from .sparkline import bars, sparkline
from .stream_view import StreamView

if TYPE_CHECKING:
    from jinja2 import Environment

SHOWN_RUNS = 20
SHOWN_REJECTS = 20
CELL = 120
"""Maximum number of characters of one cell of a table."""

_HTML = b"text/html; charset=utf-8"
_ASSETS = {"page.css": b"text/css; charset=utf-8", "page.js": b"text/javascript; charset=utf-8"}
_POLICY = (
    b"content-security-policy: default-src 'none'; style-src 'self'; script-src 'self';"
    b" connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    b" frame-ancestors 'none'",
    b"x-content-type-options: nosniff",
    b"referrer-policy: no-referrer",
    b"cache-control: no-store",
)
_PASSED = frozenset({b"authorization", b"x-fourways-authorization", b"host"})


PAGES_AT_ONCE = 8
"""A page asks several paths and is made on the loop that answers everybody else."""


@dataclass(frozen=True, slots=True)
class PathAnswer:
    """The answer of a JSON path."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """Whether it is what was asked for."""
        return self.status == 200

    @property
    def error(self) -> str:
        """What the gateway says is wrong."""
        answer = self.body.get("error") or self.body.get("reason") if self.ok is False else ""
        return str(answer or "")


class Pages:
    """The pages of one gateway. ``router`` answers its JSON paths, guarded as for every caller."""

    def __init__(self, namespace: str, router: Router) -> None:
        self._namespace = namespace
        self._router = router
        self._at_once = 0

    def add_to(self, router: Router) -> None:
        """Add the pages' paths."""
        router.add("GET", "/", partial(self._bounded, self._root))
        router.add("GET", "/deployments/{deployment}", partial(self._bounded, self._deployment))
        for name in _ASSETS:
            router.add("GET", f"/assets/{name}", partial(_asset, name))

    # ---- pages

    async def _bounded(
        self, page: Callable[[Request], Awaitable[Response]], request: Request
    ) -> Response:
        """Answer a page. Raises HttpError 503 while too many are asked for."""
        if self._at_once >= PAGES_AT_ONCE:
            raise HttpError(503, "too many requests for pages: try again", RETRY)
        self._at_once += 1
        try:
            return await page(request)
        finally:
            self._at_once -= 1

    async def _root(self, request: Request) -> Response:
        if b"text/html" not in (request.header(b"accept") or b""):
            return await self._answer(request, "/deployments")
        listed = await self._ask(request, "/deployments")
        if not listed.ok:
            return self._denied(listed)
        states = await self._states(request, [d["deployment"] for d in listed.body["deployments"]])
        return _page("index.html", self._namespace, listed=listed.body, states=states)

    async def _states(self, request: Request, names: list[str]) -> dict[str, PathAnswer]:
        asked = (self._ask(request, f"/v2/models/{quote(name)}/ready") for name in names)
        return dict(zip(names, await asyncio.gather(*asked), strict=True))

    async def _deployment(self, request: Request) -> Response:
        name = deployment_of(request)
        listed = await self._ask(request, "/deployments")
        if not listed.ok:
            return self._denied(listed)
        found = [d for d in listed.body["deployments"] if d["deployment"] == name]
        if not found:
            answer = PathAnswer(404, {"error": f"no deployment {name} answers here"})
            return _page("denied.html", self._namespace, answer, answer=answer)
        (about,) = found
        state, document, present, (history, stream, answers) = await asyncio.gather(
            self._ask(request, f"/v2/models/{name}/ready"),
            self._ask(request, f"/v2/models/{name}/openapi.json"),
            self._ask(request, f"/deployments/{name}/drift"),
            self._stored(request, about),
        )
        return _page(
            "deployment.html",
            self._namespace,
            about=about,
            state=state,
            contract=_contract(name, document.body) if document.ok else None,
            why_none=document.error,
            runs=history[:SHOWN_RUNS],
            rows=sparkline([run["rows"] for run in reversed(history) if run["published_at"]]),
            drift=_drift(history) or _present_drift(present) or stream.drift,
            fleet=await self._fleet(request, about),
            stream=stream if about["mode"] == "streaming" else None,
            quality=stream.quality,
            answers=answers,
            measured=[run for run in history if run.get("quality")][:SHOWN_RUNS],
            compared=await self._compared(request, name, history),
            rejects=await self._rejects(request, name, history),
            letters=await self._dead_letters(request, about),
        )

    async def _stored(
        self, request: Request, about: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], StreamView, PathAnswer | None]:
        """Return runs, workers and last answers, one after the other: few may ask the store."""
        history: list[dict[str, Any]] = []
        if about["mode"] == "batch":
            runs = await self._ask(request, f"/runs/{about['deployment']}")
            history = runs.body["runs"] if runs.ok else []
        stream = await self._workers(request, about)
        return history, stream, await self._answers(request, about)

    async def _workers(self, request: Request, about: Mapping[str, Any]) -> StreamView:
        if about["mode"] not in ("streaming", "realtime"):
            return StreamView((), "")
        answer = await self._ask(request, f"/deployments/{about['deployment']}/workers")
        return StreamView(tuple(answer.body["workers"]) if answer.ok else (), answer.error)

    async def _answers(self, request: Request, about: Mapping[str, Any]) -> PathAnswer | None:
        """Return the last predictions that the store has, or why they are not shown."""
        if about["mode"] == "edge":
            return None
        answer = await self._ask(request, f"/deployments/{about['deployment']}/answers")
        if not answer.ok:
            # Of model servers, the store has nothing unless they are compared with labels.
            return None if about["mode"] == "realtime" else answer
        return answer if answer.body["answers"] or answer.body["message"] else None

    async def _fleet(self, request: Request, about: Mapping[str, Any]) -> PathAnswer | None:
        if about["mode"] != "edge":
            return None
        return await self._ask(request, f"/deployments/{about['deployment']}/devices")

    async def _compared(
        self, request: Request, name: str, history: list[dict[str, Any]]
    ) -> dict[str, Any] | None:
        """Return how the two runs published last differ, or the two that the query names."""
        published = [run["name"] for run in history if run["published_at"]]
        query = request.query
        before, after = query.get("from"), query.get("to")
        if before is None or after is None:
            if len(published) < 2:
                return None
            after, before = published[:2]
        answer = await self._ask(
            request, f"/runs/{name}/diff?from={quote(before, safe='')}&to={quote(after, safe='')}"
        )
        return {"from": before, "to": after, "answer": answer}

    async def _rejects(
        self, request: Request, name: str, history: list[dict[str, Any]]
    ) -> dict[str, Any] | None:
        run = next((run for run in history if run["rejects"]), None)
        if run is None:
            return None
        path = f"/runs/{name}/{quote(run['name'], safe='')}/rejects?limit={SHOWN_REJECTS}"
        return {"run": run, "answer": await self._ask(request, path)}

    async def _dead_letters(self, request: Request, about: Mapping[str, Any]) -> PathAnswer | None:
        """Return a stream's newest dead letters, or why they are not shown; None for none."""
        if about["mode"] != "streaming":
            return None
        path = f"/deployments/{about['deployment']}/dead-letters?limit={SHOWN_REJECTS}"
        answer = await self._ask(request, path)
        return None if answer.ok and not answer.body["dead_letters"] else answer

    def _denied(self, answer: PathAnswer) -> Response:
        return _page("denied.html", self._namespace, answer, answer=answer)

    # ---- the JSON paths

    async def _answer(self, request: Request, target: str) -> Response:
        headers = [header for header in request.headers if header[0].lower() in _PASSED]
        inner = Request(b"GET", target.encode(), headers, b"")
        try:
            return await awaited(self._router(inner))
        except HttpError as error:
            return error.response

    async def _ask(self, request: Request, target: str) -> PathAnswer:
        answer = await self._answer(request, target)
        try:
            return PathAnswer(answer.status, orjson.loads(answer.body))
        except orjson.JSONDecodeError:
            return PathAnswer(502, {"error": "the response is not JSON"})


def _drift(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return how the records of the latest run that compared them differ from the training."""
    known = (run for run in history if run.get("drift"))
    return next(({"run": run["name"], "found": run["drift"]} for run in known), None)


def _present_drift(answer: PathAnswer) -> dict[str, Any] | None:
    if not answer.ok or answer.body["drift"] is None:
        return None
    devices = answer.body.get("devices")
    whose = "a model server" if devices is None else f"{devices:,} devices"
    return {"run": whose, "found": answer.body["drift"]}


def _contract(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the form and the tables show of an OpenAPI document."""
    schemas = document["components"]["schemas"]
    record, outputs = schemas["Record"], schemas["Outputs"]
    path = f"/v1/models/{name}:predict"
    content = document["paths"][path]["post"]["requestBody"]["content"]
    example = content["application/json"]["example"]["instances"][0]
    fields = [
        {"name": key, "required": key in record["required"], "example": example.get(key), **schema}
        for key, schema in record["properties"].items()
    ]
    described = [{"name": key, **schema} for key, schema in outputs["properties"].items()]
    lookup = document["paths"].get(f"/predictions/{name}/{{key}}", {}).get("get")
    key = lookup["parameters"][0]["description"] if lookup else ""
    return {"path": path, "fields": fields, "outputs": described, "key": key}


# ---- rendering


def _page(
    template: str, namespace: str, status: PathAnswer | None = None, **values: Any
) -> Response:
    text = _environment().get_template(template).render(namespace=namespace, **values)
    code = status.status if status is not None else 200
    return Response(text.encode("utf-8", "replace"), code, _HTML, _POLICY)


@cache
def _environment() -> Environment:
    # Loaded when the first page is asked for: most gateways answer programs only.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": _shown, "type_of": _type_of, "limits_of": _limits_of, "json": _json}
    made.filters["moment"] = _moment
    made.globals |= {"dict_of": _dict_of, "bars": bars, "mode_of": _mode_of}
    return made


def _dict_of(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["name"]: each["value"] for each in metrics}


def _mode_of(histogram: Mapping[str, Any], counts: list[int]) -> str:
    """Say between which values most of the counted ones are."""
    low, high = histogram["low"], histogram["high"]
    if not any(counts):
        return "nowhere"
    width, at = (high - low) / len(counts), counts.index(max(counts))
    return f"between {_shown(low + at * width)} and {_shown(low + (at + 1) * width)}"


def _shown(value: object, limit: int = CELL) -> str:
    """Return foreign text, bounded and without hidden characters; Jinja escapes markup."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return displayed("" if value is None else value, limit)


def _moment(text: str) -> str:
    """Return a time of the JSON paths (RFC 3339, UTC) for people, without fractions of a second."""
    return _shown(text)[:19].replace("T", " ") + " UTC"


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {schema.get('minItems', 'any number')}, each {_type_of(schema['items'])}"
    return "nullable " + kind[0] if isinstance(kind, list) else str(kind)


def _limits_of(schema: Mapping[str, Any]) -> str:
    """Return a field's categories or range in words."""
    if "enum" in schema:
        return ", ".join(displayed(each, 40) for each in schema["enum"][:12] if each is not None)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and high is None:
        return ""
    return f"{'' if low is None else _shown(low)} … {'' if high is None else _shown(high)}".strip()


def _asset(name: str, request: Request) -> Response:
    return _read_asset(name)


@cache
def _read_asset(name: str) -> Response:
    content = files(__package__).joinpath(name).read_bytes()
    return Response(content, 200, _ASSETS[name], (b"cache-control: max-age=300", *_POLICY[1:2]))
