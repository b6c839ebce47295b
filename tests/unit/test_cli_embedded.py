"""What the embedded host reads back out of a plan, and what it makes of what nobody gave."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fourways_api import (
    EdgeConfig,
    GatewayConfig,
    ModelDeployment,
    Paths,
    ServerConfig,
    StreamConfig,
    parse,
)
from fourways_api.runtime_config import TERMINAL_EXIT_CODES
from fourways_cli.embedded import given, workloads
from fourways_cli.embedded.broker import streams_of
from fourways_cli.embedded.localised import localised
from fourways_cli.embedded.state import lay_out
from fourways_cli.jobs import run_job
from fourways_cli.targets import LogLine, LogQuery, log_files
from fourways_cli.targets.log_files import log_lines
from fourways_operator import planning as planner
from fourways_operator.facts import OperatorSettings

ROOT = Path(__file__).parents[2]
SETTINGS = OperatorSettings(runtime_image="fourways-runtime:dev")


def embedded(name: str) -> tuple[ModelDeployment, tuple[dict[str, Any], ...]]:
    deployment = parse(yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text()))
    here = localised(deployment, "nats://127.0.0.1:4333")
    return here, planner.plan(here, SETTINGS)


@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [("come-back", ServerConfig, ("serve",)), ("water-flow", StreamConfig, ("stream",))],
)
def test_embedded_servers_are_told_what_their_pods_would_be(
    name: str, kind: type, arguments: tuple[str, ...]
) -> None:
    deployment, objects = embedded(name)
    paths = Paths(store_uri_file="/s", volumes_root="/v", cache_dir="/c", termination_log="/t")
    (server,) = workloads.servers(objects, paths, lambda: 9001)
    assert isinstance(server.config, kind)
    assert server.args == arguments
    assert server.url == "http://127.0.0.1:9001"
    assert server.ready_path == "/v2/health/ready"
    assert server.config.contract == deployment.spec.contract
    assert server.config.paths == paths
    assert server.pod_labels["fourways.dev/deployment"] == name


def test_embedded_streams_read_the_host_s_broker_and_so_does_the_gateway() -> None:
    deployment, objects = embedded("water-flow")
    (server,) = workloads.servers(objects, Paths(), lambda: 9001)
    assert isinstance(server.config, StreamConfig)
    routes = planner.plan_gateway("default", [deployment.to_json()], SETTINGS)
    config = workloads.gateway(routes, Paths(), 9000).config
    assert isinstance(config, GatewayConfig)
    (route,) = config.routes
    for source in (server.config.streaming.source, route.source):
        assert source is not None
        assert source.nats is not None
        assert source.nats.servers == "nats://127.0.0.1:4333"


def test_a_kafka_source_stays_the_manifest_s() -> None:
    deployment, _ = embedded("kafka/water-flow")
    assert deployment.spec.streaming is not None
    assert deployment.spec.streaming.source.kafka is not None
    assert deployment.spec.streaming.source.kafka.bootstrap_servers == "kafka.messaging.svc:9092"
    assert streams_of([deployment]) == {}


def test_the_embedded_broker_makes_each_stream_with_all_its_subjects() -> None:
    one, _ = embedded("water-flow")
    assert one.spec.streaming is not None
    assert one.spec.streaming.source.nats is not None
    source = one.spec.streaming.source.nats.model_copy(update={"subject": "water.alarms"})
    settings = one.spec.streaming.model_copy(
        update={"source": one.spec.streaming.source.model_copy(update={"nats": source})}
    )
    other = one.model_copy(update={"spec": one.spec.model_copy(update={"streaming": settings})})
    churn, _ = embedded("parity/churn")  # has the settings, and another mode
    assert streams_of([one, other, churn]) == {"WATER": ["water.alarms", "water.readings"]}


def test_an_embedded_build_is_the_planned_job() -> None:
    deployment, objects = embedded("file-type-on-device")
    (build,) = workloads.jobs(objects, Paths())
    (planned,) = (o for o in objects if o["kind"] == "Job")
    assert build.name == planned["metadata"]["name"]
    assert (build.before, build.args) == ((("edge-build",),), ("edge-sign",))
    assert isinstance(build.config, EdgeConfig)
    assert build.config.edge == deployment.spec.edge
    assert build.deadline_seconds == 7200
    assert build.terminal == set(TERMINAL_EXIT_CODES)


def test_a_signing_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    public = given.make_signing_key(tmp_path)
    before = public.read_bytes()
    assert given.make_signing_key(tmp_path).read_bytes() == before
    private = tmp_path / given.SIGNING_KEY
    assert private.stat().st_mode & 0o077 == 0
    key = load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"


def test_a_database_nobody_gave_is_asked_for() -> None:
    deployment, _ = embedded("come-back")
    with pytest.raises(given.HostLacks, match="--secret shop-database=FOLDER"):
        given.check_needs([deployment], {})
    given.check_needs([deployment], {"shop-database": Path("/any")})


def test_a_model_in_an_image_needs_a_cluster() -> None:
    deployment, _ = embedded("come-back")
    spec = deployment.spec
    model = spec.model.model_copy(update={"image_path": "come-back.onnx"})
    mounted = deployment.model_copy(update={"spec": spec.model_copy(update={"model": model})})
    with pytest.raises(given.HostLacks, match="its model in an image"):
        given.check_needs([mounted], {"shop-database": Path("/any")})


def test_a_state_folder_named_from_here_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    lay_out(Path("here"), {}, {})
    assert (tmp_path / "here/store/uri").read_text() == f"sqlite:///{tmp_path}/here/store.db"


def test_what_workers_read_is_not_written_again(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    links = [tmp_path / "state/volumes/claim", tmp_path / "state/secrets/keys"]
    (tmp_path / "state").mkdir()
    lay_out(tmp_path / "state", {"claim": folders[0]}, {"keys": folders[1]})
    before = [p.lstat() for p in (*links, tmp_path / "state/store/uri")]
    lay_out(tmp_path / "state", {"claim": folders[0]}, {"keys": folders[1]})
    assert [p.lstat() for p in (*links, tmp_path / "state/store/uri")] == before
    lay_out(tmp_path / "state", {"claim": folders[1]}, {"keys": folders[1]})
    assert links[0].resolve() == folders[1].resolve()


def test_an_embedded_run_on_ray_is_its_driver_s_own() -> None:
    """No KubeRay is here, so nothing would come of waiting: the driver starts a Ray itself."""
    document = yaml.safe_load((ROOT / "examples" / "churn.yaml").read_text())
    document["spec"]["batch"] |= {"engine": "Ray", "workers": 3}
    (cron,) = workloads.cron_jobs(planner.plan(parse(document), SETTINGS))
    job = workloads.batch_job(run_job(cron.planned), "churn-1", Paths())
    assert (job.args, job.workers) == (("batch",), 1)
    assert job.config.batch is not None
    assert job.config.batch.workers == 3


def test_a_log_is_read_from_its_end_and_followed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthree")
    files = {"w": log, "none": tmp_path / "none"}
    assert [line.text for line in log_lines(files, LogQuery(tail=2))] == ["two", "three"]
    lines = log_lines(files, LogQuery(tail=1, follow=True))
    assert next(lines).text == "two"
    with log.open("ab") as end:
        end.write(b" and more\nfour\nfi")
    assert [next(lines).text for _ in range(2)] == ["three and more", "four"]
    with log.open("ab") as end:
        end.write(b"ve\n")
    assert next(lines) == LogLine("w", "five")


def test_a_long_log_is_read_at_its_end_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "MOST_BYTES", 8)
    log = tmp_path / "log"
    log.write_bytes(b"a long line\nx\ny\n")
    assert [line.text for line in log_lines({"w": log}, LogQuery(tail=9))] == ["x", "y"]
