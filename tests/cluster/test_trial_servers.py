"""The chart's servers for trials, with claims: what they keep when an upgrade restarts them.

tests/unit/test_chart_servers.py holds what the chart makes of its values.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
import yaml

from fourways_operator.facts import Json
from tests.kit.cluster.modes_rig import changed, example
from tests.kit.cluster.water_main import readings
from tests.kit.waiting import until
from tools.demo.questions import ARTIFACTS, EXAMPLES
from tools.installation import Cluster, idle_pod

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(600)]

NAMESPACE = "fw-test-trial"
NATS = "fourways-trial-nats"
DATABASE = "fourways-trial-postgresql"
NAME = "water-flow"
STREAM = "WATER"
SUBJECT = "water.readings"
ADDED = "water.alarms"
CLIENT = "client"

WITH_NATS = f"""
import asyncio, json, sys, nats
async def main():
    given = json.load(sys.stdin)
    client = await nats.connect(
        "nats://{NATS}:4222", user=given["username"], password=given["password"]
    )
    jetstream = client.jetstream()
    for event in given["events"]:
        await jetstream.publish("{SUBJECT}", json.dumps(event).encode())
    info = await jetstream.stream_info("{STREAM}")
    pending = [each.num_pending for each in await jetstream.consumers_info("{STREAM}")]
    told = [sorted(info.config.subjects), info.state.messages, info.state.first_seq, pending]
    print(json.dumps(told))
    await client.close()
asyncio.run(main())
"""
"""Publishes events, and prints what the stream is then."""


def values(subjects: list[str], memory: str) -> dict[str, object]:
    """Return the chart's values; a change of ``memory`` replaces the pods of both servers."""
    resources = {"requests": {"memory": memory}}
    servers = {"storage": "1Gi", "resources": resources}
    streams = [{"name": STREAM, "subjects": subjects}]
    return {
        "gateway": {"auth": {"anonymous": ["*:*"]}},
        "trialNats": {"enabled": True, "streams": streams, **servers},
        "trialPostgresql": servers,
    }


def install(cluster: Cluster, subjects: list[str], memory: str) -> None:
    given = values(subjects, memory)
    options = [word for k, v in given.items() for word in ("--set-json", f"{k}={json.dumps(v)}")]
    cluster.install(NAMESPACE, *options)


@pytest.fixture
def installed(cluster_with_images: Cluster) -> Iterator[Cluster]:
    cluster = cluster_with_images
    if "nats" not in cluster.images:
        pytest.skip("no image of NATS can be had here")
    subprocess.run([sys.executable, EXAMPLES / "prepare.py"], check=True)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
    cluster.make_namespace(NAMESPACE)
    install(cluster, [SUBJECT], "96Mi")
    cluster.fill_claim(NAMESPACE, ARTIFACTS)
    pod = idle_pod(CLIENT, cluster.images["runtime"])
    kubectl(cluster, "apply", "-f", "-", stdin=pod)
    kubectl(cluster, "wait", "--for=condition=Ready", f"pod/{CLIENT}", "--timeout=60s")
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def kubectl(cluster: Cluster, *words: str, stdin: str | None = None) -> str:
    return cluster.kubectl("-n", NAMESPACE, *words, stdin=stdin)


def credentials(cluster: Cluster) -> dict[str, str]:
    """Return the Secret of NATS, as a pod of ours would mount it."""
    template = "{{.data.username | base64decode}} {{.data.password | base64decode}}"
    told = kubectl(cluster, "get", "secret", NATS, "-o", f"go-template={template}").split()
    return dict(zip(("username", "password"), told, strict=True))


def stream(cluster: Cluster, events: list[Json]) -> tuple[list[str], int, int, list[int]]:
    """Publish events as a backend does; return subjects, messages, first number, pending."""
    given = {**credentials(cluster), "events": events}
    command = ("exec", "-i", CLIENT, "--", "python", "-c", WITH_NATS)
    subjects, messages, first, pending = json.loads(
        kubectl(cluster, *command, stdin=json.dumps(given))
    )
    return subjects, messages, first, pending


def answers(cluster: Cluster, events: list[Json]) -> list[Json]:
    """Return the gateway's answers for the keys of events, once all are there."""
    with cluster.forwarded(NAMESPACE, "svc/fourways-gateway", 80) as url:

        def found() -> list[Json] | None:
            asked = [
                httpx.get(f"{url}/predictions/{NAME}/{each['reading']}", trust_env=False)
                for each in events
            ]
            if all(answer.status_code == 200 for answer in asked):
                return [answer.json()["outputs"] for answer in asked]
            return None

        return until(found, "the events are answered", seconds=60, ignoring=httpx.HTTPError)


def started(cluster: Cluster) -> set[str]:
    """Return the uids of both servers' pods."""
    names = [f"pod/{NATS}-0", f"pod/{DATABASE}-0"]
    return {each["metadata"]["uid"] for each in cluster.get("-n", NAMESPACE, *names)["items"]}


def test_an_upgrade_that_restarts_the_trial_servers_keeps_what_they_have(
    installed: Cluster,
) -> None:
    nats = {
        "servers": f"nats://{NATS}.{NAMESPACE}.svc:4222",
        "stream": STREAM,
        "subject": SUBJECT,
        "credentials": {"secretName": NATS},
    }
    document = changed(example(f"{NAME}.yaml"), "streaming.source.nats", nats)
    kubectl(installed, "apply", "-f", "-", stdin=yaml.safe_dump(document))
    installed.await_ready(NAMESPACE, NAME, seconds=180)

    sent, later = readings(0, 5), readings(5, 3)
    assert stream(installed, sent)[:3] == ([SUBJECT], 5, 1)
    before = answers(installed, sent)
    given, pods = credentials(installed), started(installed)

    install(installed, [SUBJECT, ADDED], "97Mi")
    assert not started(installed) & pods, "the upgrade replaces the pods of both servers"
    assert credentials(installed) == given

    # The stream has its events, and what was added; the database what was predicted of them.
    assert stream(installed, later)[:3] == ([ADDED, SUBJECT], 8, 1)
    answers(installed, later)
    assert answers(installed, sent) == before
    # The worker goes on where it was: nothing is left, and nothing is read twice.
    until(lambda: stream(installed, [])[3] == [0], "nothing is pending")
    installed.await_ready(NAMESPACE, NAME)
