"""``fourways secret create``: the Secret that the runtime accepts, and what the command refuses."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
import yaml

from fourways_cli.main import app
from fourways_runtime.errors import SecretRefused
from fourways_runtime.io.mounted_secret import MountedSecret
from tests.kit.cli import CliRunner


def create(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["secret", "create", *words])
    return result.exit_code, result.stdout, result.stderr


def test_the_printed_secret_has_its_audience(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_bytes(b"\x00cert")
    code, out, _ = create(
        "login",
        "--deployments=a, b",
        "--hosts=models.example,*.files.example",
        "--from-literal=token=s=ecret",
        f"--from-file={tmp_path / 'tls.crt'}",
        "-n",
        "shop",
    )
    assert code == 0
    document = yaml.safe_load(out)
    assert document["metadata"] == {"name": "login", "namespace": "shop"}
    assert {key: base64.b64decode(value) for key, value in document["data"].items()} == {
        "fourways.dev-deployments": b"a,b",
        "fourways.dev-hosts": b"models.example,*.files.example",
        "token": b"s=ecret",
        "tls.crt": b"\x00cert",
    }


def test_the_folder_is_private_and_the_runtime_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    code, out, _ = create(
        "db", "--deployments=mine", "--from-literal=uri=sqlite:///x", f"--folder={folder}"
    )
    assert code == 0
    assert "--secret db=" in out
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "uri").stat().st_mode) == 0o600
    assert MountedSecret(folder, "mine").for_deployment() == folder
    with pytest.raises(SecretRefused):
        MountedSecret(folder, "other").for_deployment()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Bad_Name", "--deployments=a"], "no name of a Secret"),
        (["x", "--deployments= ,"], "--deployments names nothing"),
        (["x", "--deployments=a", "--hosts=*"], "not for every host"),
        (["x", "--deployments=a", "--from-literal=hunter2"], "write KEY=VALUE"),
        (["x", "--deployments=a", "--from-literal=../k=v"], "no key of a Secret"),
        (["x", "--deployments=a", "--from-literal=fourways.dev-hosts=v"], "written by"),
        (["x", "--deployments=a", "--from-file=/nowhere/f"], "No such file"),
    ],
)
def test_what_is_refused_names_the_fix(words: list[str], said: str) -> None:
    code, out, err = create(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert "hunter2" not in err


def test_a_secret_needs_an_audience() -> None:
    assert create("x", "--from-literal=token=t")[0] == 2
