"""A user's text passes every layer between manifest and worker, or is refused by its field's name.

The layers: YAML, the plan, Kubernetes' expansion of environment variables, KServe's templates, and
the embedded host. What a worker reads is compared with what was written.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from fourways_api import (
    EdgeConfig,
    GatewayConfig,
    InvalidSpec,
    ModelDeployment,
    Paths,
    RuntimeConfig,
    ServerConfig,
    StreamConfig,
    check,
    dump_yaml,
    load_documents,
    parse,
)
from fourways_api.base import SKIP_RULES
from fourways_api.runtime_config import CONFIG_VARIABLE
from fourways_cli.embedded import workloads
from fourways_operator import modes
from fourways_operator.facts import Json
from fourways_operator.plan import worker
from fourways_operator.plan.edge import without_descriptions
from tests.bad_manifests.cases import change
from tests.kit.planned import containers, planned

_SPECIAL = [
    *["$", "$$", "$$$", "$$$$", "$(", "$)", "$()", "$(HOME)", "$$(HOME)", "$$$(HOME)", "${HOME}"],
    *["$HOME", "$(FOURWAYS_CONFIG)", "$(FOURWAYS_RUN)", "$(a", "$(a$(HOME))", "$((1+1))", "$'x'"],
    *["{{", "}}", "{{.Name}}", "{{ .Namespace }}", "{{{", "{{{{", "{{`x`}}", "{%x%}", "{", "{{/*"],
    *["`id`", "'", '"', "'\"'", "\\", "\\\\", "\\$", "\\u0024", "\\n", "\\{{", "\\\\$(HOME)"],
    *["%s", "%(keys)s", "%", "%%", "%41", "%2e%2e", "*", "?", "[", "]", "[a]", "~", "#", ";", "|"],
    *["&", "&&", ">", "<", "<b>", "!", "!!", "!!str", "&a", "*a", "@", "- a", ": ", "a: b", "? a"],
    *["null", "true", "no", "~", "1", "1.0", "1e3", "0x10", "0o7", "1_000", ".inf", ".nan", "="],
    *["2024-01-01", "1:30", "<<", "---", "...", "--", "-", "|-", ">-", "%YAML 1.1", "#c", "a #b"],
    *["\n", "\r", "\r\n", "\t", " ", "  a  ", "\na", "a\n", "a\nb", "a\tb", "a\n\n", "\u00a0"],
    *["\x01", "\x07", "\x08", "\x0b", "\x1b[31m", "\x7f", "\x80", "\x85", "\x9b", "\u2028"],
    *["\u2029", "\u200b", "\u200f", "\u202e", "\u2066", "\ufeff", "\ufffd", "\ufffe", "\U000e0001"],
    *[
        "é",
        "e\u0301",
        "ß",
        "Ω",
        "漢字",
        "עברית",
        "العربية",
        "🙂",
        "👩\u200d👩",
        "\U0010ffff",
        "ﬀ",
        "K",
    ],
    *["../..", "/etc/passwd", "a/../b", "C:\\x", "'; DROP TABLE t; --", "1 OR 1=1", "$1", ":x"],
    *["[/x]", "[red]x", "<script>", "&amp;", "]]>", "{}", "[]", "{'a': 1}", '{"a": 1}', "a,b", ","],
]


def hostile() -> list[str]:
    """Return the special texts, and pairs of them, some inside other text."""
    pairs = [f"{a}{b}" for a, b in itertools.product(_SPECIAL[:29:2], _SPECIAL[29::17])]
    inside = [f"a{text}b" for text in _SPECIAL[:60:2]]
    return list(dict.fromkeys([*_SPECIAL, *pairs, *inside]))


TEXTS = hostile()

_DATABASE = {"secretName": "d"}
_FEATURES = {"database": _DATABASE, "query": "select 1", "defaults": [{"name": "x", "text": "a"}]}

MANIFEST: Json = {
    "apiVersion": "fourways.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "m", "namespace": "demo", "uid": "u", "generation": 1},
    "spec": {
        "mode": "batch",
        "model": {"uri": "pvc://data/m.onnx", "version": "1"},
        "contract": {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "x", "type": "string", "categories": ["a"], "tensor": "t"}],
            "outputs": [{"name": "y", "type": "string", "reduce": "ArgMax", "categories": ["a"]}],
            "goldenVectors": {"uri": "file:///g"},
        },
        "batch": {
            "schedule": "@daily",
            "source": {"uri": "pvc://data/t", "filter": [{"column": "c", "values": ["a"]}]},
            "sink": {"files": {"uri": "pvc://out/a"}},
        },
        "realtime": {"features": copy.deepcopy(_FEATURES)},
        "streaming": {"source": {"nats": {"servers": "nats://n", "stream": "S", "subject": "s"}}},
        "edge": {
            "targets": [{"name": "t", "budget": {"sizeMiB": 1, "memoryMiB": 1, "latencyMs": 1}}],
            "signing": {"secretName": "k"},
            "publish": "pvc://out/b",
            "features": copy.deepcopy(_FEATURES),
        },
    },
}
"""A valid manifest with settings of every mode."""

QUERY = {"query": {"database": _DATABASE, "sql": "select 1"}}

FREE = (
    "spec.contract.inputs[0].categories",
    "spec.contract.inputs[0].description",
    "spec.contract.outputs[0].categories",
    "spec.contract.outputs[0].description",
    "spec.contract.outputs[0].tensor",
    "spec.batch.source.filter[0].values",
    "spec.realtime.features.query",
    "spec.realtime.features.defaults[0].text",
    "spec.edge.description",
    "spec.edge.features.query",
)
"""Fields that take any text."""

BOUND = (
    "spec.contract.outputs[0].name",
    "spec.contract.goldenVectors.uri",
    "spec.model.uri",
    "spec.model.version",
    "spec.batch.schedule",
    "spec.batch.timeZone",
    "spec.batch.source.uri",
    "spec.batch.source.filter[0].column",
    "spec.batch.sink.files.uri",
    "spec.batch.queueName",
    "spec.realtime.features.database.secretName",
    "spec.streaming.source.nats.servers",
    "spec.streaming.source.nats.stream",
    "spec.streaming.source.nats.subject",
    "spec.edge.publish",
    "spec.edge.targets[0].name",
    "spec.image",
)
"""Fields with a form of their own, which some of the texts have."""

_IN_PATHS = {
    "spec.model.uri": "pvc://data/a{}b.onnx",
    "spec.batch.sink.files.uri": "s3://out/a{}b",
    "spec.batch.source.uri": "https://h.example/a{}b",
    "spec.edge.publish": "pvc://out/a{}b",
    "spec.contract.goldenVectors.uri": "file:///a{}b",
}


def written(field: str, text: str) -> Any:
    """Return the value a field takes from a text."""
    if field in _IN_PATHS:
        return _IN_PATHS[field].format(text)
    return [text] if field.endswith(("categories", "values")) else text


def accepted(texts: dict[str, Any]) -> tuple[ModelDeployment, set[str]]:
    """Return the manifest with values for fields, and the fields that were refused by name."""
    left, refused = dict(texts), set[str]()
    while True:
        document = copy.deepcopy(MANIFEST)
        for field, value in left.items():
            change(document, field, value)
        try:
            deployment = parse(document)
            check(deployment)
        except InvalidSpec as refusal:
            wrong = {f for f in left for p in refusal.problems if p.field.startswith(f)}
            if not wrong:
                raise
            refused |= wrong
            left = {field: value for field, value in left.items() if field not in wrong}
        else:
            return deployment, refused


# ---------------------------------------------------------------- the layers


def kubelet(environment: list[Json], **known: str) -> dict[str, str]:
    """Expand variables as Kubernetes' third_party/forked/golang/expansion does."""
    for variable in environment:
        if "value" in variable:
            known[variable["name"]] = _expand(variable["value"], known)
    return known


