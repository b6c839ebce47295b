"""`status` and `predict`, and what every command that queries a target has in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from typer.testing import Result

from fourways_cli import target_command
from fourways_cli.commands import COMMANDS
from fourways_cli.main import app
from fourways_cli.targets import Json, TargetError
from tests.kit.cli import CliRunner

CONTRACT = {
    "entityKey": {"name": "id", "type": "string"},
    "inputs": [{"name": "x", "type": "float64"}],
    "outputs": [{"name": "y", "type": "float64"}],
}


def deployed(name: str, mode: str, namespace: str = "team") -> Json:
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": "it answers"}
    return {
        "apiVersion": "fourways.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"contract": CONTRACT},
        "status": {"mode": mode, "conditions": [ready], "address": "http://gateway/v2"},
    }


class StoredTarget:
    """A Target with stored predictions: of every key whose number is even."""

    named_at_once = 2
    """How many missing keys the gateway names in one refusal."""

    def __init__(self) -> None:
        self.found = [
            deployed("price", "batch"),
            deployed("come-back", "realtime"),
            deployed("water", "streaming"),
            deployed("far", "batch", "other"),
        ]
        self.key_type = "BYTES"
        self.asked: list[str | None] = []

    def where(self, namespace: str | None) -> str:
        return f"here, {namespace}"

    def default_namespace(self) -> str:
        return "team"

    def deployments(self, namespace: str | None) -> list[Json]:
        self.asked.append(namespace)
        return [d for d in self.found if namespace in (None, d["metadata"]["namespace"])]

    def run(
        self, namespace: str, name: str, resume: str | None = None, priority: str | None = None
    ) -> str:
        raise AssertionError

    def rollback(self, namespace: str, name: str, run: str) -> str:
        raise AssertionError

    def gateway(
        self,
        namespace: str,
        path: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        if path.startswith("/predictions/"):
            key = path.rpartition("/")[2]
            if self._has(key):
                return {"deployment": "water", "key": key, "outputs": {"y": 1.0}, "version": "1"}
            raise TargetError("no prediction for that key", 404)
        if body is None:
            return {"inputs": [{"name": "id", "datatype": self.key_type}]}
        keys = body["inputs"][0]["data"]
        missing = [key for key in keys if not self._has(key)]
        if missing:
            document = {"missing": missing[: self.named_at_once]}
            raise TargetError(f"no prediction for {len(missing)} keys", 404, document)
        output = {"name": "y", "shape": [len(keys)], "data": [float(k) for k in keys]}
        return {"outputs": [output], "model_version": "1", "parameters": {"run": "r-1"}}

    def _has(self, key: Any) -> bool:
        return str(key).isdecimal() and int(key) % 2 == 0


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> StoredTarget:
    made = StoredTarget()
    monkeypatch.setattr(target_command, "choose_target", lambda state, choice: made)
    return made


def fourways(*args: str) -> Result:
    return CliRunner().invoke(app, [*args])


# ---------------------------------------------------------------- predict


def test_keys_with_a_prediction_are_answered_and_the_others_named(target: StoredTarget) -> None:
    done = fourways("predict", "price", "2", "1", "4", "3", "nokey", "[/x]")
    assert done.exit_code == 1
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(row[1], row[2]) for row in rows] == [("2", "y=2"), ("4", "y=4")]
    assert "no prediction of price for 4 of 6 keys: '1', '3', 'nokey', '[/x]'" in done.stderr


def test_answers_for_programs_hold_the_keys_found(target: StoredTarget) -> None:
    done = fourways("predict", "price", "2", "1", "-o", "json")
    assert done.exit_code == 1
    (answer,) = json.loads(done.stdout)
    assert (answer["key"], answer["run"]) == ("2", "r-1")
    assert yaml.safe_load(fourways("predict", "price", "2", "-o", "yaml").stdout) == [answer]


def test_whole_numbers_are_keys_too(target: StoredTarget) -> None:
    target.key_type = "INT64"
    done = fourways("predict", "price", "2", "1")
    assert "1 of 2 keys: '1'" in done.stderr
    done = fourways("predict", "price", "two")
    assert (done.exit_code, "'two' is not a whole number" in done.stderr) == (2, True)


def test_no_key_found_prints_no_table(target: StoredTarget) -> None:
    done = fourways("predict", "price", "1")
    assert (done.exit_code, done.stdout) == (1, "")


def test_a_stream_s_stored_answers_are_looked_up_one_by_one(target: StoredTarget) -> None:
    done = fourways("predict", "water", "2", "1")
    assert done.exit_code == 1
    assert "y=1" in done.stdout
    assert "1 of 2 keys: '1'" in done.stderr


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [("come-back", 404, "no features of that key"), ("come-back", 400, "x: must be a number")],
)
def test_a_key_that_is_refused_costs_no_other_its_answer(
    target: StoredTarget, monkeypatch: pytest.MonkeyPatch, name: str, code: int, reason: str
) -> None:
    answering = target.gateway

    def refusing(namespace: str, path: str, body: Json | None = None, **more: Any) -> Json:
        if body is not None and body["inputs"][0]["data"] == ["1"]:
            raise TargetError(reason, code)
        return answering(namespace, path, body)

    monkeypatch.setattr(target, "gateway", lambda n, p, b=None, h=None: refusing(n, p, b))
    done = fourways("predict", name, "1", "2", "--input", "x=7")
    assert done.exit_code == 1
    assert "y=2" in done.stdout
    assert f"for 1 of 2 keys: '1' ({reason})" in done.stderr


def test_an_event_without_an_answer_costs_no_other_key_its_answer(
    target: StoredTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = target.gateway

    def pending(namespace: str, path: str, body: Json | None = None, **more: Any) -> Json:
        if body is not None and body["inputs"][0]["data"] == ["1"]:
            return {"status": "accepted"}
        return answering(namespace, path, body)

    monkeypatch.setattr(target, "gateway", lambda n, p, b=None, h=None: pending(n, p, b))
    done = fourways("predict", "water", "1", "2", "--input", "x=7")
    assert done.exit_code == 1
    assert "y=2" in done.stdout
    assert "'1' (published as an event, without a prediction yet: try again later)" in done.stderr


def test_a_server_that_is_away_ends_the_command(
    target: StoredTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any) -> Json:
        raise TargetError("the model server is away", 503)

    monkeypatch.setattr(target, "gateway", away)
    done = fourways("predict", "come-back", "1", "2")
    assert (done.exit_code, done.stderr) == (1, "the model server is away\n")


def test_batch_takes_no_inputs(target: StoredTarget) -> None:
    done = fourways("predict", "price", "2", "--input", "x=7")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "price is a batch deployment" in done.stderr


def test_an_unknown_input_is_refused_with_the_known_ones(target: StoredTarget) -> None:
    done = fourways("predict", "come-back", "2", "--input", "z=7")
    assert done.exit_code == 2
    assert "z is not an input; there are: x" in done.stderr


@pytest.mark.parametrize("keys", [("1",), ("1", "2")])
def test_an_input_that_breaks_the_contract_is_invalid(
    target: StoredTarget, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    def refusing(*args: Any) -> Json:
        raise TargetError("x: 7 is above 5", 400)

    monkeypatch.setattr(target, "gateway", refusing)
    done = fourways("predict", "come-back", *keys, "--input", "x=7")
    assert (done.exit_code, done.stdout) == (2, "")
    which = "'1': x: 7 is above 5" if len(keys) == 1 else "2 of 2 keys: '1', '2' (x: 7 is above 5)"
    assert done.stderr == f"no prediction of come-back for {which}\n"


def test_an_input_that_is_given_twice_is_refused(target: StoredTarget) -> None:
    done = fourways("predict", "come-back", "2", "--input", "x=1", "--input", "x=2")
    assert done.exit_code == 2
    assert "x is given twice" in done.stderr


def test_an_input_has_the_type_of_the_contract(
    target: StoredTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A postal code needs no quotes for the shell within quotes for JSON."""
    monkeypatch.setitem(CONTRACT, "inputs", [{"name": "x", "type": "string"}])
    sent = []

    def gateway(namespace: str, path: str, body: Any = None, headers: Any = None) -> Json:
        sent.append(body["inputs"][1]["data"])
        return {"outputs": [], "model_version": "1"}

    monkeypatch.setattr(target, "gateway", gateway)
    for text in ("12345", '"12345"', "true", "plain", "[1]", "null"):
        assert fourways("predict", "come-back", "2", "--input", f"x={text}").exit_code == 0
    assert sent == [["12345"], ["12345"], ["true"], ["plain"], ["[1]"], ["null"]]


