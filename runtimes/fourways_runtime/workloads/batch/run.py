"""One worker's part in one run, from the configuration to the published predictions.

Owns the order of the steps: the run is joined or created, laid out, scored by its engine, sealed,
checked and published. If one worker finds a fault in the run itself (too many rejects, a table
that changed), the run ends for all workers.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from fourways_api import RuntimeConfig
from fourways_runtime.errors import (
    SourceError,
    StoreFull,
    StoreUnavailable,
    TooManyRejects,
    WorkloadError,
)

from ..place_watch import SINK, STORE
from . import run_context
from .engine import Engine, LocalEngine
from .host import uninterrupted, worker
from .limits import RejectLimit, RunTally
from .run_context import RunContext

if TYPE_CHECKING:
    from fourways_runtime.io.sinks.base import PredictionSink
    from fourways_runtime.io.store import PublishedRun, RunStore
    from fourways_runtime.io.store.runs.ledger import RunLedger
    from fourways_runtime.io.store.runs.publish import Sealed
    from fourways_runtime.scoring.columns import Reject


class BatchRun:
    """One worker of one run."""

    def __init__(self, config: RuntimeConfig, run: str, engine: Engine | None = None) -> None:
        """Take part in the named run; ``engine`` scores its chunks (default: this process).

        Raises:
            ConfigError: The configuration has no batch settings.

        """
        self.context = RunContext(config, run)
        self._engine = engine or LocalEngine()
        self.notes: list[str] = []
        """Remarks for the run's owner, reported even if the run succeeds."""

    @property
    def progress(self) -> RunTally:
        """The counts of the run so far."""
        return self.context.progress

    def execute(self) -> PublishedRun:
        """Work on the run until it is published, by this worker or another.

        Raises:
            WorkloadError: The run failed. Nothing was published, unless the connection to the store
                was lost while publishing (StoreUnavailable).

        """
        context = self.context
        context.log("started", source=context.batch.source.format, threads=context.config.threads)
        while True:
            try:
                done = self._attempt()
            except StoreFull:
                raise
            except StoreUnavailable as error:
                context.wait_out(error)
                continue
            except WorkloadError as error:
                if not context.joined:
                    self._engine.never_begun(context, error)
                raise
            context.progress.rejects = done.rejects
            context.progress.digest = done.digest
            return done

    def _attempt(self) -> PublishedRun:
        context = self.context
        from fourways_runtime.io.store import open_run_store, owners_of, read_uri

        store = open_run_store(
            read_uri(context.config.paths.store_uri_file), owners_of(context.config)
        )
        try:
            while True:
                whose = (context.config.namespace, context.config.name, context.name)
                done = store.finished(*whose)
                if done is not None:
                    context.log("already published", rows=done.rows, rejects=done.rejects)
                else:
                    done = self._join(store)
                if done is not None:
                    context.progress.drift = store.drift(*whose)
                    context.progress.quality = store.quality(*whose[:2])
                    return done
        finally:
            store.close()

    def _join(self, store: RunStore) -> PublishedRun | None:
        """Take part in the run; return None if it turns out to be published already."""
        context = self.context
        self._engine.resolve_digest(context)
        table = context.table()
        with store.ledger(context.new_run(), context.settings(), worker()) as ledger:
            if not ledger.join():
                return None
            context.joined = True
            with context.taking_part(ledger) as sink:
                ledger.lay_out(partial(context.plan, table))
                self._engine.score(context, ledger, sink)
                return self._finish(store, ledger, sink)

    # ------------------------------------------------------------ publishing

    def _finish(
        self, store: RunStore, ledger: RunLedger, sink: PredictionSink | None
    ) -> PublishedRun:
        """Publish the run, or wait for the worker that does."""
        context = self.context
        from fourways_runtime.io.store.runs.publish import alone

        while True:
            with context.places.step(STORE, "publishing the run"), alone(ledger) as ours:
                done = store.finished(context.config.namespace, context.config.name, context.name)
                if done is None and ours:
                    return self._publish(store, ledger, sink)
            if done is not None:
                context.log("published", rows=done.rows, rejects=done.rejects)
                return done
            context.raise_if_failed(ledger)
            time.sleep(run_context.RETRY_SECONDS / 2)

    def _publish(
        self, store: RunStore, ledger: RunLedger, sink: PredictionSink | None
    ) -> PublishedRun:
        context = self.context
        from fourways_runtime.io.store.runs import publish

        from .checks import check

        context.raise_if_failed(ledger)
        spec = context.batch.incremental
        remove = spec is not None and spec.deletions == "Remove" and ledger.kind == "hash"

        def repeated() -> list[Reject]:
            if sink is None:
                return []
            with context.places.step(SINK, "looking for repeated keys"):
                return sink.repeated(ledger.receipts())

        sealed = publish.seal(ledger, remove=remove, repeated=repeated)
        context.progress.rejects = sealed.rejects
        self._note(ledger)
        context.log("written", rows=sealed.rows, rejects=sealed.rejects, carried=sealed.carried)
        self._fit(ledger, sealed)
        self._compare(ledger)
        before = store.published(context.config.namespace, context.config.name)
        check(context.batch.checks, ledger, sealed, before)
        self._measure_quality(ledger)
        with uninterrupted():
            if sink is not None:
                with context.places.step(SINK, "publishing the run"):
                    sink.publish(ledger.receipts())
            published = publish.publish(ledger, sealed, context.batch.keep_runs, context.forget)
        context.log("published", rows=published.rows, rejects=published.rejects)
        return published

    def _compare(self, ledger: RunLedger) -> None:
        """Compare the run's records with those of the training, and record the result."""
        context, settings = self.context, self.context.config.monitoring
        if settings is None:
            return
        from fourways_runtime.io.store.runs import profiles
        from fourways_runtime.scoring.drift import compare, summarised

        counts = profiles.counts_of(ledger.data, ledger.run_id)
        if not counts.records:
            return  # An earlier attempt has compared them, or no record was scored.
        profiler = context.training_profiler()
        fields = compare(profiler, counts, settings.max_drift)
        found = summarised(fields, counts, datetime.now(UTC))
        profiles.settle(ledger.data, ledger.run_id, found)
        if found is not None:
            context.log("compared with the training", drifted=found.drifted, records=found.records)

    def _measure_quality(self, ledger: RunLedger) -> None:
        """Compare published predictions with labels; a fault is noted and ends nothing."""
        context = self.context
        if context.config.quality is None:
            return
        from .quality import measure_runs

        try:
            remark = measure_runs(
                context.config, ledger.data, ledger.run.deployment, datetime.now(UTC)
            )
        except StoreUnavailable:
            raise
        except WorkloadError as error:
            remark = f"the quality was not measured: {error}"
        if remark:
            self.notes.append(remark)
            context.log("labels", remark=remark)

    def _note(self, ledger: RunLedger) -> None:
        """Note anything unusual about the run."""
        context = self.context
        from fourways_runtime.io.sources.watermarks import lies_ahead

        self.notes = [] if ledger.because is None else [f"all rows were scored: {ledger.because}"]
        if (part := ledger.divided()) is not None:
            self.notes.append(
                "splitBy is skewed: one value has far more rows than a chunk, and they were cut by "
                f"the entity key ({part}); each part searches all of them, so choose a column with "
                "more values"
            )
            context.log("splitBy is skewed", chunk=part)
        highest = ledger.watermark()
        if lies_ahead(highest, datetime.now(UTC)):
            self.notes.append(
                f"the watermark {highest} lies in the future: until then, rows below it are not "
                "scored"
            )
            context.log("watermark in the future", watermark=highest)

    def _fit(self, ledger: RunLedger, sealed: Sealed) -> None:
        context = self.context
        if sealed.read == 0 and ledger.kind != "watermark":
            raise SourceError("the source has no rows")
        limit = RejectLimit(context.batch.max_rejects)
        context.judge(
            limit.exceeded(sealed.rejects, sealed.read), limit, sealed.rejects, sealed.read
        )
        if sealed.rows == 0:
            raise TooManyRejects(f"every row was rejected; {context.refusals()}")
