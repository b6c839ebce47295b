"""Message brokers on a cluster, and a pod beside them that acts as a producer.

They run in a namespace of their own, under the names that the examples' manifests use. A broker
tells its clients its internal name, so clients outside the cluster cannot connect.
"""

from __future__ import annotations

from pathlib import Path
from string import Template

import orjson

from tools.installation import Cluster, idle_pod

NAMESPACE = "messaging"
CLIENT = "client"
MANIFESTS = Path(__file__).parent / "cluster" / "manifests"
KAFKA = f"kafka.{NAMESPACE}.svc:9092"
NATS = f"nats.{NAMESPACE}.svc:4222"

MAKE_TOPIC = f"""
import sys
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
admin = AdminClient({{"bootstrap.servers": "{KAFKA}"}})
topic = sys.argv[1]
try:
    admin.create_topics([NewTopic(topic, int(sys.argv[2]), 1)])[topic].result(30)
except KafkaException as error:
    if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
        raise
"""

MAKE_STREAM = f"""
import asyncio, sys, nats
async def main():
    client = await nats.connect("nats://{NATS}")
    await client.jetstream().add_stream(name=sys.argv[1], subjects=[sys.argv[2]])
    await client.close()
asyncio.run(main())
"""

PRODUCE = f"""
import json, sys
from confluent_kafka import Producer
producer = Producer({{"bootstrap.servers": "{KAFKA}"}})
for line in sys.stdin:
    producer.produce(sys.argv[1], value=line.strip())
assert producer.flush(30) == 0, "not delivered"
"""

PUBLISH = f"""
import asyncio, sys, nats
async def main():
    client = await nats.connect("nats://{NATS}")
    for line in sys.stdin:
        await client.jetstream().publish(sys.argv[1], line.strip().encode())
    await client.close()
asyncio.run(main())
"""


def deploy(cluster: Cluster, *brokers: str) -> None:
    """Start brokers (``kafka``, ``nats``) with empty storage, and the client pod; wait until all
    are ready."""
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
    cluster.make_namespace(NAMESPACE)
    for broker in brokers:
        text = (MANIFESTS / f"{broker}.yaml").read_text("utf-8")
        filled = Template(text).substitute(IMAGE=cluster.images[broker], NAMESPACE=NAMESPACE)
        cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=filled)
    image = cluster.images["runtime"]
    cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=idle_pod(CLIENT, image))
    for broker in brokers:
        cluster.kubectl(
            "-n", NAMESPACE, "rollout", "status", f"deployment/{broker}", "--timeout=120s"
        )
    cluster.kubectl(
        "-n", NAMESPACE, "wait", "--for=condition=Ready", f"pod/{CLIENT}", "--timeout=60s"
    )


def make_topic(cluster: Cluster, topic: str, partitions: int = 1) -> None:
    """Create a topic of the Kafka broker if it does not exist."""
    python(cluster, MAKE_TOPIC, topic, str(partitions))


def make_stream(cluster: Cluster, stream: str, subject: str) -> None:
    """Create a stream of the NATS server if it does not exist."""
    python(cluster, MAKE_STREAM, stream, subject)


def produce(cluster: Cluster, topic: str, events: list[dict[str, object]]) -> None:
    """Produce events to a topic of the Kafka broker; return when all are delivered."""
    python(cluster, PRODUCE, topic, stdin=_lines(events))


def publish(cluster: Cluster, subject: str, events: list[dict[str, object]]) -> None:
    """Publish events to a subject of the NATS server; return when all are stored."""
    python(cluster, PUBLISH, subject, stdin=_lines(events))


def python(cluster: Cluster, code: str, *args: str, stdin: str = "") -> str:
    """Run Python in the client pod; return its output."""
    command = ("exec", "-i", CLIENT, "--", "python", "-c", code, *args)
    return cluster.kubectl("-n", NAMESPACE, *command, stdin=stdin)


def _lines(events: list[dict[str, object]]) -> str:
    return "".join(f"{orjson.dumps(event).decode()}\n" for event in events)
