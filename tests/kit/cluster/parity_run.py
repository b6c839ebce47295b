"""The parity example as one deployment on a cluster: its batch run, and what it answers."""

from __future__ import annotations

import httpx

from fourways_operator.facts import Json
from tests.kit import parity
from tests.kit.cluster.modes_rig import NAMESPACE, Plant, changed
from tools import brokers

NAME = "parity"


TOPIC = "parity-customers"


def document(mode: str) -> Json:
    made = changed(parity.documents()["batch"], "mode", mode)
    kafka = {"kafka": {"bootstrapServers": brokers.KAFKA, "topic": TOPIC}}
    made = changed(made, "streaming.source", kafka)
    return {**made, "metadata": {"name": NAME}}


def run(plant: Plant) -> None:
    """Start a batch run now, as `fourways start-run` does."""
    kubectl = plant.cluster.kubectl
    kubectl("-n", NAMESPACE, "wait", "--for=create", f"cronjob/{NAME}-batch", "--timeout=30s")
    jobs = kubectl("-n", NAMESPACE, "get", "jobs", "-o", "name").split()
    runs = sum(job.startswith(f"job.batch/{NAME}-run-") for job in jobs)
    kubectl("-n", NAMESPACE, "create", "job", f"{NAME}-run-{runs}", f"--from=cronjob/{NAME}-batch")


def ask_batch(plant: Plant) -> dict[str, Json]:
    with plant.gateway() as url, client_of(url) as http:
        return {
            key: http.get(f"/predictions/{NAME}/{key}").raise_for_status().json()["outputs"]
            for key in parity.vectors()
        }


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=30, trust_env=False)