def _expand(text: str, known: dict[str, str]) -> str:
    out, cursor, checkpoint = "", 0, 0
    while cursor < len(text):
        if text[cursor] == "$" and cursor + 1 < len(text):
            out += text[checkpoint:cursor]
            read, is_name, advance = _reference(text[cursor + 1 :])
            out += known.get(read, f"$({read})") if is_name else read
            cursor += advance
            checkpoint = cursor + 1
        cursor += 1
    return out + text[checkpoint:]


def _reference(text: str) -> tuple[str, bool, int]:
    if text[0] == "$":
        return text[0], False, 1
    if text[0] == "(":
        end = text.find(")", 1)
        return ("$(", False, 1) if end < 0 else (text[1:end], True, end + 1)
    return f"${text[0]}", False, 1


def in_mode(deployment: ModelDeployment, mode: str) -> ModelDeployment:
    """Return the deployment in another mode: settings of all are there."""
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"mode": mode})})


_KINDS = {
    "batch": RuntimeConfig,
    "realtime": ServerConfig,
    "streaming": StreamConfig,
    "edge": EdgeConfig,
}


def compare(deployment: ModelDeployment, config: str) -> None:
    """Compare what a worker reads with the spec."""
    spec, mode = deployment.spec, deployment.spec.mode
    told: Any = _KINDS[mode].model_validate_json(config, context=SKIP_RULES)
    # A bundle's contract has no descriptions: a change of one must not build it again.
    contract = without_descriptions(spec.contract) if mode == "edge" else spec.contract
    assert (told.model, told.contract) == (spec.model, contract)
    if mode == "realtime":
        assert spec.realtime
        assert told.features == spec.realtime.features
    elif mode == "streaming":
        assert spec.streaming
        assert told.streaming.source == spec.streaming.source
    elif mode == "edge":
        assert spec.edge
        assert told.edge == spec.edge.model_copy(update={"description": None})
    else:
        assert getattr(told, mode) == getattr(spec, mode)


