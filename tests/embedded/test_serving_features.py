"""A model server's process and its PostgreSQL: answers, an outage, and a start that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psycopg
import pytest

from fourways_api.runtime_config import ServerConfig
from fourways_cli.embedded.ports import free_port
from tests.kit.secret_files import secret_folder
from tests.kit.server_process import started
from tests.kit.serving_plane import NO_TLS, configure, tensor
from tests.kit.waiting import until
from tools.kit.models import LINEAR, linear
from tools.servers.postgres import Server

pytestmark = pytest.mark.embedded

QUESTION = {"inputs": [tensor("id", "BYTES", ["ann"]), tensor("rate", "FP32", [1])]}


def configured(root: Path, uri: str, **more: Any) -> ServerConfig:
    secret_folder(root / "secrets" / "crm", uri=uri)
    features = {
        "database": {"secretName": "crm"},
        "table": "people",
        "inputs": ["age", "spend"],
        "timeout": "1s",
    } | more
    config = configure(
        root, linear(), LINEAR, port=free_port(), features=features, timeoutSeconds=5
    )
    paths = config.paths.model_copy(update={"secrets_root": str(root / "secrets")})
    return config.model_copy(update={"paths": paths})


def filled(server: Server) -> str:
    uri = server.database()
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE people (id text PRIMARY KEY, age integer, spend real)")
        connection.execute("INSERT INTO people VALUES ('ann', 30, 2)")
    return uri


def test_answers_before_during_and_after_an_outage(tmp_path: Path, own_server: Server) -> None:
    with (
        started(tmp_path, configured(tmp_path, filled(own_server))) as running,
        httpx.Client(base_url=running.url, verify=NO_TLS, timeout=20) as client,
    ):
        running.until("serving")
        path = "/v2/models/churn/infer"
        answer = client.post(path, json=QUESTION)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][0]["data"] == [11.125]
        own_server.stop()
        away = client.post(path, json=QUESTION)
        assert (away.status_code, away.headers["retry-after"]) == (503, "1")
        assert "feature database" in away.json()["error"]
        whole = {"inputs": [tensor("input", "FP32", [30, 2, 1], [1, 3])]}
        assert client.post(path, json=whole).status_code == 200
        own_server.start()
        until(
            lambda: client.post(path, json=QUESTION).status_code == 200, "features are read again"
        )
        answer = client.post(path, json=QUESTION)
        assert answer.json()["outputs"][0]["data"] == [11.125]
        metrics = client.get("/metrics").text
        assert "fourways_feature_misses_total 0.0" in metrics


def test_a_login_that_is_refused_is_a_fault_until_it_is_taken_again(
    tmp_path: Path, own_server: Server
) -> None:
    uri = filled(own_server)
    own = uri.replace("tester:", "reader:")
    with psycopg.connect(uri, autocommit=True) as owner:
        owner.execute("CREATE ROLE reader LOGIN PASSWORD 's3cret'")
        owner.execute("GRANT SELECT ON people TO reader")
        with (
            started(tmp_path, configured(tmp_path, own)) as running,
            httpx.Client(base_url=running.url, verify=NO_TLS, timeout=20) as client,
        ):

            def faults() -> list[dict[str, str]]:
                found: list[dict[str, str]] = client.get("/faults").json()["faults"]
                return found

            running.until("serving")
            assert faults() == []
            owner.execute("ALTER ROLE reader NOLOGIN")
            owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"
            )
            until(lambda: faults() != [], "the fault is listed, though nobody asks for features")
            (fault,) = faults()
            assert fault["reason"] == "FeaturesUnavailable"
            assert "not permitted to log in" in fault["message"]
            assert fault["message"].endswith("(Secret crm)")
            assert "s3cret" not in fault["message"]
            assert client.get("/v2/health/ready").status_code == 200
            owner.execute("ALTER ROLE reader LOGIN")
            until(lambda: faults() == [], "the fault has gone")


def test_a_database_that_never_comes_is_named_in_the_last_words(tmp_path: Path) -> None:
    uri = f"postgresql://ann:s3cret@/crm?host={tmp_path}"
    begun = monotonic()
    soon = {"fourways_runtime.retry.START_SECONDS": 4.0}
    with started(tmp_path, configured(tmp_path, uri), soon) as running:
        assert running.end() == 75
        words = running.last_words()
        assert (words.outcome, words.reason) == ("Failed", "FeaturesUnavailable")
        assert words.message.startswith("the feature database: connection")
        assert "s3cret" not in json.dumps(running.log) + words.message
    assert monotonic() - begun > 3, "it is waited for"


def test_columns_that_are_not_there_end_the_start_at_once(
    tmp_path: Path,
    postgres: Server,
) -> None:
    config = configured(tmp_path, filled(postgres), inputs=["age", "rate"])
    with started(tmp_path, config) as running:
        assert running.end() == 2
        words = running.last_words()
        assert words.reason == "FeaturesMismatch"
        assert "table people has no column rate; found: id, age, spend" in words.message
