"""A mounted certificate is read in one way by HTTP and gRPC: whole pairs only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fourways_http import Request, Response, json_response
from fourways_runtime.callers.certificate import Certificate, MountedCertificate
from fourways_runtime.errors import ConfigError
from fourways_runtime.grpc_v2.listener import GrpcListener


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders, each with a certificate and its key."""
    folders = []
    for name in ("old", "new"):
        folder = tmp_path_factory.mktemp(name)
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
            f" -subj /CN={name}.example -keyout {folder}/tls.key -out {folder}/tls.crt"
        )
        subprocess.run(command.split(), check=True, capture_output=True)
        folders.append(folder)
    return folders[0], folders[1]


def mount(source: Path, folder: Path, *names: str) -> None:
    """Replace files as the kubelet does: each by another one."""
    folder.mkdir(exist_ok=True)
    for name in names or ("tls.crt", "tls.key"):
        shutil.copy(source / name, folder / f".{name}")
        os.replace(folder / f".{name}", folder / name)


def der(folder: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert((folder / "tls.crt").read_text())


def test_only_a_whole_pair_is_taken(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pairs
    folder = tmp_path / "tls"
    with pytest.raises(ConfigError, match=r"it needs tls\.crt and tls\.key"):
        MountedCertificate(folder)
    mount(old, folder)
    mounted = MountedCertificate(folder)
    assert not mounted.renewed()
    mount(new, folder, "tls.crt")
    assert not mounted.renewed(), "the key is still the old one"
    assert mounted.chain == (old / "tls.crt").read_bytes()
    with pytest.raises(ConfigError, match="cannot be used"):
        MountedCertificate(folder)
    mount(new, folder, "tls.key")
    assert mounted.renewed()
    assert (mounted.chain, mounted.key) == tuple(
        (new / name).read_bytes() for name in ("tls.crt", "tls.key")
    )
    (folder / "tls.key").unlink()
    assert not mounted.renewed()
    assert mounted.key


def presented(port: int) -> bytes | None:
    """Return the certificate that a server presents, after the handshake of a gRPC client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw) as tls:
        return tls.getpeercert(binary_form=True)


async def test_grpc_presents_the_renewed_certificate_and_never_half_of_it(
    pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    async def answer(request: Request) -> Response:
        return json_response({})

    old, new = pairs
    folder = tmp_path / "tls"
    listener = GrpcListener(answer)
    with pytest.raises(ConfigError):
        await listener.start("127.0.0.1", 0, folder)
    mount(old, folder)
    port = await listener.start("127.0.0.1", 0, folder)
    assert await asyncio.to_thread(presented, port) == der(old)
    mount(new, folder, "tls.crt")
    assert await asyncio.to_thread(presented, port) == der(old)
    mount(new, folder, "tls.key")
    assert await asyncio.to_thread(presented, port) == der(new)
    await listener.stop()


def shown(certificate: Certificate) -> bytes:
    """Return the certificate that a new connection gets, by one handshake in memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    found = ours.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_http_presents_the_renewed_certificate(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pairs
    folder = tmp_path / "tls"
    mount(old, folder)
    certificate = Certificate(folder)
    assert shown(certificate) == der(old)
    mount(new, folder, "tls.crt")
    certificate.reread()
    assert shown(certificate) == der(old)
    mount(new, folder)
    certificate.reread()
    assert shown(certificate) == der(new)


def test_no_handshake_fails_while_certificates_are_renewed(
    pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    mount(pairs[0], folder)
    certificate = Certificate(folder)

    def renew() -> None:
        for n in range(1, 301):
            mount(pairs[n % 2], folder)
            certificate.reread()

    with ThreadPoolExecutor(1) as thread:
        renewing = thread.submit(renew)
        seen = [shown(certificate)]
        while not renewing.done():
            seen.append(shown(certificate))
        renewing.result()
    assert set(seen) == {der(pair) for pair in pairs}
    assert shown(certificate) == der(pairs[0])
