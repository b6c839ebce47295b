"""Dates, times and raw bytes as inputs: the same value from every source, in every unit."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pydantic import ValidationError

from fourways.tensors import tensors
from fourways_api import BatchSource, Contract, FetchPolicy, Paths
from fourways_api.base import SKIP_RULES
from fourways_api.modes import FeatureLookup
from fourways_http import Request
from fourways_runtime.errors import ConfigError, ContractMismatch
from fourways_runtime.io import sources
from fourways_runtime.io.feature_store.base import plain
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.single import RecordRefused, RecordScorer
from fourways_runtime.scoring.table_pipeline import TablePipeline
from fourways_runtime.scoring.times import PER_SECOND, count_of
from fourways_runtime.v2.enrichment import FeatureEnricher
from fourways_runtime.v2.openapi import document
from fourways_runtime.workloads.gateway.events import EventReader
from tests.kit.models import Function
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import onnx_bytes

INT64 = TensorProto.INT64
MOMENT = datetime(2026, 1, 31, 12, 30, 5, 250_999, UTC)
SECONDS = 1_769_862_605
KINDS = {
    "timestamp_s": SECONDS,
    "timestamp_ms": SECONDS * 1000 + 250,
    "timestamp_us": SECONDS * 10**6 + 250_999,
    "timestamp_ns": SECONDS * 10**9 + 250_999_000,
    "date": SECONDS // 86_400,
}
TIMES: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": kind, "type": kind} for kind in KINDS],
    "outputs": [{"name": f"{kind}_out", "type": "int64"} for kind in KINDS],
}
IMAGES: dict[str, Any] = {
    "entityKey": {"name": "id"},
    "inputs": [{"name": "image", "type": "bytes"}],
    "outputs": [{"name": "size", "type": "int64"}, {"name": "first", "type": "int64"}],
}
PICTURES = [b"\x89PNG\r\n\x00\xff", b"", b"\x00"]


def echo() -> bytes:
    return onnx_bytes(
        [helper.make_node("Identity", [kind], [f"{kind}_out"]) for kind in KINDS],
        [(kind, INT64, ["N"]) for kind in KINDS],
        [(f"{kind}_out", INT64, ["N"]) for kind in KINDS],
    )


def echoing() -> Function:
    return Function(
        tuple(Tensor(kind, "int64", (None,)) for kind in KINDS),
        tuple(Tensor(f"{kind}_out", "int64", (None,)) for kind in KINDS),
        lambda given: {f"{kind}_out": values for kind, values in given.items()},
    )


def measuring() -> Function:
    """A model in Python that is given bytes as they are."""

    def answer(tensors: Any) -> dict[str, Any]:
        images = tensors["image"].tolist()
        first = [image[0] if image else -1 for image in images]
        return {"size": np.array(list(map(len, images))), "first": np.array(first)}

    return Function((), (), answer)


def scored(contract: Any, model: Any, **columns: Any) -> Any:
    keys = [str(at) for at in range(len(next(iter(columns.values()))))]
    pipeline = Pipeline(Contract.model_validate(contract), model)
    return TablePipeline(pipeline).score(pa.RecordBatch.from_pydict({"id": keys, **columns}))


TEXT = "2026-01-31T12:30:05.250999Z"


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(pa.array([MOMENT], pa.timestamp("us", "UTC")), id="zoned"),
        pytest.param(pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("us")), id="plain"),
        pytest.param(pa.array([MOMENT], pa.timestamp("ns", "Asia/Tokyo")), id="nanoseconds"),
        pytest.param(pa.array([TEXT]), id="text"),
        pytest.param(pa.array(["2026-01-31 14:30:05.250999+02:00"]), id="offset"),
        pytest.param(pa.array([TEXT]).dictionary_encode(), id="dictionary"),
        pytest.param(pa.array([f" {TEXT} ".encode()]), id="CSV"),
    ],
)
def test_a_moment_is_the_same_from_every_column(cell: Any) -> None:
    found = scored(TIMES, echoing(), **dict.fromkeys(KINDS, cell))
    assert not found.rejects
    answers = found.predictions.columns
    assert {kind: answers[f"{kind}_out"].tolist() for kind in KINDS} == {
        kind: [count] for kind, count in KINDS.items()
    }


def test_dates_are_midnights_and_numbers_are_counts_of_the_unit() -> None:
    day = {"date": pa.array([date(2026, 1, 31)])}
    rest = {kind: pa.array([date(2026, 1, 31)], pa.date64()) for kind in PER_SECOND}
    answers = scored(TIMES, echoing(), **day, **rest).predictions.columns
    assert answers["date_out"].tolist() == [20_484]
    assert answers["timestamp_ms_out"].tolist() == [20_484 * 86_400_000]
    given = dict.fromkeys(KINDS, pa.array([7]))
    assert scored(TIMES, echoing(), **given).predictions.columns["date_out"].tolist() == [7]


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_texts_are_read_as_python_reads_them(moment: datetime, minutes: int) -> None:
    zoned = moment.replace(tzinfo=UTC) + timedelta(minutes=minutes)
    since = zoned - datetime(1970, 1, 1, tzinfo=UTC)
    micro = since // timedelta(microseconds=1)
    sign, ahead = "-" if minutes < 0 else "+", abs(minutes)
    local = zoned.replace(tzinfo=None) + timedelta(minutes=minutes)
    text = f"{local.isoformat()}{sign}{ahead // 60:02}:{ahead % 60:02}"
    for kind, per in PER_SECOND.items():
        assert count_of(kind, text) == (micro * 1000 * per) // 10**9
    assert count_of("date", text) == since.days


@pytest.mark.parametrize(
    "text",
    [
        "20260131",
        "1769862605",
        "31.01.2026",
        "2026-02-30",
        "2026-01-31T24:00",
        "2026-01-31T12:60",
        "2026-01-31T12:00+25",
        "2026-01-31Z",
        "٢٠٢٦-01-31",
        "x" * 100,
    ],
)
def test_a_text_that_is_no_moment_is_rejected_with_an_example(text: str) -> None:
    good = {kind: pa.array([TEXT, TEXT]) for kind in KINDS}
    found = scored(TIMES, echoing(), **good | {"timestamp_ms": pa.array([text, TEXT])})
    (reject,) = found.rejects
    assert "is not a date or time such as 2026-01-31T12:30:00Z" in str(reject)
    assert len(str(reject)) < 200
    assert len(found.predictions) == 1


def test_what_the_unit_cannot_hold_and_what_is_missing_is_rejected() -> None:
    far = pa.array(["2500-01-01", None, ""])
    good = {kind: pa.array([TEXT] * 3) for kind in KINDS}
    found = scored(TIMES, echoing(), **good | {"timestamp_ns": far})
    assert [str(each) for each in found.rejects] == [
        "timestamp_ns: 2500-01-01 is outside timestamp_ns; choose a coarser unit",
        "timestamp_ns: missing",
        "timestamp_ns: missing",
    ]
    typed = pa.array([datetime(2500, 1, 1), None, datetime(2026, 1, 1)], pa.timestamp("s"))
    found = scored(TIMES, echoing(), **good | {"timestamp_ns": typed})
    assert [each.row for each in found.rejects] == [0, 1]


async def test_requests_send_texts_or_whole_numbers(tmp_path: Path) -> None:
    async with serving(configure(tmp_path, echo(), TIMES)) as plane:
        metadata = (await plane.client.get("/v2/models/churn")).json()
        texts = await plane.infer(*[tensor(kind, "BYTES", [TEXT]) for kind in KINDS])
        counts = await plane.infer(*[tensor(kind, "INT64", [n]) for kind, n in KINDS.items()])
        raw = b"".join(len(TEXT).to_bytes(4, "little") + TEXT.encode() for _ in KINDS)
        size = {"binary_data_size": len(TEXT) + 4}
        described = [
            {"name": kind, "datatype": "BYTES", "shape": [1], "parameters": size} for kind in KINDS
        ]
        head = orjson.dumps({"inputs": described})
        binary = await plane.client.post(
            "/v2/models/churn/infer",
            content=head + raw,
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        old = await plane.client.post(
            "/v1/models/churn:predict", json={"instances": [dict.fromkeys(KINDS, TEXT)]}
        )
        bad = await plane.infer(*[tensor(kind, "BYTES", ["yesterday"]) for kind in KINDS])
    assert metadata["inputs"][0] == {"name": "timestamp_s", "datatype": "BYTES", "shape": [-1]}
    outputs = {f"{kind}_out": [count] for kind, count in KINDS.items()}
    for answer in (texts, counts, binary):
        assert {o["name"]: o["data"] for o in answer.json()["outputs"]} == outputs, answer.text
    assert list(old.json()["predictions"][0].values()) == list(KINDS.values())
    assert bad.status_code == 400
    assert "'yesterday' is not a date or time" in bad.json()["error"]


def test_a_device_a_stream_and_a_feature_database_read_the_same() -> None:
    contract = Contract.model_validate(TIMES)
    answer = RecordScorer(contract, echoing()).ask(dict.fromkeys(KINDS, TEXT))
    assert answer == {f"{kind}_out": count for kind, count in KINDS.items()}
    with pytest.raises(RecordRefused, match="is not a date or time"):
        RecordScorer(contract, echoing()).ask(dict.fromkeys(KINDS, "now"))
    looked_up = dict.fromkeys(KINDS, plain(MOMENT))
    assert RecordScorer(contract, echoing()).ask(looked_up) == answer
    inputs = [tensor("id", "BYTES", ["u"]), *[tensor(kind, "BYTES", [TEXT]) for kind in KINDS]]
    reader = EventReader(contract, 10, 1000)
    asked = Request(b"POST", b"/", [], orjson.dumps({"inputs": inputs}))
    event = reader.events(reader.read(asked), ["u"])["u"]
    assert orjson.loads(event) == {"id": "u", **KINDS}


@pytest.mark.parametrize("format", ["CSV", "JSONLines"])
def test_text_files_hold_times_and_base64(format: str, tmp_path: Path) -> None:
    inputs = [*TIMES["inputs"], *IMAGES["inputs"]]
    contract = Contract.model_validate({**TIMES, "inputs": inputs})
    coded = [base64.b64encode(image).decode() for image in PICTURES[:1]]
    rows = [{"id": "u", **dict.fromkeys(KINDS, TEXT), "image": coded[0]}]
    rows += [{**rows[0], "id": "v", "image": "§"}]
    path = tmp_path / "table"
    if format == "CSV":
        pacsv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    source = BatchSource.model_validate(
        {"uri": f"file://{path}", "format": format}, context=SKIP_RULES
    )
    table = sources.open_table(source, contract, policy=FetchPolicy(), paths=Paths())
    chunks = [chunk for chunk in table.chunks() if chunk.batch.num_rows]
    seen: list[Any] = []

    def answer(given: Any) -> dict[str, Any]:
        seen.extend(given["image"].tolist())
        return {f"{kind}_out": given[kind] for kind in KINDS}

    pipeline = Pipeline(contract, Function((), (), answer))
    found = [TablePipeline(pipeline).score(chunk.batch, chunk.rows) for chunk in chunks]
    assert seen == PICTURES[:1]
    rejects = [str(each) for result in found for each in result.rejects]
    assert rejects == ["image: '§' is not base64"]
    days = [day for result in found for day in result.predictions.columns["date_out"].tolist()]
    assert days == [KINDS["date"]]


def test_bytes_stay_bytes_from_every_source() -> None:
    coded = [base64.b64encode(image).decode() for image in PICTURES]
    wanted = {"size": [8, 0, 1], "first": [0x89, -1, 0]}
    for cells in (pa.array(PICTURES), pa.array(PICTURES, pa.large_binary()), pa.array(coded)):
        answers = scored(IMAGES, measuring(), image=cells).predictions.columns
        assert {name: values.tolist() for name, values in answers.items()} == wanted
    scorer = RecordScorer(Contract.model_validate(IMAGES), measuring())
    assert scorer.ask({"image": coded[0]}) == scorer.ask({"image": PICTURES[0]})
    assert scorer.ask({"image": {"b64": coded[0]}}) == {"size": 8, "first": 0x89}
    assert plain(PICTURES[0]) == coded[0]
    (sent,) = tensors({"image": [PICTURES[0]]}, {"inputs": []})
    assert sent["data"] == [coded[0]]
    (sent,) = tensors({"at": [MOMENT]}, {"inputs": []})
    assert count_of("timestamp_us", sent["data"][0]) == KINDS["timestamp_us"]


def test_bytes_become_an_event_and_come_back() -> None:
    reader = EventReader(Contract.model_validate(IMAGES), 10, 1000)
    image = base64.b64encode(PICTURES[0]).decode()
    inputs = [tensor("id", "BYTES", ["u"]), tensor("image", "BYTES", [image])]
    asked = Request(b"POST", b"/", [], orjson.dumps({"inputs": inputs}))
    assert orjson.loads(reader.events(reader.read(asked), ["u"])["u"])["image"] == image


def test_a_tensor_of_text_is_not_given_bytes() -> None:
    model = Function((Tensor("image", "string", (None,)),), (), dict)
    with pytest.raises(ContractMismatch, match="image is bytes, the model's input is image string"):
        Pipeline(Contract.model_validate(IMAGES), model)


@pytest.mark.parametrize("kind", ["date", "timestamp_s", "bytes"])
@pytest.mark.parametrize("more", [{"range": {"min": 0}}, {"nullable": True}, {"categories": ["a"]}])
def test_rules_name_the_fix(kind: str, more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Contract.model_validate({**IMAGES, "inputs": [{"name": "x", "type": kind, **more}]})


def test_the_document_tells_how_they_are_written() -> None:
    inputs = [*TIMES["inputs"], *IMAGES["inputs"]]
    contract = Contract.model_validate({**TIMES, "inputs": inputs})
    body = orjson.loads(document("churn", "1", contract, "inputs").body)
    fields = body["components"]["schemas"]["Record"]
    assert fields["properties"]["timestamp_ms"] == {"type": "string", "format": "date-time"}
    assert fields["properties"]["date"] == {"type": "string", "format": "date"}
    assert fields["properties"]["image"]["contentEncoding"] == "base64"


@pytest.mark.parametrize(
    ("kind", "good", "bad", "told"),
    [
        ("date", "2026-01-31", "tomorrow", "'tomorrow' is not a date or time"),
        ("timestamp_ms", TEXT, "7", "'7' is not a date or time"),
        ("bytes", "QUJD", "§", "'§' is not base64"),
    ],
)
def test_a_default_of_a_feature_is_a_text_that_is_checked_at_the_start(
    kind: str, good: str, bad: str, told: str
) -> None:
    contract = Contract.model_validate({**IMAGES, "inputs": [{"name": "x", "type": kind}]})

    def bound(default: dict[str, Any]) -> FeatureEnricher:
        settings = {"database": {"secretName": "d"}, "table": "t", "defaults": [default]}
        reader: Any = None
        return FeatureEnricher(contract, FeatureLookup.model_validate(settings), reader)

    bound({"name": "x", "text": good})
    with pytest.raises(ConfigError, match=f"the default of x: {told}"):
        bound({"name": "x", "text": bad})
    with pytest.raises(ConfigError, match="the default of x must be a text"):
        bound({"name": "x", "number": 1})
