"""What the build of an image writes about what it installed."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

DESCRIBE = Path(__file__).parents[2] / "runtimes" / "describe.py"
PACKAGES = ("numpy", "onnxruntime", "pydantic", "kopf")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described")
    python = environment(folder / "image")
    # A few packages of this environment in place of an image's; the tools are the image's.
    subprocess.run([sys.executable, DESCRIBE, python, folder / "share"], check=True, timeout=280)
    return folder / "share"


def environment(folder: Path) -> Path:
    """Make an environment that holds what is installed of ``PACKAGES``; return its interpreter."""
    venv.create(folder, symlinks=True)
    scheme = sysconfig.get_preferred_scheme("prefix")
    site = Path(sysconfig.get_path("purelib", scheme, {"base": str(folder)}))
    for name in PACKAGES:
        metadata = distribution(name)._path  # type: ignore[attr-defined]
        (site / metadata.name).symlink_to(metadata)
    return folder / "bin" / "python"


def test_the_bill_of_materials_lists_every_package_with_its_version(described: Path) -> None:
    sbom = json.loads((described / "sbom.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {one["name"].lower(): one for one in sbom["components"]}
    assert set(PACKAGES) <= listed.keys()
    for name in PACKAGES:
        assert listed[name]["version"] == version(name)
        assert listed[name]["purl"] == f"pkg:pypi/{name}@{version(name)}"
    assert listed["numpy"]["licenses"]


def test_the_notices_hold_the_text_of_licences(described: Path) -> None:
    text = (described / "THIRD-PARTY-NOTICES.txt").read_text()
    assert "numpy" in text
    assert "Redistribution and use in source and binary forms" in text
