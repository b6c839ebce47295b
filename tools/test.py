"""The suites: ``python -m tools.test [fast|long]``, for all of ``make test`` without a word.

``make test`` runs everything that this machine can run, and reports what it could not run. Fast
suites run first. The cluster suite runs last, and its cluster keeps running if it was running
before. What is marked ``long`` repeats other tests at length: ``make test-long`` runs it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tools import used_rights
from tools.cluster.config import this_checkout
from tools.demo.cluster import NAMESPACE as DEMO
from tools.installation import IMAGES, ROOT, Cluster, build_images, cluster_up

# A worker that a test ends is replaced once: tests/conftest.py ends one whose test hangs.
# A third one works while the others wait for timers and processes.
WORKERS = ("-n", "3", "--dist", "loadfile", "--max-worker-restart", "1")
SUITE_SECONDS = 35 * 60
"""How long a suite may take: one that hangs must not cost its caller the other suites' result."""

STACKS_SECONDS = 5.0
"""What the processes of a suite that is ended have to write their stacks."""

FAST = (*WORKERS, "unit", "transitions", "golden")
# In the order of tests/embedded/conftest.py: the long ones first.
EMBEDDED = (*WORKERS, "--no-loadscope-reorder", "embedded")
SUITES: dict[str, dict[str, tuple[str, ...]]] = {
    "fast": {"fast": (*FAST, "-m", "not thorough")},
    "all": {
        "fast": (*FAST, "-m", "not thorough"),
        "thorough": (*FAST, "-m", "thorough"),
        "embedded": (*EMBEDDED, "-m", "not long"),
    },
    "long": {"embedded, long": (*EMBEDDED, "-m", "long")},
}
"""The suites that need no cluster, by the word that selects them, with pytest's options."""


def main() -> int:
    """Run the suites; return 1 if one failed."""
    which = sys.argv[1] if len(sys.argv) > 1 else "all"
    failed = {name: _pytest(name, *options) for name, options in SUITES[which].items()}
    left_out: list[str] = []
    if which != "fast":
        reason = why_no_cluster()
        if reason:
            left_out.append(f"the cluster suite ({reason})")
        else:
            marked = "long" if which == "long" else "not long"
            failed["cluster"] = _cluster_suite(left_out, marked)
    if which == "all":
        left_out.append("what is marked long (make test-long)")
    print(f"skipped: {'; '.join(left_out) or 'nothing'}")
    for faults in failed.values():
        print(*faults, sep="\n", end="\n" if faults else "")
    suites = [name for name, faults in failed.items() if faults]
    print(f"failed: {', '.join(suites) or 'nothing'}")
    return 1 if suites else 0


def why_no_cluster() -> str | None:
    """Return why no cluster is possible here; None if one is."""
    asked = subprocess.run(
        [sys.executable, "-m", "tools.cluster", "can"], cwd=ROOT, capture_output=True, text=True
    )
    return None if asked.returncode == 0 else (asked.stdout + asked.stderr).strip()


def _cluster_suite(left_out: list[str], marked: str) -> list[str]:
    status = _tool("status")
    was_up = "running: yes" in status
    started = time.monotonic()
    try:
        cluster = Cluster(cluster_up())
        if "kind: given" not in status:
            # The demo's leftovers use the space that the tests need.
            cluster.kubectl("delete", "namespace", DEMO, "--ignore-not-found", "--timeout=120s")
        _timed("cluster", started)
        # Compiled now: the test that installs it has no minutes to wait for that.
        for extra in (
            ("kserve", "keda", "flux", "cnpg", "helm4") if marked == "long" else ("kserve",)
        ):
            _tool("build", "--with", extra)
        if not cluster.install_kuberay():
            left_out.append("batch on Ray on the cluster (it has no KubeRay)")
        cluster = Cluster(cluster.kubeconfig, build_images())
        if not IMAGES.keys() <= cluster.images.keys():
            left_out.append("streams on the cluster (no image of a broker)")
        _timed("cluster, KubeRay and images", started)
        images = {f"FOURWAYS_{k.upper()}_IMAGE": v for k, v in cluster.images.items()}
        environment = {"FOURWAYS_KUBECONFIG": str(cluster.kubeconfig), **images}
        # The first test that needs KServe installs it, after the tests without it have run.
        begun = datetime.now(UTC)
        faults = _pytest("cluster", "cluster", "-m", marked, environment=environment)
        if "kind: local" in status:
            faults += _differences_of_rights(begun, whole=marked == "not long" and not faults)
        else:
            left_out.append("the operator's rights (the cluster's audit log is not here)")
        if not cluster.install_kserve():
            left_out.append("the modes on the cluster (it has no KServe)")
        return faults
    finally:
        if not was_up:
            _tool("down")


def _differences_of_rights(begun: datetime, *, whole: bool) -> list[str]:
    since = begun.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    asked = used_rights.used(used_rights.read(this_checkout().log_dir, since))
    return used_rights.faults(used_rights.granted(), asked, whole=whole)


def _timed(what: str, started: float) -> None:
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def _tool(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tools.cluster", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def _pytest(name: str, *options: str, environment: dict[str, str] | None = None) -> list[str]:
    """Run a suite; return a line for each test that failed, or that ran when its time was over."""
    started = time.monotonic()
    print(f"== {name}", flush=True)
    words = [str(Path("tests", w)) if (ROOT / "tests" / w).is_dir() else w for w in options]
    command = [sys.executable, "-m", "pytest", "-q", "--durations=20", *words]
    with TemporaryDirectory(prefix="fourways-tests-") as progress:
        asked = {**os.environ, "FOURWAYS_TESTS_PROGRESS": progress, **(environment or {})}
        ended: list[str] = []
        with subprocess.Popen(command, cwd=ROOT, env=asked) as tests:
            try:
                tests.wait(None if name.endswith("long") else SUITE_SECONDS)
            except subprocess.TimeoutExpired:
                ended = [f"{name}: ended after {SUITE_SECONDS} s", *_end(Path(progress))]
                tests.kill()
        failures = Path(progress, "failed")
        faults = failures.read_text().splitlines() if failures.exists() else []
    _timed(f"== {name}", started)
    if tests.returncode and not faults + ended:
        faults = [f"{name}: pytest ended with {tests.returncode}"]
    return faults + ended


def _end(progress: Path) -> list[str]:
    """End the processes of a suite, after each wrote its stacks; return what each was at."""
    running = {int(it.stem): it.read_text() for it in progress.glob("*.running")}
    for number, wait in ((signal.SIGUSR1, STACKS_SECONDS), (signal.SIGKILL, 0.0)):
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(wait)
    return [f"{what} (ran when the suite was ended)" for what in running.values()]


if __name__ == "__main__":
    sys.exit(main())
