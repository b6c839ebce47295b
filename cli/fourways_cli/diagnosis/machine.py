"""This machine: what `fourways up` and `fourways serve` need."""

from __future__ import annotations

import importlib.util
import locale
import platform
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from fourways_api.installing import install_command

from ..embedded.ports import is_free
from ..hosting import missing_packages
from .findings import Diagnosis, fault, note, ok

PORT = 8080
TEXT_LOCALE = "en_US.UTF-8"
LEAST_BYTES = 2**30
LEAST_FILES = 1024
FORMATS = {
    "skops": ("skops", "sklearn"),
    "xgboost": ("xgboost", "xgboost"),
    "lightgbm": ("lightgbm", "lightgbm"),
    "litert": ("ai_edge_litert", "litert"),
}
"""The package of each format besides ONNX, and the extra that installs it."""


def look_at_machine(folder: Path) -> Iterator[Diagnosis]:
    """Yield findings; ``folder`` will hold the state."""
    yield _python()
    yield _packages()
    absent = sorted(
        extra for package, extra in FORMATS.values() if importlib.util.find_spec(package) is None
    )
    if absent:
        fix = f"{install_command(*absent)} where you need them"
        yield note("formats", f"not installed: {', '.join(absent)}; ONNX works", fix)
    else:
        yield ok("formats", f"onnx, {', '.join(FORMATS)}")
    yield _locale()
    yield _port()
    yield _disk(folder)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files < LEAST_FILES:
        yield note("open files", f"at most {files}", f"ulimit -n {LEAST_FILES * 4}")


def _python() -> Diagnosis:
    version = platform.python_version()
    return ok("Python", f"{version}, {platform.system()} {platform.machine()}")


def _packages() -> Diagnosis:
    missing = missing_packages()
    if missing:
        return fault(
            "runtime",
            f"{', '.join(missing)} missing: no workload runs here",
            install_command("runtime"),
        )
    return ok("runtime", "the workloads' packages are installed")


def _locale() -> Diagnosis:
    # ONNX's StringNormalizer names it, whatever language this machine speaks.
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, TEXT_LOCALE)
    except locale.Error:
        return note(
            "locale",
            f"{TEXT_LOCALE} is missing: ONNX models that change the case of text do not load",
            "where you need them: apt-get install locales, then "
            f"localedef -i en_US -f UTF-8 {TEXT_LOCALE}",
        )
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return ok("locale", f"{TEXT_LOCALE} is installed")


def _port() -> Diagnosis:
    if is_free(PORT):
        return ok("port", f"{PORT} is free")
    return note("port", f"{PORT} is taken", "fourways up … --port N, or end what listens there")


def _disk(folder: Path) -> Diagnosis:
    existing = next(
        each for each in (folder.absolute(), *folder.absolute().parents) if each.exists()
    )
    free = shutil.disk_usage(existing).free
    said = f"{free / 2**30:.1f} GiB free at {existing}"
    if free < LEAST_BYTES:
        return fault("disk", said, "free some, or choose another --state")
    return ok("disk", said)
