"""JSON in slices: the same value or the same error as orjson's, and no other thread waits long."""

from __future__ import annotations

import gc
import random
import threading
from contextlib import suppress
from typing import Any

import orjson
import pytest

from fourways_http import HttpError, Request
from fourways_runtime.v2 import sliced_json
from fourways_runtime.v2.body import split_body
from fourways_runtime.v2.off_loop import off_loop


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced_json, "SLICE", 24)


def outcome(parse: Any, text: bytes) -> tuple[Any, str]:
    try:
        return parse(text), ""
    except orjson.JSONDecodeError as error:
        return None, str(error)


def same(text: bytes) -> bool:
    """Return whether both parse it alike; NaN never occurs in JSON."""
    ours, theirs = outcome(sliced_json.loads, text), outcome(orjson.loads, text)
    assert ours == theirs, text
    assert repr(ours) == repr(theirs), text  # also the order of keys, and 1 against 1.0
    return not ours[1]


def made(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random()
    if depth < 5 and kind < 0.35:
        return [made(chance, depth + 1) for _ in range(chance.randrange(6))]
    if depth < 5 and kind < 0.55:
        return {text(chance): made(chance, depth + 1) for _ in range(chance.randrange(5))}
    return chance.choice([1, -2.5, 1e300, 2**70, True, None, text(chance), text(chance)])


def text(chance: random.Random) -> str:
    return "".join(chance.choice('ab,[]{}"\\\n é😀:') for _ in range(chance.randrange(9)))


def spelled(chance: random.Random) -> bytes:
    value = {"inputs": [{"data": [made(chance) for _ in range(8)]}, made(chance)], "id": "x"}
    options = chance.choice([0, orjson.OPT_INDENT_2])
    try:
        return orjson.dumps(value, option=options)
    except TypeError:  # an integer above 64 bits
        return spelled(chance)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(1, 4))]
)
def test_values_and_errors_are_those_of_the_whole_text(seed: int) -> None:
    chance = random.Random(seed)
    good = 0
    for _ in range(20):
        whole = spelled(chance)
        assert same(whole)
        for _ in range(8):
            bad = bytearray(whole)
            for _ in range(chance.randint(1, 3)):
                at = chance.randrange(len(bad))
                match chance.randrange(4):
                    case 0:
                        bad[at] = chance.choice(b'[]{},:"\\ 0e.\n\xff\xc3a')
                    case 1:
                        del bad[at : at + chance.randint(1, 3)]
                    case 2:
                        bad[at:at] = bytes(chance.choices(b'[]{},:"\\ 1', k=chance.randint(1, 3)))
                    case _:
                        bad[at:at] = bad[max(0, at - 9) : at]
                bad = bad or bytearray(b"[")
            good += same(bytes(bad))
    assert good, "some stay valid"


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":[1,2,3,4,5,6,7,8,9,10,11,12],"b":2,"a":[1,2,3,4,5,6,7,8,9,10,11,12,13],"c":0}',
        b'{"":[1,2,3,4,5,6,7,8,9,10,11,12],"":{"":1,"x":[[[1,2,3],[4,5,6]],[[7,8,9]]]}}',
        b"[" * 60 + b"1,2" + b"]" * 60,
        b"[[1,2],[3,4],[5,6],[7,8],[9,10],[11,12]]" + b" " * 50,
        b"[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],",
        b"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
        b'["' + b"\\\\" * 40 + b'","' + b'\\"' * 41 + b'",1,2,3]',
        b"[" + b" " * 100 + b"1," + b" " * 100 + b"]",
        b"\xef\xbb\xbf[1,2,3,4,5,6,7,8,9,10,11,12,13,14]",
        b" " * 100,
    ],
)
def test_texts_that_are_hard_to_cut(text: bytes) -> None:
    same(text)


@pytest.mark.thorough
def test_a_released_value_has_no_large_list_at_any_depth() -> None:
    deep: list[Any] = list(range(40_000))
    wide: dict[str, Any] = {str(n): [n] for n in range(40_000)}
    value = {"a": [[1, 2], {"b": [[deep]]}], "c": wide, "d": [[[n]] for n in range(40_000)]}
    many = value["d"]
    sliced_json.release(value)
    assert (deep, wide, many) == ([], {}, [])


@pytest.mark.thorough
def test_a_body_of_very_many_lists_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sliced_json, "SLICE", 64 * 1024)
    for element in (b"[1]", b"{}", b'{"a":[]}'):
        body = b'{"inputs":[' + b",".join([element] * 300_000) + b"]}"
        with pytest.raises(HttpError, match=r"250,000 lists and objects: send .* one flat list"):
            split_body(Request(b"POST", b"/", [], body), 2**24)
    texts = b'{"inputs":["' + b"[{" * 300_000 + b'"]}'
    assert split_body(Request(b"POST", b"/", [], texts), 2**24)[0]["inputs"] == ["[{" * 300_000]


@pytest.mark.parametrize("end", [b"]}]}", b",,]}]}"])
async def test_no_garbage_is_looked_for_while_a_large_body_is_read(
    monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    """A collector's look at millions of parsed lists would hold the interpreter lock."""
    monkeypatch.undo()
    rows = b",".join([b"[1.5]"] * 200_000)
    text = b'{"inputs":[{"name":"x","data":[%b%b' % (rows, end)
    looks: list[str] = []

    def seen(phase: str, told: dict[str, int]) -> None:
        looks.append(phase)

    def read() -> None:
        gc.callbacks.append(seen)
        try:
            sliced_json.release(sliced_json.loads(text))
        finally:
            gc.callbacks.remove(seen)

    with suppress(orjson.JSONDecodeError):
        await off_loop(read)
    assert not looks
    assert gc.isenabled()


@pytest.mark.parametrize("end", [b"]}]}", b",,]}]}"])
def test_another_thread_gets_its_turn(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.undo()
    numbers = b",".join(b"%d.%d" % (n, n) for n in range(500_000))
    text = b'{"inputs":[{"name":"x","data":[%b%b' % (numbers, end)
    turns = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal turns
        while not stop.wait(0.001):
            turns += 1

    watcher = threading.Thread(target=count)
    watcher.start()
    try:
        before = turns
        sliced_json.release(outcome(sliced_json.loads, text)[0])
        assert turns - before >= 2, "a parser in one piece would hold the lock throughout"
    finally:
        stop.set()
        watcher.join()
