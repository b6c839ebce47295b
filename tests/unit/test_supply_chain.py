"""What images and checkouts install has a hash, and no credential is committed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.generated import BUILDER_LOCK, LOCK, entry_of

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "runtimes/images/Dockerfile"
BESIDE = Path(sys.executable).parent


def _steps() -> list[str]:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_every_installation_of_an_image_requires_hashes() -> None:
    settings = [
        step for step in _steps() if step.startswith("ENV") and "UV_REQUIRE_HASHES=1" in step
    ]
    assert len(settings) == 1
    assert "UV_CONSTRAINT=/src/requirements.lock" in settings[0]
    installs = [
        command.strip()
        for step in _steps()
        for command in step.split("&&")
        if re.search(r"\bpip install\b", command)
    ]
    assert len(installs) >= 8
    for command in installs:
        own = "--no-deps /wheels/*.whl" in command and "UV_REQUIRE_HASHES=0" in command
        by_pip = "/opt/uv/bin/pip install" in command and "--require-hashes" in command
        by_uv = re.match(r"(RUN )?uv pip install", command) and "REQUIRE_HASHES" not in command
        assert own or by_pip or by_uv, command


def test_no_stage_installs_with_uv_but_those_with_its_settings() -> None:
    stage = base = ""
    for step in _steps():
        if found := re.match(r"FROM (\S+) AS (\S+)", step):
            base, stage = found.groups()
        elif "uv pip install" in step:
            assert stage == "tools" or base == "tools", step


def test_the_builder_has_a_hash() -> None:
    assert BUILDER_LOCK.read_text() == entry_of("uv", LOCK.read_text())
    assert "--hash=sha256:" in BUILDER_LOCK.read_text()
    assert "hatchling==" in LOCK.read_text()


def test_a_checkout_requires_hashes() -> None:
    script = re.sub(r"\\\n", " ", (ROOT / "tools/setup.sh").read_text())
    installs = [line for line in script.splitlines() if "pip install" in line]
    assert len(installs) >= 5
    for line in installs:
        assert "--require-hashes" in line or "--no-deps --editable ." in line, line


def test_every_package_of_the_lock_has_a_hash() -> None:
    entries = re.findall(r"^(\S+)==.*\n((?: {4}.*\n)*)", LOCK.read_text(), re.MULTILINE)
    assert len(entries) > 200
    assert [name for name, hashes in entries if "--hash=sha256:" not in hashes] == []


@pytest.mark.thorough
def test_the_lock_is_read_by_the_search_for_vulnerabilities() -> None:
    command = [BESIDE / "pip-audit", "--dry-run", "--strict", "--disable-pip", "--require-hashes"]
    done = subprocess.run(
        [*command, "--requirement", LOCK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "would have audited" in done.stderr


@pytest.mark.thorough
def test_a_credential_is_not_committed(tmp_path: Path) -> None:
    # In two parts, so that this file itself is none.
    leaked = tmp_path / "settings.yaml"
    leaked.write_text("key: " + "AKIA" + "QYLPMN5HHHFPQ7XD" + "\n")
    clean = tmp_path / "clean.yaml"
    clean.write_text("key: from-a-secret\n")
    hook = [BESIDE / "detect-secrets-hook", "--baseline", ROOT / ".secrets.baseline"]
    found = subprocess.run([*hook, leaked], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 1, found.stderr
    assert "AWS Access Key" in found.stdout
    assert subprocess.run([*hook, clean], cwd=ROOT, check=False).returncode == 0
