"""`fourways push` to a real registry; the runtime reads what it wrote."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fourways_api import FetchPolicy, Paths
from fourways_cli.artifacts.errors import PushFailed
from fourways_cli.artifacts.registry import push_model
from fourways_cli.embedded.ports import free_port
from fourways_cli.main import app
from fourways_cli.manifests import read_deployments
from fourways_runtime.io import fetch as fetching
from tests.kit.cli import CliRunner
from tests.kit.secret_files import secret_folder
from tests.kit.waiting import until
from tools.cluster.errors import ClusterError
from tools.servers.registry import registry_server

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).parents[2]
BCRYPT_OF_SECRET = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@pytest.fixture(params=[False, True], ids=["open", "login"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    users = tmp_path / "users"
    users.write_text(BCRYPT_OF_SECRET)
    try:
        with registry_server(tmp_path, free_port(), users if request.param else None) as address:
            until(
                lambda: httpx.get(f"http://{address}/v2/").status_code in (200, 401),
                "the registry answers",
                ignoring=httpx.HTTPError,
            )
            yield address
    except ClusterError as error:
        pytest.skip(f"no registry here: {error}")


@pytest.fixture
def project(tmp_path: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, its manifest, and a login for the registry."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    login = {"auths": {registry: {"auth": base64.b64encode(b"me:secret").decode()}}}
    (folder / "config.json").write_text(json.dumps(login))
    (folder / "model.onnx").write_bytes(bytes(range(256)) * 20_000)
    text = (ROOT / "examples" / "churn.yaml").read_text()
    (folder / "churn.yaml").write_text(text)
    return folder


def test_a_pushed_model_is_what_the_runtime_fetches(
    project: Path, registry: str, tmp_path: Path
) -> None:
    uri = f"oci://{registry}/team/churn:1"
    manifest = project / "churn.yaml"
    arguments = ["push", str(project / "model.onnx"), uri, "--manifest", str(manifest)]
    done = CliRunner().invoke(app, [*arguments, "-o", "json"])
    assert done.exit_code == 0, done.output
    pushed = json.loads(done.stdout)
    (deployment,) = read_deployments([manifest])
    model = deployment.spec.model
    assert (model.uri, model.digest) == (pushed["uri"], pushed["digest"])
    assert "#" in manifest.read_text(), "comments stay"
    secret = secret_folder(tmp_path / "secret", username="me", password="secret")
    fetched = fetching.fetch(
        model.uri,
        into=tmp_path / "cache",
        digest=model.digest,
        policy=FetchPolicy(hosts=("127.0.0.1",)),
        max_bytes=10 << 20,
        paths=Paths(),
        credentials=secret,
    )
    assert fetched.path.read_bytes() == (project / "model.onnx").read_bytes()
    again = CliRunner().invoke(app, [*arguments, "-o", "json"])
    assert json.loads(again.stdout) == pushed


@pytest.mark.parametrize("registry", [True], indirect=True)
def test_a_wrong_password_pushes_nothing(project: Path, registry: str) -> None:
    with pytest.raises(PushFailed, match=r"401.*docker login"):
        push_model(project / "model.onnx", f"oci://{registry}/team/churn:1", ("me", "wrong"))
