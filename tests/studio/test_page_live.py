"""The page of the queue and the machine now, in a browser, against what the API says."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Page, Request, expect

from bulkscope_studio.storage.store import Store
from tests.processes import PATIENCE_S
from tests.studio.sample import HOST, fill
from tests.studio.serving import studio

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two bulks of which the later one runs now: its records go on for a while after this moment."""
    db = tmp_path_factory.mktemp("live") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), bulks=2, jobs=300, workers=4, start_ns=time.time_ns() - 300 * 10**9)
    store.close()
    with studio(db, "--no-host") as running:
        yield running.web


def asked(page: Page) -> list[dict[str, list[str]]]:
    """Return a list that grows by the parameters of each question for /live."""
    found: list[dict[str, list[str]]] = []

    def note(request: Request) -> None:
        if "/api/v1/live" in request.url:
            found.append(parse_qs(urlsplit(request.url).query))

    page.on("request", note)
    return found


def plot(page: Page, name: str) -> Any:
    return page.locator(f'.plot[data-name="{name}"]')


def drag(page: Page, first: float, last: float) -> None:
    """Drag over the load from one share of its width to another."""
    canvas = plot(page, "load").locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + first * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + last * box["width"], y, steps=4)
    page.mouse.up()


def test_it_says_whether_the_machine_is_saturated(page: Page, web: str) -> None:
    page.goto(f"{web}/live")
    said = page.locator('[data-name="saturated"]')
    expect(said).to_contain_text(f"Yes: {HOST} uses")
    expect(said).to_contain_text(re.compile(r"\d+ jobs? waits?\.|no job waits\.|\d+ jobs wait\."))
    state = httpx.get(f"{web}/api/v1/live", params={"last_s": 900, "bins": 180}, timeout=PATIENCE_S).json()
    assert state["saturation"]["state"] == "full"
    for name in ("load", "queue", "wait", "work", "latency", "requests", "tokens", "cpu"):
        expect(plot(page, name).locator("canvas")).to_be_visible()
        expect(plot(page, name).get_by_role("img")).to_have_attribute("aria-label", re.compile("at most"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Live")
    expect(page).to_have_title("Live – Bulkscope")


def test_ranges_are_in_the_address_and_back_works(page: Page, web: str) -> None:
    questions = asked(page)
    page.goto(f"{web}/live")
    expect(plot(page, "load")).to_be_visible()
    assert questions[-1]["last_s"] == ["900"]
    page.get_by_role("button", name="6 h").click()
    expect(page).to_have_url(re.compile(r"range=6h"))
    expect(page.get_by_role("button", name="6 h")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    assert questions[-1]["last_s"] == ["21600"]
    page.go_back()
    expect(page.get_by_role("button", name="15 min")).to_have_attribute("aria-pressed", "true")


def test_a_drag_asks_for_finer_bins_and_a_past_range_is_not_asked_again(page: Page, web: str) -> None:
    page.clock.install()
    questions = asked(page)
    page.goto(f"{web}/live")
    expect(plot(page, "load")).to_be_visible()
    before = len(questions)
    page.clock.run_for(60_000)
    expect(plot(page, "load")).to_be_visible()
    assert len(questions) > before, "the present is asked again"

    drag(page, 0.7, 0.9)
    expect(page).to_have_url(re.compile(r"from=[\d.]+&to=[\d.]+"))
    expect(page.get_by_role("button", name="Back to now")).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    wanted = questions[-1]
    wide = (int(wanted["to_ns"][0]) - int(wanted["from_ns"][0])) / 1e9
    assert 100 < wide < 300
    expect(page.get_by_text("Is the machine saturated now?")).to_have_count(0)
    seen = len(questions)
    page.clock.run_for(600_000)
    page.get_by_text("as a table").click()
    expect(page.get_by_role("table")).to_be_visible()
    assert len(questions) == seen, "a past range never changes"
    # Wider than the present ends with it.
    for _ in range(3):
        page.get_by_role("group", name=re.compile("load, queue")).focus()
        before_key = page.url
        page.keyboard.press("-")
        expect(page).not_to_have_url(before_key)
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
    assert int(questions[-1]["to_ns"][0]) / 1e9 <= page.evaluate("Date.now()") / 1e3
    page.get_by_role("button", name="Back to now").click()
    expect(page.locator('[data-name="saturated"]')).to_be_visible()


def test_bulks_stand_on_the_axis_and_lead_to_their_page(page: Page, web: str) -> None:
    page.goto(f"{web}/live")
    marks = page.get_by_role("navigation", name="bulks of this time").get_by_role("link")
    expect(marks).to_have_count(3)  # and one that was refused
    page.get_by_role("link", name="sample-001").first.click()
    expect(page).to_have_url(re.compile("/bulk/sample-001$"))


def test_a_time_without_records_says_so_and_leads_to_the_last_ones(page: Page, web: str) -> None:
    page.goto(f"{web}/live?from=1700000000&to=1700000900")
    expect(page.get_by_text("Nothing was recorded in this time")).to_be_visible()
    page.get_by_role("button", name="Show the 15 minutes before it").click()
    expect(plot(page, "load")).to_be_visible()


def test_an_empty_studio_says_so(page: Page, empty: str) -> None:
    page.goto(f"{empty}/live")
    expect(page.get_by_text("The studio has no records yet")).to_be_visible()
    expect(page.locator('[data-name="saturated"]')).to_contain_text("Not known")


def test_the_table_has_the_values_of_the_api(page: Page, web: str) -> None:
    now = time.time()
    page.goto(f"{web}/live?from={now - 240:.0f}&to={now - 120:.0f}")
    page.get_by_text("as a table").click()
    table = page.get_by_role("table")
    heads = table.locator("thead th").all_inner_texts()
    bins = 180 if page.viewport_size and page.viewport_size["width"] > 640 else 90
    question = {"from_ns": round(now - 240) * 10**9, "to_ns": round(now - 120) * 10**9, "bins": bins}
    found = httpx.get(f"{web}/api/v1/live", params=question, timeout=PATIENCE_S).json()
    at = [(n + 1) * bins // 12 - 1 for n in range(12)]
    cells = table.locator(f"tbody tr td:nth-child({heads.index('Queue, running') + 1})").all_inner_texts()
    assert [int(cell.split()[0]) for cell in cells] == [round(found["jobs"]["running"][bin_]) for bin_ in at]
