"""`make images`: what is built and pushed, and the command that installs it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.kit.yaml_files import load_yaml
from tools import push_images
from tools.push_images import ROOT, helm_install, main, version

REGISTRY = "registry.example:5000/team"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker that notes its arguments, and fails at those that the file `fails` has."""
    program = tmp_path / "docker"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f'if [ -e {tmp_path}/fails ] && [ "$1" = "$(cat {tmp_path}/fails)" ]; then exit 3; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
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
