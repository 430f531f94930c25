"""The page of comparisons in a real browser, on a filled and on an empty store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from bulkscope_studio.services import runs
from bulkscope_studio.storage.store import Store
from tests.studio.browsing import quiet
from tests.studio.sample import fill
from tests.studio.serving import studio

HTML = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    db: Path = tmp_path_factory.mktemp("compare") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), start_ns=time.time_ns() - 120 * 10**9)
    store.connection().execute(
        "INSERT INTO spans BY NAME SELECT * REPLACE ($id AS bulk_id) FROM spans WHERE bulk_id = 'sample-002'",
        {"id": HTML},
    )
    runs.keep(store, "last-week", ["sample-001"], False)
    store.close()
    with studio(db, "--no-host") as running:
        yield running.web


def test_two_bulks_are_chosen_and_answered(page: Page, web: str) -> None:
    page.goto(web + "/compare")
    expect(page.get_by_role("cell", name="last-week")).to_be_visible()
    page.get_by_label("A", exact=True).fill("last-week")
    page.get_by_label("B", exact=True).fill("sample-002")
    page.get_by_role("button", name="compare").click()
    expect(page.get_by_text("Number by number")).to_be_visible()
    expect(page.get_by_text("In these two runs A (smollm2-135m-q4_1)")).to_be_visible()
    row = page.locator("tr", has_text="inference time per job at equal tokens")
    expect(row.get_by_text("slower")).to_be_visible()
    expect(page.get_by_text("The quality of the answers is not judged.")).to_be_visible()
    page.get_by_role("link", name="B: bulk sample-002").click()
    expect(page.get_by_text("The thirteen numbers")).to_be_visible()
    quiet(page)


def test_an_unknown_name_is_said_with_the_nearest(page: Page, web: str) -> None:
    page.goto(f"{web}/compare?a=sample-001&b=sampel-002")
    expect(page.get_by_text("no bulk or run 'sampel-002'")).to_be_visible()
    expect(page.get_by_text("Nearest: sample-002")).to_be_visible()
    quiet(page)


def test_an_id_is_text_whatever_it_holds(page: Page, web: str) -> None:
    page.goto(f"{web}/compare?" + urlencode({"a": "sample-001", "b": HTML}))
    expect(page.get_by_text("Number by number")).to_be_visible()
    expect(page.get_by_text(f"B: bulk {HTML}")).to_be_visible()
    quiet(page)


def test_an_empty_store_says_what_to_do(page: Page, empty: str) -> None:
    page.goto(empty + "/compare")
    expect(page.get_by_text("bulkscope run <your command>")).to_be_visible()
    quiet(page)
