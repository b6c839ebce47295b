"""A Kafka broker on this machine: `with kafka() as bootstrap:`.

It has the same jars and settings as the image on the cluster, and its own ports and data, so that
any number of brokers can run side by side.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fourways_cli.embedded.ports import free_port
from tools.cluster import kafka as broker
from tools.cluster.errors import ClusterError

_START_SECONDS = 90.0
"""Seconds to wait for the start. An idle machine needs five; a busy one with two cores took
twenty."""
_SCRAM = """\
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_PLAINTEXT
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
"""
_LOGIN_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_SCRAM += "".join(
    f"listener.name.scram.scram-sha-{bits}.sasl.jaas.config={_LOGIN_MODULE}\n"
    # Connections log in again this often, so that a changed password is noticed.
    f"listener.name.scram.scram-sha-{bits}.connections.max.reauth.ms=3000\n"
    for bits in (256, 512)
)
_CLUSTER_ID = "Zm91cndheXMtbG9jYWwtMQ"


class Kafka:
    """A broker that can be stopped and started again on the same ports and data."""

    def __init__(self, folder: Path, heap_mb: int = 256) -> None:
        self._folder = folder
        self._files = broker.files()
        self._java = [
            broker.java(),
            f"-Xms{heap_mb}m",
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            f"-Dlog4j2.configurationFile={self._files / 'log4j2.properties'}",
            "-cp",
            f"{self._files}/lib/*",
        ]
        self._process: subprocess.Popen[bytes] | None = None
        port, controller, scram = free_port(), free_port(), free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        self.scram = f"127.0.0.1:{scram}"
        """Address for clients that log in with SCRAM; :meth:`set_password` makes users."""

        self._settings = folder / "server.properties"
        self._settings.write_text(
            (self._files / "server.properties").read_text()
            + f"listeners=BROKER://{self.bootstrap},SCRAM://{self.scram},"
            + f"CONTROLLER://127.0.0.1:{controller}\n"
            + f"advertised.listeners=BROKER://{self.bootstrap},SCRAM://{self.scram}\n"
            + _SCRAM
            + f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
            + f"log.dirs={folder / 'log'}\n"
        )
        self._run(
            "kafka.tools.StorageTool",
            "format",
            "--config",
            str(self._settings),
            "--cluster-id",
            _CLUSTER_ID,
        )

    @property
    def pid(self) -> int:
        """The running broker's process id."""
        if self._process is None:
            raise ClusterError("the broker is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._settings)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / "broker.log").read_text(errors="replace")[-2000:]
                self.kill()
                raise ClusterError(f"the broker did not start: {tail}")

    def stop(self) -> None:
        """Terminate it and wait; kill it if it does not end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def make_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic."""
        from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

        admin = self.admin()  # Keep a reference: without it the response never arrives.
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)

    def set_password(self, user: str, password: str, bits: int = 256) -> None:
        """Create a user of the SCRAM listener, or change its password for one mechanism."""
        from confluent_kafka.admin import (  # type: ignore[attr-defined]
            ScramCredentialInfo,
            ScramMechanism,
            UserScramCredentialUpsertion,
        )

        mechanism = getattr(ScramMechanism, f"SCRAM_SHA_{bits}")
        login = UserScramCredentialUpsertion(
            user, ScramCredentialInfo(mechanism, 4096), password.encode()
        )
        admin = self.admin()
        admin.alter_user_scram_credentials([login])[user].result(30)

    def admin(self) -> Any:
        """A client that manages topics and groups."""
        from confluent_kafka.admin import AdminClient

        # Its messages about a broker that is not ready yet would fill a test's output.
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def _answers(self) -> bool:
        from confluent_kafka import KafkaException

        with suppress(KafkaException):
            return bool(self.admin().list_topics(timeout=0.5).brokers)
        return False

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [*self._java, *command], capture_output=True, text=True, cwd=self._folder
        )
        if done.returncode:
            raise ClusterError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-2000:]}")


@contextmanager
def kafka(topics: Sequence[str] = (), *, partitions: int = 1, heap_mb: int = 256) -> Iterator[str]:
    """Run a broker, with topics; yields its bootstrap address.

    Raises:
        ClusterError: Java or Maven is missing and may not be installed, or the start failed.
    """
    with running(heap_mb=heap_mb) as server:
        for topic in topics:
            server.make_topic(topic, partitions)
        yield server.bootstrap


@contextmanager
def running(*, heap_mb: int = 256) -> Iterator[Kafka]:
    """Run a broker that the caller may stop, kill and start again."""
    folder = Path(tempfile.mkdtemp(prefix="fourways-kafka-"))
    try:
        server = Kafka(folder, heap_mb)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
