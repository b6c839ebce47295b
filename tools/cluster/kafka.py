"""The files of a Kafka broker: its jars and settings in one folder, cached by content.

Maven downloads the jars with this machine's settings. If Maven and Java are missing and we may
install packages, they come from Debian. The image is built from this folder, and a broker on this
machine runs from it, so both are the same broker.
"""

import os
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

from tools.cluster import debian
from tools.cluster.config import PACKAGE, cache_root
from tools.cluster.errors import ClusterError
from tools.cluster.shell import lock, run, step

SOURCE = PACKAGE / "images" / "kafka"
_JAVA = {"java": "openjdk-17-jre-headless"}
_MAVEN = {"mvn": "maven"}
_SETTINGS = ("server.properties", "log4j2.properties", "entrypoint.sh")


def files() -> Path:
    """The folder with `lib/*.jar` and the settings; created if it is missing."""
    folder = cache_root() / "kafka" / _identity()
    if folder.exists():
        return folder
    with lock(cache_root() / "locks" / "kafka"):
        if not folder.exists():
            debian.have(_JAVA | _MAVEN)
            with step("mvn, jars of Kafka"), tempfile.TemporaryDirectory() as unfinished:
                _gather(Path(unfinished))
                folder.parent.mkdir(parents=True, exist_ok=True)
                beside = folder.with_name(f".{folder.name}.{os.getpid()}")
                shutil.copytree(unfinished, beside)
                beside.rename(folder)
    return folder


def java() -> str:
    """The Java for the broker; installed if it is missing and that is permitted."""
    debian.have(_JAVA)
    found = shutil.which("java")
    if found is None:
        raise ClusterError("java is missing")
    return found


def _gather(folder: Path) -> None:
    options = ["--batch-mode", "--quiet", "--file", str(SOURCE / "pom.xml")]
    where = ["-DincludeScope=runtime", f"-DoutputDirectory={folder / 'lib'}"]
    # In its own folder: Maven creates a `target` in its working directory.
    run(["mvn", *options, "dependency:copy-dependencies", *where], cwd=folder)
    for name in _SETTINGS:
        shutil.copy(SOURCE / name, folder / name)


def _identity() -> str:
    digest = sha256()
    for name in ("pom.xml", *_SETTINGS):
        digest.update(f"{name}\0".encode() + (SOURCE / name).read_bytes())
    return digest.hexdigest()[:12]
