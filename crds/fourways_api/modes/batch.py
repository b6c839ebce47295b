"""Settings of the batch mode: source, sink, incremental runs, checks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..addresses import FolderUri, TableUri
from ..base import ApiModel, Rule, no_two_share
from ..cron import CRON_PATTERN
from ..model import SecretReference
from ..schema_hints import keyed_by
from ..values import FieldName, ObjectName, QueueName, Schedule

RejectLimit = Annotated[
    str, Field(pattern=r"^([0-9]{1,9}|([0-9]{1,2}(\.[0-9]{1,4})?|100)%)$", max_length=12)
]
Share = Annotated[str, Field(pattern=r"^([0-9]{1,2}(\.[0-9]{1,4})?|100)%$", max_length=12)]
"""A share such as ``5%``."""


class PartitionFilter(ApiModel):
    """Partitions of one column that are read."""

    column: FieldName
    """Column by which the table is partitioned."""

    values: Annotated[
        tuple[Annotated[str, Field(max_length=128)], ...], Field(min_length=1, max_length=128)
    ]
    """Values of the column, as in the folder names."""


class SourceQuery(ApiModel):
    """A query of a PostgreSQL database."""

    database: SecretReference
    """Secret with the connection string in its key uri."""

    sql: Annotated[str, Field(min_length=1, max_length=8192)]
    """SELECT statement that returns the entity key and the inputs under their names."""

    split_by: FieldName | None = None
    """Integer column of the query by which the rows are divided among workers. Without it, one
    worker reads all rows."""


class BatchSource(ApiModel):
    """Table to score."""

    uri: TableUri | None = None
    """URI of a file, a folder or a glob such as s3://bucket/day=*/part-*.parquet. Schemes: file,
    pvc, http, https, s3, gs, az."""

    query: SourceQuery | None = None
    """Query of a database, instead of files."""

    format: Literal["Parquet", "CSV", "JSONLines", "Delta"] = "Parquet"
    """Format of the files."""

    filter: Annotated[tuple[PartitionFilter, ...], Field(max_length=16), keyed_by("column")] = ()
    """Partitions to read, of a folder laid out as COLUMN=VALUE or of a Delta table."""

    credentials: SecretReference | None = None
    """Secret with the credentials for the URI."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.uri) != has(self.query)",
            "a source is either files or a query",
            "set exactly one of uri and query",
        ),
        no_two_share(
            "filter", "column", "two filters name one column", "list all its values in one filter"
        ),
    )


class Incremental(ApiModel):
    """Score only rows that are new or changed since the last published run. Other predictions are
    kept."""

    watermark: FieldName | None = None
    """Column whose value increases with every change of a row. Only rows with at least the highest
    value of the last run are scored."""

    lookback: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}[smhd]?$", max_length=10)] | None = (
        None
    )
    """How far below the last run's highest watermark rows are scored again, for rows that arrive
    late: a duration such as 36h for times, a number such as 1000 for numbers."""

    row_hash: bool = False
    """Compare the hash of every row's key and inputs with the last run."""

    deletions: Literal["Keep", "Remove"] = "Keep"
    """Whether predictions are kept or removed when their row is no longer in the source."""

    full_every: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Score all rows every N runs."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.watermark) != self.rowHash",
            "changes are found either by a watermark or by hashes",
            "set exactly one of watermark and rowHash",
        ),
        Rule(
            "self.deletions == 'Keep' || self.rowHash",
            "a watermark does not show deleted rows",
            "set rowHash, or deletions to Keep",
            ".deletions",
        ),
        Rule(
            "!has(self.lookback) || has(self.watermark)",
            "only a watermark has rows below it",
            "set watermark, or leave out lookback",
            ".lookback",
        ),
    )


class FileSink(ApiModel):
    """Publish predictions as files."""

    uri: FolderUri
    """URI of the folder for the files. Schemes: pvc, s3, gs, az, and file with fourways up."""

    format: Literal["Parquet", "Delta"] = "Parquet"
    """Format of the files."""

    credentials: SecretReference | None = None
    """Secret with the credentials for the URI."""


class ColumnName(ApiModel):
    """Column of a table for an output."""

    output: FieldName
    """Name of an output of the contract, or name of the entity key."""

    column: FieldName
    """Column of the table."""


