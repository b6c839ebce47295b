"""Watch the cluster and queue keys, with kopf as the event source in its own thread.

It owns the watches: a handler maps an object to keys with the ``EventFilter``. It must never write.
Only ``on.event`` handlers are registered, so kopf stores nothing on objects: no finalizer, no
annotation, no patch. Posting, peering and scanning are off, so it needs only list and watch of the
kinds named here.

It runs in a thread, because kopf ends entirely when one watch fails for good (a kind was removed),
takes over the signals of its thread, and kills its process when it cannot stop. Here only the
thread ends, and it is started again. Nothing is lost: watching begins with a list, and the
operator's own relist follows anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Any

from fourways_api.backoff import Backoff

from .cluster import MODEL_DEPLOYMENT
from .event_filter import EventFilter
from .facts import Json, Kind
from .plan.parts import MANAGED_BY, MANAGER
from .work_queue import Key

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


class Watches:
    """Watches of the kinds last passed to ``watch``; calls ``add`` with keys on the given loop."""

    def __init__(
        self,
        namespaces: tuple[str, ...],
        add: Callable[[Key], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """No ``namespaces`` means all of them."""
        self._namespaces = namespaces
        self._add = add
        self._loop = loop
        self._filter = EventFilter()
        self._kinds: frozenset[Kind] = frozenset()
        self._stopped: Future[None] = Future()

    def watch(self, kinds: frozenset[Kind]) -> None:
        """Watch these kinds; repeating the same kinds changes nothing."""
        if kinds == self._kinds:
            return
        self.stop()
        self._kinds, self._stopped = kinds, Future()
        if kinds:
            arguments = (kinds, self._stopped)
            Thread(target=self._run, args=arguments, name="watches", daemon=True).start()

    def stop(self) -> None:
        """Stop the watches without waiting: keys that they still add are harmless."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _run(self, kinds: frozenset[Kind], stopped: Future[None]) -> None:
        """Watch until stopped: the operator is useless without, so no failure is the last one."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not stopped.done():
            began = monotonic()
            said = "the watches ended"
            try:
                asyncio.run(self._watch(kinds, stopped))
            except Exception as error:  # noqa: BLE001  (kopf may end with any)
                said = f"watching failed: {error}"
            if stopped.done():
                return
            if monotonic() - began > LONGEST_PAUSE:
                backoff.reset()
            pause = backoff.pause()
            logger.warning("%s; retrying in %g s", said, pause)
            wait([stopped], timeout=pause)

    async def _watch(self, kinds: frozenset[Kind], stopped: Future[None]) -> None:
        # Imported here, as it takes a second.
        import kopf

        asyncio.get_running_loop().set_exception_handler(_log_quietly)
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_via_client)
        settings = _settings(kopf.OperatorSettings())
        for kind in kinds:
            resource = (kind.group, kind.api_version.rpartition("/")[2], kind.plural)
            if kind != MODEL_DEPLOYMENT:
                settings.watching.label_selectors[resource] = f"{MANAGED_BY}={MANAGER}"
            kopf.on.event(*resource, registry=registry, id=f"see-{kind.plural}")(
                self._handler(kind)
            )
        # By default kopf looks up the user's name, and a pod's user has none.
        identity: Any = MANAGER
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            identity=identity,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=_event_of(stopped),
        )

    def _handler(self, kind: Kind) -> Callable[..., Any]:
        async def see(event: Json, **_: Any) -> None:
            # Items of a list do not contain their kind.
            obj = {**event["object"], "kind": kind.kind}
            for key in self._filter.keys_of(obj, gone=event["type"] == "DELETED"):
                self._loop.call_soon_threadsafe(self._add, key)

        return see


def _event_of(stopped: Future[None]) -> asyncio.Event:
    """Return an event of the running loop that is set once ``stopped`` is done.

    Given a threading primitive, kopf would wait for it in a thread, and could not end before it.
    """
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell(_: Future[None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing is waiting
            loop.call_soon_threadsafe(event.set)

    stopped.add_done_callback(tell)
    return event


def _log_quietly(loop: asyncio.AbstractEventLoop, context: Json) -> None:
    """Avoid repeated logs: when one watch fails for good, all end, and ``_run`` logs it once."""
    logger.debug("%s: %s", context.get("message"), context.get("exception"))


def _settings(settings: Any) -> Any:
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    # Its last resort is to kill the process, but the kubelet should decide that, by /healthz.
    settings.process.ultimate_exiting_timeout = None
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = (1, 2, 3, 5)
    # A watch that has had no event for this long is restarted: its connection may be dead.
    # Whole numbers, because the API server parses no others.
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300
    return settings
