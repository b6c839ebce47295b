"""A page of another site, in a real browser, against all that `fourways up` and an agent open.

Chromium sends what a page's scripts, forms and elements ask of every port here. Nothing of ours may
be read by the page, nothing may be executed, and not even success and failure may be told apart.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fourways_api.audience import DEPLOYMENTS_KEY, EVERY_DEPLOYMENT
from fourways_cli.embedded.ports import free_port
from tests.kit.browser import pages_of
from tests.kit.hosts import Up, await_settled
from tests.kit.serving_plane import NO_TLS
from tests.kit.waiting import until
from tools.demo.questions import ARTIFACTS, CLAIM, EXAMPLES, SHOP_SECRET, reading, shown, tensor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame, Page

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

KNOWN = ("churn", "come-back", "water-flow", "file-type-on-device", "fourways", "probability")
"""Words of our answers: a page that has one of them has read something."""

_OTHERS = re.compile(r'code="40[0345]"|route="(/metrics|/faults|/v2/health/\w+)"')
"""Requests that were refused, and those of the host and of this test."""

QUESTIONS: dict[str, Any] = {
    "come-back": [
        tensor("customer_id", "BYTES", ["01760"]),
        tensor("basket_dollars", "FP32", [24.5]),
        tensor("basket_discs", "INT32", [2]),
    ],
    "water-flow": reading("2022-04-27T18Z")[1],
    "churn": [tensor("customer_id", "BYTES", ["01760"])],
    "file-type-on-device": [tensor("content", "INT32", [256] * 2048, [1, 2048])],
}
READS = (
    "/",
    "/metrics",
    "/v2",
    "/v2/models",
    "/v2/health/ready",
    "/predictions/churn/01760",
    "/runs/churn",
    "/bundles/file-type-on-device/desktop/index.json",
    "/v2/models/file-type-on-device",
)


@dataclass(frozen=True, slots=True)
class Plane:
    """What runs here."""

    up: Up
    agent: str
    ports: tuple[int, ...]
    """Every port that a program of ours listens on."""

    def done(self) -> dict[str, float]:
        """Count what was executed: answered requests of each server that counts them."""
        found = {}
        for port in self.ports:
            try:
                text = httpx.get(f"http://127.0.0.1:{port}/metrics", verify=NO_TLS).text
            except httpx.HTTPError:
                continue  # the broker
            for line in text.splitlines():
                name, _, value = line.rpartition(" ")
                if name.startswith("fourways_http_requests_total") and not _OTHERS.search(name):
                    found[f"{port} {name}"] = float(value)
        assert found
        return found


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, examples_complete: None) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("pages")
    shop = shutil.copytree(EXAMPLES / "secrets" / SHOP_SECRET, folder / "shop")
    (shop / DEPLOYMENTS_KEY).write_text(EVERY_DEPLOYMENT)
    state = folder / "state"
    with Up(state, volumes={CLAIM: ARTIFACTS}, secrets={SHOP_SECRET: shop}) as up:
        up.start(*shown())
        said = await_settled(state, 120)
        assert all(one["Ready"]["status"] == "True" for one in said.values()), said
        port = free_port()
        # fmt: off
        command = [
            sys.executable, "-m", "fourways_agent", "run", "--state", str(folder / "device"),
            "--gateway", up.url, "--deployment", "file-type-on-device", "--target", "desktop",
            "--key", str(state / "keys" / "device-signing" / "public-key.pem"),
            "--port", str(port), "--every", "1h",
        ]
        # fmt: on
        agent = f"http://127.0.0.1:{port}"
        with (folder / "agent.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            ready = f"{agent}/v2/models/file-type-on-device/ready"
            until(
                lambda: httpx.get(ready, trust_env=False).status_code == 200,
                lambda: f"the device serves: {(folder / 'agent.log').read_text()[-2000:]}",
                seconds=60,
                interval=0.1,
                ignoring=httpx.HTTPError,
            )
            ours = [up.process.pid, *up.children(), process.pid]
            yield Plane(up, agent, tuple(listening(ours)))
        finally:
            process.terminate()
            process.wait(30)


def listening(pids: list[int]) -> list[int]:
    """Return the ports that these processes listen on, over IPv4."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listens = "0A"
    return sorted({int(r[1].split(":")[1], 16) for r in rows if r[3] == listens and r[9] in inodes})


