"""Writing an image archive in the format of `docker save`, without an image builder.

It supports images of one layer: the static binaries of the cluster itself, and the base image,
whose root file system is a tar file.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_EPOCH = "1970-01-01T00:00:00Z"


def write(target: Path, reference: str, layer: Path, settings: Mapping[str, Any]) -> None:
    """Write `target`: the image `reference` with the tar file `layer` as its only layer.

    `settings` is the image format's `config` object (Env, Entrypoint, Cmd ...).
    """
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": dict(settings),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            # Builders count layers by the history, one entry each.
            "history": [{"created": _EPOCH, "created_by": "tools.cluster"}],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        archive.add(layer, "layer.tar")
        for name, content_bytes in (
            (config_name, config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content_bytes)
            archive.addfile(entry, io.BytesIO(content_bytes))


def layer_of(target: Path, binary: Path, links: Sequence[str] = ()) -> None:
    """Write a layer that holds `binary` at the top, executable, and `links` to it."""
    with tarfile.open(target, "w") as layer:
        entry = tarfile.TarInfo(binary.name)
        entry.mode = 0o755
        entry.size = binary.stat().st_size
        with binary.open("rb") as content:
            layer.addfile(entry, content)
        for name in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"/{binary.name}"
            layer.addfile(link)


def architecture() -> str:
    """The machine's architecture as the image format names it, with Go's names."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
