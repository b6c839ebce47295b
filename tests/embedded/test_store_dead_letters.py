"""Dead letters in the store, over PostgreSQL and SQLite alike."""

from __future__ import annotations

import sqlite3

import numpy as np
import psycopg
import pytest
from psycopg import sql

from fourways_runtime.io.store import (
    open_reader,
)
from fourways_runtime.io.store.owners import NO_OWNERS
from fourways_runtime.io.store.sqlite_reader import LETTERS
from fourways_runtime.io.store.streams.postgres_live import STREAM, LiveTarget
from fourways_runtime.io.store.streams.stream import (
    DeadLetterReason,
    EventPosition,
    Move,
)
from tests.kit.stores import OpenStream, commit, contract, letter, look_live, predictions, query

pytestmark = pytest.mark.embedded


def test_dead_letters_are_kept_whole(uri: str, namespace: str, open_stream: OpenStream) -> None:
    writer = open_stream()
    writer.begin({0: 0})
    commit(writer, [Move(0, 0, 1)], predictions([]), [letter(0)])
    bare = letter(1, key=None, value=None, headers=(), attempts=3)
    commit(writer, [Move(0, 1, 3)], predictions([1]), [bare, letter(2)])
    rows = query(
        uri,
        "SELECT source, partition, position, key, value, headers, attempts, reason "  # noqa: S608
        f"FROM fourways.dead_letters WHERE namespace = '{namespace}' ORDER BY position",
    )
    headers = '[["ce-id","1"],["raw",{"base64":"/w=="}]]'
    assert rows == [
        ("topic", 0, 0, b"k", b"\xff\0{", headers, 1, "x: bad \\0 text"),
        ("topic", 0, 1, None, None, "[]", 3, "x: bad \\0 text"),
        ("topic", 0, 2, b"k", b"\xff\0{", headers, 1, "x: bad \\0 text"),
    ]


async def test_dead_letters_are_found_by_place_beside_the_answers(
    uri: str,
    namespace: str,
    open_stream: OpenStream,
) -> None:
    spec = contract({"name": "y", "type": "float64"}, {"name": "v", "type": "uint64", "shape": [2]})
    writer = open_stream(spec)
    writer.begin({0: 0, 1: 0})
    far = 2**62
    bare = letter(1, headers=(), attempts=3)
    twice = letter(2, headers=(("ce-id", b"a"), ("ce-id", b"b")))
    bytewise = letter(far, partition=1, headers=(("ce-id", b"\xff"),))
    answers = predictions([7], y=[0.5], v=np.array([[1, 2**64 - 1]], np.uint64))
    commit(
        writer, [Move(0, 0, 3), Move(1, 0, far + 1)], answers, [letter(0), bare, twice, bytewise]
    )
    places = [
        EventPosition(0, 0),
        EventPosition(0, 1),
        EventPosition(0, 2),
        EventPosition(1, far),
        EventPosition(1, 0),
        EventPosition(0, 99),
    ]
    found = await look_live(uri, namespace, [7, 8], *places)
    why = "x: bad \\0 text"
    assert found.refused == {
        EventPosition(0, 0): DeadLetterReason("1", why, 1),
        EventPosition(0, 1): DeadLetterReason(None, why, 3),
        EventPosition(0, 2): DeadLetterReason("b", why, 1),
        EventPosition(1, far): DeadLetterReason(None, why, 1),
    }
    assert {key: each.outputs for key, each in found.answers.items()} == {
        7: {"y": 0.5, "v": [1, 2**64 - 1]}
    }
    found = await look_live(uri, namespace, [], EventPosition(0, 1))
    assert (found.answers, list(found.refused)) == ({}, [EventPosition(0, 1)])
    assert (await look_live(uri, namespace, [7])).refused == {}
    # A stream made anew counts from the start: what is there now is another event.
    open_stream(spec, source="another")
    assert (await look_live(uri, namespace, [7], *places)).refused == {}


async def test_readers_follow_to_other_outputs_while_they_ask_for_dead_letters(
    uri: str,
    namespace: str,
    open_stream: OpenStream,
) -> None:
    writer = open_stream()
    writer.begin({0: 0})
    commit(writer, [Move(0, 0, 1)], predictions([]), [letter(0)])
    reader = open_reader(uri, 5.0)
    for spec in (contract(), contract({"name": "z", "type": "string", "shape": [2]})):
        open_stream(spec)
        found = await reader.live(namespace, "anomaly", [1], [EventPosition(0, 0)])
        assert found is not None
        assert (found.contract, list(found.refused)) == (spec, [EventPosition(0, 0)])
    await reader.close()


async def test_dead_letters_are_found_by_their_table_s_key(
    uri: str,
    namespace: str,
    open_stream: OpenStream,
) -> None:
    writer = open_stream()
    whose = (namespace, *NO_OWNERS.values(namespace, "anomaly"))
    writer.begin({0: 0})
    commit(writer, [Move(0, 0, 5000)], predictions([]), [letter(at) for at in range(5000)])
    if uri.startswith("sqlite"):
        lite = sqlite3.connect(uri.removeprefix("sqlite:///"))
        plan = lite.execute(f"EXPLAIN QUERY PLAN {LETTERS}", ("[[0, 7]]", *whose))
        told = " ".join(str(row[3]) for row in plan)
        lite.close()
        assert "SEARCH d USING INDEX" in told
        assert "partition=? AND position=?" in told
        return
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("ANALYZE fourways.dead_letters")
        row = connection.execute(STREAM, whose).fetchone()
        assert row is not None
        asking = LiveTarget.of(*row).asking([1], [EventPosition(0, 7)], whose)
        plan = connection.execute(sql.SQL("EXPLAIN ") + asking[0], asking[1]).fetchall()
        told = "\n".join(line for (line,) in plan)
        assert "using dead_letters_pkey" in told
        assert "Seq Scan on dead_letters" not in told
