"""The state of a run that every participating process holds, whatever the engine.

Owns the model, the table and the sink, each opened once; how the run is laid out; what ends it for
all participants; and how long to wait for an unavailable store. It does not know which worker
claims which chunk or publishes.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from fourways_api import RuntimeConfig
from fourways_runtime.errors import (
    ConfigError,
    StoreUnavailable,
    TooManyRejects,
    Unavailable,
    WorkloadError,
)
from fourways_runtime.retry import Outage
from fourways_runtime.scoring.splits import Newer

from ..place_watch import SINK, STORE, PlaceWatch
from .limits import RejectLimit, RunTally, cure_of, described
from .sizes import batch_bytes, chunk_rows

if TYPE_CHECKING:
    from fourways_runtime.io.sinks.base import PredictionSink
    from fourways_runtime.io.sources.base import Table
    from fourways_runtime.io.store import Run
    from fourways_runtime.io.store.runs.ledger import RunLedger
    from fourways_runtime.io.store.runs.plan import Base, Plan, RunSettings, Totals
    from fourways_runtime.scoring.profile import RecordProfiler
    from fourways_runtime.scoring.table_pipeline import TablePipeline

    from .incremental import Changes

logger = logging.getLogger("fourways.batch")

PATIENCE_SECONDS = 60.0
"""How long a worker waits for a store that became unavailable during the run."""

RETRY_SECONDS = 0.5
_FEW_NEW = 8


class RunContext:
    """One process's part of a run: configuration, model, table, sink, progress."""

    def __init__(self, config: RuntimeConfig, run: str) -> None:
        """Take part in the named run. Raises ConfigError."""
        if config.batch is None:
            raise ConfigError("the configuration has no batch settings")
        self.config = config
        self.batch = config.batch
        self.name = run
        self.progress = RunTally(digest=config.digest)
        self.joined = False
        """Whether the run has been found or created in the store."""

        self.outage = Outage(PATIENCE_SECONDS)
        """How long the store has been unavailable."""

        self.places = PlaceWatch()
        """Its calls into the store and the sink."""

        self._started = time.monotonic()
        self.profiler: RecordProfiler | None = None
        """Counts records for a comparison with the training, once the pipeline is prepared."""

        self._pipeline: TablePipeline | None = None
        self._opened: Table | None = None

    # ------------------------------------------------------------ what a run needs

    def fetch_model(self) -> None:
        """Fetch the model without loading it, to learn its digest. Raises WorkloadError."""
        if self.progress.digest is None:
            from ..prepare import fetch_model

            self.know_digest(fetch_model(self.config).digest)

    def know_digest(self, digest: str) -> None:
        """Note the model's digest, which is part of a run's identity."""
        self.progress.digest = digest

    def pipeline(self) -> TablePipeline:
        """Return the pipeline, prepared once. Raises WorkloadError."""
        if self._pipeline is None:
            from fourways_runtime.scoring.table_pipeline import TablePipeline

            from ..prepare import prepare

            # Several batches at once, one core each, are faster than several threads on one batch.
            prepared = prepare(self.config, threads=1, fetched=self.know_digest)
            if prepared.profile is not None:
                self.training_profiler()
            self._pipeline = TablePipeline(prepared.pipeline)
        return self._pipeline

    def training_profiler(self) -> RecordProfiler:
        """Return the profiler, also where this process scores nothing. Raises WorkloadError."""
        if self.profiler is None:
            from fourways_runtime.scoring.profile import RecordProfiler

            from ..prepare import fetch_profile

            profile = fetch_profile(self.config)
            if profile is None:
                raise ConfigError("the configuration has no training profile")
            self.profiler = RecordProfiler(profile)
        return self.profiler

    def table(self) -> Table:
        """Return the table, opened once. Raises WorkloadError."""
        if self._opened is None:
            from fourways_runtime.io.sources import open_table

            config, spec = self.config, self.batch.incremental
            more = (spec.watermark,) if spec is not None and spec.watermark else ()
            self._opened = open_table(
                self.batch.source,
                config.contract,
                policy=config.fetch,
                paths=config.paths,
                more=more,
                batch_bytes=batch_bytes(config),
            )
            self.log("source opened", total_rows=self._opened.total_rows)
        return self._opened

    def new_run(self) -> Run:
        """Describe the run for the store."""
        from fourways_runtime.io.store import Run

        config = self.config
        return Run(
            config.namespace,
            config.name,
            self.name,
            config.model.version,
            self.progress.digest or "",
            config.contract,
            datetime.now(UTC),
        )

    def settings(self) -> RunSettings:
        """Return the run's settings, which decide what the next run may carry over."""
        from fourways_runtime.io.store.runs.plan import RunSettings

        spec = self.batch.incremental
        document = [
            self.config.model.version,
            self.progress.digest,
            self.config.contract.to_json(),
            self.batch.source.to_json(),
            spec.to_json() if spec else None,
            self.batch.sink.to_json() if self.batch.sink else None,
        ]
        return RunSettings(
            hashlib.sha256(orjson.dumps(document)).hexdigest(),
            watermark=spec.watermark if spec else None,
            row_hash=spec.row_hash if spec else False,
            own_table=self.batch.sink is None,
        )

    def plan(self, table: Table, base: Base | None) -> Plan:
        """Plan the run: its chunks, and the rows it need not score. Raises WorkloadError."""
        from fourways_runtime.io.store.layout import dump_contract
        from fourways_runtime.io.store.runs.plan import Plan

        from .incremental import since, why_full

        spec = self.batch.incremental
        full = why_full(spec, self.new_run(), dump_contract(self.config.contract), base)
        rows = chunk_rows(self.config)
        if full or spec is None or base is None or spec.row_hash:
            splits = table.splits(rows)
        else:
            # With few new rows, scoring them is not what takes the time, so chunks can be larger.
            splits = table.splits(rows * _FEW_NEW)
            full = table.why_incomparable(Newer(spec.watermark or "", base.watermark))
            splits = splits if full is None else table.splits(rows)
        kind = "full" if full or spec is None else "hash" if spec.row_hash else "watermark"
        self.log("laid out", chunks=len(splits), kind=kind, because=full)
        if full or base is None or spec is None:
            because = full if spec is not None and base is not None else None
            return Plan(splits, table.total_rows, because=because)
        if kind == "hash":
            return Plan(splits, table.total_rows, kind, base, base.watermark)
        return Plan(splits, None, kind, base, since(spec, base))

    def changes(self, ledger: RunLedger) -> Changes:
        """Return the detector of changed rows. Raises StoreUnavailable."""
        from fourways_runtime.io.store.runs.merge import digests, stored_row_hashes

        from .incremental import Changes

        contract = self.config.contract
        columns = dict.fromkeys((contract.entity_key.name, *(f.name for f in contract.flat_inputs)))
        spec = self.batch.incremental
        if ledger.kind != "hash" or ledger.base is None:
            return Changes(spec, since=ledger.since, columns=tuple(columns))
        return Changes(
            spec,
            digests=digests(ledger.control, ledger.base.run_id),
            known=partial(stored_row_hashes, ledger.control, ledger.base.run_id),
            columns=tuple(columns),
        )

    # ------------------------------------------------------------ where predictions go

    def open_sink(self, run: str) -> PredictionSink | None:
        """Open the sink of a run's predictions; return None for the prediction store."""
        if self.batch.sink is None:
            return None
        from fourways_runtime.io.sinks import open_sink

        config = self.config
        return open_sink(
            self.batch.sink,
            config.contract,
            run,
            policy=config.fetch,
            paths=config.paths,
            keep_runs=self.batch.keep_runs,
        )

    def end_if_stuck(self, stuck: Callable[[Unavailable], object]) -> None:
        """Call ``stuck``, which ends the process, if the store or the sink stands still."""

        def ask_store() -> None:
            from fourways_runtime.io.store import open_run_store, read_uri

            uri = read_uri(self.config.paths.store_uri_file)
            with closing(open_run_store(uri, read_only=True)) as store:
                store.database.rows("SELECT 1")

        self.places.ask_by(STORE, ask_store)
        self.places.start(stuck)

    @contextmanager
    def taking_part(self, ledger: RunLedger) -> Iterator[PredictionSink | None]:
        """Open the sink, if there is one; a permanent error ends the run for all workers."""
        sink: PredictionSink | None = None
        try:
            sink = self.open_sink(self.name)
            if sink is not None:
                self.places.ask_by(SINK, sink.probe)
                with self.places.step(SINK, "opening the sink"):
                    sink.begin()
            yield sink
        except WorkloadError as error:
            if not isinstance(error, Unavailable):
                ledger.fail(error.reason, str(error), error.exit_code)
                self._discard(sink)
                # The first recorded failure counts: this error may come from that worker's cleanup.
                self.raise_if_failed(ledger)
            raise
        finally:
            if sink is not None:
                sink.close()

    def _discard(self, sink: PredictionSink | None) -> None:
        if sink is None:
            return
        try:
            sink.discard()
        except WorkloadError as error:
            # The run that deletes this one's record tries again.
            self.log("cleanup failed", error=str(error))

    def forget(self, run: str) -> None:
        """Delete what an abandoned run has left in the sink. Raises WorkloadError."""
        sink = self.open_sink(run)
        if sink is not None:
            with closing(sink):
                sink.discard()

    # ------------------------------------------------------------ what ends a run

    def raise_if_failed(self, ledger: RunLedger) -> None:
        """Raise another worker's error if that worker has failed the run."""
        from .claims import as_error

        failure = ledger.failure()
        if failure is not None:
            raise as_error(failure)

    def judge(self, exceeded: bool, limit: RejectLimit, rejects: int, rows: int) -> None:
        """Raise TooManyRejects if the limit is exceeded."""
        if exceeded:
            self.progress.rejects = max(self.progress.rejects, rejects)
            raise TooManyRejects(
                f"{rejects} of {rows} rows were rejected, maxRejects is {limit.text}; "
                f"{self.refusals()}"
            )

    def refusals(self) -> str:
        """Describe the first rejected rows and how to fix them."""
        examples = [described(reject) for reject in self.progress.examples]
        if not examples:
            return "a key occurs more than once"
        shows = f"fourways rejects {self.config.name} shows keys and values"
        return f"the first: {'; '.join(examples)}; {shows}; {cure_of(self.progress.examples)}"

    def wait_out(self, error: StoreUnavailable) -> None:
        """Pause while the store is unavailable; raise ``error`` if that has lasted too long."""
        if not self.joined:
            raise error
        self.outage.failed(error)
        self.log("store unavailable", error=str(error))
        time.sleep(RETRY_SECONDS)

    # ------------------------------------------------------------ logging

    def log_progress(self, ledger: RunLedger, totals: Totals) -> None:
        """Log the progress of the run over all workers."""
        self.log(
            "progress",
            rows=totals.rows,
            total_rows=ledger.total_rows,
            rejects=totals.rejects,
            chunks=totals.done,
            of=totals.chunks,
        )

    def log(self, stage: str, **details: Any) -> None:
        """Log a stage of the run."""
        whose = {"namespace": self.config.namespace, "deployment": self.config.name}
        seconds = round(time.monotonic() - self._started, 3)
        logger.info(stage, extra={**whose, "run": self.name, "seconds": seconds, **details})
