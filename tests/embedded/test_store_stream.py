"""What the store promises a stream, held to over PostgreSQL and SQLite alike."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store import (
    StreamDeclaration,
    open_database,
    open_reader,
    open_run_store,
    open_stream_writer,
)
from fourways_runtime.io.store.layout import SCHEMA_VERSION
from fourways_runtime.io.store.reports import reports_of, write_report
from fourways_runtime.io.store.streams.stream import (
    Fenced,
    Move,
    Position,
    QuestionAnswer,
)
from tests.kit.stores import OpenStream, commit, contract, letter, look_live, predictions, query
from tests.kit.waiting import until
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded


async def test_an_answer_is_there_when_its_position_has_passed(
    uri: str,
    namespace: str,
    open_stream: OpenStream,
) -> None:
    assert await look_live(uri, namespace, [1]) is None
    writer = open_stream()
    found = await look_live(uri, namespace, [1])
    assert (found.contract, found.answers) == (contract(), {})
    assert writer.positions({0: 5, 1: 7}) == {0: Position(5, 0), 1: Position(7, 0)}
    assert writer.begin({0: 5, 1: 7}) == {0: 1, 1: 1}
    commit(writer, [Move(0, 5, 8)], predictions([1, 2, 1]))
    assert writer.positions({0: 0, 1: 0}) == {0: Position(8, 1), 1: Position(7, 1)}
    found = await look_live(uri, namespace, [1, "2", 3, "x"])
    assert {key: dict(answer.outputs) for key, answer in found.answers.items()} == {
        1: {"y": 2.0},
        "2": {"y": 1.0},
    }
    answer = found.answers[1]
    assert (answer.version, answer.digest) == ("v1", "sha256:1")
    assert answer.computed_at.tzinfo == UTC
    assert abs(datetime.now(UTC) - answer.computed_at) < timedelta(minutes=1)


async def test_of_two_answers_the_later_row_counts_in_whatever_order_they_come(
    uri: str,
    namespace: str,
    open_stream: OpenStream,
) -> None:
    writer = open_stream()
    writer.begin({0: 0})
    answers = predictions([9, 9, 4], y=[1.0, 2.0, 3.0])
    shuffled = type(answers)(answers.keys, np.array([7, 3, 5]), answers.columns)
    commit(writer, [Move(0, 0, 8)], shuffled)
    found = await look_live(uri, namespace, [9, 4])
    assert [found.answers[key].outputs["y"] for key in (9, 4)] == [1.0, 3.0]


async def test_every_type_and_shape_comes_back(
    uri: str,
    namespace: str,
    open_stream: OpenStream,
) -> None:
    kinds: dict[str, list[Any]] = {
        "bool": [True, False],
        "int8": [-128, 127],
        "uint8": [0, 255],
        "int16": [-32768, 5],
        "uint16": [0, 65535],
        "int32": [-(2**31), 3],
        "uint32": [0, 2**32 - 1],
        "int64": [-(2**63), 2**63 - 1],
        "uint64": [0, 2**64 - 1],
        "float32": [0.5, -1.25],
        "float64": [1e300, -0.1],
        "string": ["", "ü'\"\\ {},NULL"],
    }
    fields: list[dict[str, Any]] = []
    columns: dict[str, Any] = {}
    expected: list[dict[str, Any]] = [{}, {}]
    for kind, values in kinds.items():
        dtype: Any = object if kind == "string" else kind
        for name, shape in ((kind, []), (kind + "_v", [2]), (kind + "_m", [2, 1, 3])):
            size = int(np.prod(shape))
            rows = [[values[(at + row) % 2] for at in range(size)] for row in (0, 1)]
            fields.append({"name": name, "type": kind, "shape": shape})
            columns[name] = np.array(rows, dtype).reshape(2, *shape)
            for row in (0, 1):
                expected[row][name] = columns[name][row].tolist() if shape else rows[row][0]
    spec = contract(*fields, {"name": "xmin", "type": "int8"}, key="string")
    columns["xmin"] = np.array([1, 2], np.int8)
    writer = open_stream(spec)
    writer.begin({0: 0})
    commit(writer, [Move(0, 0, 2)], predictions(["a", "ü"], **columns))
    found = await look_live(uri, namespace, ["a", "ü"])
    assert found.contract == spec
    assert found.answers["a"].outputs == expected[0] | {"xmin": 1}
    assert found.answers["ü"].outputs == expected[1] | {"xmin": 2}


async def test_a_worker_that_was_overtaken_writes_nothing_at_all(
    uri: str,
    namespace: str,
    open_stream: OpenStream,
) -> None:
    first, second = open_stream(), open_stream()
    first.begin({0: 0, 1: 0})
    second.begin({0: 0})
    commit(second, [Move(0, 0, 3)], predictions([1]))
    with pytest.raises(Fenced):
        commit(
            first, [Move(1, 0, 2), Move(0, 0, 2)], predictions([1, 5], y=[8.0, 9.0]), [letter(0)]
        )
    with pytest.raises(Fenced):
        first.begin({1: 0, 0: 0})
    assert first.positions({0: 0, 1: 0}) == {0: Position(3, 1), 1: Position(0, 1)}
    found = await look_live(uri, namespace, [1, 5])
    assert {key: answer.outputs for key, answer in found.answers.items()} == {1: {"y": 0.0}}
    assert query(uri, f"SELECT 1 FROM fourways.dead_letters WHERE namespace = '{namespace}'") == []  # noqa: S608
    commit(first, [Move(0, 3, 4)], predictions([2]))
    with pytest.raises(Fenced):
        commit(first, [Move(7, 0, 1)], predictions([2]))


async def test_what_is_sent_ahead_is_done_in_order_and_refused_with_what_it_follows(
    postgres: Server,
) -> None:
    stream = StreamDeclaration("ahead", "anomaly", "v1", "sha256:1", contract(), "topic")
    writer, other = (open_stream_writer(postgres.uri(), stream) for _ in range(2))
    writer.begin({0: 0, 1: 0})
    writer.send([Move(0, 0, 2)], predictions([1]))
    writer.send([Move(0, 2, 4)], predictions([1], 10), [letter(3)])
    # Whoever asks in between waits for both; what they came to is not lost by that.
    assert writer.positions({0: 0}) == {0: Position(4, 1)}
    writer.send([Move(0, 4, 6)], predictions([2], 20))
    for _ in range(3):
        writer.receive()

    commit(other, [Move(0, 6, 7)], predictions([3], 30))
    writer.send([Move(0, 6, 8)], predictions([1], 40))
    writer.send([Move(0, 8, 9)], predictions([2], 50))
    writer.send([Move(1, 0, 1)], predictions([4], 60))
    for _ in range(2):
        with pytest.raises(Fenced):
            writer.receive()
    writer.receive()
    assert writer.positions({0: 0, 1: 0}) == {0: Position(7, 1), 1: Position(1, 1)}
    found = await look_live(postgres.uri(), "ahead", [1, 2, 3, 4])
    answers = {key: answer.outputs["y"] for key, answer in found.answers.items()}
    assert answers == {1: 10.0, 2: 20.0, 3: 30.0, 4: 60.0}
    for each in (writer, other):
        each.close()


def test_of_workers_that_race_for_one_position_one_wins(open_stream: OpenStream) -> None:
    writers = [open_stream() for _ in range(3)]
    writers[0].begin({0: 0})
    won: list[int] = []

    def race(number: int) -> None:
        for start in range(40):
            try:
                commit(writers[number], [Move(0, start, start + 1)], predictions([number]))
                won.append(start)
            except Fenced:
                continue

    threads = [threading.Thread(target=race, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at = writers[0].positions({0: 0})[0].next
    assert sorted(won) == list(range(at))


def test_tries_are_counted_taken_back_and_begun_anew(open_stream: OpenStream) -> None:
    writer = open_stream()
    assert writer.begin({0: 4}) == {0: 1}
    writer.release({0: 4})
    assert writer.positions({0: 0}) == {0: Position(4, 0)}
    assert [writer.begin({0: 4})[0] for _ in range(3)] == [1, 2, 3]
    writer.release({0: 3})
    assert writer.positions({0: 0}) == {0: Position(4, 3)}
    commit(writer, [Move(0, 4, 5)], predictions([]), attempts=0)
    assert writer.positions({0: 0}) == {0: Position(5, 0)}
    assert open_stream(source="another").positions({0: 0}) == {0: Position(0, 0)}


async def test_other_outputs_get_a_table_of_their_own_and_readers_follow(
    uri: str,
    namespace: str,
    open_stream: OpenStream,
) -> None:
    old = open_stream()
    old.begin({0: 0})
    commit(old, [Move(0, 0, 1)], predictions([1]))
    reader = open_reader(uri, 5.0)
    assert (await reader.live(namespace, "anomaly", [1])).answers[1].outputs == {"y": 0.0}  # type: ignore[union-attr]
    same = open_stream(version="v2")
    commit(same, [Move(0, 1, 2)], predictions([2]))
    found = await reader.live(namespace, "anomaly", [1, 2])
    assert found is not None
    assert {key: answer.version for key, answer in found.answers.items()} == {1: "v1", 2: "v2"}

    spec = contract({"name": "z", "type": "int32"})
    new = open_stream(spec, version="v3")
    found = await reader.live(namespace, "anomaly", [1])
    assert found is not None
    assert (found.contract, found.answers) == (spec, {})
    with pytest.raises(Fenced):
        commit(old, [Move(0, 2, 3)], predictions([1]))
    with pytest.raises(StoreUnavailable, match="other outputs"):
        old.positions({0: 0})
    commit(new, [Move(0, 2, 3)], predictions([1], z=[7]))
    found = await reader.live(namespace, "anomaly", [1])
    assert found is not None
    assert found.answers[1].outputs == {"z": 7}
    await reader.close()


def test_one_worker_leads_and_the_next_follows_when_it_is_gone(open_stream: OpenStream) -> None:
    first, second = open_stream(), open_stream()
    assert first.lead()
    assert first.lead()
    assert not second.lead()
    assert open_stream(source="another").lead()
    first.close()
    # The server notices a closed connection in its own time.
    until(second.lead, "the second worker leads")


def test_the_present_reports_of_workers_are_read(uri: str, namespace: str) -> None:
    with closing(open_database(uri)) as store:
        for worker, lag in (("a", 1), ("b", 2), ("a", 3), ("gone", 4)):
            write_report(store, namespace, "anomaly", worker, {"lag": {"0": lag}})
        write_report(store, namespace, "another", "c", {})
        older = "UPDATE fourways.worker_reports SET told_at = told_at - {} WHERE worker = 'gone'"
        query(uri, older.format(60))
        found = reports_of(store, namespace, "anomaly")
        assert [(each.worker, each.report["lag"]["0"]) for each in found] == [("a", 3), ("b", 2)]
        assert all(each.age_seconds < 30 for each in found)
        query(uri, older.format(7200))
        write_report(store, namespace, "anomaly", "a", {})
        left = query(uri, "SELECT worker FROM fourways.worker_reports")
        assert ("gone",) not in left


def test_a_store_of_version_1_is_brought_up_to_date_by_whoever_comes_first(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    uri: str,
) -> None:
    if uri.startswith("postgresql"):
        server: Server = request.getfixturevalue("postgres")
        uri = server.database()
    open_run_store(uri).close()
    for table in ("streams", "models", "positions", "dead_letters"):
        query(uri, f"DROP TABLE fourways.{table}")
    query(uri, "UPDATE fourways.schema_version SET version = 1")
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            open_run_store(uri).close()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert query(uri, "SELECT version FROM fourways.schema_version") == [(SCHEMA_VERSION,)]
    stream = StreamDeclaration("n", "anomaly", "v1", "sha256:1", contract(), "topic")
    writer = open_stream_writer(uri, stream)
    assert writer.begin({0: 0}) == {0: 1}
    writer.close()


async def test_a_tombstone_deletes_an_answer_with_the_position(
    uri: str, namespace: str, open_stream: OpenStream
) -> None:
    writer = open_stream()
    writer.begin({0: 0})
    commit(writer, [Move(0, 0, 3)], predictions([1, 2, 3]))
    writer.send([Move(0, 3, 5)], predictions([2]), (), [1, 9])
    writer.receive()
    assert list((await look_live(uri, namespace, [1, 2, 3])).answers) == [2, 3]
    writer.send([Move(0, 5, 6)], predictions([]), [letter(5)], [3], attempts=0)
    writer.receive()
    assert list((await look_live(uri, namespace, [1, 2, 3])).answers) == [2]
    assert writer.positions({0: 0}) == {0: Position(6, 0)}
    with pytest.raises(Fenced):
        commit(writer, [Move(0, 5, 7)], predictions([]), deleted=[2])
    assert list((await look_live(uri, namespace, [1, 2, 3])).answers) == [2]


def answer(question: bytes, key: int, y: float) -> QuestionAnswer:
    return QuestionAnswer(question, str(key), f'{{"y":{y}}}')


async def test_answers_are_kept_by_question_beside_the_newest_of_the_key(
    uri: str, namespace: str, open_stream: OpenStream
) -> None:
    writer = open_stream()
    writer.begin({0: 0})
    one, two, three = b"1" * 16, b"2" * 16, b"3" * 16
    asked = [answer(one, 1, 0.5), answer(two, 1, 0.75)]
    commit(writer, [Move(0, 0, 2)], predictions([1, 1], y=[0.5, 0.75]), answered=asked)
    found = await look_live(uri, namespace, [one, 1, two, three])
    told = {key: answered.outputs["y"] for key, answered in found.answers.items()}
    assert told == {one: 0.5, two: 0.75, 1: 0.75}
    assert found.answers[one].digest == found.answers[1].digest == "sha256:1"
    assert abs(datetime.now(UTC) - found.answers[one].computed_at) < timedelta(minutes=1)
    only = await look_live(uri, namespace, [two])
    assert (list(only.answers), only.contract) == ([two], contract())
    # An answer is replaced, dead letters and tombstones come in the same statement.
    asked = [answer(one, 1, 0.25), answer(three, 3, 3.0)]
    commit(writer, [Move(0, 2, 6)], predictions([1, 3], y=[0.25, 3.0]), [letter(4)], [9], 1, asked)
    found = await look_live(uri, namespace, [one, two, three])
    assert [found.answers[each].outputs["y"] for each in (one, two, three)] == [0.25, 0.75, 3.0]
    commit(writer, [Move(0, 6, 7)], predictions([]), deleted=[1])
    assert list((await look_live(uri, namespace, [one, two, three, 1, 3])).answers) == [3, three]
    with pytest.raises(Fenced):
        commit(writer, [Move(0, 6, 8)], predictions([5]), answered=[answer(one, 5, 5.0)])
    assert list((await look_live(uri, namespace, [one])).answers) == []


async def test_answers_by_question_are_kept_while_they_are_fresh(uri: str, namespace: str) -> None:
    told = (namespace, "anomaly", "v1", "sha256:1", contract(), "topic")
    old, new = b"o" * 16, b"n" * 16
    for freshness, kept in ((60.0, [old, new]), (0.0, [new])):
        writer = open_stream_writer(uri, StreamDeclaration(*told, freshness_seconds=freshness))
        (position,) = writer.positions({0: 0}).values()
        writer.begin({0: position.next})
        at = position.next
        commit(writer, [Move(0, at, at + 1)], predictions([1]), answered=[answer(old, 1, 1.0)])
        commit(writer, [Move(0, at + 1, at + 2)], predictions([1]), answered=[answer(new, 1, 2.0)])
        assert list((await look_live(uri, namespace, [old, new])).answers) == kept
        writer.close()


async def test_answers_with_other_outputs_are_not_kept(
    uri: str, namespace: str, open_stream: OpenStream
) -> None:
    question = b"q" * 16
    writer = open_stream()
    writer.begin({0: 0})
    commit(writer, [Move(0, 0, 1)], predictions([1]), answered=[answer(question, 1, 1.0)])
    open_stream()  # the same outputs
    assert list((await look_live(uri, namespace, [question])).answers) == [question]
    open_stream(contract({"name": "z", "type": "int32"}))
    found = await look_live(uri, namespace, [question])
    assert (found.answers, found.contract.outputs[0].name) == ({}, "z")


def test_a_position_is_moved_back_only_from_where_it_is(open_stream: OpenStream) -> None:
    writer = open_stream()
    writer.begin({0: 8, 1: 3})
    writer.ping()
    writer.move(Move(0, 8, 2))
    assert writer.positions({0: 0, 1: 0}) == {0: Position(2, 0), 1: Position(3, 1)}
    with pytest.raises(Fenced):
        writer.move(Move(0, 8, 2))
