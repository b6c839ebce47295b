"""Alert rules by promtool, and every dashboard's queries against a real Prometheus."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fourways_cli.embedded.ports import free_port
from tests.kit.hosts import Up, await_settled
from tests.kit.waiting import until
from tools.cluster.errors import ClusterError
from tools.dashboards import DASHBOARDS
from tools.demo.questions import ARTIFACTS, CLAIM, EXAMPLES
from tools.installation import ROOT
from tools.servers.prometheus import prometheus

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(200)]

ALERTS = ROOT / "charts" / "fourways" / "files" / "alerts.yaml"


@pytest.fixture(scope="module")
def programs() -> tuple[Path, Path]:
    try:
        return prometheus()
    except ClusterError as error:
        pytest.skip(f"no Prometheus here: {error}")


@pytest.mark.parametrize(
    "command",
    [("check", "rules", str(ALERTS)), ("test", "rules", "tests/alerts/alerts.test.yaml")],
    ids=["check", "test"],
)
def test_promtool_accepts_the_rules(programs: tuple[Path, Path], command: tuple[str, ...]) -> None:
    done = subprocess.run([programs[1], *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def scraping(
    programs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Prometheus with our rules, which scrapes a gateway of `fourways up`."""
    folder = tmp_path_factory.mktemp("prometheus")
    with Up(folder / "state", volumes={CLAIM: ARTIFACTS}) as up:
        up.start(EXAMPLES / "churn.yaml")
        await_settled(up.state, 120)
        target = up.url.removeprefix("http://")
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"rule_files: [{ALERTS}]\n"
            "scrape_configs:\n"
            "  - job_name: gateway\n"
            f"    static_configs: [{{targets: ['{target}'], labels: {{namespace: default}}}}]\n"
        )
        address = f"127.0.0.1:{free_port()}"
        process = subprocess.Popen(
            [
                programs[0],
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            with httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False) as client:
                until(
                    lambda: value(client, "fourways_store_up") == 1.0,
                    "the gateway is scraped",
                    seconds=60,
                    ignoring=(httpx.HTTPError, ValueError),  # not ready yet: a sentence
                )
                yield client
        finally:
            process.terminate()
            process.wait(30)


def value(client: httpx.Client, query: str) -> float | None:
    found = client.get("/query", params={"query": query}).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else None


@pytest.mark.parametrize("name", DASHBOARDS)
def test_prometheus_answers_every_query_of_a_dashboard(scraping: httpx.Client, name: str) -> None:
    for panel in DASHBOARDS[name][1]:
        for query, _ in panel.queries:
            asked = query.replace("$__rate_interval", "1m")
            asked = asked.replace("$namespace", ".*").replace("$deployment", ".*")
            told = scraping.get("/query", params={"query": asked}).json()
            assert told["status"] == "success", (panel.title, told)


def test_what_a_gateway_tells_is_seen(scraping: httpx.Client) -> None:
    assert (value(scraping, 'fourways_prediction_age_seconds{deployment="churn"}') or -1) >= 0
    assert value(scraping, 'ALERTS{alertname="FourwaysStoreUnavailable"}') is None
    rules = scraping.get("/rules").json()["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} <= {"ok", "unknown"}
