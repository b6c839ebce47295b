"""One worker's part in one run, from the configuration to the published predictions.

Owns the order of the steps, who is told what went wrong, and patience: a store that goes away is
waited for, and work goes on where the ledger says it ended. What one worker finds out about the run
itself (too many rejects, a table that changed) ends it for all of them.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from fourways_api import RuntimeConfig
from fourways_runtime.errors import (
    ConfigError,
    SourceError,
    StoreFull,
    StoreUnavailable,
    TooManyRejects,
    Unavailable,
    WorkloadError,
)
from fourways_runtime.scoring.splits import Newer

from .host import system_allocator, uninterrupted, worker
from .limits import Progress, RejectLimit, cure_of
from .sizes import batch_bytes, chunk_rows

if TYPE_CHECKING:
    from fourways_runtime.io.sinks.base import Sink
    from fourways_runtime.io.sources.base import Table
    from fourways_runtime.io.store import PublishedRun, Run, RunStore
    from fourways_runtime.io.store.runs.ledger import (
        Base,
        Claim,
        Plan,
        RunLedger,
        RunSettings,
        Totals,
    )
    from fourways_runtime.io.store.runs.publish import Sealed
    from fourways_runtime.scoring.pipeline import Pipeline

    from .incremental import Changes

logger = logging.getLogger("fourways.batch")

PATIENCE_SECONDS = 60.0
"""How long a worker waits for a store that went away while it worked."""

RETRY_SECONDS = 0.5
_FEW_NEW = 8
_SAY_SECONDS = 2.0


class BatchRun:
    """One worker of one run."""

    def __init__(self, config: RuntimeConfig, run: str) -> None:
        if config.batch is None:
            raise ConfigError("the configuration has no batch settings")
        self._config = config
        self._batch = config.batch
        self._name = run
        self.progress = Progress(digest=config.digest)
        self._started = time.monotonic()
        self._pipeline: Pipeline | None = None
        self._opened: Table | None = None
        self.trouble: float | None = None
        self.joined = False
        self.notes: list[str] = []
        """What whoever looks after the run should know of it, though it succeeded."""

    def execute(self) -> PublishedRun:
        """Work on the run until it is published, by this worker or another.

        Raises:
            WorkloadError: whatever went wrong; nothing was published then, except where the store
                broke off while it was told to (StoreUnavailable).

        """
        self.log("started", source=self._batch.source.format, threads=self._config.threads)
        while True:
            try:
                done = self._attempt()
            except StoreFull:
                raise
            except StoreUnavailable as error:
                self.wait_out(error)
                continue
            self.progress.rejects = done.rejects
            self.progress.digest = done.digest
            return done

    def wait_out(self, error: StoreUnavailable) -> None:
        """Wait a little for a store that went away; give up where that has gone on for long."""
        now = time.monotonic()
        self.trouble = self.trouble or now
        if not self.joined or now - self.trouble > PATIENCE_SECONDS:
            raise error
        self.log("store unavailable", error=str(error))
        time.sleep(RETRY_SECONDS)

    def _attempt(self) -> PublishedRun:
        from fourways_runtime.io.store import open_run_store, read_uri

        store = open_run_store(read_uri(self._config.paths.store_uri_file))
        try:
            while True:
                done = store.finished(self._config.namespace, self._config.name, self._name)
                if done is not None:
                    self.log("already published", rows=done.rows, rejects=done.rejects)
                    return done
                done = self._join(store)
                if done is not None:
                    return done
        finally:
            store.close()

    def _join(self, store: RunStore) -> PublishedRun | None:
        """Take part in the run; None where it turns out to be published."""
        self.vouch()
        table = self.table()
        with store.ledger(self._new_run(), self._settings(), worker()) as ledger:
            if not ledger.join():
                return None
            self.joined = True
            with self.taking_part(ledger) as sink:
                ledger.lay_out(partial(self._plan, table))
                self.score(ledger, sink)
                return self._finish(store, ledger, sink)

    @contextmanager
    def taking_part(self, ledger: RunLedger) -> Iterator[Sink | None]:
        """Open the sink, if there is one; what cannot get better ends the run for all."""
        sink: Sink | None = None
        try:
            sink = self._sink(self._name)
            if sink is not None:
                sink.begin()
            yield sink
        except WorkloadError as error:
            if not isinstance(error, Unavailable):
                ledger.fail(error.reason, str(error), error.exit_code)
                self._discard(sink)
                # The first to say why counts: this may be what came of its clearing up.
                self.heed(ledger)
            raise
        finally:
            if sink is not None:
                sink.close()

    # ------------------------------------------------------------ beginning

    def vouch(self) -> None:
        """Know the digest of the model, by which runs are told apart. Raises WorkloadError."""
        self.pipeline()

    def pipeline(self) -> Pipeline:
        """Return the pipeline, prepared once. Raises WorkloadError."""
        if self._pipeline is None:
            from ..prepare import prepare

            # Several batches at once beat several threads on one: a core each, and none waits.
            self._pipeline = prepare(self._config, threads=1, fetched=self._fetched).pipeline
        return self._pipeline

    def table(self) -> Table:
        """Return the table, opened once. Raises WorkloadError."""
        if self._opened is None:
            from fourways_runtime.io.sources import open_table

            config, spec = self._config, self._batch.incremental
            more = (spec.watermark,) if spec is not None and spec.watermark else ()
            self._opened = open_table(
                self._batch.source,
                config.contract,
                policy=config.fetch,
                paths=config.paths,
                more=more,
                batch_bytes=batch_bytes(config),
            )
            self.log("source opened", total_rows=self._opened.total_rows)
        return self._opened

    def _fetched(self, digest: str) -> None:
        self.progress.digest = digest

    def _new_run(self) -> Run:
        from fourways_runtime.io.store import Run

        config = self._config
        return Run(
            config.namespace,
            config.name,
            self._name,
            config.model.version,
            self.progress.digest or "",
            config.contract,
            datetime.now(UTC),
        )

    def _settings(self) -> RunSettings:
        from fourways_runtime.io.store.runs.ledger import RunSettings

        spec = self._batch.incremental
        document = [
            self._config.model.version,
            self.progress.digest,
            self._config.contract.to_json(),
            self._batch.source.to_json(),
            spec.to_json() if spec else None,
            self._batch.sink.to_json() if self._batch.sink else None,
        ]
        return RunSettings(
            hashlib.sha256(orjson.dumps(document)).hexdigest(),
            watermark=spec.watermark if spec else None,
            row_hash=spec.row_hash if spec else False,
            own_table=self._batch.sink is None,
        )

    def _plan(self, table: Table, base: Base | None) -> Plan:
        from fourways_runtime.io.store.layout import dump_contract
        from fourways_runtime.io.store.runs.ledger import Plan

        from .incremental import since, why_full

        spec = self._batch.incremental
        full = why_full(spec, self._new_run(), dump_contract(self._config.contract), base)
        rows = chunk_rows(self._config)
        if full or spec is None or base is None or spec.row_hash:
            splits = table.splits(rows)
        else:
            # Where few rows are new, it is not their scoring that takes the time.
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

    # ------------------------------------------------------------ scoring

    def score(self, ledger: RunLedger, sink: Sink | None) -> None:
        """Score chunks until all of them are recorded, by whomever."""
        from .claims import Heartbeat, unclaimed

        begun = time.monotonic()
        changes = self.changes(ledger)
        with system_allocator(), Heartbeat(ledger):
            self.chunks(ledger, changes, sink, unclaimed(ledger))
            while not ledger.totals().complete:
                self.heed(ledger)
                stolen = ledger.claim() or ledger.steal()
                if stolen is None:
                    time.sleep(RETRY_SECONDS / 2)
                else:
                    self.chunks(ledger, changes, sink, unclaimed(ledger, stolen))
        seconds = time.monotonic() - begun
        self.log(
            "scored",
            rows=self.progress.rows,
            rejects=self.progress.rejects,
            rows_per_second=round(self.progress.rows / seconds) if seconds else None,
        )

    def chunks(
        self, ledger: RunLedger, changes: Changes, sink: Sink | None, claims: Iterator[Claim]
    ) -> None:
        """Score and record the chunks claimed. Raises WorkloadError."""
        from .claims import Recorder, pieces, scorer
        from .prefetch import overlapped

        recorder = Recorder(ledger, sink)
        limit = RejectLimit(self._batch.max_rejects, ledger.total_rows)
        with closing(
            overlapped(
                pieces(claims, self.table(), changes),
                scorer(self.pipeline(), changes),
                recorder.write,
                self._config.threads,
            )
        ) as written:
            said = time.monotonic()
            for step in written:
                self.progress.rows += step.rows
                self.progress.refused(step.rejects)
                if not step.chunk:
                    continue
                self.trouble = None
                # Judged when a chunk is recorded: its rejects can be looked at then.
                totals = ledger.totals()
                self._judge(
                    limit.surely_exceeded(totals.rejects), limit, totals.rejects, totals.rows
                )
                if time.monotonic() - said > _SAY_SECONDS:
                    said = time.monotonic()
                    self.tell(ledger, totals)

    def tell(self, ledger: RunLedger, totals: Totals) -> None:
        """Log how far the run is, all workers together."""
        self.log(
            "progress",
            rows=totals.rows,
            total_rows=ledger.total_rows,
            rejects=totals.rejects,
            chunks=totals.done,
            of=totals.chunks,
        )

    def changes(self, ledger: RunLedger) -> Changes:
        """Return what tells new rows from old. Raises StoreUnavailable."""
        from fourways_runtime.io.store.runs.merge import digests, row_hashes

        from .incremental import Changes

        contract = self._config.contract
        columns = dict.fromkeys((contract.entity_key.name, *(f.name for f in contract.inputs)))
        spec = self._batch.incremental
        if ledger.kind != "hash" or ledger.base is None:
            return Changes(spec, since=ledger.since, columns=tuple(columns))
        return Changes(
            spec,
            digests=digests(ledger.control, ledger.base.run_id),
            known=partial(row_hashes, ledger.control, ledger.base.run_id),
            columns=tuple(columns),
        )

    def _sink(self, run: str) -> Sink | None:
        if self._batch.sink is None:
            return None
        from fourways_runtime.io.sinks import open_sink

        config = self._config
        return open_sink(
            self._batch.sink,
            config.contract,
            run,
            policy=config.fetch,
            paths=config.paths,
            keep_runs=self._batch.keep_runs,
        )

    def _discard(self, sink: Sink | None) -> None:
        if sink is None:
            return
        try:
            sink.discard()
        except WorkloadError as error:
            # The run that drops this one's record tries again.
            self.log("not cleared up", error=str(error))

    def _forget(self, run: str) -> None:
        """Drop what a run given up has left where predictions go. Raises WorkloadError."""
        sink = self._sink(run)
        if sink is not None:
            with closing(sink):
                sink.discard()

    def heed(self, ledger: RunLedger) -> None:
        """Stop where another worker has given the run up. Raises what it ended with."""
        from .claims import as_error

        failure = ledger.failure()
        if failure is not None:
            raise as_error(failure)

    def _judge(self, exceeded: bool, limit: RejectLimit, rejects: int, rows: int) -> None:
        if exceeded:
            self.progress.rejects = max(self.progress.rejects, rejects)
            raise TooManyRejects(
                f"{rejects} of {rows} rows were refused, "
                f"maxRejects is {limit.text}; {self._refusals()}"
            )

    def _refusals(self) -> str:
        told = [
            f"row {r.row}{'' if r.key is None else f' ({r.key[:40]})'}: {r}"
            for r in self.progress.examples
        ]
        if not told:
            return "a key occurs more than once"
        return f"the first: {'; '.join(told)}; {cure_of(self.progress.examples)}"

    # ------------------------------------------------------------ publishing

    def _finish(self, store: RunStore, ledger: RunLedger, sink: Sink | None) -> PublishedRun:
        """Publish the run, or wait for the worker that does."""
        from fourways_runtime.io.store.runs.publish import alone

        while True:
            with alone(ledger) as ours:
                done = store.finished(self._config.namespace, self._config.name, self._name)
                if done is None and ours:
                    return self._publish(store, ledger, sink)
            if done is not None:
                self.log("published", rows=done.rows, rejects=done.rejects)
                return done
            self.heed(ledger)
            time.sleep(RETRY_SECONDS / 2)

    def _publish(self, store: RunStore, ledger: RunLedger, sink: Sink | None) -> PublishedRun:
        from fourways_runtime.io.store.runs import publish

        from .checks import check

        self.heed(ledger)
        spec = self._batch.incremental
        remove = spec is not None and spec.deletions == "Remove" and ledger.kind == "hash"
        repeated = list if sink is None else lambda: sink.repeated(ledger.receipts())
        sealed = publish.seal(ledger, remove=remove, repeated=repeated)
        self.progress.rejects = sealed.rejects
        self._note(ledger)
        self.log("written", rows=sealed.rows, rejects=sealed.rejects, carried=sealed.carried)
        self._fit(ledger, sealed)
        before = store.published(self._config.namespace, self._config.name)
        check(self._batch.checks, ledger, sealed, before)
        with uninterrupted():
            if sink is not None:
                sink.publish(ledger.receipts())
            published = publish.publish(ledger, sealed, self._batch.keep_runs, self._forget)
        self.log("published", rows=published.rows, rejects=published.rejects)
        return published

    def _note(self, ledger: RunLedger) -> None:
        """Note what is odd about an incremental run."""
        from fourways_runtime.io.sources.watermarks import lies_ahead

        self.notes = [] if ledger.because is None else [f"all rows were scored: {ledger.because}"]
        highest = ledger.watermark()
        if lies_ahead(highest, datetime.now(UTC)):
            self.notes.append(
                f"the watermark {highest} lies in the future: until then no row below it is scored"
            )
            self.log("watermark in the future", watermark=highest)

    def _fit(self, ledger: RunLedger, sealed: Sealed) -> None:
        if sealed.read == 0 and ledger.kind != "watermark":
            raise SourceError("the source has no rows")
        limit = RejectLimit(self._batch.max_rejects)
        self._judge(limit.exceeded(sealed.rejects, sealed.read), limit, sealed.rejects, sealed.read)
        if sealed.rows == 0:
            raise TooManyRejects(f"every row was refused; {self._refusals()}")

    def log(self, stage: str, **details: Any) -> None:
        """Log a stage of the run."""
        whose = {"namespace": self._config.namespace, "deployment": self._config.name}
        seconds = round(time.monotonic() - self._started, 3)
        logger.info(stage, extra={**whose, "run": self._name, "seconds": seconds, **details})
