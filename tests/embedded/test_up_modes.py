"""Each mode under `fourways up`: wrong things are named, dead workers come back, none is left."""

import asyncio
import copy
import hashlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import nats
import nats.errors
import orjson
import pytest
import yaml

from fourways_api.audience import DEPLOYMENTS_KEY, EVERY_DEPLOYMENT
from fourways_cli.embedded.control import ask
from fourways_cli.embedded.ports import free_port
from tests.kit import parity
from tests.kit.hosts import Up, await_settled, conditions, patiently
from tests.kit.runtime_process import everywhere
from tests.kit.secret_files import secret_folder
from tests.kit.stream_rig import NatsServer
from tests.kit.waiting import until
from tools.demo.questions import ARTIFACTS, CLAIM, EXAMPLES, SHOP_SECRET

pytestmark = [pytest.mark.embedded, pytest.mark.usefixtures("examples_complete")]

Json = dict[str, Any]

NOT_THERE = "sha256:" + "0" * 64


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    broken = tmp_path / "broken"
    broken.mkdir()
    shop = shutil.copytree(EXAMPLES / "secrets" / SHOP_SECRET, tmp_path / "shop")
    (shop / DEPLOYMENTS_KEY).write_text(EVERY_DEPLOYMENT)
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    (nowhere / "uri").write_text(f"sqlite:///{tmp_path / 'no-such.db'}")
    (nowhere / DEPLOYMENTS_KEY).write_text(EVERY_DEPLOYMENT)
    with Up(
        tmp_path / "state",
        volumes={CLAIM: ARTIFACTS, "broken": broken},
        secrets={SHOP_SECRET: shop, "nowhere": nowhere},
    ) as host:
        yield host


def churn(mode: str) -> Json:
    return copy.deepcopy(parity.documents()[mode])


def come_back() -> Json:
    document: Json = yaml.safe_load((EXAMPLES / "come-back.yaml").read_text())
    return document


def named(document: Json, name: str) -> Json:
    document["metadata"]["name"] = name
    return document


def write(folder: Path, *documents: Json) -> Path:
    manifest = folder / "manifest.yaml"
    manifest.write_text(yaml.safe_dump_all(documents))
    return manifest


# ---------------------------------------------------------------- wrong things, named


def bad_digest(document: Json, folder: Path) -> None:
    document["spec"]["model"]["digest"] = NOT_THERE


