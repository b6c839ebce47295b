"""Streaming deployments: serves fresh predictions from the store, publishes events for the rest.

A request without a fresh prediction becomes an event. A request with inputs gets the prediction for
those inputs, and a request with a key only the newest prediction of the key. Owns the responses:
200 with the age of the prediction, 202 with the place where it will be, 422 if the event became a
dead letter (500 if the model is at fault), 404 if there is neither a prediction nor inputs to make
one from. The store holds the stream's predictions and its contract; the gateway keeps only what it
needs to read the next request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from prometheus_client import Counter

from fourways_api import Contract, GatewayConfig, Route
from fourways_http import HttpError, Request, Response, json_response
from fourways_runtime.io.store.streams.stream import (
    AnswerKey,
    DeadLetterReason,
    LiveAnswer,
    LiveLookup,
)
from fourways_runtime.scoring.columns import Key
from fourways_runtime.v2.body import is_heavy
from fourways_runtime.v2.off_loop import off_loop
from fourways_runtime.v2.openapi import document
from fourways_runtime.v2.protocol import KEY_ALIAS, read_key
from fourways_runtime.v2.request import InferenceRequest

from . import v2
from .accepted import Accepted, PublishedEvent
from .coalescer import LookupCoalescer
from .mode import RETRY, hold_version, links
from .publishing import EventPublishing, OpenPublisher
from .questions import by_key, question_of, read_question
from .refusals import Refusals
from .views import DeploymentCounters, age_seconds, rfc3339
from .watch import AnswerWatch, preferred_wait

if TYPE_CHECKING:
    from .events import EventReader


class _StreamView:
    """What is known of the stream: its contract, and the reader for its requests."""

    def __init__(self, contract: Contract, max_keys: int, max_body_bytes: int) -> None:
        from .events import EventReader  # imports numpy and pyarrow: only streams need them

        self.contract = contract
        self.outputs = v2.StoredOutputs(contract)
        self.reader: EventReader = EventReader(contract, max_keys, max_body_bytes)


class StreamHandler:
    """Handles requests for one deployment, on the running event loop."""

    def __init__(
        self,
        route: Route,
        config: GatewayConfig,
        lookups: LookupCoalescer[LiveLookup | None],
        counters: DeploymentCounters,
        faults: Counter,
        open_publisher: OpenPublisher,
        draining: Callable[[], bool],
    ) -> None:
        self._route = route
        self._name = route.deployment
        self._max_keys = config.max_keys
        self._max_body_bytes = config.max_body_bytes
        self._lookups = lookups
        self._counters = counters
        self._view: _StreamView | None = None
        self._refusals = Refusals(route.deployment, faults)
        self._accepted = Accepted(route.freshness_seconds)
        self._publishing = EventPublishing(route, self._accepted, open_publisher)
        self._watch = AnswerWatch(lambda keys, events: self._fresh(keys, None, events), draining)

    async def connect(self) -> None:
        """Connect to the broker, so that the first request does not wait for the connection."""
        await self._publishing.connect()

    async def close(self) -> None:
        """Cancel everything in progress."""
        self._watch.close()
        await self._publishing.close()

    def about(self) -> dict[str, Any]:
        """Return the freshness and the links."""
        key = self._view.contract.entity_key.name if self._view else KEY_ALIAS
        return {
            "freshness_seconds": self._route.freshness_seconds,
            "links": links(self._name, key),
        }

    # ---- requests

    async def infer(self, request: Request) -> Response:
        """Answer an inference request: from the store, or with a 202."""
        hold_version(request, self._route)
        view = self._view or await self._describe()
        read = view.reader.read
        inference = await off_loop(read, request) if is_heavy(request) else read(request)
        keys = inference.keys or []
        outputs = view.outputs.selected(inference)
        events = await self._events(view, inference, keys)
        questions = {key: question_of(event) for key, event in events.items()} if events else {}
        found = await self._found(keys, questions, request.params.get("version"))
        if self._view is not view:
            raise HttpError(503, "the deployment was replaced just now: try again", RETRY)
        missing = [key for key in keys if key not in found]
        self._counters.keys.inc(len(keys))
        self._counters.misses.inc(len(missing))
        applied: tuple[bytes, ...] = ()
        published: dict[Key, PublishedEvent] = {}
        if missing:
            published = await self._publishing.publish(request, events, missing)
            if len(published) == len(missing):
                patient = inference.allow_missing
                awaited = {questions.get(key, key): event for key, event in published.items()}
                arrived, applied = await self._hold(request, awaited, patient)
                found |= by_key(missing, questions, arrived)
        if len(found) < len(keys) and not inference.allow_missing:
            left = {key: event for key, event in published.items() if key not in found}
            self._tell_refused(left, len(keys), applied)
            if len(published) < len(missing):
                raise self._nothing(view, inference, found)
            return self._promised(left, len(keys) == 1, applied)
        rows = {key: answer.outputs for key, answer in found.items()}
        oldest = min(found.values(), key=lambda a: a.computed_at) if found else None
        parameters = _provenance(oldest) if oldest else {}
        said = oldest.version if oldest else self._route.version
        render = partial(v2.answer, self._name, said, outputs, inference, rows, parameters, applied)
        if len(rows) * len(outputs) <= v2.LARGE_ANSWER:
            return render()
        return await off_loop(render)

    async def prediction(self, request: Request) -> Response:
        """Answer a request for one key."""
        view = self._view or await self._describe()
        key = read_key(request.params["key"], view.contract.entity_key)
        wanted: AnswerKey = read_question(request.query) or key
        stored = (await self._stored([wanted], self._accepted.unanswered([wanted]))).get(wanted)
        if self._view is not view:
            raise HttpError(503, "the deployment was replaced just now: try again", RETRY)
        self._counters.keys.inc()
        applied: tuple[bytes, ...] = ()
        answer = stored if stored is not None and self._is_fresh(stored) else None
        if answer is not None:
            self._accepted.answered(wanted)
        else:
            self._counters.misses.inc()
            arrived, applied = await self._hold(request, {wanted: self._accepted.newest(wanted)})
            answer = arrived.get(wanted)
        who: dict[str, Any] = {"deployment": self._name, "key": key}
        if answer is not None:
            outputs = view.outputs.ordered(answer.outputs)
            document = {**who, "version": answer.version, **_provenance(answer), "outputs": outputs}
            return json_response(document, 200, applied)
        event = self._accepted.newest(wanted)
        if event is not None:
            self._tell_refused({key: event}, 1, applied)
            return self._promised({key: event}, True, applied, "pending")
        if stored is not None:
            seconds = self._route.freshness_seconds
            text = f"the prediction for that key is older than {seconds:g} s"
            raise HttpError(404, text, (*RETRY, *applied), **who, **_provenance(stored))
        raise HttpError(404, "no prediction for that key", (*RETRY, *applied), **who)

    async def metadata(self, request: Request) -> Response:
        """Describe the stream as a model."""
        hold_version(request, self._route)
        view = await self._describe()
        return json_response(
            v2.metadata(
                self._name, self._route.version, "fourways_streaming", view.contract, inputs=True
            )
        )

    async def openapi(self, request: Request) -> Response:
        """Describe the stream's paths and types as an OpenAPI document."""
        hold_version(request, self._route)
        view = await self._describe()
        return document(self._name, self._route.version, view.contract, "both")

    async def model_ready(self, request: Request) -> Response:
        """Answer 200 if a worker has started."""
        hold_version(request, self._route)
        await self._describe()
        return json_response({"name": self._name, "ready": True})

    # ---- the store

    async def _describe(self) -> _StreamView:
        await self._stored([], [])
        assert self._view is not None, "the store has described the stream"  # noqa: S101
        return self._view

    def _stored(
        self, keys: Sequence[AnswerKey], events: Sequence[PublishedEvent]
    ) -> Awaitable[Mapping[AnswerKey, LiveAnswer]]:
        """Look up keys and questions, and mark the events that are dead letters."""

        def seen(lookup: LiveLookup | None) -> Mapping[AnswerKey, LiveAnswer]:
            answers = self._seen(lookup)
            if lookup is not None and lookup.refused:
                for event in events:
                    event.look_in(lookup.refused)
            return answers

        places = [event.place for event in events if event.place is not None]
        return self._lookups.ask(self._name, keys, seen if places else self._seen, places)

    def _seen(self, lookup: LiveLookup | None) -> Mapping[AnswerKey, LiveAnswer]:
        if lookup is None:
            self._view = None
            raise HttpError(503, "no worker of this stream has started yet", RETRY)
        view = self._view
        if view is None or (
            lookup.contract is not view.contract and lookup.contract != view.contract
        ):
            self._view = _StreamView(lookup.contract, self._max_keys, self._max_body_bytes)
        return lookup.answers

    async def _found(
        self, keys: Sequence[Key], questions: Mapping[Key, bytes], version: str | None
    ) -> dict[Key, LiveAnswer]:
        """Return fresh predictions by key: for their questions, or else for the keys."""
        fresh = await self._fresh([questions.get(key, key) for key in keys], version)
        return by_key(keys, questions, fresh)

    async def _fresh(
        self,
        keys: Sequence[AnswerKey],
        version: str | None,
        events: Sequence[PublishedEvent] | None = None,
    ) -> dict[AnswerKey, LiveAnswer]:
        if events is None:
            events = self._accepted.unanswered(keys)
        stored = await self._stored(keys, events)
        fresh = {}
        for key in keys:
            answer = stored.get(key)
            if answer is None or not self._is_fresh(answer):
                continue
            if version is None or answer.version == version:
                fresh[key] = answer
                self._accepted.answered(key)
        return fresh

    def _is_fresh(self, answer: LiveAnswer) -> bool:
        return time() - answer.computed_at.timestamp() <= self._route.freshness_seconds

    async def _events(
        self, view: _StreamView, inference: InferenceRequest, keys: list[Key]
    ) -> dict[Key, bytes]:
        """Return the events of a request's keys; none if it has no inputs. Raises HttpError 400."""
        make = view.reader.events
        if len(keys) * len(view.contract.flat_inputs) <= v2.LARGE_ANSWER and not inference.is_large:
            return make(inference, keys)
        return await off_loop(make, inference, keys)

    # ---- waiting and 202 responses

    async def _hold(
        self,
        request: Request,
        wanted: Mapping[AnswerKey, PublishedEvent | None],
        patient: bool = False,
    ) -> tuple[dict[AnswerKey, LiveAnswer], tuple[bytes, ...]]:
        """Wait as long as the client prefers; return the predictions and the header to confirm it.

        The first refused event ends the wait, unless ``patient``.
        """
        seconds = preferred_wait(request)
        if seconds is None:
            return {}, ()
        arrived = await self._watch.wait(wanted, seconds, patient)
        return arrived, (b"preference-applied: wait=%d" % seconds,)

    def _promised(
        self,
        events: Mapping[Key, PublishedEvent],
        single: bool,
        applied: tuple[bytes, ...],
        status: str = "accepted",
    ) -> Response:
        document: dict[str, Any] = {"deployment": self._name}
        promised = [
            {"key": key, "id": event.id, "location": self._location(event)}
            for key, event in events.items()
        ]
        if single:
            (one,) = promised
            location = str(one.pop("location"))
            document |= {"key": one["key"], "status": status, "id": one["id"]}
        else:
            location = f"/v2/models/{self._name}/infer"
            document |= {"status": status, "predictions": promised}
        where = b"location: " + location.encode("ascii")
        return json_response(document, 202, (where, *RETRY, *applied))

    def _tell_refused(
        self, events: Mapping[Key, PublishedEvent], of: int, applied: tuple[bytes, ...]
    ) -> None:
        """Raise HttpError 422, or 500 for the model's faults, if any became a dead letter."""
        refused: dict[Key, DeadLetterReason] = {
            key: event.refused for key, event in events.items() if event.refused is not None
        }
        if refused:
            contract = self._view.contract if self._view else None
            raise self._refusals.error(refused, of, applied, contract)

    def _location(self, event: PublishedEvent) -> str:
        key = quote(str(event.key), safe="")
        return f"/predictions/{self._name}/{key}?question={event.question.hex()}"

    def _nothing(
        self, view: _StreamView, inference: InferenceRequest, found: Mapping[Key, LiveAnswer]
    ) -> HttpError:
        names = [view.contract.entity_key.name, *(field.name for field in view.contract.inputs)]
        return v2.no_prediction(inference, found, send=names)


def _provenance(answer: LiveAnswer) -> dict[str, Any]:
    return {
        "computed_at": rfc3339(answer.computed_at),
        "age_seconds": age_seconds(answer.computed_at.timestamp()),
        "digest": answer.digest,
    }
