"""The servers that the torture of kills brings along, and how their logins are rotated.

A rotation here is the hardest one: the new login is in the Secret, the old one is refused at once,
and every session that used it is cut.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from tools.servers.kafka import Kafka
from tools.servers.postgres import Server

TOPIC = "taken.in"
READY_SECONDS = 10.0
AWAY_SECONDS = 3.0
"""How long a crashed server is away; it would otherwise be there again within 0.3 s."""


def put(file: Path, text: str) -> None:
    """Replace a key of a mounted Secret at once, as the kubelet does."""
    part = file.with_name(f".{file.name}")
    part.write_text(text)
    part.chmod(0o600)
    part.rename(file)


class Database:
    """A database of PostgreSQL, and the role by which it is opened now."""

    def __init__(self, server: Server, secret: Path) -> None:
        """``secret``: the file with the URI; written when the login is rotated."""
        self._server, self._secret = server, secret
        self._admin = server.database()
        self._name = self._admin.partition("?")[0].rpartition("/")[2]
        self._rotations = 0
        self.uri = self._next()

    def _next(self) -> str:
        self._rotations += 1
        role = f"{self._name}_{self._rotations}"
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER".encode())
        return self._admin.replace("tester:s3cret", f"{role}:pw")

    def tables(self) -> int:
        """Return how many tables there are besides PostgreSQL's own."""
        count = (
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', "
            "'information_schema')"
        )
        with psycopg.connect(self._admin) as connection:
            found = connection.execute(count.encode()).fetchone()
        return int(found[0]) if found else 0

    def fill(self, rows: int) -> None:
        """Make the table of features: key ``kN`` has the input N."""
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id text PRIMARY KEY, x real)")
            connection.execute(
                "INSERT INTO t SELECT 'k' || n, n FROM generate_series(0, %s) AS n", (rows - 1,)
            )

    def rotate(self) -> None:
        """Put another login into the Secret, refuse the old one and cut its sessions."""
        old = f"{self._name}_{self._rotations}"
        self.uri = self._next()
        put(self._secret, self.uri)
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE {old} NOLOGIN".encode())
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (old,)
            )


def crash(server: Server) -> None:
    """End PostgreSQL as a crash does, without a checkpoint, and start it again after a moment."""
    server.crash()
    time.sleep(AWAY_SECONDS)
    server.start()


def rotate_nats(folder: Path, pid: int) -> None:
    """Give the host's own NATS server another token, which ends all sessions of the old one."""
    config = folder / "server.conf"
    settings = json.loads(config.read_text())
    token = os.urandom(24).hex()
    settings["authorization"]["token"] = token
    put(folder / "login" / "token", token)
    put(config, json.dumps(settings))
    os.kill(pid, signal.SIGHUP)


class KafkaLogin:
    """The Secret by which a Kafka broker is opened."""

    def __init__(self, server: Kafka, secret: Path) -> None:
        self._server, self._secret, self._rotations = server, secret, 0
        server.make_topic(TOPIC, 2)
        for name, text in {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "app",
        }.items():
            put(secret / name, text)
        self.rotate()

    def rotate(self) -> None:
        """Change the password; sessions of the old one end when they log in again, within 3 s."""
        self._rotations += 1
        password = f"word-{self._rotations}"
        self._server.set_password("app", password)
        put(self._secret / "sasl.password", password)


def child_named(parent: int, word: bytes) -> int:
    """Return the child process whose command has a word. Raises LookupError."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with suppress(OSError):
                if word in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        time.sleep(0.1)
    raise LookupError(f"process {parent} has no child {word.decode()}")
