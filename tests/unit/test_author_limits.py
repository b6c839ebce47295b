"""What the author of a deployment cannot reach: hosts, metadata, images, mounted Secrets."""

from __future__ import annotations

import inspect
import ipaddress
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fourways_api import BatchSource, Contract, EntityKey, FetchPolicy, Paths, StreamSource
from fourways_api.callers import GatewayAccess
from fourways_api.modes import FeatureLookup, Sink
from fourways_cli.embedded import processes
from fourways_operator.facts import OperatorSettings
from fourways_operator.installation import admitted_spec
from fourways_operator.plan.worker import variables_of
from fourways_operator.planning import plan, plan_gateway
from fourways_operator.pods import config_text
from fourways_runtime.errors import FetchRefused, SourceError
from fourways_runtime.io.brokers.registry import open_publisher
from fourways_runtime.io.feature_store import open_features
from fourways_runtime.io.fetch.network import check_address
from fourways_runtime.io.sinks import open_sink
from fourways_runtime.io.sources import open_table
from tests.kit.planned import SETTINGS
from tests.kit.secret_files import secret_folder
from tests.transitions.changes import BLOCKS, deployment

METADATA = (
    "169.254.169.254",
    "169.254.170.2",
    "fe80::a9fe:a9fe",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::6464:64c8",
)
CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id", "type": "string"},
        "inputs": [{"name": "x", "type": "float32"}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)
ELSEWHERE = FetchPolicy(hosts=("models.example",))


def policies(settings: OperatorSettings = SETTINGS, mode: str = "realtime") -> dict[str, Any]:
    doc = deployment("churn", mode=mode, **BLOCKS[mode])
    doc["metadata"]["uid"] = "u"
    spec = admitted_spec(doc, settings).spec
    assert spec is not None
    objects = [*plan(spec, settings), *plan_gateway("shop", [doc], settings)]
    kind = "NetworkPolicy"
    return {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == kind}


def passes(policy: dict[str, Any], address: str, port: int) -> bool:
    """Tell whether a policy lets a pod connect to an address, as Kubernetes reads it."""
    ip = ipaddress.ip_address(address)

    def within(cidr: str) -> bool:
        network = ipaddress.ip_network(cidr)
        return ip.version == network.version and ip in network

    return any(
        (not rule.get("ports") or any(p["port"] == port for p in rule["ports"]))
        and (
            not rule.get("to")
            or any(
                within(peer["ipBlock"]["cidr"])
                and not any(map(within, peer["ipBlock"].get("except", ())))
                for peer in rule["to"]
                if "ipBlock" in peer
            )
        )
        for rule in policy["egress"]
    )


@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_out_of_reach_of_fetcher_and_policy(address: str) -> None:
    with pytest.raises(FetchRefused, match="metadata"):
        check_address(address, "host.example")
    for policy in policies().values():
        assert not any(passes(policy, address, port) for port in (53, 80, 443, 5432))


def test_other_addresses_are_reached_on_the_ports_of_the_spec() -> None:
    check_address("203.0.113.7", "host.example")
    policy = policies(replace(SETTINGS, egress_ports=(443,)))["churn-realtime"]
    assert passes(policy, "203.0.113.7", 443)
    assert not passes(policy, "203.0.113.7", 53), "DNS is the cluster's"


def test_egress_is_narrowed_to_the_admin_s_networks() -> None:
    narrow = replace(SETTINGS, egress_ports=(443,), egress_networks=("10.0.0.0/8",))
    policy = policies(narrow)["churn-realtime"]
    assert passes(policy, "10.1.2.3", 443)
    assert not passes(policy, "203.0.113.7", 443)
    none = policies(replace(SETTINGS, egress_ports=(443,), egress_networks=()))["churn-realtime"]
    assert not passes(none, "10.1.2.3", 443)


def test_workers_answer_the_gateway_and_the_operator_only() -> None:
    settings = replace(SETTINGS, identity="ops/fourways")
    (server,) = policies(settings)["churn-realtime"]["ingress"]
    labels = {"app.kubernetes.io/managed-by": "fourways", "fourways.dev/component": "gateway"}
    gateway, operator = server["from"]
    assert gateway == {"podSelector": {"matchLabels": labels}}
    named = operator["namespaceSelector"]["matchLabels"]
    assert named == {"kubernetes.io/metadata.name": "ops"}
    (stream,) = policies(settings, mode="streaming")["churn-streaming"]["ingress"]
    assert stream["from"] == [operator]


