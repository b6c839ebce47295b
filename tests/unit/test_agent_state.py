"""The pointer of a device: what it falls back to, and what it forgets."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from fourways_agent import files
from fourways_agent.errors import AgentConfigError, Busy, NoSpace
from fourways_agent.main import main
from fourways_agent.remote import Remote
from fourways_agent.sealed import SealedDocument
from fourways_agent.start import MAX_CRASHES, MAX_STARTS, begun, failed
from fourways_agent.state import DeviceSettings, GivenUp, State, Store
from fourways_runtime import folder_writer
from fourways_runtime.bundle_layout import Release
from fourways_runtime.errors import ModelNotLoadable

OLD = State(slot="a", digest="sha256:old", confirmed=True, sequence=5, accepted="sha256:old")
NEW = replace(
    OLD,
    slot="b",
    digest="sha256:new",
    confirmed=False,
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
    assert (state.bad, state.sequence) == ((GivenUp("sha256:new", 6),), 6)


def release(sequence: int, manifest: str) -> Release:
    return Release("churn", "door", manifest, sequence)


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
    assert state.given_up("80").bad[-1].digest == "80"


def test_a_newer_release_of_a_bundle_that_was_given_up_clears_that() -> None:
    state = NEW.fallen_back(bad=True)
    assert state.seen(release(6, "sha256:new")).gave_up("sha256:new"), "the very same release"
    assert not state.seen(release(7, "sha256:new")).gave_up("sha256:new")
    assert state.seen(release(7, "sha256:third")).gave_up("sha256:new")
    assert state.seen(release(5, "sha256:new")) == state, "an older one changes nothing"


def starts(state: State, boots: list[str], *, crashed: bool = False) -> State:
    """Begin starts that never end, each in a boot of the machine."""
    for at, boot in enumerate(boots):
        state = begun(state, crashed=crashed and at > 0, boot=boot, pid=at + 1)
    return state


@pytest.mark.parametrize("state", [NEW, replace(NEW, previous_slot=None, previous_digest=None)])
def test_power_cuts_never_give_a_model_up(state: State) -> None:
    after = starts(state, [f"boot-{at}" for at in range(50)])
    assert (after.digest, after.crashes, after.bad) == ("sha256:new", 0, ())
    assert after.pid == 50, "it is started again"


def test_a_model_that_crashed_is_given_up_for_the_one_before() -> None:
    after = starts(NEW, ["boot"] * MAX_CRASHES, crashed=True)
    assert (after.digest, after.crashes) == ("sha256:new", MAX_CRASHES - 1)
    after = begun(after, crashed=True, boot="boot", pid=9)
    assert (after.digest, after.confirmed) == ("sha256:old", True)
    assert after.gave_up("sha256:new")


def test_a_start_that_is_killed_again_and_again_is_left_until_the_next_boot() -> None:
    after = starts(NEW, ["boot"] * MAX_STARTS)
    assert after.pid == MAX_STARTS
    left = begun(after, crashed=False, boot="boot", pid=9)
    assert (left.digest, left.pid, left.bad) == ("sha256:new", 0, ())
    assert begun(left, crashed=False, boot="next boot", pid=9).pid == 9
    alone = replace(NEW, previous_slot=None, previous_digest=None)
    assert starts(alone, ["boot"] * 10).pid == 10, "without a way back it is tried again"


def test_a_note_of_a_crash_counts_only_for_a_start_that_has_not_ended() -> None:
    assert begun(NEW, crashed=True, boot="boot", pid=1).crashes == 0


def test_a_model_that_fails_is_given_up_and_a_device_without_memory_gives_none_up() -> None:
    state = replace(NEW, pid=1)
    for _ in range(20):
        state = failed(state, ModelNotLoadable("std::bad_alloc"))
    assert (state.crashes, state.bad) == (0, ())
    for _ in range(MAX_CRASHES):
        state = failed(state, ModelNotLoadable("no such operator"))
    assert (state.digest, state.gave_up("sha256:new")) == ("sha256:old", True)


def test_changes_are_durable_and_told_by_the_mark(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = store.mark()
    store.change(lambda state: OLD)
    assert store.read() == OLD
    assert store.mark() != before
    mark = store.mark()
    store.change(lambda state: state)
    assert store.mark() == mark, "nothing changed, nothing was written"


DAMAGE = {
    "deleted": None,
    "empty": b"",
    "truncated": b'{"slot": "a", "dig',
    "a list": b"[]",
    "edited": b'{"slot": "a", "generation": 99, "checksum": "sha256:00"}',
}


@pytest.mark.parametrize("name", ["state", "settings"])
@pytest.mark.parametrize("copy", ["{}.json", "{}.copy.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_one_damaged_copy_costs_nothing(tmp_path: Path, name: str, copy: str, damage: str) -> None:
    store = Store(tmp_path)
    settings = DeviceSettings("http://g", "churn", "door", "/key")
    store.change(lambda state: OLD)
    store.change(lambda state: NEW)
    store.remember(settings)
    file, raw = tmp_path / copy.format(name), DAMAGE[damage]
    if raw is None:
        file.unlink()
    else:
        file.write_bytes(raw)
    assert (store.read(), store.settings()) == (NEW, settings)
    store.change(lambda state: state)
    store.remember(settings)
    for each in ("state.json", "settings.json"):
        assert SealedDocument(tmp_path / each).is_whole(), "made whole again"


def test_files_that_were_exchanged_are_not_read_as_one_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    settings = DeviceSettings("http://g", "churn", "door", "/key")
    store.change(lambda state: NEW)
    store.remember(settings)
    state, told = tmp_path / "state.json", tmp_path / "settings.json"
    first = state.read_bytes()
    state.write_bytes(told.read_bytes())
    told.write_bytes(first)
    assert (store.read(), store.settings()) == (NEW, settings)


def test_an_old_copy_that_was_put_back_does_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change(lambda state: OLD)
    before = (tmp_path / "state.json").read_bytes()
    store.change(lambda state: NEW)
    (tmp_path / "state.json").write_bytes(before)
    assert store.read() == NEW


def test_the_pointer_of_an_older_agent_is_read(tmp_path: Path) -> None:
    older = {"slot": "a", "digest": "sha256:old", "confirmed": True, "boots": 0, "sequence": 5}
    (tmp_path / "state.json").write_text(json.dumps(older | {"bad": ["sha256:x"]}))
    state = Store(tmp_path).read()
    assert (state.slot, state.sequence, state.bad) == ("a", 5, (GivenUp("sha256:x", 5),))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"slot": "c"}', b'{"bad": [7]}'])
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

        def end(what: str, left: list[int] = left) -> AbstractContextManager[None]:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return nullcontext()

        monkeypatch.setattr(folder_writer, "on_change", end)
        try:
            store.change(lambda state: NEW)
        except KeyboardInterrupt:
            assert store.read() in (OLD, NEW)
            monkeypatch.undo()
            store.change(lambda state: OLD)
            assert store.read() == OLD
            continue
        break
    assert store.read() == NEW


def test_a_lock_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    with (
        files.locked(tmp_path / "lock", wait=False),
        pytest.raises(Busy),
        files.locked(tmp_path / "lock", wait=True, seconds=0.1),
    ):
        pass


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
    with pytest.raises(AgentConfigError):
        store.needs_settings()
    store.remember(DeviceSettings("http://g", "churn", "door", "/key"))
    assert store.needs_settings().target == "door"
    assert main(["status", "--state", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["digest"], told["deployment"]) == (None, "churn")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--gateway, --deployment, --target, --key must be given"),
        (["--gateway", "g", "--deployment", "../x", "--target", "t", "--key", "k"], "--deployment"),
        (
            ["--gateway", "g", "--deployment", "x", "--target", "t", "--key", "/none"],
            "--key: the file",
        ),
        (
            ["--gateway", "g", "--deployment", "x", "--target", "t", "--key", __file__],
            "--key: the key file must hold 1 to 16 EC public keys",
        ),
    ],
)
def test_what_the_command_line_gets_wrong_is_named(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["update", "--state", str(tmp_path), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_gateway_that_is_no_address_is_named(tmp_path: Path) -> None:
    with pytest.raises(AgentConfigError, match="--gateway must be an http"):
        Remote("file:///etc", "churn", "door")


@pytest.mark.parametrize("command", ["retry", "forget"])
def test_a_state_folder_that_does_not_exist_is_named(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--state", str(tmp_path / "typo")]) == 2
    assert "--state" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_forget_makes_a_device_new(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change(lambda state: NEW)
    store.remember(DeviceSettings("http://g", "churn", "door", "/key"))
    (tmp_path / "slots" / "a" / "files").mkdir(parents=True)
    assert main(["forget", "--state", str(tmp_path)]) == 0
    assert (store.read(), store.settings()) == (State(), None)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["state.lock", "update.lock"]


def test_retry_forgets_what_was_given_up_and_keeps_the_sequence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.change(lambda state: NEW.fallen_back(bad=True))
    assert main(["retry", "--state", str(tmp_path)]) == 0
    assert (store.read().bad, store.read().sequence) == ((), 6)


@pytest.mark.parametrize(("before", "after"), [(0o777, 0o700), (0o775, 0o700), (0o750, 0o750)])
def test_a_folder_that_others_may_write_is_closed(tmp_path: Path, before: int, after: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(before)
    Store(folder).prepare()
    assert folder.stat().st_mode & 0o777 == after


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(AgentConfigError, match="belongs to another user; name a folder of your"):
        Store(tmp_path).prepare()
