"""The chart's script that gives the trial NATS server its streams, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.kit.stream_rig import NatsServer
from tools.install_yaml import CHART

pytestmark = pytest.mark.embedded

SCRIPT = CHART / "files" / "make_streams.py"


def make(server: NatsServer, streams: dict[str, list[str]], password: str) -> int:
    told = [{"name": name, "subjects": subjects} for name, subjects in streams.items()]
    environment = {
        "NATS_URL": server.url,
        "NATS_USER": "fourways",
        "NATS_PASSWORD": password,
        "STREAMS": json.dumps(told),
    }
    command = [sys.executable, "-c", SCRIPT.read_text("utf-8")]
    return subprocess.run(command, env={**os.environ, **environment}, timeout=60).returncode


def subjects(server: NatsServer, name: str) -> list[str]:
    info = server.do(lambda jetstream: jetstream.stream_info(name))
    return sorted(info.config.subjects)


def test_streams_are_made_and_widened_and_keep_their_events(own_nats: NatsServer) -> None:
    own_nats.stop()
    own_nats.password = "secret1"
    own_nats.start()
    assert make(own_nats, {"READINGS": ["readings"], "ORDERS": ["orders.>"]}, "secret1") == 0
    assert subjects(own_nats, "ORDERS") == ["orders.>"]
    own_nats.publish([("readings", b"{}", None)])
    # An upgrade with another subject keeps what is there, and one with the same changes nothing.
    for wanted in (["readings.berlin"], ["readings.berlin"]):
        assert make(own_nats, {"READINGS": wanted}, "secret1") == 0
        assert subjects(own_nats, "READINGS") == ["readings", "readings.berlin"]
    info = own_nats.do(lambda jetstream: jetstream.stream_info("READINGS"))
    assert info.state.messages == 1
