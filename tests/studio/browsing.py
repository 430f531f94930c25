"""Chromium on a running studio: the fixtures of all tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.parts import demand
from tests.studio.serving import studio

# A page is refreshed every two seconds, and takes a few more where all tests share two cores.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    demand("browser")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's sandbox needs what containers withhold; only our own pages are opened.
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with studio(tmp_path_factory.mktemp("empty") / "s.duckdb", "--no-host") as running:
        yield running.web


@pytest.fixture(params=[(1440, "light"), (390, "dark")], ids=["wide light", "narrow dark"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that fails the test for an error in the console, or a request that leaves this machine."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    wrong: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(message.text)

    opened.on("console", said)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "request",
        lambda asked: (
            wrong.append(asked.url) if asked.url.startswith("http") and "127.0.0.1" not in asked.url else None
        ),
    )
    yield opened
    wide = opened.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert wrong == [], wrong
    assert wide <= width, "the page itself must not scroll sideways"


def quiet(page: Page) -> None:
    """No part of the page says that it could not be read."""
    expect(page.locator(".bs-error:visible")).to_have_count(0)
