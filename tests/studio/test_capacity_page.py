"""The page of what a system sustains in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.studio.browsing import quiet
from tests.studio.made import Made, at_once
from tests.studio.queues import slowing, stream
from tests.studio.serving import studio

SLOW_MS = 120_000  # a search on this store takes longer than the 3 s in which NiceGUI wants a page, here or anywhere


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    db: Path = tmp_path_factory.mktemp("capacity") / "s.duckdb"
    made: Made = at_once(60, 2)
    arrivals, starts, ends = stream(3000, 0.6, slowing(4, 0.3), 1)
    made.run((arrivals + 1000).tolist(), (ends - starts).tolist(), 4, bulk="crowd", first_pid=10)
    made.store(db).close()
    with studio(db, "--no-host", "--retention", "10000d") as running:
        yield running.web


def test_what_is_sustained_and_to_be_expected(page: Page, web: str) -> None:
    page.goto(f"{web}/capacity?bulk=b&rate=1.5&slo=10s")
    expect(page.get_by_text("sustains")).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_text("2 concurrency slots keep 95 % of the queue waits under 10 s")).to_be_visible()
    expect(page.get_by_text("computing")).not_to_be_attached()
    quiet(page)


def test_a_search_that_takes_longer_than_a_page_may(page: Page, web: str) -> None:
    page.goto(f"{web}/capacity?bulk=crowd&slo=2s")
    expect(page.get_by_text("computing")).to_be_visible()
    expect(page.get_by_text("4 concurrency slots keep 95 % of the queue waits under 2 s")).to_be_visible(
        timeout=SLOW_MS
    )
    expect(page.get_by_text("times as fast as one of all 4 busy")).to_be_visible()
    quiet(page)


@pytest.mark.parametrize(
    ("query", "says"),
    [("bulk=crowed", "Nearest: crowd"), ("bulk=b&rate=x", "slots are a whole number"), ("slo=x", "not a duration")],
)
def test_what_cannot_be_answered(page: Page, web: str, query: str, says: str) -> None:
    page.goto(f"{web}/capacity?{query}")
    expect(page.get_by_text(says)).to_be_visible(timeout=30_000)
    expect(page.get_by_text("sustains")).to_have_count(0)
