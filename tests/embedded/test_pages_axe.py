"""What axe-core finds on every page of a gateway: nothing, dark and light, on desk and phone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from fourways_api import DriftStatus, Route, StreamSource, WakeConfig
from fourways_api.runtime_config import FleetDrift
from fourways_runtime.io.store.recent import RecentDeadLetter
from fourways_runtime.io.store.reports import WorkerReport
from tests.kit.browser import browser
from tests.kit.callers import Keys
from tests.kit.device_reports import publish_profile, report
from tests.kit.drift_tables import DRIFTS, profiler, table, training_profile
from tests.kit.gateway_plane import Running, running
from tests.kit.run_history import AT, DRIFT, QUALITY, MemoryHistory
from tests.kit.serving_plane import MIXED, configure, mixed, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

SIZES = {"phone": (360, 740), "desk": (1280, 900)}
SOURCE = StreamSource.model_validate(
    {"nats": {"servers": "nats://127.0.0.1:1", "stream": "S", "subject": "s"}}
)
COMPARED = FleetDrift(window_seconds=3600, max_drift=0.2)


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the gateways listen."""

    plain: str
    guarded: str


def routes(server: str) -> tuple[Route, ...]:
    """Return a deployment for each page, in each of its states."""
    edge = {"mode": "edge", "version": "2", "publish": "pvc://models/edge"}
    live = {"mode": "realtime", "version": "v1", "url": server}
    return (
        Route(deployment="score", **live),
        Route(deployment="sleeper", wake=WakeConfig(idle_seconds=1), **live),
        Route(deployment="away", mode="realtime", version="3"),
        Route(deployment="sensor", mode="streaming", version="5", source=SOURCE),
        Route(deployment="quiet", mode="streaming", version="5", source=SOURCE),
        Route(deployment="camera", drift=COMPARED, **edge),
        Route(deployment="meter", **edge),
    )


def history() -> MemoryHistory:
    made = MemoryHistory()
    told = {
        "version": "5",
        "lag": {"0": 1200, "1": 34},
        "oldest_event_seconds": 12.5,
        "faults": ["StreamLags", "BrokerUnavailable"],
        "drift": DRIFT,
        "quality": {**QUALITY, "run": None, "since": "2026-03-01T02:00:00Z", "message": "late"},
    }
    made.reports["sensor"] = [WorkerReport("a-worker-" + "x" * 40, 2.5, told)]
    made.letters["sensor"] = [RecentDeadLetter(0, 12, "k" * 300, 3, "model: NaN", AT)]
    return made


async def devices(plane: Running, profile: str) -> None:
    """Let devices look for a bundle and tell of records that have drifted."""
    known, random = profiler(), np.random.default_rng(1)
    await plane.client.get("/bundles/camera/door/index.json")
    for number in range(3):
        columns = table(random, 100)
        DRIFTS["a shift by one deviation"][1](columns, random)
        raw = report(known, profile, columns, device=number, rejects=9)
        answer = await plane.client.post("/bundles/camera/door/drift", content=raw)
        assert answer.status_code == 200, answer.text


async def serve(folder: Path, started: asyncio.Future[Urls], end: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            serving(configure(folder / "server", mixed(), MIXED, name="score"))
        )
        server.app.report_drift(lambda: DriftStatus.model_validate(DRIFT))
        (folder / "guarded").mkdir()
        known = routes(str(server.client.base_url))
        plain = await stack.enter_async_context(running(folder, routes=known, history=history()))
        callers = Keys(folder / "guarded").policy()
        guarded = await stack.enter_async_context(running(folder / "guarded", callers=callers))
        camera = folder / "volumes" / "models" / "edge" / "camera" / "door"
        await devices(plain, publish_profile(camera, training_profile()))
        started.set_result(Urls(plain.url, guarded.url))
        await end.wait()


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    """Gateways on a thread: the browser keeps an event loop in this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def begin() -> tuple[asyncio.Task[None], asyncio.Event, Urls]:
        end, started = asyncio.Event(), loop.create_future()
        task = asyncio.create_task(serve(tmp_path_factory.mktemp("axe"), started, end))
        await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task, end, started.result()

    task, end, found = asyncio.run_coroutine_threadsafe(begin(), loop).result(120)

    async def stop() -> None:
        end.set()
        await task

    yield found
    asyncio.run_coroutine_threadsafe(stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


PAGES = {
    "the list": ("/", "on devices"),
    "a batch deployment": ("/deployments/churn", "Rejected rows of churn-3"),
    "two chosen runs": ("/deployments/churn?from=churn-3&to=churn-1", "From churn-3 to churn-1"),
    "a real-time deployment": ("/deployments/score", "records of a model server"),
    "a sleeping deployment": ("/deployments/sleeper", "sleeper"),
    "a deployment without a server": ("/deployments/away", "does not answer"),
    "a stream": ("/deployments/sensor", "The oldest waits for"),
    "a stream without workers": ("/deployments/quiet", "No worker has reported"),
    "devices that report": ("/deployments/camera", "300 records of 3 devices"),
    "devices that were not seen": ("/deployments/meter", "No device has looked for a bundle"),
    "a deployment that is not there": ("/deployments/nobody", "no deployment nobody answers"),
}
"""Path of each page, and a text by which the page shows what it is meant to."""


def violations(page: Page) -> list[str]:
    """Return what axe finds in each look of a page; a page that is too wide counts too."""
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            look = f"{scheme}, {size}"
            answer = Axe().run(page).response
            assert answer["passes"], "axe has looked"
            for violation in answer["violations"]:
                places = [node["target"] for node in violation["nodes"]][:3]
                found.append(f"{look}: {violation['id']}: {violation['help']}: {places}")
            if page.evaluate("document.documentElement.scrollWidth") > width:
                found.append(f"{look}: the page scrolls sideways")
    return found


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_on_a_page(page: Page, urls: Urls, name: str) -> None:
    path, text = PAGES[name]
    page.goto(urls.plain + path)
    assert text in page.inner_text("body")
    assert violations(page) == []


def test_axe_finds_nothing_on_the_form_for_a_key_and_its_refusal(page: Page, urls: Urls) -> None:
    page.goto(urls.guarded + "/deployments/churn")
    page.get_by_label("API key").wait_for()
    assert violations(page) == []
    page.get_by_label("API key").fill("fwk_wrong")
    page.get_by_role("button", name="Show").click()
    page.get_by_text("the credentials are not valid").wait_for()
    assert violations(page) == []


def test_axe_finds_nothing_beside_an_answer_and_an_error(page: Page, urls: Urls) -> None:
    page.goto(urls.plain + "/deployments/churn")
    for key, shown in (("c1", "#answer:not(.bad)"), ("nobody", "#answer.bad")):
        page.get_by_label("customer").fill(key)
        page.get_by_role("button", name="Predict").click()
        page.locator(shown, has_not_text="…").wait_for()
        assert violations(page) == []