def truncated(document: Json, folder: Path) -> None:
    whole = (ARTIFACTS / "churn" / "model.onnx").read_bytes()
    (folder / "broken" / "model.onnx").write_bytes(whole[: len(whole) // 2])
    digest = hashlib.sha256(whole[: len(whole) // 2]).hexdigest()
    document["spec"]["model"] |= {
        "uri": "pvc://broken/model.onnx",
        "digest": f"sha256:{digest}",
    }


def another_input(document: Json, folder: Path) -> None:
    document["spec"]["contract"]["inputs"][0]["name"] = "days_since_first"


def other_answers(document: Json, folder: Path) -> None:
    lines = parity.GOLDEN.read_text().splitlines()
    vectors = [orjson.loads(line) for line in lines]
    vectors[3]["outputs"]["churn_probability"] = 0.123456
    text = b"".join(orjson.dumps(v) + b"\n" for v in vectors)
    (folder / "broken" / "golden.jsonl").write_bytes(text)
    document["spec"]["contract"]["goldenVectors"] = {
        "uri": "pvc://broken/golden.jsonl",
        "digest": f"sha256:{hashlib.sha256(text).hexdigest()}",
    }


FAULTS: dict[str, Callable[[Json, Path], None]] = {
    "DigestMismatch": bad_digest,
    "ModelNotLoadable": truncated,
    "ContractMismatch": another_input,
    "GoldenMismatch": other_answers,
}


@pytest.mark.parametrize("mode", ["realtime", "streaming", "edge"])
def test_a_wrong_model_is_named_whatever_the_mode(up: Up, tmp_path: Path, mode: str) -> None:
    documents = []
    for reason, spoil in FAULTS.items():
        document = named(churn(mode), reason.lower())
        spoil(document, tmp_path)
        documents.append(document)
    up.start(write(tmp_path, *documents))
    said = await_settled(up.state, 60)
    found = {n: (c["Ready"]["status"], c["Degraded"]["reason"]) for n, c in said.items()}
    assert found == {reason.lower(): ("False", reason) for reason in FAULTS}, said
    assert all(c["ModelResolved"]["status"] == "False" for c in said.values())


def _impatient(folder: Path) -> dict[str, str]:
    """Return what has workers wait 4 s instead of 15 s for what they need to start."""
    return {"PYTHONPATH": everywhere(folder, {"fourways_runtime.retry.START_SECONDS": 4.0})}


def test_wrong_features_are_named(up: Up, tmp_path: Path) -> None:
    no_table = named(come_back(), "no-table")
    no_table["spec"]["realtime"]["features"]["table"] = "customers"
    no_database = named(come_back(), "no-database")
    no_database["spec"]["realtime"]["features"]["database"]["secretName"] = "nowhere"
    up.start(write(tmp_path, no_table, no_database), environment=_impatient(tmp_path))
    said = await_settled(up.state, 60)
    assert said["no-table"]["Degraded"]["reason"] == "FeaturesMismatch", said
    assert "customers" in said["no-table"]["Degraded"]["message"]
    assert said["no-database"]["Degraded"]["reason"] == "FeaturesUnavailable", said


def test_features_that_can_no_longer_be_read_end_ready_until_they_can(
    up: Up, tmp_path: Path
) -> None:
    document = come_back()
    database = tmp_path / "shop.db"
    shutil.copy(EXAMPLES / "artifacts" / "come-back" / "shop.db", database)
    secret_folder(tmp_path / "nowhere", uri=f"sqlite:///{database}")
    document["spec"]["realtime"]["features"]["database"]["secretName"] = "nowhere"
    up.start(write(tmp_path, document))
    name = document["metadata"]["name"]
    assert await_settled(up.state, 60)[name]["Ready"]["status"] == "True"

    def said(kind: str) -> str:
        (found,) = ask(up.state, {"do": "status"})["deployments"]
        condition = conditions(found)[kind]
        return f"{condition['status']} {condition['reason']}"

    with closing(sqlite3.connect(database, isolation_level=None)) as shop:
        shop.execute("ALTER TABLE customer_history RENAME TO elsewhere")
        until(lambda: said("Ready") == "False FeaturesUnavailable", "Ready names the cause")
        assert said("Degraded") == "True FeaturesUnavailable"
        shop.execute("ALTER TABLE elsewhere RENAME TO customer_history")
    until(lambda: said("Ready") == "True Answering", "it is Ready again by itself")
    assert said("Degraded") == "False AsExpected"


def test_a_feature_database_nobody_gave_is_asked_for(tmp_path: Path) -> None:
    manifest = write(tmp_path, come_back())
    done = subprocess.run(
        [sys.executable, "-m", "fourways_cli", "up", str(manifest), "--state", str(tmp_path / "s")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert f"--secret {SHOP_SECRET}=FOLDER" in done.stderr
    assert not (tmp_path / "s").exists()


def test_a_missing_stream_and_a_missing_broker_are_named(up: Up, tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    try:
        up.start(write(tmp_path, churn("streaming")), broker=server.url)
        said = await_settled(up.state, 40)["parity-streaming"]
        assert said["Degraded"]["reason"] == "TopicNotFound"
        assert "CUSTOMERS" in said["Degraded"]["message"]
        up.stop()
    finally:
        server.stop()
    up.start(write(tmp_path, churn("streaming")), broker=f"nats://127.0.0.1:{free_port()}")
    said = await_settled(up.state, 40)["parity-streaming"]
    assert said["Degraded"]["reason"] == "BrokerUnavailable"


def test_a_kafka_source_is_read_where_the_manifest_says(up: Up, tmp_path: Path) -> None:
    from tools.cluster.errors import ClusterError
    from tools.servers.kafka import kafka

    try:
        with kafka(["customers"], partitions=2) as servers:
            source = {"kafka": {"bootstrapServers": servers, "topic": "customers"}}
            there, gone = churn("streaming"), named(churn("streaming"), "gone")
            there["spec"]["streaming"]["source"] = source
            gone["spec"]["streaming"]["source"] = copy.deepcopy(source)
            gone["spec"]["streaming"]["source"]["kafka"]["topic"] = "nowhere"
            up.start(write(tmp_path, there, gone))
            said = await_settled(up.state, 60)
            assert said["parity-streaming"]["Ready"]["status"] == "True", said
            assert said["gone"]["Degraded"]["reason"] == "TopicNotFound", said
            assert not (up.state / "nats").exists()
            key, vector = next(iter(parity.vectors().items()))
            answer = infer(up, "parity-streaming", key, vector["inputs"])
            assert answer.status_code == 200, answer.text
            up.stop()
    except ClusterError as error:
        pytest.skip(f"no Kafka here: {error}")


def test_a_device_too_small_is_told_what_was_measured(up: Up, tmp_path: Path) -> None:
    document = churn("edge")
    document["spec"]["edge"]["targets"][0]["budget"]["memoryMiB"] = 5
    up.start(write(tmp_path, document))
    said = await_settled(up.state)["parity-edge"]
    assert said["Degraded"]["reason"] == "BudgetExceeded"
    assert "memory 5 MiB" in said["Degraded"]["message"]


# ---------------------------------------------------------------- life of processes


def test_workers_that_die_come_back(up: Up, tmp_path: Path) -> None:
    up.start(write(tmp_path, churn("realtime"), churn("streaming")))
    await_settled(up.state)
    before = workers(up)
    assert set(before) == {"serve", "stream", "gateway"}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = workers(up)
        return now.keys() == before.keys() and not set(before.values()) & set(now.values())

    until(
        lambda: replaced() and ready(up),
        "new workers answer",
        seconds=60,
        interval=0.1,
    )
    key, vector = next(iter(parity.vectors().items()))
    for mode in ("realtime", "streaming"):
        answer = infer(up, f"parity-{mode}", key, vector["inputs"])
        assert answer.status_code == 200, answer.text


def test_another_mode_leaves_nothing_of_the_one_before(up: Up, tmp_path: Path) -> None:
    everything: set[int] = set()
    for mode, program in (("streaming", "stream"), ("realtime", "serve"), ("batch", "gateway")):
        document = named(churn(mode), "churn")
        up.start(write(tmp_path, document))
        said = await_settled(up.state)
        assert said["churn"]["Ready"]["status"] == "True", said
        (status,) = ask(up.state, {"do": "status"})["deployments"]
        assert status["status"]["mode"] == mode
        assert program in workers(up)
        assert {"stream": "streaming", "serve": "realtime"}.keys() & workers(up).keys() <= {program}
        assert not any(Path(f"/proc/{pid}").exists() for pid in everything)
        everything = set(up.children())
        up.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in everything)


def test_a_killed_host_s_bundles_and_events_are_there_again(up: Up, tmp_path: Path) -> None:
    manifest = write(tmp_path, churn("streaming"), churn("edge"))
    up.start(manifest)
    await_settled(up.state)
    key, vector = next(iter(parity.vectors().items()))
    taken = infer(up, "parity-streaming", key, vector["inputs"], wait=0)
    assert taken.status_code == 202
    bundles = Path(up.state, "bundles")
    built = {p.relative_to(bundles) for p in bundles.rglob("index.json")}
    public = Path(up.state, "keys/device-signing/public-key.pem").read_bytes()
    up.stop()
    up.start(manifest)
    await_settled(up.state)
    place = f"{up.url}/predictions/parity-streaming/{key}"
    prefer = {"Prefer": "wait=20"}
    found = patiently(lambda: httpx.get(place, headers=prefer, timeout=30, trust_env=False))
    assert found.status_code == 200
    assert {p.relative_to(bundles) for p in bundles.rglob("index.json")} == built != set()
    assert Path(up.state, "keys/device-signing/public-key.pem").read_bytes() == public


def test_predict_answers_in_the_way_of_each_mode(up: Up, tmp_path: Path) -> None:
    flow: Json = yaml.safe_load((EXAMPLES / "water-flow.yaml").read_text())
    up.start(write(tmp_path, come_back(), flow, churn("edge")))
    await_settled(up.state)
    till = ("--input", "basket_dollars=20", "--input", "basket_discs=1")
    (said,) = orjson.loads(up.fourways("predict", "come-back", "01760", *till, "-o", "json"))
    assert 0.9 < said["outputs"]["come_back_probability"] <= 1
    before = orjson.dumps([100.0] * 72).decode()
    inputs = ("--input", "flow=24.2", "--input", "hour=5", "--input", f"before={before}")
    (said,) = orjson.loads(
        up.fourways(
            "predict", "water-flow", "2030-01-01T05Z", *inputs, "--wait", "20", "-o", "json"
        )
    )
    assert said["outputs"]["label"] == "strange"
    # It is stored now: the key alone finds it.
    (again,) = orjson.loads(up.fourways("predict", "water-flow", "2030-01-01T05Z", "-o", "json"))
    assert again["outputs"] == said["outputs"]
    assert "devices serve predictions" in up.refused("predict", "parity-edge", "golden-00")
    assert "only batch deployments have runs" in up.refused("start-run", "come-back")


# ---------------------------------------------------------------- for whom


async def test_what_the_host_opens_is_for_its_own_programs(up: Up, tmp_path: Path) -> None:
    up.state.mkdir()
    up.state.chmod(0o777)
    keys = tmp_path / "keys"
    made = ["key", "create", "me", "--scope", "predict:*", "--folder", str(keys)]
    created = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "fourways_cli", *made],
        capture_output=True,
        text=True,
        check=True,
    )
    key = {"Authorization": f"Bearer {created.stdout.split()[-1]}"}
    up.start(write(tmp_path, churn("streaming")), keys=keys)
    await_settled(up.state)
    assert stat.S_IMODE(up.state.stat().st_mode) == 0o700
    config = up.state / "nats" / "server.conf"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    listening = orjson.loads(config.read_bytes())["listen"]
    with pytest.raises(nats.errors.Error):
        await nats.connect(f"nats://{listening}", allow_reconnect=False, connect_timeout=2)
    path = f"{up.url}/v2/models/parity-streaming/infer"
    vector_key, vector = next(iter(parity.vectors().items()))
    question = parity.question(vector_key, vector["inputs"])
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        assert (await http.post(path, json=question)).status_code == 401
        foreign = {**key, "Host": "rebind.example"}
        assert (await http.post(path, json=question, headers=foreign)).status_code == 403
        page = {**key, "Origin": "https://evil.example"}
        assert (await http.post(path, json=question, headers=page)).status_code == 403
        waits = {**key, "Prefer": "wait=20"}
        assert (await http.post(path, json=question, headers=waits)).status_code == 200


# ---------------------------------------------------------------- looking


def infer(up: Up, name: str, key: str, inputs: Json, wait: int = 20) -> httpx.Response:
    place, question = f"{up.url}/v2/models/{name}/infer", parity.question(key, inputs)
    prefer = {"Prefer": f"wait={wait}"} if wait else {}
    return patiently(
        lambda: httpx.post(place, json=question, headers=prefer, timeout=30, trust_env=False)
    )


def workers(up: Up) -> dict[str, int]:
    """The host's children that run the runtime, by mode; batch runs and builds come and go."""
    found = {}
    for pid in up.children():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"fourways_runtime" in words:
            found[words[words.index(b"fourways_runtime") + 1].decode()] = pid
    return found


def ready(up: Up) -> bool:
    documents = ask(up.state, {"do": "status"})["deployments"]
    return all(conditions(d)["Ready"]["status"] == "True" for d in documents)