ATTACK = """
async ({ports, hosts, reads, questions, patience}) => {
  const KINDS = ['img', 'script', 'link', 'iframe', 'object'];
  const seen = [], told = [];
  const note = async (how, answer) => {
    try { const text = await (await answer).text(); if (text) seen.push([how, text]); }
    catch (error) { }
  };
  const all = [];
  for (const host of hosts) for (const port of ports) {
    const base = `http://${host}:${port}`;
    for (const path of reads) {
      const url = base + path;
      all.push(note(`fetch ${url}`, fetch(url)));
      all.push(note(`fetch no-cors ${url}`, fetch(url, {mode: 'no-cors'})));
      all.push(note(`with credentials ${url}`, fetch(url, {credentials: 'include'})));
      for (const kind of KINDS) all.push(new Promise(done => {
        const element = document.createElement(kind);
        if (kind === 'link') { element.rel = 'stylesheet'; element.href = url; }
        else if (kind === 'object') element.data = url;
        else element.src = url;
        element.onload = () => { told.push([kind, url, 'load']); peek(element, url); done(); };
        element.onerror = () => { told.push([kind, url, 'error']); done(); };
        document.body.append(element);
        setTimeout(done, patience);
      }));
    }
    for (const [name, inputs] of Object.entries(questions)) {
      const url = `${base}/v2/models/${name}/infer`, body = JSON.stringify({inputs});
      const simple = {method: 'POST', body, mode: 'no-cors'};
      all.push(note(`POST ${url}`, fetch(url, {method: 'POST', body})));
      all.push(note(`simple POST ${url}`, fetch(url, simple)));
      all.push(note(`JSON POST ${url}`, fetch(url, {...simple, mode: 'cors',
        headers: {'Content-Type': 'application/json', 'Idempotency-Key': 'x'}})));
      all.push(note(`PUT ${url}`, fetch(url, {method: 'PUT', body})));
      navigator.sendBeacon(url, new Blob([body], {type: 'text/plain'}));
      const frame = document.createElement('iframe'), form = document.createElement('form');
      frame.name = `frame-${name}-${port}-${host}`;
      document.body.append(frame);
      form.method = 'POST'; form.action = url; form.target = frame.name;
      form.enctype = 'text/plain';
      const field = document.createElement('input');
      // A form sends NAME=VALUE: the document is the name, and the value ends a string in it.
      field.name = body.slice(0, -1) + ',"id":"'; field.value = '"}';
      form.append(field); document.body.append(form); form.submit();
      const xhr = new XMLHttpRequest();
      all.push(new Promise(done => {
        xhr.onloadend = () => {
          if (xhr.responseText) seen.push([`XHR ${url}`, xhr.responseText]);
          done();
        };
        xhr.open('POST', url); xhr.send(body);
      }));
    }
    all.push(new Promise(done => {
      const socket = new WebSocket(`ws://${host}:${port}/`);
      socket.onmessage = event => seen.push([`WebSocket ${port}`, String(event.data)]);
      socket.onopen = () => seen.push([`WebSocket ${port}`, 'opened']);
      socket.onerror = socket.onclose = done;
    }));
    const events = new EventSource(base + '/');
    events.onmessage = event => seen.push([`EventSource ${port}`, event.data]);
    setTimeout(() => events.close(), 2000);
  }
  function peek(element, url) {
    try {
      const inner = element.contentDocument;
      if (inner && inner.body && inner.body.innerText)
        seen.push([`frame ${url}`, inner.body.innerText]);
    } catch (error) { }
  }
  await Promise.all(all);
  await new Promise(done => setTimeout(done, 1000));
  return {seen, told};
}
"""


