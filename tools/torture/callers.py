"""Ask a gateway everything without, with wrong and with insufficient credentials.

``python -m tools.torture.callers [--short] [--seed N]``

* every path, deployment of every mode and way to send a request, with every kind of credentials
  that allow nothing: the answer is the refusal, to the letter, and each is counted;
* callers' names and keys are guessed: known and unknown names answer alike, and take as long;
* one caller asks too often: it waits, and only it;
* two callers use one idempotency key, and a producer its id: each has an answer of its own;
* what was sent as a credential is in no file that the gateway or ``fourways up`` writes.

Exits with 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import socket

import orjson

from .callers_idempotency import events_of_two_callers, stored_events
from .callers_material import (
    INVALID,
    WAYS,
    Credential,
    Issuer,
    Target,
    after_another,
    credentials,
    targets,
)
from .callers_rig import ANSWER_SECONDS, KeyFolder, Served, served

SHORT = 500
MAX_DIFFERENCE = 0.1
"""Difference of the median times of known and unknown callers, as a share of the median."""

_HEADERS = {"content-type", "content-length", "www-authenticate", "date", "connection"}
_REFUSED = re.compile(r'^fourways_gateway_refused_requests_total\{cause="(\w+)"\} (\S+)', re.M)
_ANSWERED = re.compile(r'^fourways_gateway_requests_total\{code="(\d+)",\S+ (\S+)', re.M)


class Faults(list[str]):
    """What is wrong; said at once."""

    def add(self, text: str) -> None:
        """Record one."""
        self.append(text)
        print("FAULT", text, flush=True)


class Talk:
    """A connection to the gateway, opened again where it was closed."""

    def __init__(self, served: Served, encrypted: bool = False) -> None:
        self._open: Callable[[], socket] = lambda: served.connect(encrypted)
        self._socket = self._open()
        self._socket.settimeout(ANSWER_SECONDS)

    def send(self, request: bytes, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return the answer's status, headers and body."""
        try:
            self._socket.sendall(request)
            return self._read(head_only)
        except (ConnectionError, EOFError):
            self.close()
            self._socket = self._open()
            self._socket.sendall(request)
            return self._read(head_only)

    def _read(self, head_only: bool) -> tuple[int, dict[str, str], bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = 0 if head_only else int(headers["content-length"])
        while len(body) < length:
            body += self._more()
        return int(first.split()[1]), headers, body

    def _more(self) -> bytes:
        read = self._socket.recv(65_536)
        if not read:
            raise EOFError
        return read

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Do everything; return 1 if something is wrong."""
    asked = argparse.ArgumentParser(prog="python -m tools.torture.callers")
    asked.add_argument("--short", action="store_true")
    asked.add_argument("--seed", type=int, default=random.randrange(2**32))  # noqa: S311
    options = asked.parse_args(argv)
    print(f"seed {options.seed}")
    chance, faults = random.Random(options.seed), Faults()  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="fourways-callers-") as name:
        folder = Path(name)
        keys, issuer = KeyFolder(folder / "keys"), Issuer()
        wrong, sent = credentials(keys, issuer)
        good = {"a key": keys.add("good", "*:*"), "a token": issuer.token()}
        slow = keys.add("slow", "*:*", requestsPerSecond=2)
        with served(folder, keys, issuer.config()) as gateway:
            keys.remove("revoked")
            _until_refused(gateway, sent, faults)
            allowed_are_answered(gateway, good, faults)
            all_are_refused(gateway, wrong, good["a key"], chance, options.short, faults)
            names_are_not_found_out(gateway, sent[0], 300 if options.short else 3000, faults)
            one_waits(gateway, slow, good["a key"], faults)
            events_of_two_callers(gateway, keys, faults.add)
            _secrets_are_nowhere(gateway, [*sent, *good.values(), slow], faults)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


def _until_refused(gateway: Served, sent: Sequence[str], faults: Faults) -> None:
    """Wait until the gateway has seen that a key is revoked."""
    revoked = next(one for one in sent if one.startswith("fwk_revoked_"))
    deadline = time.monotonic() + ANSWER_SECONDS
    while gateway.ask("GET", "/v2/models", revoked)[0] != 401:
        if time.monotonic() > deadline:
            faults.add("a revoked key is accepted")
            return
        time.sleep(0.1)


def allowed_are_answered(gateway: Served, good: dict[str, str], faults: Faults) -> None:
    """Valid credentials reach every path: nothing is refused because everything is."""
    for name, key in good.items():
        for target in targets():
            if target.method == "POST" and target.deployment == "water-flow":
                continue  # it would become an event
            status, _ = gateway.ask(target.method, target.path, key, target.body or None)
            if status in (401, 403, 429):
                faults.add(f"{name} is refused: {status} to {target.method} {target.path}")


def all_are_refused(
    gateway: Served,
    wrong: list[Credential],
    good: str,
    chance: random.Random,
    short: bool,
    faults: Faults,
) -> None:
    """Send each target with each wrong credential, in each way, plain and encrypted."""
    everything = [
        (target, credential, way, encrypted)
        for target in targets()
        for credential in wrong
        for way in WAYS
        for encrypted in (False, True)
        if not credential.allows(target)
    ]
    if short:
        everything = chance.sample(everything, SHORT)
    talks = {encrypted: Talk(gateway, encrypted) for encrypted in (False, True)}
    before, events = _counted(gateway, good), stored_events(gateway)
    expected: Counter[str] = Counter()
    said: Counter[int] = Counter()
    for target, credential, way, encrypted in everything:
        talk = talks[encrypted]
        if way is after_another:
            allowed = (
                b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
            )
            talk.send(allowed % good.encode())
        status, headers, body = talk.send(way(target, credential.sent), target.method == "HEAD")
        expected[credential.cause] += 1
        said[status] += 1
        where = f"{credential.name}, {way.__name__}: {target.method} {target.path}"
        _judge(where, target, credential, (status, headers, body), faults)
    for talk in talks.values():
        talk.close()
    after = _counted(gateway, good)
    counted = {cause: after[cause] - before[cause] for cause in expected}
    if counted != expected:
        faults.add(f"refusals counted {counted}, sent {dict(expected)}")
    reached = after["answered"] - before["answered"]
    if reached or stored_events(gateway) != events:
        faults.add(f"{reached} requests were answered by a deployment")
    print(f"{len(everything)} requests without permission: {dict(said)}")


def _judge(
    where: str,
    target: Target,
    credential: Credential,
    answer: tuple[int, dict[str, str], bytes],
    faults: Faults,
) -> None:
    status, headers, body = answer
    expected, message = credential.refused(target)
    told = orjson.dumps({"error": message})
    if status != expected:
        faults.add(f"{where}: {status} instead of {expected}, {body[:200]!r}")
    elif target.method == "HEAD":
        if headers["content-length"] != str(len(told)) or body:
            faults.add(f"{where}: {headers} {body[:200]!r}")
    elif body != told:
        faults.add(f"{where}: {body[:200]!r} instead of {told!r}")
    if headers.keys() - _HEADERS:
        faults.add(f"{where}: answers with {sorted(headers.keys() - _HEADERS)}")
    if status == 401 and not headers.get("www-authenticate", "").startswith("bearer "):
        faults.add(f"{where}: 401 without WWW-Authenticate")


def _counted(gateway: Served, good: str) -> Counter[str]:
    """Return the refusals by cause, and the number of requests that were let through."""
    text = gateway.ask("GET", "/metrics", good)[1].decode()
    counted = Counter({cause: int(float(value)) for cause, value in _REFUSED.findall(text)})
    through = [float(n) for code, n in _ANSWERED.findall(text) if code not in ("401", "403", "429")]
    counted["answered"] = int(sum(through))
    return counted


def names_are_not_found_out(gateway: Served, good: str, count: int, faults: Faults) -> None:
    """Guess keys of a known and of an unknown caller: answers and times tell nothing."""
    kinds: dict[str, Callable[[], str]] = {
        "a known caller": lambda: f"fwk_shop_{secrets.token_urlsafe(32)}",
        "an unknown caller": lambda: f"fwk_nobo_{secrets.token_urlsafe(32)}",
        "all but the end": lambda: good[:-8] + secrets.token_urlsafe(6),
    }
    path = "/predictions/churn/01760"
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    answers: set[tuple[int, bytes]] = set()
    talk = Talk(gateway)
    for _ in range(count):
        for kind, guess in kinds.items():
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {guess()}"
            sent = request.encode() + b"\r\n\r\n"
            began = time.perf_counter()
            status, _, body = talk.send(sent)
            times[kind].append(time.perf_counter() - began)
            answers.add((status, body))
    talk.close()
    if answers != {(401, orjson.dumps({"error": INVALID}))}:
        faults.add(f"guesses are answered {answers}")
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    spread = (max(medians.values()) - min(medians.values())) / min(medians.values())
    told = ", ".join(f"{kind} {median * 1e6:.0f} µs" for kind, median in medians.items())
    print(f"{count * len(kinds)} guesses: {told}")
    if spread > MAX_DIFFERENCE:
        faults.add(f"times of guesses differ by {spread:.0%}: {told}")


def one_waits(gateway: Served, slow: str, good: str, faults: Faults) -> None:
    """A caller that exceeds its rate is told when to come again; others are answered."""
    before = _counted(gateway, good)["TooMany"]
    talk = Talk(gateway)
    line = b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
    found: Counter[int] = Counter()
    for _ in range(50):
        status, headers, _ = talk.send(line % slow.encode())
        found[status] += 1
        if status == 429 and not headers.get("retry-after", "").isdigit():
            faults.add("429 without Retry-After")
        if talk.send(line % good.encode())[0] != 200:
            faults.add("another caller waits as well")
    talk.close()
    counted = _counted(gateway, good)["TooMany"] - before
    if found.keys() != {200, 429} or counted != found[429]:
        faults.add(f"a caller with a rate of 2: {dict(found)}, {counted} counted")


def _secrets_are_nowhere(gateway: Served, sent: Sequence[str], faults: Faults) -> None:
    """What was sent as a credential is in no file; a key's random part alone neither."""
    wanted = {one.encode() for one in sent if len(one) > 20}
    wanted |= {one.rpartition("_")[2].encode() for one in sent if one.startswith("fwk_")}
    wanted = {one for one in wanted if len(one) > 20}
    read = 0
    for file in _files(gateway):
        with contextlib.suppress(OSError):
            content = file.read_bytes()
            read += 1
            for one in wanted:
                if one in content:
                    faults.add(f"{file.name} contains a credential, {one[:9]!r}…")
    print(f"{read} files without any of {len(wanted)} credentials")


def _files(gateway: Served) -> Iterator[Path]:
    yield from gateway.logs
    for file in gateway.state.rglob("*"):
        # The host's own broker has a token of its own, which no caller sends.
        if file.is_file() and not file.is_symlink():
            yield file


if __name__ == "__main__":
    sys.exit(main())
