"""A real S3 server, and the Secret that opens it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from tests.kit.secret_files import secret_folder

KEY, SECRET, REGION = "key", "secret", "us-east-1"


@contextlib.contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """Serve empty buckets; yields the endpoint."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        for bucket in buckets:
            s3_client(endpoint).create_bucket(Bucket=bucket)
        yield endpoint
    finally:
        server.stop()


def s3_client(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )


def s3_secret(folder: Path, endpoint: str) -> Path:
    """Write the Secret's files, one a key, as Kubernetes mounts them."""
    secret_folder(folder)
    values = {
        "access-key-id": KEY,
        "secret-access-key": SECRET,
        "endpoint-url": endpoint,
        "region": REGION,
    }
    for name, value in values.items():
        (folder / name).write_text(value)
    return folder
