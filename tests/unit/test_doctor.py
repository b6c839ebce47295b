"""fourways doctor: what is missing or wrong is named, with the fix, and nothing else."""

from __future__ import annotations

import json
import locale
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fourways_api.installing import install_command
from fourways_cli.diagnosis import machine
from fourways_cli.diagnosis.cluster import look_at_cluster
from fourways_cli.diagnosis.reading import ApiReader, read_facts
from fourways_cli.main import app
from tests.kit.faults import CLASS, CLUSTERS, GOOD, one_crd


@pytest.fixture(autouse=True)
def _one_crd() -> Iterator[None]:
    with one_crd():
        yield


def test_a_good_cluster_has_nothing_to_mend() -> None:
    facts = replace(GOOD, storage_classes=[CLASS], ahead_seconds=-29.0)
    assert {finding.level for finding in look_at_cluster(facts, "shop")} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "level", "about", "says", "fix"),
    CLUSTERS,
)
def test_each_fault_of_a_cluster_is_named_with_its_fix(
    changes: dict[str, Any], level: str, about: str, says: str, fix: str
) -> None:
    found = look_at_cluster(replace(GOOD, **changes), "shop")
    told = [f for f in found if f.level == level and f.about == about and says in f.says]
    assert len(told) == 1
    assert fix in told[0].fix


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Api:
    """An API server that refuses everything with a status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[tuple[str, str, str]] = []

    def request(self, method: str, path: str, **options: Any) -> Any:
        self.asked.append((method, path, options.get("header_params", {}).get("Accept", "")))
        raise Refused(self.status)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_what_may_not_be_read_is_not_taken_for_absent(status: int) -> None:
    api = Api(status)
    facts = read_facts(ApiReader(api, Refused, OSError), "shop")
    assert (facts.crd, facts.store_secret) == (({}, False) if status == 404 else (None, None))
    secrets = [accept for _, path, accept in api.asked if "/secrets/" in path]
    assert len(secrets) == 1
    assert "PartialObjectMetadata" in secrets[0], "the values of a Secret are not asked for"
    list(look_at_cluster(facts, "shop"))


class Dated:
    """An API server whose answers have these headers."""

    def __init__(self, **headers: str) -> None:
        self.headers = headers

    def request(self, method: str, path: str, **options: Any) -> Dated:
        return self


@pytest.mark.parametrize("seconds", [0, 3600, -3600])
def test_the_clock_is_that_of_the_answers_date(seconds: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds))
    ahead = ApiReader(Dated(Date=date), Refused, OSError).ahead_seconds()
    assert ahead == pytest.approx(seconds, abs=2)
    assert seconds or ahead == 0, "what the date leaves open is no difference"


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}])
def test_an_answer_without_a_date_says_nothing_of_the_clock(headers: dict[str, str]) -> None:
    assert ApiReader(Dated(**headers), Refused, OSError).ahead_seconds() is None


def test_a_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(machine, "PORT", taken.getsockname()[1])
        monkeypatch.setattr(machine, "missing_packages", lambda: ["pyarrow"])
        arguments = ["doctor", "--machine", "-o", "json", "--state", str(tmp_path / "a" / "b")]
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    found = {each["about"]: each for each in json.loads(done.stdout)}
    assert found["runtime"]["level"] == "fault"
    assert found["runtime"]["fix"] == install_command("runtime")
    assert (found["port"]["level"], "--port" in found["port"]["fix"]) == ("note", True)
    assert found["disk"]["level"] == "ok"


@pytest.mark.parametrize(("name", "level"), [("C", "ok"), ("xx_XX.nosuch", "note")])
def test_the_locale_of_text_models_is_looked_at(
    name: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "TEXT_LOCALE", name)
    before = locale.setlocale(locale.LC_CTYPE)
    (found,) = (each for each in machine.look_at_machine(tmp_path) if each.about == "locale")
    assert found.level == level
    assert (f"localedef -i en_US -f UTF-8 {name}" in found.fix) == (level == "note")
    assert locale.setlocale(locale.LC_CTYPE) == before


def test_a_cluster_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--cluster", "--kubeconfig", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "there is no kubeconfig" in done.stderr