@pytest.mark.parametrize(("peers", "count"), [("[]", 1), ('[{"podSelector": {}}]', 2)])
def test_the_gateway_answers_whom_the_admin_lists_and_the_operator(peers: str, count: int) -> None:
    settings = replace(SETTINGS, identity="ops/fourways", gateway_peers=peers)
    (rule,) = policies(settings)["fourways-gateway"]["ingress"]
    assert len(rule["from"]) == count
    operator = rule["from"][-1]["namespaceSelector"]["matchLabels"]
    assert operator == {"kubernetes.io/metadata.name": "ops"}


# ---------------------------------------------------------------- hosts


@pytest.mark.parametrize("hosts", [("models.example",), ()])
@pytest.mark.parametrize(
    "told",
    [
        {"kafka": {"bootstrapServers": "models.example:1,evil.example:9092", "topic": "t"}},
        {"nats": {"servers": "nats://evil.example:4222", "stream": "S", "subject": "s"}},
    ],
)
def test_the_list_of_hosts_binds_brokers(told: dict[str, Any], hosts: tuple[str, ...]) -> None:
    with pytest.raises(FetchRefused, match=r"does not allow the host (evil|models)\.example"):
        open_publisher(StreamSource.model_validate(told), Paths(), FetchPolicy(hosts=hosts))


def test_the_consumer_group_of_another_deployment_is_refused() -> None:
    """Its worker would get some of the partitions, and the other's events would wait for it."""
    kafka = {"bootstrapServers": "kafka.example:9092", "topic": "orders"}

    def problems(group: str | None) -> tuple[Any, ...]:
        named = kafka | ({"consumerGroup": group} if group else {})
        doc = deployment("churn", mode="streaming", streaming={"source": {"kafka": named}})
        return admitted_spec(doc, SETTINGS).problems

    (problem,) = problems("fourways-shop-others")
    assert problem.field == "spec.streaming.source.kafka.consumerGroup"
    for own in (None, "payments", "fourways-shop-churn"):
        assert problems(own) == ()


def runtime_of_kserve(uri: str) -> dict[str, Any]:
    doc = deployment("churn", mode="realtime", realtime={"runtime": {"modelFormat": "sklearn"}})
    doc["spec"]["model"] |= {"uri": uri, "digestPolicy": "TrustOnFirstUse"}
    return doc


@pytest.mark.parametrize(
    ("uri", "hosts", "words"),
    [
        ("https://evil.example/m", ("models.example",), "does not allow the host evil.example"),
        ("oci://evil.example/m", ("*.models.example",), "does not allow the host evil.example"),
        ("https://models.example/m", (), "does not allow the host models.example"),
        ("http://169.254.169.254/latest", ("*",), "a link-local or metadata address"),
        ("http://[fd00:ec2::254]/latest", ("*",), "a link-local or metadata address"),
        ("http://[::ffff:a9fe:a9fe]/latest", ("*",), "a link-local or metadata address"),
    ],
)
def test_the_list_of_hosts_binds_what_kserve_fetches(
    uri: str, hosts: tuple[str, ...], words: str
) -> None:
    doc = runtime_of_kserve(uri)
    (problem,) = admitted_spec(doc, replace(SETTINGS, allowed_hosts=hosts)).problems
    assert problem.field == "spec.model.uri"
    assert words in str(problem)


@pytest.mark.parametrize(
    "uri", ["https://models.example/m", "https://MODELS.example:443/m", "s3://bucket/m"]
)
def test_kserve_fetches_from_listed_hosts(uri: str) -> None:
    settings = replace(SETTINGS, allowed_hosts=("models.example",))
    assert admitted_spec(runtime_of_kserve(uri), settings).spec is not None


def test_the_list_of_hosts_binds_databases(tmp_path: Path) -> None:
    secret_folder(tmp_path / "db", uri="postgresql://u:CANARY@models.example,evil.example/d")
    paths = Paths(secrets_root=str(tmp_path))
    database = {"secretName": "db"}
    source = BatchSource.model_validate({"query": {"database": database, "sql": "SELECT 1"}})
    table = open_table(source, CONTRACT, policy=ELSEWHERE, paths=paths)
    with pytest.raises(FetchRefused, match=r"evil\.example") as error:
        next(iter(table.chunks()))
    assert "CANARY" not in str(error.value)
    lookup = FeatureLookup.model_validate({"database": database, "table": "t"})
    key = EntityKey(name="id", type="string")
    with pytest.raises(FetchRefused, match=r"evil\.example"):
        open_features(lookup, key, ["x"], paths, policy=ELSEWHERE)
    sink = {"table": {"database": database, "table": "t"}}
    opened = open_sink(Sink.model_validate(sink), CONTRACT, "r", policy=ELSEWHERE, paths=paths)
    with pytest.raises(FetchRefused, match=r"evil\.example"):
        opened.begin()


# ---------------------------------------------------------------- the installation


