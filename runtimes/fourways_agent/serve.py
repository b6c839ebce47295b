"""The agent's process: serves on the loopback address and switches models without downtime.

Owns the life of the process and the change from one model to the next. Each bundle has its own
model server, as in real-time mode, and a switch is one assignment: the old model answers the
requests that arrived before it, the new model those after it.
"""

from __future__ import annotations

import asyncio
import logging
import random

from fourways_api.runtime_config import ServerConfig
from fourways_http import HttpError, Request, Response, Server, json_response, run_until_signal
from fourways_runtime import bundle_layout as layout
from fourways_runtime.errors import ModelHangs, WorkloadError
from fourways_runtime.grpc_v2 import listen_grpc
from fourways_runtime.metrics import HttpMetrics
from fourways_runtime.model_watch import WATCH
from fourways_runtime.process import in_thread, leave, listen, loop_factory, new_registry
from fourways_runtime.v2.app import ModelServer

from .errors import AgentError
from .loading import LoadedBundle
from .model_calls import CALLS
from .records import FLUSH_SECONDS, RecordCounter, counter_of, tell
from .recovery import restored
from .start import boot
from .state import DeviceSettings, Store
from .update import update

logger = logging.getLogger("fourways.agent")

HOST = "127.0.0.1"
MAX_ROWS = 256
FAREWELL_SECONDS = 30.0
"""Time that a replaced model has to finish the requests it has received."""


def _no_model(request: Request) -> Response:
    if request.target == b"/v2/health/live":
        return json_response({"live": True})
    raise HttpError(503, "there is no model on this device yet", (b"retry-after: 5",))


class Agent:
    """The server of one device."""

    def __init__(self, store: Store, settings: DeviceSettings, every: float) -> None:
        self._store = store
        self._settings = settings
        self._every = every
        self._digest: str | None = None
        self._serving: ModelServer | None = None
        self._counter: RecordCounter | None = None
        self.server = Server(_no_model)

    async def run(self, port: int, grpc_port: int | None = None) -> None:
        """Serve until SIGTERM or SIGINT. Raises Unavailable if a port is taken.

        gRPC is served too if it has a port: calls go to the handlers of HTTP.
        """
        await listen(self.server, HOST, port)
        grpc = await listen_grpc(self.server, HOST, grpc_port)
        running = asyncio.ensure_future(run_until_signal(self.server, notice_seconds=0))
        await asyncio.sleep(0)
        logger.info("listening", extra={"port": self.server.port})
        await self.refresh()
        updating = asyncio.ensure_future(self._keep_updated())
        counting = asyncio.ensure_future(self._keep_counted())
        done, _ = await asyncio.wait((running, updating), return_when=asyncio.FIRST_COMPLETED)
        updating.cancel()
        counting.cancel()
        if updating in done:
            await updating  # it never returns normally: it failed, and raises the cause
        all_answered = await running
        await grpc.stop()
        await in_thread(self._count, "records")
        logger.info("stopped", extra={"all_answered": all_answered})

    async def _keep_updated(self) -> None:
        while True:
            try:
                await in_thread(lambda: update(self._store, self._settings), "update")
            except AgentError as error:
                logger.warning("not updated: %s", error, extra={"because": type(error).__name__})
            await self.refresh()
            await in_thread(self._tell, "report")
            # Jitter, so that not all devices poll at the same moment.
            await asyncio.sleep(self._every * random.uniform(0.9, 1.1))  # noqa: S311

    async def _keep_counted(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await in_thread(self._count, "records")

    def _count(self) -> None:
        if self._counter is not None:
            self._counter.flush()

    def _tell(self) -> None:
        self._count()
        tell(self._store, self._settings)

    async def refresh(self) -> None:
        """Switch to the model the pointer names, if it is a different one."""
        try:
            state = await in_thread(lambda: restored(self._store), "state")
            if state.digest is None or state.digest == self._digest:
                return
            loaded = await in_thread(lambda: boot(self._store), "boot")
            if loaded.bundle.digest != self._digest:
                await self._take_over(loaded)
        except (AgentError, WorkloadError) as error:
            logger.error("%s", error, extra={"because": type(error).__name__})

    async def _take_over(self, loaded: LoadedBundle) -> None:
        from fourways_runtime.v2.batcher import Batcher
        from fourways_runtime.v2.enrichment import FeatureEnricher, covered
        from fourways_runtime.v2.request import RequestReader
        from fourways_runtime.v2.response import Renderer
        from fourways_runtime.v2.scorer import RequestScorer
        from fourways_runtime.v2.templates import RequestTemplates

        from .features import Features, GatewayReader

        registry = new_registry()
        config = _config(self._settings, loaded)
        app = ModelServer(config, registry, lambda: self.server.draining)
        contract, lookup = config.contract, loaded.features
        names = [tensor.name for tensor in loaded.model.inputs]
        figures = await in_thread(lambda: CALLS.run(loaded.self_test), "self-test")
        scorer = RequestScorer(contract, loaded.model, MAX_ROWS)
        counter = await in_thread(lambda: counter_of(self._store, loaded), "profile")
        scorer.profile = counter.notes if counter is not None else None
        batcher = Batcher(
            scorer,
            Renderer(config.name, config.model.version, contract),
            app.metrics,
            max_rows=MAX_ROWS,
            # Golden vectors are real records.
            warm_up=((1, figures["mean_ms"] / 1000),),
            proven=True,
        )
        enricher = None
        if lookup is not None:
            features = Features(self._store, contract, lookup)
            enricher = FeatureEnricher(contract, lookup, GatewayReader(features))
        reader = RequestReader(contract, names, MAX_ROWS, covered(lookup, contract))
        app.use(RequestTemplates(reader), batcher, enricher)
        before, self._serving = self._serving, app
        self.server.replace(app.router(), HttpMetrics(registry).observe)
        self._digest = loaded.bundle.digest
        await in_thread(self._count, "records")
        self._counter = counter
        logger.info(
            "serving", extra={"digest": self._digest, "version": loaded.bundle.version, **figures}
        )
        if before is not None:
            self._farewell(before)

    @staticmethod
    def _farewell(app: ModelServer) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(FAREWELL_SECONDS, lambda: asyncio.ensure_future(app.close()))


def _config(settings: DeviceSettings, loaded: LoadedBundle) -> ServerConfig:
    files = loaded.bundle.files
    name = layout.model_file(files)
    kind = next(kind for kind, file in layout.MODEL_FILES.items() if file == name)
    uri = files[name].absolute().as_uri()
    return ServerConfig.model_validate(
        {
            "namespace": "device",
            "name": settings.deployment,
            "model": {"uri": uri, "version": loaded.bundle.version, "format": kind},
            # The self-test has already scored them, with the bundle's own tolerance.
            "contract": loaded.contract.model_copy(update={"golden_vectors": None}).to_json(),
            "timeoutSeconds": 30,
        }
    )


def _hung(error: ModelHangs) -> None:
    """End the process, because a call does not return; whoever started the agent starts it again.

    Calls while a model is started are bounded instead: then the previous model serves.
    """
    logger.error("%s", error, extra={"reason": error.reason})
    leave(error.exit_code)


def run(
    store: Store, settings: DeviceSettings, port: int, every: float, grpc_port: int | None = None
) -> None:
    """Serve until a signal stops the process. Raises Unavailable if a port is taken."""
    WATCH.start(_hung)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Agent(store, settings, every).run(port, grpc_port))
