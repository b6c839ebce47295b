"""All generated files: ``update`` writes them, ``verify`` checks that they are up to date.

The lock file has versions and hashes and no index addresses, so that it works with any mirror.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
GENERATORS = (
    "fourways_api.crd",
    "fourways_api.editor_schema",
    "fourways_api.reasons",
    "fourways_api.reference",
    "fourways_operator.rbac",
    "tools.cli_reference",
    "tools.metrics_reference",
    "tools.dashboards",
    "tools.values_reference",
)
"""Modules that write their file, or with --check report whether it is up to date."""

BUILDER_LOCK = ROOT / "runtimes" / "images" / "builder.lock"
"""The lock's entry of uv alone, in the form that pip installs it from: uv installs the rest."""

PACKAGED = {
    ROOT / "crds" / "fourways.dev_modeldeployments.yaml": ROOT / "charts/fourways/files/crd.yaml"
}
"""Files that the chart has copies of, because Helm packs only its own folder."""


def update() -> int:
    """Write all generated files."""
    for module in GENERATORS:
        subprocess.run([sys.executable, "-m", module], check=True, cwd=ROOT)
    for source, copy in PACKAGED.items():
        copy.write_text(kept(source.read_text()))
    BUILDER_LOCK.write_text(entry_of("uv", LOCK.read_text()))
    return 0


def verify(offline: bool) -> int:
    """Report outdated files; return 1 if there is one."""
    stale = [
        module
        for module in GENERATORS
        if subprocess.run([sys.executable, "-m", module, "--check"], cwd=ROOT).returncode
    ]
    stale += [
        str(copy.relative_to(ROOT))
        for source, copy in PACKAGED.items()
        if not copy.exists() or copy.read_text() != kept(source.read_text())
    ]
    if BUILDER_LOCK.read_text() != entry_of("uv", LOCK.read_text()):
        stale.append(str(BUILDER_LOCK.relative_to(ROOT)))
    if not offline and not lock_is_current():
        stale.append("requirements.lock (make update-lock)")
    for name in stale:
        print(f"out of date: {name}; run make update", file=sys.stderr)
    return 1 if stale else 0


def kept(crd: str) -> str:
    """Return the CRD for the chart: helm uninstall keeps it, and so the deployments."""
    return crd.replace(
        "metadata:\n", "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n", 1
    )


def entry_of(name: str, lock: str) -> str:
    """Return one package's entry of a lock file, with its hashes."""
    found = re.search(rf"^{name}==.*\n(?: {{4}}.*\n)*", lock, re.MULTILINE)
    if found is None:
        raise LookupError(f"requirements.lock has no {name}")
    return found[0]


def compile_lock(into: Path, *options: str) -> None:
    """Resolve the project's dependencies into a lock file."""
    groups = ("build", "clients", "compiler", "demo", "dev", "image", "servers", "train")
    subprocess.run(
        [
            ROOT / ".tools/bin/uv",
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--generate-hashes",
            "--all-extras",
            *(a for g in groups for a in ("--group", g)),
            "--python-version",
            "3.11",
            "--no-header",
            "--no-annotate",
            "--no-emit-index-url",
            *options,
            "pyproject.toml",
            "--output-file",
            into,
        ],
        check=True,
        cwd=ROOT,
    )


def lock_is_current() -> bool:
    """Return whether the lock still satisfies pyproject.toml."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "requirements.lock"
        # The old lock's pins are kept if they still fit, so that new releases change nothing.
        fresh.write_text(LOCK.read_text())
        compile_lock(fresh)
        return _pins(fresh) == _pins(LOCK)


def _pins(lock: Path) -> list[str]:
    return [
        line.rstrip(" \\") for line in lock.read_text().splitlines() if not line.startswith(" ")
    ]


def main() -> int:
    """Run ``update``, ``verify [--offline]`` or ``lock``."""
    match sys.argv[1:]:
        case ["update"]:
            return update()
        case ["verify", *options]:
            return verify("--offline" in options)
        case ["lock", *_]:
            compile_lock(LOCK, "--upgrade")
            BUILDER_LOCK.write_text(entry_of("uv", LOCK.read_text()))
            return 0
        case _:
            print(
                "usage: python -m tools.generated update|verify [--offline]|lock", file=sys.stderr
            )
            return 2


if __name__ == "__main__":
    sys.exit(main())
