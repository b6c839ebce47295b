"""What signs a bundle: it has the key, loads no model, and believes nothing the build wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fourways_api.runtime_config import EdgeConfig
from fourways_runtime import bundle_layout as layout
from fourways_runtime.errors import ModelNotLoadable
from fourways_runtime.workloads.edge.build import build
from fourways_runtime.workloads.edge.sign import sign_bundles
from fourways_runtime.workloads.edge.unsigned import folder_of
from tests.kit.edge_plane import edge_config, linear_golden, published
from tests.kit.edge_rig import unmeasured
from tools.kit.models import LINEAR, linear


@pytest.fixture
def config(tmp_path: Path) -> EdgeConfig:
    made = edge_config(tmp_path, linear(), LINEAR, linear_golden())
    with unmeasured():
        build(made)
    return made


def key_of(config: EdgeConfig) -> Path:
    return Path(config.paths.secrets_root) / config.edge.signing.secret_name / "signing-key.pem"


@pytest.mark.thorough
def test_a_build_needs_no_key_and_publishes_nothing(tmp_path: Path) -> None:
    made = edge_config(tmp_path, linear(), LINEAR, linear_golden())
    key = key_of(made).read_bytes()
    key_of(made).unlink()
    with unmeasured():
        build(made)
    assert not published(tmp_path).exists()
    key_of(made).write_bytes(key)
    assert sign_bundles(made).bundles[0].target == "door"
    assert (published(tmp_path) / layout.INDEX_FILE).exists()
    assert not folder_of(made).exists()


@pytest.mark.thorough
def test_signing_loads_no_library_that_parses_models(config: EdgeConfig) -> None:
    program = (
        "import sys\n"
        "from fourways_runtime.config import read_edge_config\n"
        "from fourways_runtime.workloads.edge.sign import sign_bundles\n"
        "sign_bundles(read_edge_config())\n"
        "print([m for m in sys.modules if m.startswith('onnx')])"
    )
    environment = {**os.environ, "FOURWAYS_CONFIG": json.dumps(config.to_json())}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def blob(config: EdgeConfig, media_type: str) -> Path:
    """The file of a bundle's first layer, or its manifest."""
    folder = folder_of(config)
    (bundle,) = json.loads((folder / "unsigned.json").read_bytes())["bundles"]
    manifest = folder / bundle["status"]["digest"].replace(":", "-")
    if media_type == "manifest":
        return manifest
    layer = json.loads(manifest.read_bytes())["layers"][0]
    return folder / str(layer["digest"]).replace(":", "-")


def changed(config: EdgeConfig, change: Callable[[dict[str, object]], None]) -> None:
    """Change the manifest, and its digest wherever it is named, as a build that lies would."""
    folder = folder_of(config)
    listed = folder / "unsigned.json"
    old = blob(config, "manifest")
    document = json.loads(old.read_bytes())
    change(document)
    raw = layout.encode(document)
    new = layout.digest_of(raw)
    (folder / new.replace(":", "-")).write_bytes(raw)
    text = listed.read_text().replace(old.name.replace("-", ":"), new)
    listed.write_text(text)


def link_to_the_key(config: EdgeConfig) -> None:
    file = blob(config, "model")
    file.unlink()
    file.symlink_to(key_of(config))


def list_is_the_key(config: EdgeConfig) -> None:
    (folder_of(config) / "unsigned.json").unlink()
    (folder_of(config) / "unsigned.json").symlink_to(key_of(config))


def hard_link_to_the_key(config: EdgeConfig) -> None:
    file = blob(config, "model")
    file.unlink()
    os.link(key_of(config), file)


def other_content(config: EdgeConfig) -> None:
    file = blob(config, "model")
    file.write_bytes(file.read_bytes()[:-1] + b"!")


def no_model(config: EdgeConfig) -> None:
    blob(config, "model").unlink()


def other_target(config: EdgeConfig) -> None:
    changed(config, lambda told: told["annotations"].update({layout.TARGET_NOTE: "vault"}))  # type: ignore[attr-defined]


def other_title(config: EdgeConfig) -> None:
    changed(config, lambda told: told["annotations"].update({layout.TITLE_NOTE: "else"}))  # type: ignore[attr-defined]


def unlisted_file(config: EdgeConfig) -> None:
    listed = folder_of(config) / "unsigned.json"
    document = json.loads(listed.read_text())
    model = blob(config, "model").name.replace("-", ":")
    document["bundles"][0]["blobs"].remove(model)
    listed.write_text(json.dumps(document))


def another_file(config: EdgeConfig) -> None:
    def add(told: dict[str, object]) -> None:
        layers = told["layers"]
        assert isinstance(layers, list)
        layers[0]["annotations"][layout.FILE_PATH] = "../../etc/passwd"

    changed(config, add)


def no_target(config: EdgeConfig) -> None:
    listed = folder_of(config) / "unsigned.json"
    listed.write_text(json.dumps({**json.loads(listed.read_text()), "bundles": []}))


def path_as_digest(config: EdgeConfig) -> None:
    listed = folder_of(config) / "unsigned.json"
    document = json.loads(listed.read_text())
    document["bundles"][0]["blobs"].append("../../secrets/device-key/signing-key.pem")
    listed.write_text(json.dumps(document))


def no_json(config: EdgeConfig) -> None:
    (folder_of(config) / "unsigned.json").write_bytes(b"[" * 200_000)


def nothing(config: EdgeConfig) -> None:
    (folder_of(config) / "unsigned.json").unlink()


@pytest.mark.parametrize(
    "tamper",
    [
        link_to_the_key,
        hard_link_to_the_key,
        list_is_the_key,
        other_content,
        no_model,
        other_target,
        other_title,
        unlisted_file,
        another_file,
        no_target,
        path_as_digest,
        no_json,
        nothing,
    ],
)
def test_what_a_lying_build_hands_over_is_not_signed(
    config: EdgeConfig, tmp_path: Path, tamper: Callable[[EdgeConfig], None]
) -> None:
    tamper(config)
    with pytest.raises(ModelNotLoadable, match="nothing was signed") as caught:
        sign_bundles(config)
    assert "PRIVATE" not in str(caught.value)
    assert not published(tmp_path).exists()
