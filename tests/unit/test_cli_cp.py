"""`fourways cp`: files into a claim, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from fourways_cli import target_command
from fourways_cli.copying import cluster as cluster_copy
from fourways_cli.copying import pod, receive
from fourways_cli.embedded.state import lay_out
from fourways_cli.main import app
from fourways_cli.targets import ClusterChoice, ClusterTarget, EmbeddedTarget, TargetError
from fourways_cli.targets.pod_stream import run_in_pod
from tests.kit.api_objects import ApiObjects, api_objects, kubeconfig_of
from tests.kit.cli import CliRunner
from tests.kit.pod_exec import pod_exec

PODS = "/api/v1/namespaces/team/pods"


def sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def fourways(*args: str) -> Result:
    return CliRunner().invoke(app, [*args])


# ---------------------------------------------------------------- one file


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    receive.receive(str(tmp_path), "a/b.bin", 3, sha256(b"new"), io.BytesIO(b"newer"))
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("size", "digest", "raw"),
    [(4, sha256(b"newer"), b"new"), (3, sha256(b"old"), b"new"), (5, sha256(b"new"), b"new")],
)
def test_a_file_that_was_cut_or_changed_replaces_nothing(
    tmp_path: Path, size: int, digest: str, raw: bytes
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ValueError, match="changed or was cut"):
        receive.receive(str(tmp_path), "a", size, digest, io.BytesIO(raw))
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.parametrize("relative", ["../x", "/etc/x", "link/x", "", "a/../../x"])
def test_nothing_is_written_outside_the_volume(tmp_path: Path, relative: str) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leaves the volume"):
        receive.receive(str(volume), relative, 1, sha256(b"a"), io.BytesIO(b"a"))
    assert [each.name for each in tmp_path.iterdir()] == ["volume"]


def test_the_command_of_the_pod_runs_without_our_packages(tmp_path: Path) -> None:
    raw = bytes(range(256)) * 1000
    command = pod.receive_command("m/x.bin", len(raw), sha256(raw))
    here = [sys.executable, *(str(tmp_path) if a == pod.MOUNT else a for a in command[1:])]
    done = subprocess.run([*here[:1], "-S", *here[1:]], input=raw, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m" / "x.bin").read_bytes() == raw
    cut = subprocess.run(here, input=raw[:-1], capture_output=True, text=False)
    assert (cut.returncode, b"was cut" in cut.stderr) == (1, True)


# ---------------------------------------------------------------- this machine


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's folder of the claim `models`, and files to copy in the working directory."""
    state, folder, work = tmp_path / "state", tmp_path / "folder", tmp_path / "work"
    state.mkdir()
    (work / "tree" / "deep").mkdir(parents=True)
    (work / "m.onnx").write_bytes(b"model")
    (work / "tree" / "deep" / "t.csv").write_bytes(b"table")
    lay_out(state, {"models": folder}, {})
    target = EmbeddedTarget(state)
    monkeypatch.setattr(EmbeddedTarget, "default_namespace", lambda self: "default")
    monkeypatch.setattr(target_command, "choose_target", lambda state, choice: target)
    monkeypatch.chdir(work)
    return folder


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (("m.onnx", "pvc://models/one.onnx"), {"one.onnx"}),
        (("m.onnx", "pvc://models/"), {"m.onnx"}),
        (("m.onnx", "pvc://models"), {"m.onnx"}),
        (("m.onnx", "pvc://models/a%20b/"), {"a b/m.onnx"}),
        (("tree", "pvc://models/t"), {"t/deep/t.csv"}),
        (("m.onnx", "tree", "pvc://models/all"), {"all/m.onnx", "all/deep/t.csv"}),
    ],
)
def test_files_are_copied_into_the_claim_s_folder(
    here: Path, arguments: tuple[str, ...], written: set[str]
) -> None:
    done = fourways("cp", *arguments)
    assert done.exit_code == 0, done.output
    found = {str(each.relative_to(here)) for each in here.rglob("*") if each.is_file()}
    assert found == written
    assert f"copied {len(written)} file" in done.stdout
    assert "`fourways up` of" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("m.onnx", "models/m.onnx"), 2, "write pvc://CLAIM/PATH"),
        (("m.onnx", "pvc:///m.onnx"), 2, "write pvc://CLAIM/PATH"),
        (("nosuch", "pvc://models/"), 2, "nosuch does not exist"),
        (("m.onnx", "pvc://nosuch/"), 1, "no claim nosuch: start it with --volume nosuch=FOLDER"),
        (("m.onnx", "pvc://../"), 1, "has no claim .."),
        (("m.onnx", "pvc://models/../x"), 1, "leaves the volume"),
    ],
)
def test_what_cannot_be_copied_is_named(
    here: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = fourways("cp", *arguments)
    assert (done.exit_code, words in done.stderr) == (code, True), done.output
    assert not any(here.iterdir())


# ---------------------------------------------------------------- a cluster


@pytest.fixture
def api() -> Iterator[ApiObjects]:
    with api_objects() as served:
        served.status_when_created = {"phase": "Running"}
        served.add("/api/v1", {"kind": "PersistentVolumeClaim", "metadata": {"name": "models"}})
        spec = {
            "containers": [{"name": "gateway", "image": "registry.example/runtime@sha256:1"}],
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [],
        }
        gateway = {"metadata": {"name": "fourways-gateway"}, "kind": "Deployment"}
        template = {"metadata": {}, "spec": spec}
        selector = {"selector": {"matchLabels": {}}}
        served.add("/apis/apps/v1", {**gateway, "spec": {**selector, "template": template}})
        yield served


@pytest.fixture
def config(api: ApiObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(cluster_copy, "POLL_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"model")
    return ["--kubeconfig", str(kubeconfig_of(api.port, tmp_path / "config"))]


def executing(monkeypatch: pytest.MonkeyPatch, code: int = 0, said: str = "") -> list[list[str]]:
    """Have pods run no command; return the commands, each with its input at the end."""
    ran: list[list[str]] = []

    def execute(
        self: Any, namespace: str, name: str, container: str, command: list[str], parts: Any
    ) -> tuple[int, str]:
        ran.append([*command, b"".join(parts).decode()])
        return code, said

    monkeypatch.setattr(ClusterTarget, "execute", execute)
    return ran


def test_a_pod_receives_the_files_and_is_deleted(
    api: ApiObjects, config: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = executing(monkeypatch)
    done = fourways("cp", "m.onnx", "pvc://models/a/", *config)
    assert done.exit_code == 0, done.output
    assert "copied 1 file (cluster mine, namespace team)" in done.stdout
    assert [command[4:] for command in ran] == [
        [pod.MOUNT, "a/m.onnx", "5", sha256(b"model"), "model"]
    ]
    (created, deleted) = api.asked
    assert (created[0], deleted[0]) == ("POST", "DELETE")
    assert not any(path.startswith(PODS) for path in api.objects)
    spec = created[2]["body"]["spec"]
    assert spec["containers"][0]["image"] == "registry.example/runtime@sha256:1"
    assert spec["imagePullSecrets"] == [{"name": "pull"}]


def test_the_pod_is_one_that_restricted_namespaces_admit() -> None:
    spec = pod.copy_pod("team", "models", "image", {})["spec"]
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["allowPrivilegeEscalation"] is False
    assert set(container["resources"]) == {"requests", "limits"}
    assert spec["securityContext"]["runAsUser"] == 65532
    like = {"securityContext": {"runAsNonRoot": True}}  # of an installation with fixedUser: false
    assert "runAsUser" not in str(pod.copy_pod("team", "models", "image", like))


def test_a_file_that_is_refused_ends_the_command_and_the_pod(
    api: ApiObjects, config: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    executing(monkeypatch, 1, "No space left on device\n")
    done = fourways("cp", "m.onnx", "pvc://models/", *config)
    assert done.exit_code == 1
    assert "m.onnx was not copied: No space left on device" in done.stderr
    assert api.asked[-1][0] == "DELETE"


def test_a_pod_that_does_not_run_says_why(
    api: ApiObjects, config: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    executing(monkeypatch)
    reason = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    api.status_when_created = {"phase": "Pending", "conditions": [reason]}
    done = fourways("cp", "m.onnx", "pvc://models/", "--wait", "0.02", *config)
    assert done.exit_code == 1
    assert "does not run after 0.02 s: 0/1 nodes are available" in done.stderr
    assert api.asked[-1][0] == "DELETE"


def test_an_unknown_claim_starts_no_pod(api: ApiObjects, config: list[str]) -> None:
    done = fourways("cp", "m.onnx", "pvc://nosuch/", *config)
    assert (done.exit_code, api.asked) == (1, [])
    assert "no PersistentVolumeClaim nosuch in namespace team" in done.stderr


def test_a_namespace_without_a_gateway_needs_an_image(
    api: ApiObjects, config: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    executing(monkeypatch)
    del api.objects["/apis/apps/v1/namespaces/team/deployments/fourways-gateway"]
    done = fourways("cp", "m.onnx", "pvc://models/", *config)
    assert (done.exit_code, "give --image" in done.stderr) == (1, True)
    assert fourways("cp", "m.onnx", "pvc://models/", "--image", "i", *config).exit_code == 0


# ---------------------------------------------------------------- the connection


class Stream:
    """A connection to a command in a pod."""

    def __init__(self, code: Any, said: str = "", breaks: bool = False) -> None:
        self.code, self.said, self.breaks = code, said, breaks
        self.sent: list[bytes] = []
        self.closed = False

    def is_open(self) -> bool:
        return not self.closed

    def write_stdin(self, part: bytes) -> None:
        if self.breaks:
            raise BrokenPipeError("Broken pipe")
        self.sent.append(part)

    def run_forever(self, timeout: float) -> None:
        self.closed = self.code != "late"

    def peek_stderr(self) -> str:
        return self.said

    def read_stderr(self) -> str:
        return self.said

    @property
    def returncode(self) -> int:
        if self.code is None:
            raise TypeError("'NoneType' object is not subscriptable")
        return int(self.code)

    def close(self) -> None:
        self.closed = True


def parts() -> Iterable[bytes]:
    return iter((b"a", b"b"))


def test_a_command_s_end_is_told() -> None:
    stream = Stream(3, "why")
    assert run_in_pod(stream, parts(), 1) == (3, "why")
    assert stream.sent == [b"a", b"b"]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (Stream(0, breaks=True), "Broken pipe"),
        (Stream(None), "the connection to the pod broke"),
        (Stream("late"), "did not end within 1 s"),
    ],
)
def test_a_broken_connection_is_no_success(stream: Stream, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        run_in_pod(stream, parts(), 1)
    assert stream.closed


def test_a_file_passes_a_websocket_of_the_api_whole(tmp_path: Path) -> None:
    raw = bytes(range(256)) * 4096
    volume = tmp_path / "volume"
    volume.mkdir()

    def here(command: list[str]) -> list[str]:
        return [sys.executable, *(str(volume) if a == pod.MOUNT else a for a in command[1:])]

    with pod_exec(here) as port:
        config = kubeconfig_of(port, tmp_path / "config")
        target = ClusterTarget(ClusterChoice(kubeconfig=config))
        command = pod.receive_command("m/x.bin", len(raw), sha256(raw))
        sent = (raw[start : start + 100_000] for start in range(0, len(raw), 100_000))
        assert target.execute("team", "p", pod.CONTAINER, command, sent) == (0, "")
        assert (volume / "m" / "x.bin").read_bytes() == raw
        outside = pod.receive_command("../x", len(raw), sha256(raw))
        code, said = target.execute("team", "p", pod.CONTAINER, outside, iter((raw,)))
        assert (code, "leaves the volume" in said) == (1, True)