@pytest.mark.parametrize(
    ("image", "allowed", "admitted"),
    [
        ("registry.example/team/ranker:1", (), False),
        ("registry.example/team/ranker:1", ("registry.example/team/*",), True),
        ("registry.example/team/sub/ranker:1", ("registry.example/team/*",), False),
        ("registry.example/team/sub/ranker:1", ("registry.example/**",), True),
        ("registry.example.evil/team/ranker:1", ("registry.example/**",), False),
        ("evil.example/registry.example/team/ranker:1", ("registry.example/**",), False),
        ("registry.example/team/ranker:1", None, True),
    ],
)
def test_images_are_those_that_the_admin_lists(
    image: str, allowed: tuple[str, ...] | None, admitted: bool
) -> None:
    doc = deployment("churn", image=image)
    doc["spec"]["model"] |= {"format": "python", "pythonClass": "a:B"}
    found = admitted_spec(doc, replace(SETTINGS, allowed_images=allowed))
    assert (found.spec is not None) is admitted
    if not admitted:
        assert found.problems[0].field == "spec.image"


def test_an_image_with_a_model_is_one_that_the_admin_lists() -> None:
    doc = deployment("churn")
    model = {"uri": "oci://registry.example/team/churn:1", "imagePath": "churn.onnx"}
    doc["spec"]["model"] = {**doc["spec"]["model"], "digest": f"sha256:{'0' * 64}", **model}
    for allowed, admitted in ((("registry.example/team/*",), True), ((), False)):
        found = admitted_spec(doc, replace(SETTINGS, allowed_images=allowed))
        assert [problem.field for problem in found.problems] == (
            [] if admitted else ["spec.model.uri"]
        )
    # What is fetched is no image.
    del doc["spec"]["model"]["imagePath"]
    assert admitted_spec(doc, replace(SETTINGS, allowed_images=())).spec is not None


@pytest.mark.parametrize("field", ["labels", "annotations", "serviceAccountAnnotations"])
@pytest.mark.parametrize(
    ("key", "allowed", "admitted"),
    [
        ("app", (), False),
        ("azure.workload.identity/use", ("azure.workload.identity/*",), True),
        ("azure.workload.identity.evil/use", ("azure.workload.identity/*",), False),
        ("eks.amazonaws.com/role-arn", ("eks.amazonaws.com/role-arn",), True),
        ("app", None, True),
        ("fourways.dev/deployment", None, False),
        ("app.kubernetes.io/managed-by", ("**",), False),
    ],
)
def test_keys_of_pods_are_those_that_the_admin_lists(
    field: str, key: str, allowed: tuple[str, ...] | None, admitted: bool
) -> None:
    doc = deployment("churn", pod={field: {key: "value"}})
    found = admitted_spec(doc, replace(SETTINGS, allowed_keys=allowed))
    assert (found.spec is not None) is admitted
    if not admitted:
        assert found.problems[0].field == f"spec.pod.{field}"
        assert key in str(found.problems[0])


def test_gateways_know_the_origins_that_the_admin_lists() -> None:
    settings = replace(SETTINGS, gateway_origins=("https://shop.example.com",))
    owner = deployment("churn")
    owner["metadata"]["uid"] = "u"
    (gateway,) = [o for o in plan_gateway("demo", [owner], settings) if o["kind"] == "Deployment"]
    assert '"allowedOrigins":["https://shop.example.com"]' in config_text(gateway)


def test_a_variable_arrives_as_it_is_written() -> None:
    doc = deployment(
        "churn", image="r/i", pod={"env": [{"name": "A", "value": "$(B) $$ {{.Name}}"}]}
    )
    doc["spec"]["model"] |= {"format": "python", "pythonClass": "a:B"}
    found = admitted_spec(doc, SETTINGS).spec
    assert found is not None
    assert variables_of(found) == [{"name": "A", "value": "$$(B) $$$$ {{.Name}}"}]


def test_the_secret_of_the_store_is_nobody_s() -> None:
    settings = replace(SETTINGS, gateway_store_secret="fourways-store-gateway")
    for name in ("fourways-store", "fourways-store-gateway"):
        doc = deployment("churn")
        doc["spec"]["model"]["credentials"] = {"secretName": name}
        (problem,) = admitted_spec(doc, settings).problems
        assert problem.field == "spec.model.credentials.secretName"
        assert "prediction store" in str(problem)


