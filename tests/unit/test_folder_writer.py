"""The one writer of folders: whole files, no links, and what a power cut may leave behind."""

from __future__ import annotations

import stat
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from fourways_runtime import folder_writer
from fourways_runtime.folder_writer import FolderWriter


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "slots").symlink_to(outside)
    writer = FolderWriter(inside)
    with pytest.raises(OSError, match="Not a directory"):
        writer.put("slots/file", b"x")
    with pytest.raises(OSError, match="Not a directory"):
        writer.make("slots/a")
    (inside / "file").symlink_to(outside / "file")
    with pytest.raises(OSError, match="symbolic links"), writer.resume("file", at=0):
        pass
    writer.put("file", b"x")  # replaces the link
    assert (inside / "file").read_bytes() == b"x"
    assert list(outside.iterdir()) == []


def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "mine" / "inside", tmp_path / "mine" / "outside"
    inside.mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_bytes(b"x")
    (inside / "own").write_bytes(b"y")
    for writer in (FolderWriter(inside), FolderWriter(tmp_path, ("mine", "inside"))):
        tries = [
            lambda w: w.put("../outside/new", b"z"),
            lambda w: w.get("../outside/file"),
            lambda w: w.remove("../outside"),
            lambda w: w.delete("a/../../outside/file"),
            lambda w: w.names("../outside"),
            lambda w: w.make("../outside/folder"),
            lambda w: w.move([("../outside/file", "stolen")]),
            lambda w: w.rename("../outside", "stolen"),
        ]
        for each in tries:
            with pytest.raises(OSError, match="leads out of the folder"):
                each(writer)
    found = sorted(str(p.relative_to(tmp_path / "mine")) for p in tmp_path.rglob("*/*/*"))
    assert found == ["inside/own", "outside/file"]


def test_one_writer_replaces_what_a_power_cut_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = FolderWriter(tmp_path, one_writer=True)
    writer.put("file", b"old")

    def cut(step: str) -> AbstractContextManager[None]:
        if step.startswith(("rename", "delete")):
            raise KeyboardInterrupt
        return nullcontext()

    with monkeypatch.context() as patch:
        patch.setattr(folder_writer, "on_change", cut)
        with pytest.raises(KeyboardInterrupt):
            writer.put("file", b"a longer text")
    assert writer.get("file") == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    writer.put("file", b"new")
    assert [it.read_bytes() for it in tmp_path.iterdir()] == [b"new"]


def test_an_interrupted_file_goes_on_where_it_is_told(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path)

    def broken_off() -> None:
        with writer.resume("file", at=0) as to:
            to.write(b"abcdef")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken_off()
    with writer.resume("file", at=3) as to:
        to.write(b"x")
    assert writer.get("file") == b"abcx"


def test_private_files_are_for_this_user_alone(tmp_path: Path) -> None:
    FolderWriter(tmp_path, access="private").put("a/b", b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o600


def test_a_folder_is_removed_with_what_is_in_it(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path)
    writer.put("a/b/c", b"x")
    writer.remove("a")
    writer.remove("a")
    writer.delete("a")
    assert list(tmp_path.iterdir()) == []
