"""The pointer of a device: what it falls back to, and what it forgets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fourways_agent import files
from fourways_agent.errors import Busy, ConfigError, NoSpace
from fourways_agent.main import main
from fourways_agent.state import Settings, State, Store

OLD = State(slot="a", digest="sha256:old", confirmed=True, sequence=5, accepted="sha256:old")
NEW = replace(
    OLD,
    slot="b",
    digest="sha256:new",
    confirmed=False,
    boots=3,
    sequence=6,
    accepted="sha256:new",
    previous_slot="a",
    previous_digest="sha256:old",
)


def test_a_new_device_has_no_model(tmp_path: Path) -> None:
    state = Store(tmp_path).read()
    assert (state.slot, state.inactive(), state.sequence) == (None, "a", -1)


def test_what_was_given_up_is_not_forgotten_and_its_release_stays_the_newest() -> None:
    state = NEW.fallen_back(bad=True)
    assert (state.slot, state.digest, state.confirmed) == ("a", "sha256:old", True)
    assert (state.bad, state.sequence) == (("sha256:new",), 6)


def test_what_the_disk_lost_may_be_fetched_again() -> None:
    state = replace(NEW, confirmed=True).fallen_back(bad=False)
    assert (state.slot, state.bad, state.accepted) == ("a", (), "sha256:new")


def test_without_a_way_back_there_is_no_model() -> None:
    state = replace(NEW, previous_slot=None, previous_digest=None).fallen_back(bad=True)
    assert (state.slot, state.digest, state.confirmed) == (None, None, False)


def test_the_list_of_what_does_not_work_is_bounded() -> None:
    state = OLD
    for at in range(100):
        state = state.given_up(str(at))
    assert len(state.bad) == 32
    assert state.given_up("80").bad[-1] == "80"


def test_changes_are_durable_and_told_by_the_mark(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = store.mark()
    store.change(lambda state: OLD)
    assert store.read() == OLD
    assert store.mark() != before
    mark = store.mark()
    store.change(lambda state: state)
    assert store.mark() == mark, "nothing changed, nothing was written"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"slot": "c"}', b'{"slott": 1}'])
def test_a_pointer_that_cannot_be_read_is_that_of_a_new_device(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "state.json").write_bytes(raw)
    assert Store(tmp_path).read() == State()


def test_the_process_ends_between_any_two_steps_and_the_pointer_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.change(lambda state: OLD)
    for step in range(10):
        left = [step]

        def end(what: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1

        monkeypatch.setattr(files, "before", end)
        try:
            store.change(lambda state: NEW)
        except KeyboardInterrupt:
            assert store.read() in (OLD, NEW)
            monkeypatch.undo()
            store.change(lambda state: OLD)
            continue
        break
    assert store.read() == NEW


def test_only_one_process_updates(tmp_path: Path) -> None:
    with (
        files.locked(tmp_path / "lock", wait=False),
        pytest.raises(Busy, match="another process"),
        files.locked(tmp_path / "lock", wait=False),
    ):
        pass


def test_a_disk_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NoSpace, match="not a directory"):
        files.write(tmp_path / "file" / "x", b"")


def test_settings_are_remembered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    with pytest.raises(ConfigError):
        store.needs_settings()
    store.remember(Settings("http://g", "churn", "door", "/key"))
    assert store.needs_settings().target == "door"
    assert main(["status", "--state", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["digest"], told["deployment"]) == (None, "churn")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--gateway, --deployment, --target, --key must be given"),
        (["--gateway", "g", "--deployment", "../x", "--target", "t", "--key", "k"], "--deployment"),
        (["--gateway", "g", "--deployment", "x", "--target", "t", "--key", "/none"], "--key names"),
        (
            ["--gateway", "file:///etc", "--deployment", "x", "--target", "t", "--key", __file__],
            "--gateway must be an http",
        ),
    ],
)
def test_what_the_command_line_gets_wrong_is_named(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["update", "--state", str(tmp_path), *arguments]) == 2
    assert said in capsys.readouterr().err
