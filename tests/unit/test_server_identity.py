"""A model server with a certificate: judged as gateways do, reread, and verified by its name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fourways_api.runtime_config import ServerTls
from fourways_http import Origin, OriginAnswer, OriginUnreachable, Pool, Response, Router, Server
from fourways_runtime.callers import server_identity
from fourways_runtime.callers.server_identity import Authority, ServedCertificate
from fourways_runtime.errors import CertificateInvalid
from tests.kit.certificates import TestAuthority, mount
from tests.kit.waiting import until_async

NAME = "churn-realtime-predictor.shop.svc"


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


def served(data: dict[str, bytes], folder: Path, host: str = NAME) -> ServedCertificate:
    mount(data, folder)
    return ServedCertificate(
        ServerTls(
            secret="servers",
            folder=str(folder),
            authority_secret="authority",
            authority_file=str(folder / "ca.crt"),
            host=host,
        )
    )


@pytest.mark.parametrize("names", [(NAME,), ("*.shop.svc",), ("other.svc", NAME)])
def test_a_certificate_for_the_name_is_accepted(
    authority: TestAuthority, tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert served(authority.issue(*names), tmp_path / "tls").fault is None


def test_what_gateways_refuse_is_a_fault_with_the_secret_and_the_cause(
    authority: TestAuthority, tmp_path: Path
) -> None:
    good = authority.issue(NAME)
    stranger = TestAuthority("stranger")
    wrong = {
        "expired": (authority.issue(NAME, days=-1), "certificate has expired"),
        "other": (authority.issue("*.bank.svc"), "not valid for 'churn-realtime-predictor.shop"),
        "nameless": (authority.issue(), "not valid for"),
        "stranger": (good | {"ca.crt": stranger.pem}, "unable to get local issuer certificate"),
        "no-authority": (good | {"ca.crt": b""}, "its key ca.crt cannot be used"),
        "text": (good | {"ca.crt": b"no certificate"}, "its key ca.crt cannot be used"),
    }
    for case, (data, words) in wrong.items():
        fault = served(data, tmp_path / case).fault
        assert fault is not None, case
        secret = "authority" if "ca.crt" in words else "servers"
        assert f"Secret {secret}: gateways" in str(fault), case
        assert words in str(fault), (case, str(fault))


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_without_a_certificate_the_server_does_not_start(
    authority: TestAuthority, tmp_path: Path, missing: str
) -> None:
    data = {k: v for k, v in authority.issue(NAME).items() if k != missing}
    with pytest.raises(CertificateInvalid, match=r"needs tls\.crt and tls\.key.*Secret servers"):
        served(data, tmp_path / "tls")


def test_a_renewed_certificate_ends_the_fault(authority: TestAuthority, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    certificate = served(authority.issue(NAME, days=-1), folder)
    assert certificate.fault is not None
    mount(authority.issue(NAME), folder)
    certificate.look()
    assert certificate.fault is None
    mount({"tls.crt": b"damaged"}, folder)
    certificate.look()
    assert certificate.fault is None, "the earlier certificate goes on being used"


# ---------------------------------------------------------------- the gateway's side


@asynccontextmanager
async def answering(context: ssl.SSLContext) -> AsyncIterator[int]:
    router = Router()
    router.add("GET", "/x", lambda request: Response(b"yes"))
    server = Server(router)
    await server.start("127.0.0.1", 0, context)
    try:
        yield server.port
    finally:
        await server.drain(0, 1)


def asked(port: int, authority: Authority, host: str = "localhost") -> Pool:
    origin = Origin.parse(f"https://{host}:{port}")
    return Pool(origin, 5.0, lambda error: error, hold_seconds=0.0, tls=authority.context)


async def ask(pool: Pool) -> OriginAnswer:
    return await pool.ask(b"GET", b"/x", (), b"", lambda answer: answer)


def localhost(authority: TestAuthority, folder: Path, **of: float) -> ServedCertificate:
    return served(authority.issue("localhost", **of), folder, "localhost")


async def test_a_gateway_accepts_the_name_of_its_authority_and_no_other(
    authority: TestAuthority, tmp_path: Path
) -> None:
    certificate = localhost(authority, tmp_path / "tls")
    ours = Authority(str(tmp_path / "tls" / "ca.crt"))
    stranger = mount({"ca.crt": TestAuthority("stranger").pem}, tmp_path / "stranger")
    cases = [
        ("localhost", Authority(str(stranger / "ca.crt")), "unable to get local issuer"),
        ("127.0.0.1", ours, "not valid for '127.0.0.1'"),
        ("localhost", Authority(str(tmp_path / "none")), "OSError"),
    ]
    async with answering(certificate.context) as port:
        pool = asked(port, ours)
        assert (await ask(pool)).body == b"yes"
        await pool.close()
        for host, trusted, words in cases:
            pool = asked(port, trusted, host)
            with pytest.raises(OriginUnreachable, match=words):
                await ask(pool)
            await pool.close()


async def test_a_server_without_encryption_is_not_asked(
    authority: TestAuthority, tmp_path: Path
) -> None:
    mount(authority.issue("localhost"), tmp_path / "tls")
    router = Router()
    asked_plainly: list[object] = []
    router.add("GET", "/x", lambda request: asked_plainly.append(request) or Response(b"no"))
    server = Server(router)
    await server.start("127.0.0.1", 0)
    pool = asked(server.port, Authority(str(tmp_path / "tls" / "ca.crt")))
    with pytest.raises(OriginUnreachable):
        await ask(pool)
    assert not asked_plainly
    await pool.close()
    await server.drain(0, 1)


async def test_a_replaced_authority_holds_for_new_connections(
    authority: TestAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(server_identity, "monotonic", lambda: now[0])
    file = mount({"ca.crt": TestAuthority("earlier").pem}, tmp_path / "ca") / "ca.crt"
    trusted = Authority(str(file))
    first = trusted.context()
    mount({"ca.crt": authority.pem}, tmp_path / "ca")
    assert trusted.context() is first, "the file is looked at every few seconds"
    now[0] += server_identity.LOOK_SECONDS
    renewed = trusted.context()
    assert renewed is not first
    certificate = localhost(authority, tmp_path / "tls")
    assert server_identity.refusal(certificate.context, renewed, "localhost") is None
    assert server_identity.refusal(certificate.context, first, "localhost")
    file.write_bytes(b"damaged")
    now[0] += server_identity.LOOK_SECONDS
    assert trusted.context() is renewed


async def test_the_server_follows_its_files(authority: TestAuthority, tmp_path: Path) -> None:
    certificate = localhost(authority, tmp_path / "tls", days=-1)
    waits = asyncio.Queue[None]()

    async def sleep(seconds: float) -> None:
        await waits.get()

    following = asyncio.ensure_future(certificate.follow(sleep))
    mount(authority.issue("localhost"), tmp_path / "tls")
    waits.put_nowait(None)
    await until_async(lambda: certificate.fault is None, "the renewed certificate is judged")
    following.cancel()
