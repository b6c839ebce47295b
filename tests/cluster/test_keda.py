"""Replicas by requests, with KEDA itself: targetConcurrency becomes a ScaledObject that scales.

Building KEDA takes a quarter of an hour once, so `make test` leaves this out; unit tests hold what
is planned (tests/unit/test_scaling.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import yaml

from fourways_operator.facts import Json
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, example
from tests.kit.cluster.script_server import script_server
from tests.kit.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("keda"),
]

NAME = "counted"
WORKLOAD = f"{NAME}-realtime-predictor"
PROMETHEUS = """
import http.server, json, urllib.parse
requests, asked = 0, []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global requests
        url = urllib.parse.urlsplit(self.path)
        given = urllib.parse.parse_qs(url.query)
        if url.path == "/set":
            requests = int(given["requests"][0])
        if url.path == "/api/v1/query":
            asked.append(given["query"][0])
        result = [{"metric": {}, "value": [0, str(requests)]}]
        data = {"resultType": "vector", "result": result}
        body = {"status": "success", "data": data, "asked": asked[-1:]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", 9090), Handler).serve_forever()
"""
"""Answers every query with the number of requests that it was told."""


def prometheus(image: str) -> list[Json]:
    return script_server("prometheus", NAMESPACE, image, PROMETHEUS, 9090)


@pytest.fixture
def counter(modes: Plant) -> Iterator[str]:
    """A Prometheus that says what it is told; the operator knows its address. Yields its URL."""
    cluster, kubectl = modes.cluster, modes.cluster.kubectl
    objects = yaml.safe_dump_all(prometheus(cluster.images["runtime"]))
    kubectl("apply", "-f", "-", stdin=objects)
    kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/prometheus", "--timeout=60s")
    address = f"http://prometheus.{NAMESPACE}.svc:9090"
    cluster.install(
        NAMESPACE,
        *("--set", "gateway.auth.anonymous={*:*}"),
        *("--set", f"autoscaling.prometheusUrl={address}"),
    )
    with cluster.forwarded(NAMESPACE, "svc/prometheus", 9090) as url:
        yield url
    cluster.install(NAMESPACE, "--set", "gateway.auth.anonymous={*:*}")
    kubectl("-n", NAMESPACE, "delete", "pod/prometheus", "svc/prometheus", "--wait=false")


@contextmanager
def deployed(plant: Plant) -> Iterator[None]:
    document = example("come-back.yaml", NAME)
    document["spec"]["realtime"] |= {"minReplicas": 1, "maxReplicas": 3, "targetConcurrency": 4}
    document["spec"]["resources"] = {"cpu": "100m", "memory": "512Mi"}
    with plant.deployed(document):
        yield


def replicas(plant: Plant) -> int | None:
    found = plant.cluster.get("-n", NAMESPACE, "deployment", WORKLOAD)
    wanted: int | None = found["spec"].get("replicas")
    return wanted


def test_requests_add_replicas_and_their_end_removes_them(modes: Plant, counter: str) -> None:
    def told(requests: int) -> None:
        httpx.get(f"{counter}/set", params={"requests": requests}, trust_env=False)

    with deployed(modes):
        modes.ready(NAME, 240)
        assert replicas(modes) == 1
        told(9)
        until(lambda: replicas(modes) == 3, "nine requests by four are three replicas", seconds=180)
        asked = httpx.get(f"{counter}/", trust_env=False).json()["asked"]
        query = f'sum(fourways_requests_in_flight{{namespace="{NAMESPACE}",deployment="{NAME}"}})'
        assert asked == [query]
        told(0)
        until(lambda: replicas(modes) == 1, "no requests are one replica", seconds=240)
