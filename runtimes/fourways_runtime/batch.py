"""The batch shell: one run, from the table to the published predictions, or nothing.

Owns the order of a run, the overlap of reading, scoring and writing, the limit of rejects and the
run's last words. Reading and writing have a thread each, scoring one a core (onnxruntime, Arrow and
COPY let go of the interpreter); a bounded number of batches is under way, so memory does not grow
with the table. Whatever ends the process at whatever moment, readers see the run before or this
one, whole; the same run started again finds out which.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourways_api import Paths, RunReport, RuntimeConfig

from .config import read_config, read_run
from .errors import ConfigError, SourceError, TooManyRejects, WorkloadError
from .last_words import write_report
from .records import Progress, RejectLimit, Scored

if TYPE_CHECKING:
    from .pipeline import Pipeline
    from .sources.base import Chunk, Table
    from .store import PublishedRun, Run, RunWriter, StoreWriter


EXIT_TERMINATED = 143
DRAIN_SECONDS = 5.0
"""How long a stopped run waits for the statement under way, to clean up behind itself."""


class Terminated(BaseException):
    """SIGTERM came. Not an Exception, so that nothing on the way takes it for a failure."""


class BatchRun:
    """One try of one run."""

    def __init__(self, config: RuntimeConfig, run: str) -> None:
        if config.batch is None:
            raise ConfigError("the configuration has no batch settings")
        self._config = config
        self._batch = config.batch
        self._name = run
        self.progress = Progress(digest=config.digest)
        self._started = time.monotonic()

    @property
    def version(self) -> str:
        """The model's version, by its owner's name for it."""
        return self._config.model.version

    def execute(self) -> PublishedRun:
        """Run, and publish.

        Raises:
            WorkloadError: whatever went wrong; nothing was published then, except where the store
                broke off while it was told to (StoreUnavailable).

        """
        from .store import open_writer, read_uri

        self.log("started", source=self._batch.source.format, threads=self._config.threads)
        store = open_writer(read_uri(self._config.paths.store_uri_file))
        try:
            done = self._finished(store)
            if done is None:
                with _system_allocator():
                    done = self._run(store)
            self.progress.rejects = done.rejects
            self.progress.digest = done.digest
            return done
        finally:
            store.close()

    def _finished(self, store: StoreWriter) -> PublishedRun | None:
        done = store.finished(self._config.namespace, self._config.name, self._name)
        if done is not None:
            self.log("already published", rows=done.rows, rejects=done.rejects)
        return done

    def _run(self, store: StoreWriter) -> PublishedRun:
        from .sources import open_table

        pipeline = self._pipeline()
        config = self._config
        table = open_table(
            self._batch.source, config.contract, policy=config.fetch, paths=config.paths
        )
        self.log("source opened", total_rows=table.total_rows)
        limit = RejectLimit(self._batch.max_rejects, table.total_rows)
        with store.open_run(self._new_run()) as writer:
            self._score(table, pipeline, writer, limit)
            self._check_rows()
            sealed = writer.seal()
            self.progress.rejects = sealed.rejects
            self.log("written", rows=sealed.rows, rejects=sealed.rejects)
            self._judge(limit.exceeded(sealed.rejects, self.progress.rows), limit)
            if sealed.rows == 0:
                raise TooManyRejects(f"every row was refused; {self._refusals()}")
            with _uninterrupted():
                published = writer.publish(self._batch.keep_runs)
            self.log("published", rows=published.rows, rejects=published.rejects)
            return published

    def _new_run(self) -> Run:
        from .store import Run

        config = self._config
        return Run(
            config.namespace, config.name, self._name, config.model.version,
            self.progress.digest or "", config.contract, datetime.now(UTC),
        )  # fmt: skip

    def _pipeline(self) -> Pipeline:
        from .fetch import fetch
        from .model import load
        from .pipeline import Pipeline

        config, model = self._config, self._config.model
        fetched = fetch(
            model.uri,
            into=Path(config.paths.cache_dir) / "models",
            digest=config.digest or model.digest,
            max_bytes=model.max_size_mi_b * 2**20,
            policy=config.fetch,
            paths=config.paths,
            credentials=self._secret(model.credentials),
        )
        self.progress.digest = fetched.digest
        # Several batches at once beat several threads on one: a core each, and none waits.
        loaded = load(fetched.path, model, threads=1, external_root=self._model_folder())
        pipeline = Pipeline(config.contract, loaded)
        self.log("model loaded", digest=fetched.digest, version=model.version)
        self._check_golden(pipeline)
        return pipeline

    def _check_golden(self, pipeline: Pipeline) -> None:
        golden = self._config.contract.golden_vectors
        if golden is None:
            return
        from .fetch import fetch
        from .golden import MAX_BYTES, check_vectors, read_vectors

        fetched = fetch(
            golden.uri,
            into=Path(self._config.paths.cache_dir) / "models",
            digest=golden.digest,
            max_bytes=MAX_BYTES,
            policy=self._config.fetch,
            paths=self._config.paths,
            credentials=self._secret(golden.credentials),
        )
        vectors = read_vectors(fetched.path, self._config.contract)
        check_vectors(pipeline, vectors, golden)
        self.log("golden vectors agree", vectors=len(vectors))

    def _score(
        self, table: Table, pipeline: Pipeline, writer: RunWriter, limit: RejectLimit
    ) -> None:
        """Score the whole table: one batch being read, one a core scored, one written."""
        begun = time.monotonic()
        with closing(_overlapped(table, pipeline, writer, self._config.threads)) as batches:
            for scored in batches:
                self.progress.rows += len(scored.predictions) + len(scored.rejects)
                self.progress.refused(scored.rejects)
                self._judge(limit.surely_exceeded(self.progress.rejects), limit)
        seconds = time.monotonic() - begun
        self.log(
            "scored",
            rows=self.progress.rows,
            rejects=self.progress.rejects,
            rows_per_second=round(self.progress.rows / seconds) if seconds else None,
        )

    def _check_rows(self) -> None:
        if self.progress.rows == 0:
            raise SourceError("the source has no rows")

    def _judge(self, exceeded: bool, limit: RejectLimit) -> None:
        if exceeded:
            raise TooManyRejects(
                f"{self.progress.rejects} of {self.progress.rows} rows were refused, "
                f"maxRejects is {limit.text}; {self._refusals()}"
            )

    def _refusals(self) -> str:
        told = [
            f"row {r.row}{'' if r.key is None else f' ({r.key[:40]})'}: {r}"
            for r in self.progress.examples
        ]
        return "the first: " + "; ".join(told) if told else "a key occurs more than once"

    def _secret(self, reference: Any) -> Path | None:
        if reference is None:
            return None
        return Path(self._config.paths.secrets_root) / str(reference.secret_name)

    def _model_folder(self) -> Path | None:
        if not self._config.model.allow_external_data:
            return None
        from .fetch import resolve

        path = resolve(self._config.model.uri, self._config.paths)
        return None if path is None else path.parent

    def log(self, stage: str, **details: Any) -> None:
        """Write one JSON line about the run."""
        log(
            stage,
            namespace=self._config.namespace,
            deployment=self._config.name,
            run=self._name,
            seconds=round(time.monotonic() - self._started, 3),
            **details,
        )


def _overlapped(
    table: Table, pipeline: Pipeline, writer: RunWriter, threads: int
) -> Generator[Scored]:
    """Read, score and write at the same time; yield each batch, in order, once it is scored.

    The first error of any of the three ends it. Left early, what is under way is dropped, and what
    is being written is waited for, for a while.
    """
    reading = ThreadPoolExecutor(1, thread_name_prefix="read")
    scoring = ThreadPoolExecutor(threads, thread_name_prefix="score")
    writing = ThreadPoolExecutor(1, thread_name_prefix="write")
    chunks = table.chunks()
    under_way: deque[Future[Scored]] = deque()
    written: deque[Future[None]] = deque()
    try:
        upcoming: Future[Chunk | None] = reading.submit(next, chunks, None)
        more = True
        while more or under_way:
            while more and len(under_way) <= threads:
                chunk = upcoming.result()
                more = chunk is not None
                if chunk is not None:
                    upcoming = reading.submit(next, chunks, None)
                    under_way.append(scoring.submit(_scored, pipeline, chunk))
            if under_way:
                scored = under_way.popleft().result()
                if len(written) > 1:
                    written.popleft().result()
                written.append(writing.submit(_write, writer, scored))
                yield scored
        for writes in written:
            writes.result()
    finally:
        for pool in (reading, scoring, writing):
            pool.shutdown(wait=False, cancel_futures=True)
        _settle(written)


def _settle(written: deque[Future[None]]) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS
    for writes in written:
        if not writes.cancelled():
            try:
                writes.exception(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return


def _scored(pipeline: Pipeline, chunk: Chunk) -> Scored:
    scored = pipeline.score(chunk.batch, chunk.rows)
    return Scored(scored.predictions, [*chunk.rejects, *scored.rejects])


def _write(writer: RunWriter, scored: Scored) -> None:
    writer.write(scored.predictions)
    writer.reject(scored.rejects)


@contextmanager
def _system_allocator() -> Iterator[None]:
    """Let Arrow give memory back: its own pools keep what a large table once needed."""
    import pyarrow as pa

    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore SIGTERM: a moment more of the grace period is better than a run half told of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def log(stage: str, **details: Any) -> None:
    """Write one JSON line to stderr."""
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "stage": stage, **details}
    print(json.dumps(line, default=str), file=sys.stderr, flush=True)


def main() -> int:
    """Run one batch run as the environment says; return the process's exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    config: RuntimeConfig | None = None
    run: BatchRun | None = None
    try:
        config = read_config()
        run = BatchRun(config, read_run())
        published = run.execute()
        report, code = _succeeded(published), 0
    except WorkloadError as error:
        report, code = _failed(error.reason, str(error), run), error.exit_code
    except Terminated:
        message = "stopped before it was done; nothing was published"
        report, code = _failed("Terminated", message, run), EXIT_TERMINATED
    except Exception as error:  # noqa: BLE001  (the last words must be said whatever happened)
        log(
            "internal error",
            type=type(error).__name__,
            message=str(error),
            trace=traceback.format_exc(limit=-5),
        )
        report, code = _failed("InternalError", "see the worker's log", run), 1
    log(report.outcome.lower(), reason=report.reason, message=report.message, exit_code=code)
    write_report(report, (config.paths if config else Paths()).termination_log)
    _leave(code)
    return code


def _leave(code: int) -> None:
    """End at once where a thread may hang: the interpreter would wait for it."""
    if code:
        sys.stderr.flush()
        os._exit(code)


def _terminate(signum: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _succeeded(published: PublishedRun) -> RunReport:
    return RunReport(
        outcome="Succeeded",
        message=f"{published.rows} rows published, {published.rejects} refused",
        rows=published.rows,
        rejects=published.rejects,
        digest=published.digest,
        version=published.version,
    )


def _failed(reason: str, message: str, run: BatchRun | None) -> RunReport:
    progress = run.progress if run is not None else Progress()
    return RunReport(
        outcome="Failed",
        reason=reason,
        message=message,
        rows=progress.rows,
        rejects=progress.rejects,
        digest=progress.digest,
        version=run.version if run is not None else None,
    )
