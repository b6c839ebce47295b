"""Addresses: one grammar, whose rules, types and readers agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourways_api import InvalidSpec, ModelDeployment, Paths, check, parse
from fourways_api.addresses import Address, InvalidAddress, brokers, claims
from fourways_operator.facts import OperatorSettings
from fourways_operator.planning import plan, plan_gateway
from fourways_runtime.io.fetch.local import locate
from fourways_runtime.io.fetch.location import Location
from fourways_runtime.io.fetch.oci import Reference
from tests.bad_manifests.cases import change, good

SETTINGS = OperatorSettings(runtime_image="fourways-runtime:test")


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("file:///m/a%20b.onnx", Address("file", "", None, "/m/a%20b.onnx")),
        ("file://localhost/m", Address("file", "localhost", None, "/m")),
        ("pvc://my.claim/a:b@c?d", Address("pvc", "my.claim", None, "/a:b@c?d")),
        ("s3://b/day=*/[0-9].parquet", Address("s3", "b", None, "/day=*/[0-9].parquet")),
        ("https://h:65535/m?sig=a@b:9", Address("https", "h", 65535, "/m?sig=a@b:9")),
        ("https://[2001:db8::1]:8443/m", Address("https", "2001:db8::1", 8443, "/m")),
        ("oci://10.0.0.1:5000/m:1", Address("oci", "10.0.0.1", 5000, "/m:1")),
    ],
)
def test_a_uri_is_taken_apart(uri: str, address: Address) -> None:
    assert Address.parse(uri) == address


def test_brokers_are_taken_apart() -> None:
    assert brokers("kafka-0.kafka:9092,[::1]:9093") == (
        Address("", "kafka-0.kafka", 9092, ""),
        Address("", "::1", 9093, ""),
    )
    assert brokers("nats://nats,tls://10.0.0.1:4223") == (
        Address("nats", "nats", None, ""),
        Address("tls", "10.0.0.1", 4223, ""),
    )
    assert claims(["pvc://a/x", "pvc://b.c/", "s3://a/pvc", "pvc://a/y"]) == {"a", "b.c"}


@pytest.mark.parametrize("text", ["", "m.onnx", "https://h:0/m", "https://h:99999/", "ftp://h/m"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddress):
        Address.parse(text)


@pytest.mark.parametrize("text", ["", "kafka:0", "kafka:9092,", "nats://[::1"])
def test_what_is_no_list_of_brokers_is_refused(text: str) -> None:
    with pytest.raises(InvalidAddress):
        brokers(text)


MODEL, TABLE, FOLDER = "spec.model.uri", "spec.batch.source.uri", "spec.batch.sink.files.uri"
GOLDEN, PUBLISH = "spec.contract.goldenVectors.uri", "spec.edge.publish"
LABELS, TOKENIZER = "spec.contract.labels.uri", "spec.contract.tokenizer.uri"
PROFILE, TRUTH = "spec.monitoring.profile.uri", "spec.quality.truth.uri"
KAFKA = "spec.streaming.source.kafka.bootstrapServers"
NATS = "spec.streaming.source.nats.servers"
FIELDS = {
    MODEL: "batch",
    TABLE: "batch",
    FOLDER: "batch",
    LABELS: "realtime",
    TOKENIZER: "smallest",
    PROFILE: "batch",
    TRUTH: "batch",
    GOLDEN: "edge",
    PUBLISH: "edge",
    KAFKA: "kafka",
    NATS: "nats",
}
"""Every field with an address, and a valid manifest of good.yaml that may hold it."""

DIGEST = "sha256:" + "a" * 64


def with_address(field: str, text: str) -> dict[str, Any]:
    document = good()[FIELDS[field]]
    change(document, field, text)
    change(document, "spec.model.digest", DIGEST)
    if field == GOLDEN:
        change(document, "spec.contract.goldenVectors.digest", DIGEST)
    if field == LABELS:
        change(document, "spec.contract.labels.digest", DIGEST)
        change(document, "spec.contract.outputs", [{"name": "label", "type": "string"}])
    if field == TOKENIZER:
        change(document, "spec.contract.tokenizer.digest", DIGEST)
        text = {"name": "text", "type": "string", "tokens": {"maxLength": 8}}
        change(document, "spec.contract.inputs", [text])
    if field == PROFILE:
        change(document, "spec.monitoring.profile.digest", DIGEST)
    if field == TRUTH:
        output = document["spec"]["contract"]["outputs"][0]["name"]
        document["spec"]["quality"] |= {
            "label": "label",
            "time": "at",
            "output": output,
            "metrics": ["MAE"],
        }
    document["metadata"] |= {"uid": "u", "generation": 1}
    return document


def accepted(document: dict[str, Any]) -> ModelDeployment | None:
    try:
        deployment = parse(document)
        check(deployment)
    except InvalidSpec:
        return None
    return deployment


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (MODEL, "file:///models/m.onnx"),
        (MODEL, "file://localhost/m.onnx"),
        (MODEL, "pvc://my.claim/a b.onnx".replace(" ", "%20")),
        (MODEL, "https://h.example/m.onnx?X-Amz-Signature=a%2Fb@c:d"),
        (MODEL, "https://models_1.svc.cluster.local.:8080/größe.onnx"),
        (MODEL, "http://10.0.0.255:80/m"),
        (MODEL, "https://[fd00::1:2]:443/m"),
        (MODEL, "https://1a.example/m"),
        (MODEL, "oci://localhost:5000/a/b_c__d-e.f:v1@" + DIGEST),
        (MODEL, "gs://my_bucket.example/..m/a..b"),
        (MODEL, "az://$web/m.onnx"),
        (MODEL, "s3://arn:aws:s3:eu-west-1:1:accesspoint/ap/m.onnx"),
        (TABLE, "pvc://data"),
        (TABLE, "file:///data/day=*/part-[0-9].parquet"),
        (TABLE, "s3://b"),
        (FOLDER, "s3://b/"),
        (FOLDER, "pvc://out/a"),
        (PUBLISH, "pvc://out/"),
        (KAFKA, "kafka_1:1,10.1.2.3:65535,[::ffff:10.0.0.1]:9092,k-2:9092"),
        (NATS, "nats://n,tls://[::]:1,ws://n-0.n:80,wss://n"),
    ],
)
def test_what_can_be_reached_is_accepted(field: str, text: str) -> None:
    assert accepted(with_address(field, text))


_PIECES = st.sampled_from(
    [
        *["file", "pvc", "http", "https", "s3", "gs", "az", "oci", "nats", "tls", "ws"],
        *["://", ":", "/", "//", "///", "@", "?", "#", "[", "]", ",", ".", "..", "%2e%2E", "%00"],
        *["::1", "[::1]", "[::1]:9", "1.2.3.4", "256.1.1.1", "0", "65535", "65536", "99999", "007"],
        *["h", "H", "h-", "a_b", "my.claim", "kafka:9092", "ü", "\u2100", "user:pw", "x" * 64, "*"],
        *["m.onnx", "repo:1", "@sha256:" + "a" * 64, "localhost", "\\", "{", "$", "%", "-", "~"],
    ]
)


@st.composite
def _addresses(draw: st.DrawFn, fields: tuple[str, ...] = tuple(FIELDS)) -> tuple[str, str]:
    """Return a field and a text near an address: pieces in a row, or a right one with changes."""
    field = draw(st.sampled_from(fields))
    starts = {
        KAFKA: ["kafka:9092", "a:1,b:2", "[::1]:9092"],
        NATS: ["nats://n:4222", "nats://n", "tls://[::1]:1,ws://b"],
    }.get(
        field,
        ["file:///m/a", "pvc://c/a", "https://h:443/a", "s3://b/k", "oci://h:5/r:1", "az://c/f"],
    )
    text = draw(st.sampled_from([*starts, ""]))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 3))
        text = text[:at] + draw(_PIECES) + text[at + cut :]
    return field, text


def _runtime_reads(uri: str) -> None:
    """Take a URI apart as workers do; raises for what they refuse."""
    location = Location.parse(uri)
    if location.scheme in ("file", "pvc"):
        locate(location, Paths())
    if location.scheme == "oci":
        Reference.parse(location)


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.thorough)])
def test_plan_and_workers_take_what_validation_accepts(count: int) -> None:
    @settings(max_examples=count, deadline=None)
    @given(_addresses())
    def judge(drawn: tuple[str, str]) -> None:
        _is_taken_if_accepted(*drawn)

    judge()


def _is_taken_if_accepted(field: str, text: str) -> None:
    document = with_address(field, text)
    deployment = accepted(document)
    if deployment is None:
        return
    objects = [*plan(deployment, SETTINGS), *plan_gateway("default", [document], SETTINGS)]
    ports = [
        port["port"]
        for policy in objects
        if policy["kind"] == "NetworkPolicy"
        for rule in policy["spec"]["egress"]
        for port in rule.get("ports", ())
    ]
    assert all(1 <= port <= 65535 for port in ports)
    if field not in (KAFKA, NATS):
        _runtime_reads(text)


@pytest.mark.parametrize("field", FIELDS)
def test_the_search_finds_valid_and_invalid_addresses(field: str) -> None:
    """The property above holds for something: both verdicts come up for every field."""
    seen: set[bool] = set()

    @settings(max_examples=50, deadline=None, database=None, derandomize=True)
    @given(_addresses((field,)))
    def judge(drawn: tuple[str, str]) -> None:
        if len(seen) < 2:
            seen.add(accepted(with_address(*drawn)) is not None)

    judge()
    assert seen == {True, False}


def test_every_field_with_an_address_is_searched() -> None:
    from fourways_api.base import RULES_KEYWORD
    from fourways_api.crd import openapi_schema

    def scalars(schema: dict[str, Any], path: str) -> list[str]:
        own = [path] if RULES_KEYWORD in schema and schema["type"] == "string" else []
        inner = (scalars(s, f"{path}.{n}") for n, s in schema.get("properties", {}).items())
        return own + [p for found in inner for p in found]

    found = set(scalars(openapi_schema()["properties"]["spec"], "spec"))
    assert found - {"spec.image"} == set(FIELDS), "tests/oracle has the images"


Reads = Callable[[str], object]


@pytest.mark.parametrize("reads", [Address.parse, _runtime_reads])
def test_readers_agree_on_the_examples(reads: Reads) -> None:
    for document in good().values():
        reads(document["spec"]["model"]["uri"])