def test_secrets_of_the_installation_are_nobody_s() -> None:
    """An image of the author's own would read what the kubelet mounts."""
    settings = replace(
        SETTINGS,
        gateway_tls_secret="gateway-tls",
        server_tls_secret="{deployment}-server",
        server_ca_secret="authority",
        access=GatewayAccess(keys_secret="keys"),
    )
    named = {
        "gateway-tls": "the gateways' certificate",
        "others-server": "the model servers' certificates",
        "churn-server": "the model servers' certificates",
        "authority": "the model servers' certificates",
        "keys": "the callers of gateways",
    }
    for name, whose in named.items():
        doc = deployment("churn")
        doc["spec"]["model"]["credentials"] = {"secretName": name}
        (problem,) = admitted_spec(doc, settings).problems
        assert f"{name} is the Secret of {whose}" in str(problem)
    for name in ("server", "churn-server-2", "keys-2"):
        doc = deployment("churn")
        doc["spec"]["model"]["credentials"] = {"secretName": name}
        assert admitted_spec(doc, settings).spec is not None


def stores_of(objects: Any) -> set[str]:
    """Return the Secrets that the pods of planned objects mount as the store's address."""
    match objects:
        case {"name": "store", "secret": {"secretName": name}}:
            return {name}
        case dict():
            return stores_of(list(objects.values()))
        case list() | tuple():
            return {name for each in objects for name in stores_of(each)}
    return set()


def test_gateways_read_the_store_by_an_address_of_their_own() -> None:
    settings = replace(SETTINGS, gateway_store_secret="reading")
    document = deployment("churn")
    document["metadata"]["uid"] = "u"
    one = admitted_spec(document, settings).spec
    assert one is not None
    for given, read in ((settings, "reading"), (SETTINGS, "fourways-store")):
        assert stores_of(plan(one, given)) == {"fourways-store"}
        assert stores_of(plan_gateway("shop", [document], given)) == {read}


def test_a_cluster_reads_no_files_of_its_own() -> None:
    doc = deployment("churn")
    doc["spec"]["model"]["uri"] = "file:///etc/passwd"
    settings = replace(SETTINGS, allowed_schemes=("pvc", "https"))
    problems = admitted_spec(doc, settings).problems
    assert [p.field for p in problems] == ["spec.model.uri"]
    assert "allows no file URIs" in str(problems[0])


# ---------------------------------------------------------------- mounted Secrets as files


def mounted(at: Path, **keys: str) -> None:
    """Lay files out as the kubelet does."""
    real = at / "..2026_11_30_16_00_00.123456789"
    real.mkdir(parents=True)
    (at / "..data").symlink_to(real.name)
    for key, value in keys.items():
        (real / key).write_text(value)
        (at / key).symlink_to(f"..data/{key}")


@pytest.mark.parametrize("root", ["secrets/ci-token", "store", "claim"])
@pytest.mark.parametrize(
    "name", ["uri", "..data/uri", "*/uri", "..*/uri", "..2026*/uri", "?*/uri", "[.]*/uri", "**/uri"]
)
@pytest.mark.parametrize("kind", ["CSV", "JSONLines"])
def test_a_mounted_secret_is_no_table(tmp_path: Path, root: str, name: str, kind: str) -> None:
    mounted(tmp_path / root, uri="CANARY.secret.text\n")
    paths = Paths(
        secrets_root=str(tmp_path / "secrets"), store_uri_file=str(tmp_path / "store/uri")
    )
    source = BatchSource.model_validate({"uri": f"file://{tmp_path}/{root}/{name}", "format": kind})
    with pytest.raises((FetchRefused, SourceError)) as error:
        list(open_table(source, CONTRACT, policy=FetchPolicy(), paths=paths).chunks())
    assert "CANARY" not in str(error.value)


def test_a_first_line_that_is_no_header_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("eyJhbGciOi.CANARY.JWT,name\n")
    source = BatchSource.model_validate({"uri": f"file://{tmp_path}/t.csv", "format": "CSV"})
    with pytest.raises(
        SourceError, match=r"the file has \(a text of \d+ characters\), name"
    ) as error:
        list(open_table(source, CONTRACT, policy=FetchPolicy(), paths=Paths()).chunks())
    assert "CANARY" not in str(error.value)


# ---------------------------------------------------------------- programs


@pytest.mark.thorough
@pytest.mark.parametrize("words", [["-m", "fourways_cli", "--version"]])
def test_a_module_beside_the_manifest_is_not_run(tmp_path: Path, words: list[str]) -> None:
    for module in ("orjson", "typer", "pydantic", "fourways_api"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n")
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "RAN").exists()


def test_workers_of_the_host_start_with_a_safe_path() -> None:
    assert '"-P"' in inspect.getsource(processes)
    images = Path(__file__).parents[2] / "runtimes" / "images" / "Dockerfile"
    starts = [line for line in images.read_text().splitlines() if line.startswith("ENTRYPOINT")]
    assert starts
    assert all('"-P"' in line for line in starts)
