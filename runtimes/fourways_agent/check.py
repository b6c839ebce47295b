"""What is done in a process of its own, because it is heavy, or because it may crash.

* ``signature FOLDER KEY``: is what lies in FOLDER signed by the holder of KEY? Nothing else of a
  bundle has been fetched by then. model-signing is imported here only.
* ``model SLOT DIGEST``: does the model answer its golden vectors on this device? Only asked about a
  slot whose signature was verified. A model that crashes onnxruntime crashes this process.
* ``boot STATE``: start from the pointer as the agent does, so that a new model is confirmed (or
  given up) where nobody is running.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fourways_runtime import bundle_layout as layout

from .errors import AgentError, Failed, Refused, Unavailable
from .slot import open_bundle, signed_folder

SECONDS = 300.0

_KILLED = (-9, -15)


def verify_signature(folder: Path, key: Path) -> None:
    """Verify a folder's documents in a process of its own. Raises Refused, Unavailable."""
    _in_process("signature", str(folder), str(key))


def test_model(slot: Path, digest: str) -> dict[str, Any]:
    """Let a slot's model answer its golden vectors, in a process of its own; return the figures.

    Raises:
        Failed: it does not answer as it should, or crashes.
        Unavailable: the process was killed, or took too long: whose fault that is shows later.

    """
    return _in_process("model", str(slot), digest)


def boot(state: Path) -> dict[str, Any]:
    """Start from the pointer in a process of its own; return which bundle answers.

    Raises AgentError.
    """
    return _in_process("boot", str(state))


def _in_process(what: str, *arguments: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fourways_agent.check", what, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"checking the {what} took longer than {SECONDS:g} s") from None
    if done.returncode in _KILLED:
        raise Unavailable(f"checking the {what} was stopped; is there memory enough?")
    if done.returncode < 0:
        raise Failed(f"the {what} crashes on this device (signal {-done.returncode})")
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [""])[-1][:200]
        raise Unavailable(f"checking the {what} failed: {last}") from None
    if "refused" in answer:
        kind = Failed if what == "model" else Refused
        raise kind(str(answer["refused"]))
    return answer


# ---------------------------------------------------------------- in the process


def _signature(folder: str, key: str) -> dict[str, Any]:
    try:
        from model_signing import hashing, verifying
    except ImportError:
        raise Refused("verifying needs the package model-signing; install it") from None
    config: Any = verifying.Config
    hashes: Any = hashing.Config
    try:
        verifier = config().use_elliptic_key_verifier(public_key=key)
    except Exception:  # noqa: BLE001  (its errors have no common base)
        raise Refused("the key is no EC public key in PEM") from None
    plain = hashes().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    try:
        verifier.set_hashing_config(plain).verify(
            signed_folder(Path(folder)), Path(folder) / layout.SIGNATURE_FILE
        )
    except Exception:  # noqa: BLE001  (as above, and some quote what they read)
        raise Refused("the signature is not of this key, or not over these documents") from None
    return {"signed": True}


def _model(slot: str, digest: str) -> dict[str, Any]:
    from .device import load

    loaded = load(open_bundle(Path(slot), digest))
    return loaded.self_test()


def _boot(state: str) -> dict[str, Any]:
    from .device import boot as start
    from .state import Store

    loaded = start(Store(Path(state)))
    return {"digest": loaded.bundle.digest, "version": loaded.bundle.version}


def main(arguments: Sequence[str]) -> int:
    """Do one check; print what came of it as JSON."""
    from fourways_runtime.errors import WorkloadError

    checks: dict[str, Any] = {"signature": _signature, "model": _model, "boot": _boot}
    try:
        answer = checks[arguments[0]](*arguments[1:])
    except WorkloadError as error:
        answer = {"refused": f"{error.reason}: {error}"}
    except AgentError as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
