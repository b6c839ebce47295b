"""The gateway's pages in a real browser: what a person does there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fourways_api.audience import DEPLOYMENTS_KEY, EVERY_DEPLOYMENT
from tests.kit.browser import browser
from tests.kit.callers import Keys
from tests.kit.hosts import Up, await_settled
from tools.demo.questions import ARTIFACTS, CLAIM, EXAMPLES, SHOP_SECRET

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

PHONE, DESK = (360, 740), (1280, 900)
PICTURES = os.environ.get("FOURWAYS_PICTURES")
"""Folder for screenshots; without it none are taken."""


@pytest.fixture(scope="module")
def host(
    tmp_path_factory: pytest.TempPathFactory, examples_complete: None
) -> Iterator[tuple[Up, str]]:
    """Churn with two runs, and come-back, for callers with a key; yields the key too."""
    folder = tmp_path_factory.mktemp("pages")
    shop = shutil.copytree(EXAMPLES / "secrets" / SHOP_SECRET, folder / "shop")
    (shop / DEPLOYMENTS_KEY).write_text(EVERY_DEPLOYMENT)
    keys = Keys(folder)
    key = keys.add("person", "read:*", "predict:*", "rejects:*")
    with Up(folder / "state", volumes={CLAIM: ARTIFACTS}, secrets={SHOP_SECRET: shop}) as up:
        up.start(EXAMPLES / "churn.yaml", EXAMPLES / "come-back.yaml", keys=keys.folder)
        await_settled(up.state, 120)
        up.fourways("start-run", "churn", "--watch")
        yield up, key


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(chromium: Browser, host: tuple[Up, str]) -> Iterator[Page]:
    """The first page, after the key was typed."""
    up, key = host
    context = chromium.new_context(viewport={"width": DESK[0], "height": DESK[1]})
    opened = context.new_page()
    opened.goto(up.url)
    opened.get_by_label("API key").fill(key)
    opened.get_by_role("button", name="Show").click()
    opened.get_by_role("heading", name="Deployments").wait_for()
    yield opened
    context.close()


def of(page: Page, name: str) -> None:
    """Follow the link to a deployment."""
    page.get_by_role("link", name=name).click()
    page.get_by_role("heading", name=name, level=1).wait_for()


def taken(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def test_without_a_key_there_is_a_form_and_nothing_else(
    chromium: Browser, host: tuple[Up, str]
) -> None:
    opened = chromium.new_page()
    for path in ("", "/deployments/churn"):
        opened.goto(host[0].url + path)
        assert opened.get_by_label("API key").is_visible()
        assert "churn" not in opened.inner_text("main").replace("/deployments/churn", "")
    opened.get_by_label("API key").fill("fwk_wrong")
    opened.get_by_role("button", name="Show").click()
    opened.get_by_text("the credentials are not valid").wait_for()
    opened.close()


def test_deployments_are_listed_with_what_they_do(page: Page) -> None:
    rows = page.get_by_role("row").all_inner_texts()
    (churn,) = [row for row in rows if row.startswith("churn")]
    (back,) = [row for row in rows if row.startswith("come-back")]
    assert "batch" in churn
    assert "answers" in churn
    assert "realtime" in back
    assert "answers" in back
    taken(page, "deployments")


def test_a_stored_prediction_is_looked_up_and_its_curl_line_works(
    page: Page, host: tuple[Up, str]
) -> None:
    of(page, "churn")
    page.get_by_label("customer_id").fill("01760")
    page.get_by_role("button", name="Predict").click()
    page.locator("#answer", has_text="0.").wait_for()
    shown = json.loads(page.inner_text("#answer"))
    line = page.inner_text("#curl")
    environment = {**os.environ, "FOURWAYS_API_KEY": host[1]}
    asked = subprocess.run(
        ["sh", "-c", f"{line} --silent --noproxy '*'"],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert json.loads(asked.stdout)["predictions"] == shown
    program = page.inner_text("#python")
    asked = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    value = next(iter(shown[0].values())) if isinstance(shown[0], dict) else shown[0]
    assert str(value)[:6] in asked.stdout.decode()


def test_runs_and_their_difference_are_shown(page: Page) -> None:
    of(page, "churn")
    assert page.get_by_role("img", name="Rows of the published runs").is_visible()
    assert page.get_by_role("region", name="Table of runs").get_by_role("row").count() == 3
    assert page.get_by_role("heading", name="What changed").is_visible()
    taken(page, "batch")


def test_a_record_is_scored_and_a_bad_one_is_explained(page: Page) -> None:
    of(page, "come-back")
    page.get_by_label("basket_dollars").fill("24.5")
    page.get_by_label("basket_discs").fill("0")
    page.get_by_role("button", name="Predict").click()
    page.locator("#answer.bad", has_text="basket_discs").wait_for()
    assert "basket_discs" in page.inner_text("#answer")
    page.get_by_label("basket_discs").fill("2")
    for field in page.locator("[data-name]").all():
        if not field.input_value():
            field.fill("1")
    page.get_by_role("button", name="Predict").press("Enter")
    page.locator("#answer", has_text="0.").wait_for()
    taken(page, "realtime")


def test_a_phone_and_a_keyboard_are_enough(page: Page) -> None:
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.get_by_role("link", name="churn").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="churn", level=1).wait_for()
    assert page.evaluate("document.activeElement.id") == "main"
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= PHONE[0], "the page itself does not scroll sideways"
    taken(page, "phone")
