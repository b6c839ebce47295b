"""Log lines are JSON, bounded, and without characters that steer a terminal."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from typing import Any

import pytest

from fourways_api.log_text import TextFormatter
from fourways_runtime.logs import LEVEL_VARIABLE, LINE_LIMIT, JsonFormatter, log_as_json

EVIL = "x\n\x1b[31mRED\x1b]0;title\x07\x9b\u202e"


def line(message: str, *args: object, **extra: Any) -> str:
    record = logging.getLogger("test").makeRecord(
        "test", logging.INFO, "f.py", 1, message, args, None, extra=extra or None
    )
    return JsonFormatter().format(record)


def test_a_line_is_one_json_object_with_its_fields() -> None:
    read = json.loads(line("served %s", "m", port=80, because=None, ok=True, names=["a", 1.5]))
    assert {k: read[k] for k in ("level", "logger", "message")} == {
        "level": "info",
        "logger": "test",
        "message": "served m",
    }
    assert (read["port"], read["because"], read["ok"], read["names"]) == (
        80,
        None,
        True,
        ["a", 1.5],
    )


def test_hidden_characters_are_escaped_and_nothing_is_lost() -> None:
    text = line("%s", EVIL, tensor=EVIL, names=[EVIL])
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf")]
    read = json.loads(text)
    assert (read["message"], read["tensor"], read["names"]) == (EVIL, EVIL, [EVIL])


def test_long_texts_are_bounded() -> None:
    huge = "b" * 5_000_000
    text = line("the model's output %s is unknown", huge, tensor=huge, names=[huge])
    assert len(text) < 8_000
    assert json.loads(text)["message"].endswith("is unknown")


def test_a_line_of_many_fields_is_bounded() -> None:
    text = line("message", **{f"field{n}": "b" * 900 for n in range(200)})
    assert len(text) <= LINE_LIMIT
    assert json.loads(text)["fields_left_out"] == 200


def test_a_traceback_is_bounded_and_keeps_the_error() -> None:
    try:
        raise ValueError("b" * 1_000_000 + "; the end")
    except ValueError:
        record = logging.getLogger("test").makeRecord(
            "test", logging.ERROR, "f.py", 1, "failed", (), sys.exc_info()
        )
    text = JsonFormatter().format(record)
    assert len(text) < 20_000
    assert "; the end" in json.loads(text)["traceback"]


def test_what_json_cannot_carry_is_logged_nevertheless() -> None:
    read = json.loads(line("a \ud800 b", number=2**70, path=object))
    assert read["message"] == "a \ud800 b"
    assert read["number"] == 2**70


# ---------------------------------------------------------------- for people


def text_line(message: str, error: bool = False) -> str:
    record = logging.getLogger("test").makeRecord(
        "test", logging.INFO, "f.py", 1, message, (), sys.exc_info() if error else None
    )
    return TextFormatter("%(levelname)s %(name)s: %(message)s").format(record)


def test_a_message_is_one_bounded_line_that_steers_no_terminal() -> None:
    text = text_line(EVIL)
    assert text.startswith(r"INFO test: x\n\x1b[31mRED")
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf")]
    assert len(text_line("b" * 1_000_000)) < 5_000


def test_a_traceback_for_people_keeps_its_lines_and_nothing_else() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        text = text_line("failed", error=True)
    assert text.splitlines()[1].startswith("Traceback")
    assert {c for c in text if unicodedata.category(c) in ("Cc", "Cf")} == {"\n"}


@pytest.mark.parametrize(
    ("told", "level"),
    [(None, "INFO"), ("debug", "INFO"), ("warning", "WARNING"), ("error", "ERROR"), ("", "INFO")],
)
def test_the_level_is_that_of_the_environment(
    told: str | None, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is None:
        monkeypatch.delenv(LEVEL_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(LEVEL_VARIABLE, told)
    root = logging.getLogger()
    before, handlers = root.level, root.handlers[:]
    try:
        log_as_json()
        assert logging.getLevelName(root.level) == level
    finally:
        root.handlers[:] = handlers
        root.setLevel(before)