@pytest.mark.parametrize("key", ["1_000", "+2", "\u0968", " 2", "2.0", "9" * 30])
def test_a_whole_number_as_key_is_what_every_reader_takes_for_one(
    target: StoredTarget, key: str
) -> None:
    target.key_type = "INT64"
    assert fourways("predict", "price", "2").exit_code == 0
    done = fourways("predict", "price", key)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is not a whole number" in done.stderr


@pytest.mark.parametrize(
    "command", ["predict", "list-runs", "start-run", "rollback", "rejects", "status"]
)
def test_an_unknown_deployment_is_refused_with_the_known_ones(
    target: StoredTarget, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "gateway", lambda *_, **__: {"runs": []})
    done = fourways(command, "nosuch", *(["k"] if command == "predict" else []))
    assert done.exit_code == 1
    assert done.stdout == ""
    message = "no ModelDeployment nosuch in namespace team; there are: come-back, price, water"
    assert message in done.stderr


# ---------------------------------------------------------------- status


def test_every_output_format_is_what_it_says(target: StoredTarget) -> None:
    documents = target.deployments("team")
    items = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": documents}
    assert json.loads(fourways("status", "-o", "json").stdout) == items
    assert yaml.safe_load(fourways("status", "-o", "yaml").stdout) == items
    price = next(d for d in documents if d["metadata"]["name"] == "price")
    assert json.loads(fourways("status", "price", "-o", "json").stdout) == price
    assert yaml.safe_load(fourways("status", "price", "-o", "yaml").stdout) == price
    names = fourways("status", "-o", "name").stdout.splitlines()
    assert names[0] == "modeldeployment.fourways.dev/price"
    assert "http://gateway/v2" in fourways("status", "-o", "wide").stdout
    assert "http://gateway/v2" not in fourways("status").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("list-runs", "m"),
        ("compare-runs", "m", "a", "b"),
        ("rejects", "m"),
        ("predict", "m", "k"),
    ],
)
@pytest.mark.parametrize("output", ["xml", "jsonpath={.a}", ""])
def test_an_unknown_output_format_is_refused(
    target: StoredTarget, arguments: tuple[str, ...], output: str
) -> None:
    done = fourways(*arguments, "-o", output)
    assert done.exit_code == 2
    assert "table" in done.output