class TableSink(ApiModel):
    """Publish predictions in a PostgreSQL table."""

    database: SecretReference
    """Secret with the connection string in its key uri."""

    table: Annotated[
        str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$", max_length=127)
    ]
    """Name of the table, as TABLE or SCHEMA.TABLE. The table must exist."""

    columns: Annotated[tuple[ColumnName, ...], Field(max_length=65), keyed_by("output")] = ()
    """Columns whose names differ from their outputs."""

    write: Literal["Replace", "Upsert"] = "Replace"
    """Replace all rows (Replace), or insert and update rows by entity key (Upsert). Both take one
    transaction."""

    rules: ClassVar[tuple[Rule, ...]] = (
        no_two_share("columns", "output", "two columns take one output", "keep one of them"),
    )


class Sink(ApiModel):
    """Where predictions are published instead of the prediction store. The store still records the
    runs."""

    files: FileSink | None = None
    """Publish predictions as files."""

    table: TableSink | None = None
    """Publish predictions in a PostgreSQL table."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.files) != has(self.table)",
            "a sink is either files or a table",
            "set exactly one of files and table",
        ),
    )


class Checks(ApiModel):
    """Checks that a run must pass before it is published. Golden vectors are always checked."""

    min_rows: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Minimum number of predictions."""

    max_row_change: Share | None = None
    """Maximum change of the number of predictions from the last published run, such as 10%."""

    max_missing: Share | None = None
    """Maximum share of NaN or empty values in any output, such as 1%."""

    max_drift: Annotated[float, Field(gt=0, le=100)] | None = None
    """Maximum population stability index of any output against the last published run. 0.1 is a
    small shift, 0.25 a large one."""


class Batch(ApiModel):
    """Score a table on a schedule and publish all predictions at once."""

    schedule: Schedule
    """Cron schedule: minute, hour, day of month, month, day of week (Sunday is 0), or a name such
    as @daily. When clocks change, the run of a time that does not exist is skipped, and a time that
    occurs twice has two runs."""

    time_zone: Annotated[
        str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", max_length=64)
    ] = "Etc/UTC"
    """IANA time zone of the schedule, such as Europe/Berlin."""

    suspend: bool = False
    """Start no new runs. Published predictions are still served."""

    source: BatchSource
    """Table to score."""

    sink: Sink | None = None
    """Where predictions are published instead of the prediction store."""

    incremental: Incremental | None = None
    """Score only rows that are new or changed since the last published run."""

    checks: Checks = Checks()
    """Checks that a run must pass before it is published."""

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of workers that share a run."""

    engine: Literal["Jobs", "Ray"] = "Jobs"
    """Engine that runs the workers: Kubernetes Jobs, or a KubeRay RayJob."""

    queue_name: QueueName | None = None
    """Name of the Kueue LocalQueue that admits the runs."""

    priority_class_name: ObjectName | None = None
    """Name of the PriorityClass of the runs' pods. `fourways start-run --priority` sets another one
    for a single run."""

    max_rejects: RejectLimit = "0"
    """Maximum number of rejected rows, as a count ("100") or a share ("1%"). A run with more fails
    and publishes nothing."""

    starting_deadline_seconds: Annotated[int, Field(ge=10, le=86_400)] = 600
    """A run is skipped if it cannot start within this many seconds after its scheduled time."""

    active_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 21_600
    """Maximum duration of a run, in seconds. A run that takes longer is stopped."""

    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 3
    """Maximum number of retries of each worker before the run fails."""

    history_limit: Annotated[int, Field(ge=1, le=20)] = 3
    """Number of finished Jobs to keep, of each outcome."""

    keep_runs: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of published runs to keep in the prediction store."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.schedule.matches('{CRON_PATTERN}')",
            "the schedule is not a cron schedule",
            "write five fields such as '0 3 * * *' (Sunday is 0), or @daily; set the zone in"
            " timeZone",
            ".schedule",
        ),
        Rule(
            "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
            "PriorityClasses that begin with system- are Kubernetes' own",
            "use a PriorityClass of your cluster",
            ".priorityClassName",
        ),
        Rule(
            "!has(self.incremental) || !has(self.sink)",
            "incremental runs need the prediction store",
            "remove incremental or sink",
            ".incremental",
        ),
    )
