"""The text of a first manifest: YAML with comments that say what to decide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fourways_api import Mode
from fourways_api.deployment import API_VERSION, KIND
from fourways_api.display import displayed
from fourways_api.yaml_text import flow_yaml

from .inputs import DraftInputs
from .outputs import DraftOutput

_WIDTH = 100
_COMMENT = 300
_DECIDE = "TO DECIDE: "


@dataclass(frozen=True, slots=True)
class Written:
    """Everything that the text says."""

    name: str
    mode: Mode
    model: dict[str, Any]
    inputs: DraftInputs
    outputs: Sequence[DraftOutput]
    source: dict[str, Any] | None
    """The batch source."""

    golden: dict[str, Any] | None
    tokenizer: dict[str, Any] | None = None
    profile: dict[str, Any] | None = None
    """The training profile."""

    notes: Sequence[str] = ()
    left_out: Sequence[str] = ()
    origin: str = ""
    """How the text was made."""


def manifest_text(said: Written) -> str:
    """Write the manifest."""
    return "\n".join(line.rstrip() for line in _lines(said)) + "\n"


def _lines(said: Written) -> Iterator[str]:
    yield from _comment(0, said.origin)
    yield from _comment(
        0,
        "It runs as it is: fourways up FILE. Comments with TO DECIDE name what the model and the"
        " sample do not say. Every field: kubectl explain modeldeployment.spec, or"
        " docs/reference/modeldeployment.md.",
    )
    yield f"apiVersion: {API_VERSION}"
    yield f"kind: {KIND}"
    yield "metadata:"
    yield f"  name: {flow_yaml(said.name)}"
    yield "spec:"
    yield f"  mode: {said.mode}"
    yield "  model:"
    yield from _comment(
        4,
        "Relative to this file, for `fourways up`. TO DECIDE before a cluster reads it: a URI such"
        " as s3://BUCKET/PATH or pvc://CLAIM/PATH.",
    )
    yield from _block(4, said.model)
    for note in said.notes:
        yield from _comment(4, f"The file says: {note}")
    yield "  contract:"
    yield from _key(said.inputs)
    yield "    inputs:"
    for decision in said.inputs.decisions:
        yield from _comment(6, _DECIDE + decision)
    if any(each.range for each in said.inputs.fields):
        yield from _comment(
            6,
            _DECIDE + "ranges are those that were seen, widened by their own width. A value outside"
            " of a range is rejected, with its name and the bound.",
        )
    if any(each.categories for each in said.inputs.fields):
        yield from _comment(6, _DECIDE + "a text that is not among the categories is rejected.")
    for spec, comment in said.inputs.specs():
        yield from _comment(6, comment)
        yield f"      - {flow_yaml(spec)}"
    yield "    outputs:"
    for output in said.outputs:
        yield from _comment(6, output.comment)
        yield f"      - {flow_yaml(output.spec())}"
    for left_out in said.left_out:
        yield from _comment(6, f"Left out: {left_out}")
    if said.tokenizer is not None:
        yield "    tokenizer:"
        yield from _block(6, said.tokenizer)
    yield from _golden(said)
    yield from _monitoring(said)
    yield from _settings(said)
    yield from _comment(2, _DECIDE + "cores and memory of each worker (requests and limits).")
    yield "  resources:"
    yield '    cpu: "1"'
    yield f"    memory: {_memory(said)}"


def _key(inputs: DraftInputs) -> Iterator[str]:
    yield "    entityKey:"
    if inputs.key_column is None:
        yield from _comment(
            6,
            _DECIDE + "the column that identifies what a prediction is about, such as a customer"
            " number; predictions are stored and looked up by it.",
        )
    else:
        yield from _comment(6, _DECIDE + "the sample has a value of its own here in every row.")
    yield f"      name: {flow_yaml(inputs.key_name)}"
    yield f"      type: {inputs.key_type}"


def _golden(said: Written) -> Iterator[str]:
    if said.golden is None:
        yield from _comment(
            4,
            _DECIDE + "known inputs with their outputs, without which a wrong model file is not"
            " noticed. `fourways init --sample TABLE` records them.",
        )
        yield "    # goldenVectors: {uri: golden.jsonl}"
        return
    yield from _comment(
        4, "What the model answers to rows of the sample. A model with other outputs is not used."
    )
    yield "    goldenVectors:"
    yield from _block(6, said.golden)


def _monitoring(said: Written) -> Iterator[str]:
    if said.profile is None:
        return
    yield from _comment(
        2,
        _DECIDE + "whether the sample is distributed as the training data. Scored records are"
        " compared with it, and the condition Drifted says whether they differ.",
    )
    yield "  monitoring:"
    yield "    profile:"
    yield from _block(6, said.profile)


def _settings(said: Written) -> Iterator[str]:
    match said.mode:
        case "batch":
            yield "  batch:"
            yield from _comment(4, _DECIDE + "when to score: minute, hour, day, month, weekday.")
            yield '    schedule: "0 3 * * *"'
            yield "    source:"
            yield from _block(6, said.source or {})
            yield from _comment(4, _DECIDE + "how many rows may be rejected before a run fails.")
            yield '    maxRejects: "1%"'
        case "realtime":
            yield "  realtime:"
            yield from _comment(4, _DECIDE + "how long a caller waits.")
            yield "    timeout: 1s"
            yield "    minReplicas: 1"
            yield "    maxReplicas: 1"
        case "streaming":
            yield "  streaming:"
            yield "    source:"
            yield from _comment(
                6,
                _DECIDE + "the broker, as nats or kafka. `fourways up` starts a NATS server and"
                " makes the stream.",
            )
            yield "      nats:"
            yield "        servers: nats://nats:4222"
            yield f"        stream: {flow_yaml(said.name.upper())}"
            yield f"        subject: {flow_yaml(said.name + '.events')}"
            yield from _comment(4, _DECIDE + "how old a stored prediction may be.")
            yield "    freshness: 1h"
        case "edge":
            yield from _edge(said.name)


def _edge(name: str) -> Iterator[str]:
    yield "  edge:"
    yield "    targets:"
    yield from _comment(6, _DECIDE + "the kinds of device, and what a bundle may take of each.")
    yield "      - name: device"
    yield "        platform: linux/amd64"
    yield "        budget: {sizeMiB: 512, memoryMiB: 1024, latencyMs: 1000}"
    yield "    signing:"
    yield from _comment(6, "A Secret with signing-key.pem; `fourways up` makes one.")
    yield f"      secretName: {flow_yaml(name + '-signing')}"
    yield "    publish: bundles/"


def _memory(said: Written) -> str:
    """Return four times the size of a large model, and a gibibyte for others."""
    return f"{max(1, -(-said.model.get('maxSizeMiB', 0) * 2 // 1024))}Gi"


def _block(indent: int, values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        yield f"{' ' * indent}{name}: {flow_yaml(value)}"


def _comment(indent: int, text: str) -> Iterator[str]:
    """Yield comment lines; the text may quote names and labels of a model or a table."""
    margin = " " * indent + "# "
    for line in textwrap.wrap(
        displayed(text, _COMMENT), _WIDTH - len(margin), break_on_hyphens=False
    ):
        yield margin + line
