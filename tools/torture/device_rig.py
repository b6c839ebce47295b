"""A device in forked processes: signed releases without a build, a gateway without a network.

Nothing of the agent is replaced but what would start an interpreter or a network for each of some
thousand states: the gateway is a folder, and the checks of the agent are forked. Power is cut by
killing the process group of all programs before a change of the disk (:data:`files.before`), after
which the file that was being written may be torn, as a disk that lost its cache leaves it.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime  # noqa: F401  (imported once here, and not in each of the forks)
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from onnx import helper

from fourways_agent import check, files, start
from fourways_agent import update as updating
from fourways_agent.errors import GatewayUnreachable
from fourways_agent.remote import Remote
from fourways_agent.state import DeviceSettings, Store
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor
from fourways_runtime.workloads.edge.signing import sign
from tools.kit.models import FLOAT, LINEAR, onnx_bytes

RECORD = {"age": 10, "spend": 2, "rate": 1}
"""Version v answers it with 10 * v."""


def model(version: int) -> bytes:
    """Return a model that answers ``version`` times the age."""
    weights = np.array([[version], [0], [0]], np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return onnx_bytes(nodes, [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 1])], [("w", weights)])


class Releases:
    """Signed releases of shop/churn for the target door, each a folder as the gateway serves it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        self._private = root / "key.pem"
        self._private.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        self.key = root / "key.pub.pem"
        self.key.write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )

    def make(self, version: int, sequence: int) -> Path:
        """Publish a version as a release; return its folder."""
        folder = self.root / f"release-{sequence}"
        (folder / "blobs" / "sha256").mkdir(parents=True)

        def blob(kind: str, raw: bytes) -> Descriptor:
            found = Descriptor.of(kind, raw)
            (folder / layout.blob_name(found.digest)).write_bytes(raw)
            return found

        vector = {"inputs": RECORD, "outputs": {"score": 10.0 * version}}
        golden = json.dumps(vector).encode() + b"\n"
        vectors = {"uri": "file:///golden.jsonl", "digest": layout.digest_of(golden)}
        contents = {
            layout.MODEL_FILE: model(version),
            layout.CONTRACT_FILE: layout.encode({**LINEAR, "goldenVectors": vectors}),
            layout.GOLDEN_FILE: golden,
        }
        described = {name: blob(layout.MEDIA_TYPES[name], raw) for name, raw in contents.items()}
        config = blob(
            layout.MODEL_CONFIG,
            layout.encode(layout.model_config("churn", f"v{version}", "fp32", described)),
        )
        notes = {layout.VERSION_NOTE: f"v{version}", layout.AGREEMENT_NOTE: "1"}
        manifest = layout.encode(layout.model_manifest(config, described, notes))
        about = blob(layout.MANIFEST, manifest)
        release = layout.Release("churn", "door", about.digest, sequence, "shop")
        told = layout.encode(release.to_json())
        signature = self._signed(manifest, told)
        referrer = layout.referrer(
            layout.SIGSTORE, about, blob(layout.SIGSTORE, signature), blob(layout.RELEASE, told)
        )
        refers = blob(layout.MANIFEST, layout.encode(referrer))
        index = layout.index(about, f"v{version}", {layout.SIGSTORE: refers})
        (folder / layout.INDEX_FILE).write_bytes(layout.encode(index))
        return folder

    def _signed(self, manifest: bytes, release: bytes) -> bytes:
        folder = self.root / "signed"
        folder.mkdir(exist_ok=True)
        (folder / layout.MANIFEST_FILE).write_bytes(manifest)
        (folder / layout.RELEASE_FILE).write_bytes(release)
        return sign(folder, self._private, self.root / layout.SIGNATURE_FILE)


class FolderRemote(Remote):
    """The agent's own reading of a gateway, from a folder."""

    source: Path | None = None
    """The published release; None: offline."""

    @contextmanager
    def _opened(self, name: str, headers: dict[str, str]) -> Iterator[Any]:
        file = None if self.source is None else self.source / name
        if file is None or not file.is_file():
            raise GatewayUnreachable("the gateway cannot be reached")
        raw = file.read_bytes()
        at = int(headers["Range"].removeprefix("bytes=").rstrip("-")) if headers else 0
        answer: Any = BytesIO(raw[at:])
        told: dict[str, Any] = {"Content-Range": f"bytes {at}-{len(raw) - 1}/{len(raw)}"}
        yield SimpleNamespace(
            read1=answer.read1, status=206 if at else 200, headers=told if at else {}
        )


