"""Settings of the batch mode: source, sink, what is new, what a run must keep."""

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
    """The partitions of one column that are read."""

    column: FieldName
    """Column the table is partitioned by."""

    values: Annotated[
        tuple[Annotated[str, Field(max_length=128)], ...], Field(min_length=1, max_length=128)
    ]
    """Its values, as they are written in the folder names."""


class SourceQuery(ApiModel):
    """Rows of a PostgreSQL database."""

    database: SecretReference
    """Secret with the connection string under the key uri."""

    sql: Annotated[str, Field(min_length=1, max_length=8192)]
    """A SELECT that gives the entity key and the inputs under their names."""

    split_by: FieldName | None = None
    """Whole-number column of the query by whose ranges workers share the rows. Without it one
    worker reads them all, through a server-side cursor."""


class BatchSource(ApiModel):
    """The table to score."""

    uri: TableUri | None = None
    """Where the table is: a file, a folder or a glob (s3://bucket/day=*/part-*.parquet)."""

    query: SourceQuery | None = None
    """Rows of a database, instead of files."""

    format: Literal["Parquet", "CSV", "JSONLines", "Delta"] = "Parquet"
    """What the table is written in."""

    filter: Annotated[tuple[PartitionFilter, ...], Field(max_length=16), keyed_by("column")] = ()
    """Only these partitions of a folder laid out as COLUMN=VALUE, or of a Delta table."""

    credentials: SecretReference | None = None
    """Credentials for the URI, from a mounted Secret."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.uri) != has(self.query)",
            "the rows come from files or from a query",
            "set exactly one of uri and query",
        ),
        no_two_share(
            "filter", "column", "two filters name one column", "list all its values in one filter"
        ),
    )


class Incremental(ApiModel):
    """Score only what is new or changed since the last published run; the rest is carried over."""

    watermark: FieldName | None = None
    """Column that grows with every change of a row: only rows at or above the last run's highest
    value are scored."""

    lookback: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}[smhd]?$", max_length=10)] | None = (
        None
    )
    """How far below the last run's highest watermark rows are scored again, for rows that arrive
    late: a duration such as 36h for times, a number such as 1000 for numbers."""

    row_hash: bool = False
    """Compare every row's key and inputs with the last run's, by hash."""

    deletions: Literal["Keep", "Remove"] = "Keep"
    """What becomes of predictions whose row is no longer in the source."""

    full_every: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Score everything at each so many runs."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.watermark) != self.rowHash",
            "changes are found by a watermark or by hashes",
            "set exactly one of watermark and rowHash",
        ),
        Rule(
            "self.deletions == 'Keep' || self.rowHash",
            "a watermark does not show what was deleted",
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
    """Predictions as files."""

    uri: FolderUri
    """Folder the files are written to: file, pvc, s3, gs or az."""

    format: Literal["Parquet", "Delta"] = "Parquet"
    """What they are written in."""

    credentials: SecretReference | None = None
    """Credentials for the URI, from a mounted Secret."""


class ColumnName(ApiModel):
    """Which column of a table takes which output."""

    output: FieldName
    """Name of an output of the contract, or of the entity key."""

    column: FieldName
    """Column of the table."""


class TableSink(ApiModel):
    """Predictions in a PostgreSQL table of yours."""

    database: SecretReference
    """Secret with the connection string under the key uri."""

    table: Annotated[
        str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$", max_length=127)
    ]
    """TABLE, or SCHEMA.TABLE. It must be there."""

    columns: Annotated[tuple[ColumnName, ...], Field(max_length=65), keyed_by("output")] = ()
    """Columns that are named otherwise than their outputs."""

    write: Literal["Replace", "Upsert"] = "Replace"
    """Replace all rows, or insert and update by entity key; in one transaction."""

    rules: ClassVar[tuple[Rule, ...]] = (
        no_two_share("columns", "output", "two columns take one output", "keep one of them"),
    )


class Sink(ApiModel):
    """Where predictions are published, instead of the prediction store. The store still keeps
    the record of runs."""

    files: FileSink | None = None
    """As files."""

    table: TableSink | None = None
    """In a PostgreSQL table of yours."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.files) != has(self.table)",
            "predictions go to one place",
            "set exactly one of files and table",
        ),
    )


class Checks(ApiModel):
    """What a run must keep to be published. Golden vectors are always checked."""

    min_rows: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Predictions at the least."""

    max_row_change: Share | None = None
    """How far the number of predictions may be from the last published run's, as a share of it."""

    max_missing: Share | None = None
    """Largest share of NaN or empty values in any one output."""

    max_drift: Annotated[float, Field(gt=0, le=100)] | None = None
    """Largest population stability index of any one output against the last published run; 0.1 is
    a small shift, 0.25 a large one."""


class Batch(ApiModel):
    """Score a whole table on a schedule and publish the predictions at once."""

    schedule: Schedule
    """When to run, as a cron line: minute, hour, day of month, month, day of week."""

    time_zone: Annotated[
        str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", max_length=64)
    ] = "Etc/UTC"
    """IANA time zone the schedule is read in."""

    suspend: bool = False
    """Keep everything but start no run."""

    source: BatchSource
    """The table to score."""

    sink: Sink | None = None
    """Where predictions are published instead of the prediction store."""

    incremental: Incremental | None = None
    """Score only what is new or changed since the last published run."""

    checks: Checks = Checks()
    """What a run must keep to be published."""

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Workers that share a run."""

    engine: Literal["Jobs", "Ray"] = "Jobs"
    """What runs the workers: Kubernetes Jobs, or a KubeRay RayJob."""

    queue_name: QueueName | None = None
    """Kueue LocalQueue that admits the runs."""

    priority_class_name: ObjectName | None = None
    """Kubernetes PriorityClass of the runs' pods: a low one has them give way to others. `fourways
    run --priority` names another for one run, such as a backfill by a new model version."""

    max_rejects: RejectLimit = "0"
    """How many rows may be refused, as a count ("100") or a share ("1%"), before the run fails
    and nothing is published."""

    starting_deadline_seconds: Annotated[int, Field(ge=10, le=86_400)] = 600
    """A run that could not start within this many seconds of its time is skipped."""

    active_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 21_600
    """A run that takes longer is stopped."""

    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 3
    """How often each worker is tried again before the run is given up."""

    history_limit: Annotated[int, Field(ge=1, le=20)] = 3
    """How many finished Jobs of each outcome are kept."""

    keep_runs: Annotated[int, Field(ge=1, le=100)] = 3
    """How many published runs stay in the prediction store."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.schedule.matches('{CRON_PATTERN}')",
            "the schedule is not a cron line",
            "write five fields such as '0 3 * * *' (Sunday is 0), or @daily; the zone goes to"
            " timeZone",
            ".schedule",
        ),
        Rule(
            "!has(self.incremental) || !has(self.sink)",
            "only the prediction store knows the run before",
            "leave out incremental or sink",
            ".incremental",
        ),
    )
