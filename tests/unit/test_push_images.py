"""`make images`: what is built and pushed, and the command that installs it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.kit.yaml_files import load_yaml
from tools import push_images
from tools.cluster import hostconfig
from tools.push_images import DOCKERFILE, ROOT, helm_install, main, version

REGISTRY = "registry.example:5000/team"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker that notes its arguments, and fails at those that the file `fails` has."""
    program = tmp_path / "docker"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        'for word; do case "$word" in id=*) cat "${word#*src=}";; esac; done'
        f" >> {tmp_path}/given\n"
        f'if [ -e {tmp_path}/fails ] && [ "$1" = "$(cat {tmp_path}/fails)" ]; then exit 3; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(hostconfig, "_PIP_FILES", (str(tmp_path / "pip.conf"),))
    own = ("PIP_", "UV_", "SSL_CERT_", "REQUESTS_")
    for name in [name for name in os.environ if name.startswith(own)]:
        monkeypatch.delenv(name)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["push_images", *arguments])
    return main()


def test_all_images_are_built_before_one_is_pushed(
    docker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, REGISTRY) == 0
    asked = (docker / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["build", "build", "push", "push"]
    assert asked[-1] == f"push {REGISTRY}/fourways-runtime:{version()}"
    assert (
        capsys.readouterr().out == helm_install(REGISTRY, version(), ["operator", "runtime"]) + "\n"
    )


def test_without_settings_of_an_index_a_build_has_no_secrets(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, REGISTRY) == 0
    assert "--secret" not in (docker / "asked").read_text()


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", ""])
def test_a_build_uses_the_package_index_of_this_machine(
    docker: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    index = "https://me:word@index.example/simple"  # pragma: allowlist secret
    if variable:
        monkeypatch.setenv(variable, index)
    else:
        (docker / "pip.conf").write_text(f"[global]\nindex-url = {index}\n")
    assert run(monkeypatch, REGISTRY) == 0
    built = [line for line in (docker / "asked").read_text().splitlines() if "build" in line]
    named = [re.findall(r"--secret id=(\w+),src=", line) for line in built]
    assert all({"pip", "uv"} <= set(names) for names in named)
    mounted = re.findall(r"--mount=type=secret,id=(\w+),", (ROOT / DOCKERFILE).read_text())
    assert set(named[0]) <= set(mounted)
    assert f'index-url = "{index}"' in (docker / "given").read_text()
    assert "word@" not in (docker / "asked").read_text(), "an argument is in an image's history"


def test_every_step_that_installs_packages_has_the_mirror() -> None:
    steps = re.split(r"^(?=[A-Z]+ )", (ROOT / DOCKERFILE).read_text(), flags=re.MULTILINE)
    asking = [
        s for s in steps if s.startswith("RUN ") and "pip install" in s and "no-deps" not in s
    ]
    assert len(asking) == 6
    for step in asking:
        assert re.search(r"type=secret,id=(pip|uv),", step), step
        assert "id=authorities," in step


@pytest.mark.parametrize(("fails", "left"), [("build", ["build"]), ("push", ["push"])])
def test_a_command_that_fails_is_the_last(
    docker: Path, monkeypatch: pytest.MonkeyPatch, fails: str, left: list[str]
) -> None:
    (docker / "fails").write_text(fails)
    assert run(monkeypatch, REGISTRY) == 1
    asked = (docker / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked].count(fails) == len(left)


def test_without_a_builder_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(monkeypatch, REGISTRY) == 1
    assert "docker, podman, buildah" in capsys.readouterr().err


@pytest.mark.parametrize("registry", ["", "https://registry.example", "Registry/x", "a b", "-x"])
def test_what_is_no_registry_is_refused(monkeypatch: pytest.MonkeyPatch, registry: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, registry)
    assert ended.value.code == 2


def test_the_printed_command_sets_values_that_the_chart_has() -> None:
    values = load_yaml((ROOT / "charts/fourways/values.yaml").read_text())
    words = shlex.split(helm_install(REGISTRY, "other", list(push_images.TARGETS)))
    for pair in (word for word in words if "=" in word):
        place = values
        for key in pair.partition("=")[0].split("."):
            place = place[key]
    assert len([word for word in words if "=" in word]) == 4


def test_the_targets_are_stages_of_the_dockerfile() -> None:
    text = (ROOT / push_images.DOCKERFILE).read_text()
    for target in push_images.TARGETS:
        assert f" AS {target}\n" in text