def settings(releases: Releases) -> DeviceSettings:
    """Return what the device is told."""
    return DeviceSettings("http://gateway", "churn", "door", str(releases.key))


# ---------------------------------------------------------------- programs of the device


def fetch(state: Path, told: DeviceSettings, release: Path | None) -> bool:
    """Update from a release without the start that follows; return whether that changed it."""
    FolderRemote.source = release
    return updating.update(Store(state), told).changed


def follow(state: Path, told: DeviceSettings, release: Path | None) -> None:
    """Update from a release, and start what it brought, as ``fourways-agent update`` does."""
    if fetch(state, told, release):
        check.boot(state)


def answer(state: Path) -> float:
    """Start from the pointer and answer the record."""
    found = start.boot(Store(state)).scorer.ask(RECORD)
    return float(found["score"])


def in_fork(work: Callable[[], Any], boot: str) -> tuple[str, Any]:
    """Run work in a forked program of the device; return its outcome.

    That is ``("ok", result)``, ``("error", [class, message])`` or ``("killed", signal)``.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        outcome: tuple[str, Any]
        try:
            _prepare(boot)
            outcome = ("ok", work())
        except Exception as error:  # noqa: BLE001  (told to the parent, whatever it is)
            traceback.print_exc()
            outcome = ("error", [type(error).__name__, str(error)])
        with os.fdopen(writing, "w") as to:
            json.dump(outcome, to)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as found:
        text = found.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "killed", os.WTERMSIG(status)
    kind, result = json.loads(text)
    return kind, result


def cut(programs: Sequence[Callable[[], Any]], step: int, state: Path, boot: str) -> bool:
    """Run programs at once and cut the power before the given change of the disk.

    Returns whether there was such a change; where there was none, the programs have ended.
    """
    alive, held = os.pipe()
    leader = os.fork()
    if leader == 0:
        os.setpgid(0, 0)
        os.close(alive)
        _prepare(boot)
        _cut_before(step, state)
        children = [_program(work) for work in programs]
        for child in children:
            os.waitpid(child, 0)
        os._exit(0)
    os.close(held)
    # At its end once the last program is gone: all of them hold the other end.
    while os.read(alive, 1):
        pass
    os.close(alive)
    _, status = os.waitpid(leader, 0)
    return os.WIFSIGNALED(status)


def _program(work: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid == 0:
        with suppress(Exception):  # refused or not, it is the disk that is looked at
            work()
        os._exit(0)
    return pid


def _prepare(boot: str) -> None:
    import faulthandler

    faulthandler.disable()  # pytest has its own
    start.boot_id = lambda: boot
    forked = SimpleNamespace(run=_forked_check, TimeoutExpired=TimeoutError)
    vars(updating)["Remote"] = FolderRemote
    vars(check)["subprocess"] = forked


def _forked_check(command: Sequence[str], **options: Any) -> Any:
    """Do a check of the agent in a fork, instead of in an interpreter of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        check.main(command[4:])
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer_of_it:
        text = answer_of_it.read()
    _, status = os.waitpid(pid, 0)
    return SimpleNamespace(returncode=os.waitstatus_to_exitcode(status), stdout=text, stderr="")


def _cut_before(step: int, state: Path) -> None:
    left = mmap.mmap(-1, 8)  # shared by all programs
    left[:] = step.to_bytes(8, "little")

    def count(what: str) -> None:
        now = int.from_bytes(left[:], "little") - 1
        left[:] = max(now, 0).to_bytes(8, "little")
        if now == 0:
            _tear(state, what)
            os.killpg(0, signal.SIGKILL)

    files.before = count


def _tear(state: Path, what: str) -> None:
    """Leave half of a file that was not synced yet."""
    name = what.rpartition(" ")[2]
    for file in (*state.rglob(f"{name}.new"), *state.rglob(f"{name}*.part")):
        if file.is_file():
            os.truncate(file, random.randint(0, file.stat().st_size))  # noqa: S311
