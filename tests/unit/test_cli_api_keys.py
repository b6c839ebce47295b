"""`fourways key`: API keys in a folder, as `fourways up --keys` reads them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import Result

from fourways_api.callers import ApiKeyRecord
from fourways_cli.main import app
from fourways_runtime.callers.api_keys import ApiKeys
from tests.kit.cli import CliRunner


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["key", *arguments])


def create(folder: Path, caller: str, *more: str) -> str:
    result = run("create", caller, "--folder", str(folder), *more)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[-1].strip()


def test_a_created_key_is_known_and_only_its_digest_is_stored(tmp_path: Path) -> None:
    key = create(tmp_path / "keys", "shop", "--scope", "predict:churn", "--days", "30")
    keys = ApiKeys(tmp_path / "keys")
    keys.reread()
    found = keys.caller(key)
    assert found is not None
    assert found[0].name == "shop"
    assert found[0].scopes.allow("predict", "churn")
    assert found[1] is not None
    stored = tmp_path / "keys" / "shop"
    assert key not in stored.read_text()
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600


def test_a_second_key_is_added_on_request_only(tmp_path: Path) -> None:
    first = create(tmp_path, "shop", "--scope", "predict:*")
    again = run("create", "shop", "--folder", str(tmp_path), "--scope", "predict:*")
    assert again.exit_code == 1
    assert "--add" in again.output
    second = create(tmp_path, "shop", "--scope", "predict:*", "--add")
    keys = ApiKeys(tmp_path)
    keys.reread()
    assert keys.caller(first)
    assert keys.caller(second)


def test_a_revoked_caller_is_gone_and_listed_no_more(tmp_path: Path) -> None:
    create(tmp_path, "shop", "--scope", "predict:churn", "--rate", "50")
    create(tmp_path, "web", "--scope", "read:*")
    listed = run("list", "--folder", str(tmp_path)).stdout
    assert "shop  predict:churn  50/s" in listed
    assert run("revoke", "shop", "--folder", str(tmp_path)).exit_code == 0
    assert "shop" not in run("list", "--folder", str(tmp_path)).stdout
    assert run("revoke", "shop", "--folder", str(tmp_path)).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("Shop", "--scope", "predict:*"), "Shop"),
        (("../shop", "--scope", "predict:*"), "shop"),
        (("shop", "--scope", "fly:*"), "fly"),
        (("shop", "--scope", "predict"), "VERB:DEPLOYMENT"),
        (("shop",), "scope"),
        (("shop", "--scope", "predict:*", "--days", "0"), "days"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    result = run("create", *arguments, "--folder", str(tmp_path))
    assert result.exit_code == 2
    assert named in result.output
    assert not list(tmp_path.iterdir())


def test_a_damaged_record_is_named_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("{")
    assert "not a valid record" in run("list", "--folder", str(tmp_path)).stdout
    added = run("create", "shop", "--folder", str(tmp_path), "--scope", "read:*", "--add")
    assert added.exit_code == 1
    assert (tmp_path / "shop").read_text() == "{"


def test_the_record_is_what_the_api_says(tmp_path: Path) -> None:
    create(tmp_path, "shop", "--scope", "predict:churn", "--scope", "read:*", "--rate", "2.5")
    record = json.loads((tmp_path / "shop").read_text())
    assert ApiKeyRecord.model_validate(record).requests_per_second == 2.5
    assert record["scopes"] == ["predict:churn", "read:*"]
