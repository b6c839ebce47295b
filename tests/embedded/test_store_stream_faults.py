"""A stream's writer when its line is cut and its server restarts: a batch is whole or absent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from fourways_runtime.errors import StoreUnavailable
from fourways_runtime.io.store import StreamDeclaration, open_reader, open_stream_writer
from fourways_runtime.io.store.streams.stream import Fenced, Move, Position
from tests.kit.stores import commit, contract, predictions
from tools.servers.cut_line import CutLine
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded


@pytest.mark.parametrize("forward", [False, True], ids=["before the commit", "after the commit"])
async def test_a_line_cut_at_a_streams_commit_leaves_all_of_it_or_nothing(
    postgres: Server,
    cut_line: Callable[..., CutLine],
    forward: bool,
) -> None:
    stream = StreamDeclaration(f"stream-{forward}", "churn", "v1", "sha256:0", contract(), "topic")
    through = cut_line(b"commit01", forward=forward)
    writer = open_stream_writer(through.uri(postgres.uri()), stream)
    writer.begin({0: 0})
    commit(writer, [Move(0, 0, 1)], predictions([1]))
    through.arm()
    with pytest.raises(StoreUnavailable) as error:
        commit(writer, [Move(0, 1, 3)], predictions([1, 2], 100))
    assert "s3cret" not in str(error.value)

    assert writer.positions({0: 0}) == {0: Position(3 if forward else 1, 1)}
    if forward:
        with pytest.raises(Fenced):
            commit(writer, [Move(0, 1, 3)], predictions([1, 2], 100))
    else:
        commit(writer, [Move(0, 1, 3)], predictions([1, 2], 100))
    writer.close()
    reader = open_reader(postgres.uri(), 5.0)
    found = await reader.live(stream.namespace, "churn", [1, 2])
    await reader.close()
    assert found is not None
    assert {k: a.outputs for k, a in found.answers.items()} == {1: {"y": 100.0}, 2: {"y": 101.0}}


def test_a_line_cut_with_two_batches_under_way_answers_for_each_of_them(
    postgres: Server,
    cut_line: Callable[..., CutLine],
) -> None:
    stream = StreamDeclaration("two", "churn", "v1", "sha256:0", contract(), "topic")
    through = cut_line(b"commit01", forward=False)
    writer = open_stream_writer(through.uri(postgres.uri()), stream)
    writer.begin({0: 0})
    commit(writer, [Move(0, 0, 1)], predictions([1]))
    through.arm()
    under_way = 0
    with suppress(StoreUnavailable):  # The second may come too late even to be sent.
        for at in (1, 2):
            writer.send([Move(0, at, at + 1)], predictions([at]))
            under_way += 1
    through.cut.wait(10)
    for _ in range(under_way):
        with pytest.raises(StoreUnavailable):
            writer.receive()
    assert writer.positions({0: 0}) == {0: Position(1, 1)}
    commit(writer, [Move(0, 1, 2)], predictions([1], 100))
    assert writer.positions({0: 0}) == {0: Position(2, 1)}
    writer.close()


def test_a_stream_writer_goes_on_when_the_server_is_back(own_server: Server) -> None:
    stream = StreamDeclaration("n", "churn", "v1", "sha256:0", contract(), "topic")
    uri = own_server.database()
    writer = open_stream_writer(uri, stream)
    writer.begin({0: 0})
    own_server.stop()
    with pytest.raises(StoreUnavailable):
        commit(writer, [Move(0, 0, 1)], predictions([1]))
    with pytest.raises(StoreUnavailable):
        writer.positions({0: 0})
    own_server.start()
    assert writer.positions({0: 0}) == {0: Position(0, 1)}
    commit(writer, [Move(0, 0, 1)], predictions([1]))
    assert writer.lead()
    writer.close()
