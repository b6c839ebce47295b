"""What the build of an image writes about what it installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

DESCRIBE = Path(__file__).parents[2] / "runtimes" / "describe.py"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described") / "share"
    # The packages of this environment in place of an image's; the tools are the image's.
    subprocess.run([sys.executable, DESCRIBE, sys.executable, folder], check=True, timeout=280)
    return folder


def test_the_bill_of_materials_lists_every_package_with_its_version(described: Path) -> None:
    sbom = json.loads((described / "sbom.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {one["name"].lower(): one for one in sbom["components"]}
    for name in ("numpy", "onnxruntime", "pydantic", "kopf"):
        assert listed[name]["version"] == version(name)
        assert listed[name]["purl"] == f"pkg:pypi/{name}@{version(name)}"
    assert listed["numpy"]["licenses"]


def test_the_notices_hold_the_text_of_licences(described: Path) -> None:
    text = (described / "THIRD-PARTY-NOTICES.txt").read_text()
    assert "numpy" in text
    assert "Redistribution and use in source and binary forms" in text
