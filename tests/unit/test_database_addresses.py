"""The address of a database in a Secret: where an authority is given, the server is verified."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from fourways_runtime.io.secret_uri import read_secret_uri
from fourways_runtime.io.store import read_uri

ADDRESS = "postgresql://me:p%40ss@db.example:6432/mine"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "uri").write_text(ADDRESS + "\n")
    (tmp_path / "ca.crt").write_text("an authority")
    return tmp_path / "uri"


def test_with_an_authority_the_server_is_verified(file: Path) -> None:
    for address in (read_secret_uri(file, "it"), read_uri(str(file))):
        given = conninfo_to_dict(address)
        assert given["sslmode"] == "verify-full"
        assert given["sslrootcert"] == str(file.with_name("ca.crt"))
        assert (given["password"], given["dbname"]) == ("p@ss", "mine")


@pytest.mark.parametrize(
    ("more", "mode", "root"),
    [
        ("?sslmode=disable", "disable", None),
        ("?sslmode=verify-ca&connect_timeout=3", "verify-ca", None),
        ("?sslrootcert=/etc/other.crt", "verify-full", "/etc/other.crt"),
        ("?connect_timeout=3", "verify-full", None),
    ],
)
def test_what_an_address_says_itself_holds(
    file: Path, more: str, mode: str, root: str | None
) -> None:
    file.write_text(ADDRESS + more)
    given = conninfo_to_dict(read_secret_uri(file, "it"))
    assert given["sslmode"] == mode
    assert given["sslrootcert"] == (root or str(file.with_name("ca.crt")))


def test_without_an_authority_and_for_files_nothing_is_added(file: Path) -> None:
    file.write_text("sqlite:///srv/store.db")
    assert read_secret_uri(file, "it") == "sqlite:///srv/store.db"
    file.write_text(ADDRESS)
    file.with_name("ca.crt").unlink()
    assert read_secret_uri(file, "it") == ADDRESS
