"""What the Kafka clients share: the id of a group member, and a log without repetitions."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")

from fourways_runtime.io.brokers import kafka_client


def test_a_member_keeps_its_id_and_no_two_have_the_same(tmp_path: Path) -> None:
    one = kafka_client.member_id(tmp_path / "members", "n-a-8080")
    assert kafka_client.member_id(tmp_path / "members", "n-a-8080") == one
    assert kafka_client.member_id(tmp_path / "members", "n-a-8081") != one
    (tmp_path / "members" / "n-a-8080").write_text("")
    assert kafka_client.member_id(tmp_path / "members", "n-a-8080") not in ("", one)


def test_a_folder_that_cannot_be_written_does_not_keep_a_worker_from_joining(
    tmp_path: Path,
) -> None:
    (tmp_path / "members").write_text("a file")
    assert kafka_client.member_id(tmp_path / "members", "n-a-8080").startswith("fourways-")


def test_the_same_failure_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("fourways.kafka")
    for milliseconds in range(50):
        log.error("FAIL: Connect to 127.0.0.1:1 failed (after %dms in state CONNECT)", milliseconds)
    log.error("FAIL: another failure (after 1ms in state UP)")
    assert len(caplog.records) == 2
