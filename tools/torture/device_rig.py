"""A device without a build and without a network: signed releases, a gateway that is a folder.

Nothing of the agent is replaced but what would start an interpreter or a network for each of some
thousand states: the gateway is a folder, and the agent's checks run in the process that wants them.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import BytesIO, StringIO
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

from fourways_agent import check, start
from fourways_agent import update as updating
from fourways_agent.errors import GatewayUnreachable
from fourways_agent.remote import Remote
from fourways_agent.state import DeviceSettings, Store
from fourways_runtime import bundle_layout as layout
from fourways_runtime.bundle_layout import Descriptor
from fourways_runtime.workloads.edge.signing import FileKey
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
            layout.ONNX_FILE: model(version),
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
        return FileKey(self._private).sign(folder, self.root / layout.SIGNATURE_FILE)


class FolderRemote(Remote):
    """The agent's own reading of a gateway, from a folder."""

    source: Path | None = None
    """The published release; None: offline."""

    @contextmanager
    def _opened(
        self, name: str, headers: dict[str, str], body: bytes | None = None
    ) -> Iterator[Any]:
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


Outcome = tuple[str, Any]
"""``("ok", result)`` or ``("error", [class, message])``."""


def outcome(work: Callable[[], Any]) -> Outcome:
    """Run a program of the device in this process; return how it ended."""
    try:
        return "ok", work()
    except Exception as error:  # noqa: BLE001  (told to the caller, whatever it is)
        return "error", [type(error).__name__, str(error)]


def forked(work: Callable[[], Any]) -> tuple[int, int]:
    """Run work in a fork of this process; return where to read its result, and its pid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return reading, pid
    code = 1
    try:
        os.close(reading)
        with os.fdopen(writing, "w") as to:
            json.dump([work()], to)
        code = 0
    except BaseException:  # noqa: BLE001  (the fork must not return to its caller)
        traceback.print_exc()
    os._exit(code)


def result(reading: int, pid: int) -> Any:
    """Return the result of a fork: a list of one, or None if it was killed or raised."""
    with os.fdopen(reading) as found:
        text = found.read()
    _, status = os.waitpid(pid, 0)
    return None if status else json.loads(text)


def prepare(boot: str) -> None:
    """Make this process a program of the device, in a boot of its machine."""
    import faulthandler

    faulthandler.disable()  # pytest has its own
    logging.disable(logging.CRITICAL)
    start.boot_id = lambda: boot
    vars(updating)["Remote"] = FolderRemote
    here = SimpleNamespace(run=_checked_here, TimeoutExpired=TimeoutError)
    vars(check)["subprocess"] = here
    vars(check)["WATCH"] = SimpleNamespace(start=lambda hung: None)  # one thread for each check


def _checked_here(command: Sequence[str], **options: Any) -> Any:
    """Do a check of the agent in this process, instead of in an interpreter of its own."""
    told = StringIO()
    with redirect_stdout(told):
        code = check.main(command[4:])
    return SimpleNamespace(returncode=code, stdout=told.getvalue(), stderr="")
