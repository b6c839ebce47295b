"""Objects of gs and az are read only in the state in which they were listed, as those of s3."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fourways_runtime.errors import SourceError
from fourways_runtime.io.fetch.location import Location
from fourways_runtime.io.fetch.objects import SMALL_BYTES, open_known, translated

# The clients of both stores take a second to import.
pytestmark = pytest.mark.thorough

KEY = "a2V5"
BODY = bytes(range(256)) * (SMALL_BYTES // 256 + 1)


class Bucket:
    """One object ``box/t.parquet`` behind the interfaces of both stores."""

    def __init__(self) -> None:
        self.body, self.tag = BODY, "7"
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                outer.asked.append(self.path)
                generation = parse_qs(url.query).get("generation")
                expected = self.headers.get("If-Match")
                if generation is not None and generation != [outer.tag]:
                    self._answer(404, b"No such object")
                elif expected is not None and expected != f'"{outer.tag}"':
                    self._answer(412, b"", "ConditionNotMet")
                elif generation is None and expected is None:
                    self._answer(400, b"an unconditional read")
                else:
                    wanted = self.headers.get("Range") or self.headers["x-ms-range"]
                    first, last = map(int, re.findall(r"\d+", wanted))
                    self._answer(206, outer.body[first : last + 1], first=first)

            def _answer(self, status: int, body: bytes, code: str = "", first: int = 0) -> None:
                self.send_response(status)
                self.send_header("ETag", f'"{outer.tag}"')
                self.send_header("Last-Modified", "Mon, 30 Nov 2026 10:00:00 GMT")
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                if code:
                    self.send_header("x-ms-error-code", code)
                if status == 206:
                    last, size = first + len(body) - 1, len(outer.body)
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    found = Bucket()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.02,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def filesystem(scheme: str, url: str) -> Any:
    if scheme == "gs":
        from gcsfs.core import GCSFileSystem

        return GCSFileSystem(token="anon", endpoint_url=url, skip_instance_cache=True)
    from adlfs import AzureBlobFileSystem

    connection = f"AccountName=acc;AccountKey={KEY};BlobEndpoint={url}/acc"
    return AzureBlobFileSystem(connection_string=connection, skip_instance_cache=True)


def read(scheme: str, bucket: Bucket, size: int) -> Any:
    return open_known(filesystem(scheme, bucket.url), scheme, "box/t.parquet", size, "7")


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_small_object_is_one_request(scheme: str, bucket: Bucket) -> None:
    assert read(scheme, bucket, 1000) == BODY[:1000]
    assert len(bucket.asked) == 1


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_large_object_that_is_replaced_meanwhile_is_never_mixed(
    scheme: str, bucket: Bucket
) -> None:
    file = read(scheme, bucket, len(BODY))
    file.seek(len(BODY) - 100)
    assert file.read(100) == BODY[-100:]
    file.cache.cache = b""
    bucket.body, bucket.tag = BODY[::-1], "8"
    location = Location.parse(f"{scheme}://box/t.parquet")
    # In gs the old generation is gone; the table then looks at the object and says that it changed.
    told = "there is no such object" if scheme == "gs" else "changed while it was read"
    file.seek(0)
    with pytest.raises(SourceError, match=told), translated(location):
        file.read(100)