def test_all_namespaces_are_listed_with_their_names(target: StoredTarget) -> None:
    done = fourways("status", "-A")
    assert target.asked == [None]
    assert "Namespace" in done.stdout
    assert {"team", "other"} <= set(done.stdout.split())
    assert "Namespace" not in fourways("status").stdout
    assert fourways("status", "price", "-A").exit_code == 2


def test_n_goes_before_the_target_s_own_namespace(target: StoredTarget) -> None:
    fourways("status")
    fourways("status", "-n", "other")
    assert target.asked == ["team", "other"]


def test_no_deployments_are_said_to_be_none(target: StoredTarget) -> None:
    done = fourways("status", "-n", "empty")
    assert (done.exit_code, done.stdout) == (0, "no ModelDeployments in namespace empty\n")
    assert json.loads(fourways("status", "-n", "empty", "-o", "json").stdout)["items"] == []
    assert yaml.safe_load(fourways("status", "-n", "empty", "-o", "yaml").stdout)["items"] == []


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "m.yaml", "--port", "99999"),
        ("up", "m.yaml", "--port", "0"),
        ("up", "m.yaml", "--port", "-1"),
        ("start-run", "m", "--wait", "-1"),
        ("start-run", "m", "--wait", "nan"),
        ("start-run", "m", "--wait", "inf"),
        ("start-run", "m", "--wait", "soon"),
        ("rollback", "m", "--wait", "-0.5"),
        ("rollback", "m", "--wait", "nan"),
        ("predict", "m", "k", "--wait", "-1"),
        ("predict", "m", "k", "--wait", "3600"),
        ("rejects", "m", "--limit", "0"),
        ("rejects", "m", "--limit", "10001"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_option(arguments: tuple[str, ...]) -> None:
    done = fourways(*arguments)
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert arguments[-2] in done.output


@pytest.mark.parametrize("name", ["", *(COMMANDS)])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_and_its_exit_codes_are_everywhere(name: str, option: str) -> None:
    done = fourways(*filter(None, [name]), option)
    assert done.exit_code == 0
    assert "Exit codes: 0 done; 1 not done" in done.output


def test_the_version_is_shown() -> None:
    done = fourways("--version")
    assert (done.exit_code, done.output.split()[0]) == (0, "fourways")
