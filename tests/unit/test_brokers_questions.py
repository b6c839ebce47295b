"""The header by which a worker knows a request's event, as the brokers' clients give it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fourways_runtime.io.brokers import kafka_source, nats_source
from fourways_runtime.io.brokers.source import Headers, question_in

DIGEST = "0f" * 16


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ((("fourways-question", DIGEST.encode()),), bytes.fromhex(DIGEST)),
        ((("ce-id", b"1"), ("fourways-question", DIGEST.encode())), bytes.fromhex(DIGEST)),
        ((), None),
        ((("fourways-question", b"0f" * 15),), None),
        ((("fourways-question", b"0f" * 5000),), None),
        ((("fourways-question", b"zz" * 16),), None),
        ((("fourways-question", b"\xff" * 32),), None),
        ((("Fourways-Question", DIGEST.encode()),), None),
    ],
)
def test_what_is_no_digest_is_none(headers: Headers, found: bytes | None) -> None:
    assert question_in(headers) == found


def test_only_events_with_the_header_are_asked_for() -> None:
    told: list[dict[str, str] | None] = [None, {"k": "v"}, {"fourways-question": DIGEST}, {}]
    nats: Any = [SimpleNamespace(headers=headers) for headers in told]
    assert nats_source._asked(nats) == {2: bytes.fromhex(DIGEST)}
    kafka: Any = [
        SimpleNamespace(
            headers=lambda it=it: [(k, v.encode()) for k, v in it.items()] if it else None
        )
        for it in told
    ]
    assert kafka_source._asked(kafka) == {2: bytes.fromhex(DIGEST)}
