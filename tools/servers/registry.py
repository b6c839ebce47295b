"""A registry of OCI artifacts, CNCF Distribution: Debian's package."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.cluster.debian import have

PROGRAM = Path("/usr/bin/docker-registry")
PACKAGES = {str(PROGRAM): "docker-registry"}


@contextmanager
def registry_server(folder: Path, port: int, htpasswd: Path | None = None) -> Iterator[str]:
    """Run a registry on loopback that keeps its blobs in a folder; yield ``HOST:PORT``.

    ``htpasswd`` is the file of its users; None: everybody may push. It may not listen yet.

    Raises:
        ClusterError: it is missing and may not or cannot be installed here.

    """
    have(PACKAGES)
    auth = f"auth: {{htpasswd: {{realm: here, path: {htpasswd}}}}}\n" if htpasswd else ""
    config = folder / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'blobs'}}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n{auth}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "serve", config], stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
