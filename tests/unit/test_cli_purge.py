"""``fourways purge``: what it lists, what it removes, and what it never touches."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fourways_api import PurgeConfig, parse
from fourways_cli import jobs, target_command
from fourways_cli.embedded.control import RequestRefused
from fourways_cli.embedded.host import Host
from fourways_cli.embedded.ports import free_port
from fourways_cli.embedded.state import lay_out
from fourways_cli.main import app
from fourways_cli.targets import Json, PurgeRequest
from fourways_operator.planning import plan_gateway
from fourways_operator.pods import config_text
from fourways_runtime.io.store import Owners, open_run_store
from tests.kit.cli import CliRunner
from tests.kit.planned import SETTINGS
from tests.kit.stores import a_run, predictions, publish

CHURN: Json = {
    "apiVersion": "fourways.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "churn", "namespace": "shop"},
    "spec": {
        "mode": "batch",
        "model": {"uri": "pvc://models/churn.onnx", "version": "1"},
        "contract": {
            "entityKey": {"name": "customer"},
            "inputs": [{"name": "orders", "type": "int32"}],
            "outputs": [{"name": "probability", "type": "float32"}],
        },
        "batch": {"schedule": "0 3 * * *", "source": {"uri": "pvc://data/customers.parquet"}},
    },
}


def stored(uid: str, rows: int) -> Json:
    return {"uid": uid, "since": "2026-01-02T03:04:05Z", "runs": 1, "rows": rows}


class MemoryTarget:
    def __init__(self, current: str | None) -> None:
        self.current = current
        self.data = [stored("old", 7), stored("older", 1_000), stored("now", 5)]
        self.removed: list[str] = []

    def default_namespace(self) -> str:
        return "default"

    def data_uid(self, namespace: str, name: str) -> str | None:
        assert (namespace, name) == ("shop", "churn")
        return self.current

    def purge(self, request: PurgeRequest) -> list[Json]:
        self.removed += request.uids
        return [d for d in self.data if not request.uids or d["uid"] in request.uids]


def _run(monkeypatch: pytest.MonkeyPatch, target: MemoryTarget, *args: str) -> Any:
    monkeypatch.setattr(target_command, "choose_target", lambda *_: target)
    return CliRunner().invoke(app, ["purge", *args])


def test_it_only_lists_without_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    target = MemoryTarget("now")
    result = _run(monkeypatch, target, "shop/churn")
    assert result.exit_code == 0, result.output
    assert "older" in result.output
    assert "1,000" in result.output
    assert "repeat with --yes" in result.output
    assert "now" not in result.output.split()
    assert target.removed == []


def test_with_yes_it_removes_all_but_what_exists_now(monkeypatch: pytest.MonkeyPatch) -> None:
    target = MemoryTarget("now")
    assert _run(monkeypatch, target, "shop/churn", "--yes").exit_code == 0
    assert target.removed == ["old", "older"]


def test_one_uid_can_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    target = MemoryTarget(None)
    assert _run(monkeypatch, target, "shop/churn", "--yes", "--uid", "older").exit_code == 0
    assert target.removed == ["older"]


@pytest.mark.parametrize("name", ["churn", "/churn", "shop/", "a/b/c"])
def test_a_name_needs_its_namespace(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    result = _run(monkeypatch, MemoryTarget(None), name)
    assert result.exit_code == 2
    assert "NAMESPACE/NAME" in result.output


CONFIG = PurgeConfig(namespace="shop", name="churn", uids=("old",))


def test_the_job_has_the_gateway_s_image_and_store() -> None:
    objects = plan_gateway(
        "shop", [{**CHURN, "metadata": CHURN["metadata"] | {"uid": "u"}}], SETTINGS
    )
    gateway = next(o for o in objects if o["kind"] == "Deployment")["spec"]["template"]
    job = jobs.purge_job(CONFIG, gateway, None, None)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == SETTINGS.runtime_image
    assert pod["volumes"][0]["secret"]["secretName"] == SETTINGS.store_secret
    assert PurgeConfig.model_validate_json(config_text(job)) == CONFIG
    assert job["metadata"]["generateName"] == "churn-purge-"
    gateway["spec"]["imagePullSecrets"] = [{"name": "registry"}]
    job = jobs.purge_job(CONFIG, gateway, None, None)
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_a_namespace_without_gateway_needs_the_image() -> None:
    with pytest.raises(jobs.NoImage, match="--image"):
        jobs.purge_job(CONFIG, None, None, None)
    job = jobs.purge_job(CONFIG, None, "ours:1", "our-store")
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "ours:1"
    assert pod["volumes"][0]["secret"]["secretName"] == "our-store"


@pytest.mark.thorough
def test_a_host_keeps_a_name_s_uid_until_its_data_is_removed(tmp_path: Path) -> None:
    def host(name: str = "churn") -> Host:
        made = parse({**CHURN, "metadata": CHURN["metadata"] | {"name": name}})
        return Host([made], tmp_path, volumes={}, secrets={}, port=free_port())

    key = ("shop", "churn")
    first = host()
    uid = first.data_uid(key)
    assert uid is not None
    assert host().data_uid(key) == uid
    lay_out(tmp_path, {}, {})
    uri = f"sqlite:///{tmp_path}/store.db"
    with closing(open_run_store(uri, Owners("shop", {"churn": uid}))) as store:
        publish(store, a_run("shop"), predictions([1, 2]))
    with pytest.raises(RequestRefused, match="runs here"):
        asyncio.run(first.purge(key, [uid]))
    without = host("other")
    listed = asyncio.run(without.purge(key, []))
    assert [(data["uid"], data["rows"]) for data in listed] == [(uid, 2)]
    asyncio.run(without.purge(key, [uid]))
    assert asyncio.run(without.purge(key, [])) == []
    assert host().data_uid(key) not in (uid, None)
