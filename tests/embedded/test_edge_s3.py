"""Bundles published to a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fourways_api.runtime_config import FetchPolicy, Paths
from fourways_runtime import bundle_layout as layout
from fourways_runtime.errors import PublishFailed
from fourways_runtime.io.folders import OutputFolder, open_folder
from tests.kit.edge_plane import ROOMY
from tests.kit.edge_rig import Publisher
from tests.kit.s3_rig import s3_secret, s3_server

pytestmark = pytest.mark.embedded


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server("edge") as endpoint:
        yield endpoint


def credentials(root: Path, endpoint: str) -> Path:
    return s3_secret(root / "secrets" / "bucket", endpoint)


def bucket(root: Path, endpoint: str, uri: str) -> OutputFolder:
    secret = credentials(root, endpoint)
    return open_folder(uri, secret=secret, policy=FetchPolicy(), paths=Paths())


def edge(uri: str) -> dict[str, object]:
    return {
        "targets": [{"name": "door", "budget": ROOMY}],
        "signing": {"secretName": "device-key"},
        "publish": uri,
        "credentials": {"secretName": "bucket"},
    }


def test_a_bundle_in_a_bucket_is_whole_and_the_one_before_last_is_gone(
    tmp_path: Path, endpoint: str
) -> None:
    credentials(tmp_path, endpoint)
    publisher = Publisher(tmp_path)
    digests = [publisher.publish(at, edge=edge("s3://edge/bundles")) for at in (1, 2, 3)]
    place = bucket(tmp_path, endpoint, "s3://edge/bundles/churn/door")
    published = layout.read_index(place.get(layout.INDEX_FILE, 2**20) or b"")
    assert published.model.digest == digests[2]
    raw = place.get(layout.blob_name(digests[2]), 2**20) or b""
    for wanted in layout.read_model_manifest(raw).values():
        found = place.get(layout.blob_name(wanted.digest), 2**30)
        assert found is not None
        assert layout.digest_of(found) == wanted.digest
    kept = [place.size(layout.blob_name(digest)) is not None for digest in digests]
    assert kept == [False, True, True]


def test_a_bucket_that_is_not_there_is_said_so(tmp_path: Path, endpoint: str) -> None:
    credentials(tmp_path, endpoint)
    with pytest.raises(PublishFailed, match="s3://nowhere/bundles/churn/door"):
        Publisher(tmp_path).publish(1, edge=edge("s3://nowhere/bundles"))