def attack(page: Page | Frame, plane: Plane, *hosts: str) -> Any:
    begin(page, plane, *hosts)
    return end(page)


def begin(page: Page | Frame, plane: Plane, *hosts: str, pages: int = 1) -> None:
    """Let a page ask, one of so many at a time. Elements that never say how it went cost 3 s."""
    what = {"ports": plane.ports, "reads": READS, "questions": QUESTIONS, "hosts": hosts}
    patience = 3000 if pages == 1 else 8000
    page.evaluate(f"what => {{ window.attack = ({ATTACK})(what); }}", what | {"patience": patience})


def end(page: Page | Frame) -> Any:
    """Wait until a page has asked; return what it has seen."""
    return page.evaluate("() => window.attack")


def read(found: Any) -> list[str]:
    """Return what of the page's loot comes from us."""
    return [
        f"{how}: {text[:200]}"
        for how, text in found["seen"]
        if any(word in text for word in KNOWN) or text == "opened"
    ]


def succeeded(found: Any) -> set[tuple[str, str]]:
    """Return the elements that loaded: a page that sees which do knows what there is."""
    frames = ("iframe",)  # they load whatever the answer is
    return {
        (kind, url) for kind, url, event in found["told"] if event == "load" and kind not in frames
    }


def test_the_ports_are_those_of_every_program(plane: Plane) -> None:
    port = int(plane.agent.rpartition(":")[2])
    # The gateway, a model server, a stream worker, the broker and the agent.
    assert port in plane.ports
    assert len(plane.ports) >= 5


def test_our_own_page_is_answered(plane: Plane, browser: Browser) -> None:
    """The attack works where it may: a page of the gateway itself reads and asks."""
    page = browser.new_page()
    page.goto(f"{plane.up.url}/")
    before = plane.done()
    found = page.evaluate(
        """async inputs => {
          const body = JSON.stringify({inputs});
          const listed = await (await fetch('/v2/models')).text();
          const answer = await fetch('/v2/models/come-back/infer', {method: 'POST', body});
          return [listed, answer.status];
        }""",
        QUESTIONS["come-back"],
    )
    assert "churn" in found[0]
    assert found[1] == 200
    assert plane.done() != before
    page.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_of_another_site_reads_and_writes_nothing(
    plane: Plane, browser: Browser, host: str
) -> None:
    page = browser.new_page()
    with pages_of("<title>evil</title><body></body>") as port:
        page.goto(f"http://evil.example:{port}/")
        before = plane.done()
        found = attack(page, plane, host)
    page.close()
    assert found["told"], "the browser has sent something"
    assert read(found) == []
    assert succeeded(found) == set()
    assert plane.done() == before


def test_a_name_that_leads_here_reads_and_writes_nothing(plane: Plane, browser: Browser) -> None:
    pages = [browser.new_page() for _ in plane.ports]
    for page, port in zip(pages, plane.ports, strict=True):
        origin = f"http://rebind.example:{port}"
        # The page came from the stranger's address; now its name leads to this machine.
        page.route(
            f"{origin}/page",
            lambda route: route.fulfill(body="<body></body>", content_type="text/html"),
        )
        page.goto(f"{origin}/page")
    before = plane.done()
    for page in pages:
        begin(page, plane, "rebind.example", pages=len(pages))
    found = [end(page) for page in pages]
    for page in pages:
        page.close()
    assert [read(each) for each in found] == [[]] * len(pages)
    assert all(each["told"] for each in found), "the browser has sent something"
    assert plane.done() == before


def test_a_frame_without_an_origin_reads_and_writes_nothing(plane: Plane, browser: Browser) -> None:
    page = browser.new_page()
    frame = '<iframe sandbox="allow-scripts allow-forms" srcdoc="<body></body>"></iframe>'
    with pages_of(frame) as port:
        page.goto(f"http://evil.example:{port}/")
        before = plane.done()
        found = attack(page.frames[-1], plane, "localhost")
    page.close()
    assert read(found) == []
    assert succeeded(found) == set()
    assert plane.done() == before