def compare_route(deployment: ModelDeployment) -> None:
    """Compare what the gateway reads with the route it is to have."""
    route = modes.MODES[deployment.spec.choice().mode].route(deployment, None)
    config = GatewayConfig(namespace="demo", routes=(route,) if route else ())
    told = kubelet([worker.variable(config)], HOME="/root")[CONFIG_VARIABLE]
    assert GatewayConfig.model_validate_json(told, context=SKIP_RULES) == config


def embedded(objects: list[Json]) -> Iterator[str]:
    """Yield the configurations that processes of `fourways up` get."""
    paths = Paths()
    for cron in workloads.cron_jobs(objects):
        template = cron.planned["spec"]["jobTemplate"]
        job = {"metadata": cron.planned["metadata"], "spec": template["spec"]}
        yield workloads.document(workloads.batch_job(job, "r", paths).config)
    for local in workloads.jobs(objects, paths):
        yield workloads.document(local.config)
    for server in workloads.servers(objects, paths, lambda: 1):
        yield workloads.document(server.config)


MODES = ("batch", "realtime", "streaming", "edge")


def test_there_are_enough_texts() -> None:
    assert len(TEXTS) >= 300


@pytest.mark.parametrize("mode", MODES)
def test_all_texts_at_once_pass_every_layer(mode: str) -> None:
    lists = {f: TEXTS for f in FREE if f.endswith("categories")}
    values = [t for t in TEXTS if t.isascii()][:128]
    deployment, refused = accepted({**lists, "spec.batch.source.filter[0].values": values})
    assert not refused
    deployment = in_mode(deployment, mode)
    objects = planned(deployment)
    assert load_documents(dump_yaml(*objects)) == objects
    sent = json.loads(json.dumps(objects))
    found = list(containers(sent))
    assert found
    for container in found:
        compare(deployment, kubelet(container["env"], HOME="/root")[CONFIG_VARIABLE])
    local = list(embedded(sent))
    assert local
    for config in local:
        compare(deployment, config)


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.thorough)])
def test_each_text_arrives_in_each_field_or_is_refused_by_name(step: int) -> None:
    arrived = dict.fromkeys((*FREE, *BOUND), 0)
    turns = range(0, len(TEXTS), step)
    for turn in turns:
        # A refusal costs another round of validation, so the fields that refuse get a third.
        fields = FREE if turn % 3 else (*FREE, *BOUND)
        # No two fields take the same text at a time.
        texts = {f: written(f, TEXTS[(turn + 11 * n) % len(TEXTS)]) for n, f in enumerate(fields)}
        deployment, refused = accepted(texts)
        for field in fields:
            arrived[field] += field not in refused
        for mode in MODES:
            there = in_mode(deployment, mode)
            compare_route(there)
            for container in containers(planned(there)):
                assert "{{" not in json.dumps(container), "KServe fills in templates"
                compare(there, kubelet(container["env"], HOME="/root")[CONFIG_VARIABLE])
    assert {f: arrived[f] for f in FREE} == dict.fromkeys(FREE, len(turns))
    assert all(arrived[f] > len(turns) // 12 for f in _IN_PATHS), arrived


@pytest.mark.parametrize("text", TEXTS[::7])
def test_sql_arrives_as_it_was_written(text: str) -> None:
    sql = f"select '{text}' as x"
    deployment, refused = accepted({"spec.batch.source": QUERY, "spec.batch.source.query.sql": sql})
    assert not refused
    (container,) = containers(planned(deployment))
    compare(deployment, kubelet(container["env"], HOME="/root")[CONFIG_VARIABLE])
    assert (
        json.loads(kubelet(container["env"], HOME="/root")[CONFIG_VARIABLE])["batch"]["source"][
            "query"
        ]["sql"]
        == sql
    )


def test_the_embedded_host_expands_as_the_kubelet_does() -> None:
    for text in TEXTS:
        earlier = {"name": "HOME", "value": "/home"}
        container = {"env": [earlier, {"name": "V", "value": text}]}
        assert workloads.values_of(container)["V"] == kubelet(container["env"])["V"]
