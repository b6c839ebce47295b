"""Foreign text is bounded and cannot steer a terminal, in whatever form it is printed."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
import yaml

from fourways_api import dump_yaml
from fourways_api.display import DISPLAY_LIMIT, displayed, has_hidden, json_displayed

EVIL = "x\n\x1b[31mRED\x1b]0;title\x07\x9b1m\u202eabc\u2066\u2028\x7f"
HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def hidden(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in HIDDEN_CATEGORIES}


def test_every_hidden_character_is_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in HIDDEN_CATEGORIES:
            assert not hidden(displayed(character)), hex(code)


@pytest.mark.parametrize("text", ["größe", "日本語", "a\\b", "[/x]", "🙂", "a b\u00a0c"])
def test_other_text_is_shown_as_it_is(text: str) -> None:
    assert displayed(text) == text


def test_escapes_are_python_s() -> None:
    shown = displayed(EVIL)
    assert shown.startswith(r"x\n\x1b[31mRED\x1b]0;title\x07\x9b1m\u202eabc\u2066\u2028\x7f")
    assert displayed("a\tb\U000e0041") == r"a\tb\U000e0041"


def test_line_breaks_are_kept_only_where_lines_are_shown() -> None:
    assert displayed("a\nb\r", lines=True) == "a\nb\\r"
    assert displayed("a\nb") == "a\\nb"


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    shown = displayed("a" + "b" * 5_000_000 + "; set nullable")
    assert len(shown) < DISPLAY_LIMIT + 100
    assert shown.startswith("ab")
    assert shown.endswith("; set nullable")
    assert "4,998,015 characters left out" in shown


def test_json_stays_the_same_document() -> None:
    document = {EVIL: [EVIL, "\U000e0041", "größe"]}
    text = json_displayed(json.dumps(document, ensure_ascii=False, indent=2))
    assert hidden(text) == {"\n"}
    assert json.loads(text) == document


def test_yaml_stays_the_same_document() -> None:
    document = {"name": EVIL, "other": "größe"}
    text = dump_yaml(document)
    assert hidden(text) == {"\n"}
    assert yaml.safe_load(text) == document
    assert "größe" in dump_yaml({"name": "größe"})
    assert not has_hidden(dump_yaml({"name": "größe"}))
