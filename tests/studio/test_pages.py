"""The pages in a real browser, on a filled and on an empty store, wide and narrow, light and dark."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page, expect

from bulkscope_studio.storage.store import Store
from tests.studio.browsing import quiet
from tests.studio.sample import fill
from tests.studio.serving import studio

ODD_ID = "a/b c?d&é<b>"


@dataclass(frozen=True)
class Filled:
    """A running studio, and of what it holds: a failed job, and how many records one bulk has logged."""

    web: str
    otlp: str
    failed: dict[str, str]
    logged: int


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Two bulks that have just ended, a refused request, and a bulk with an odd id."""
    db = tmp_path_factory.mktemp("filled") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), start_ns=time.time_ns() - 120 * 10**9)
    store.connection().execute(
        "INSERT INTO spans BY NAME SELECT * REPLACE ($id AS bulk_id) FROM spans WHERE bulk_id = 'sample-002'",
        {"id": ODD_ID},
    )
    (failed,) = store.query(
        "SELECT trace_id, span_id FROM spans WHERE kind = 'CONSUMER' AND status = 'ERROR' AND outcome <> 'retry'"
        " LIMIT 1"
    ).to_pylist()
    (logs,) = store.query("SELECT count(*) AS n FROM logs WHERE bulk_id = 'sample-001'").to_pylist()
    store.connection().execute(
        "INSERT INTO logs BY NAME SELECT * REPLACE ('bulk.job.heartbeat' AS event_name, 'a heartbeat' AS body)"
        " FROM logs WHERE bulk_id = 'sample-001' LIMIT 1"
    )
    store.close()
    with studio(db, "--no-host") as running:
        yield Filled(running.web, running.otlp_http, failed, logs["n"])


@pytest.mark.parametrize("path", ["/", "/bulks", "/inference", "/logs"])
def test_an_empty_store_says_what_to_do(page: Page, empty: str, path: str) -> None:
    page.goto(empty + path)
    expect(page.get_by_text("bulkscope run <your command>")).to_be_visible()
    expect(page.get_by_text("accepted since start")).to_be_visible()
    quiet(page)


@pytest.mark.parametrize("path", ["/bulk/nobody", "/trace/" + "0" * 32])
def test_an_unknown_id_is_said(page: Page, empty: str, path: str) -> None:
    page.goto(empty + path)
    expect(page.get_by_text("It has not arrived yet")).to_be_visible()


def test_overview_has_every_panel_and_the_failures_apart(page: Page, filled: Filled) -> None:
    page.goto(filled.web)
    expect(page.get_by_text("host RAM")).to_be_visible()
    expect(page.locator("canvas")).to_have_count(1)
    expect(page.locator(".bs-tile", has_text="overload failures").locator("b")).to_have_text("1")
    expect(page.locator(".bs-tile", has_text="internal failures").locator("b")).to_have_text("0")
    quiet(page)


def test_overview_shows_what_arrives_while_it_is_open(page: Page, filled: Filled) -> None:
    page.goto(filled.web)
    count = page.locator(".bs-tile", has_text="requests").first.locator("b")
    expect(count).to_be_visible()
    before = int(count.inner_text())
    now = time.time_ns()
    span = {
        "traceId": os.urandom(16).hex(), "spanId": os.urandom(8).hex(), "name": "GET /", "kind": 2,
        "startTimeUnixNano": str(now - 10**6), "endTimeUnixNano": str(now),
    }  # fmt: skip
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    httpx.post(filled.otlp + "/v1/traces", json=body).raise_for_status()
    expect(count).to_have_text(str(before + 1))


def test_bulks_lead_to_a_bulk_with_its_thirteen_numbers(page: Page, filled: Filled) -> None:
    page.goto(filled.web + "/bulks")
    page.get_by_role("link", name="sample-001", exact=True).click()
    expect(page.get_by_text("The thirteen numbers")).to_be_visible()
    for name in ("API requests", "queue wait", "CPU time", "peak RAM", "output tokens", "queue wait / total time"):
        expect(page.get_by_role("cell", name=name, exact=True)).to_be_visible()
    expect(page.locator("canvas")).to_have_count(1)
    expect(page.get_by_role("cell", name="model EngineError").first).to_be_visible()
    quiet(page)


def test_any_text_is_an_id(page: Page, filled: Filled) -> None:
    page.goto(f"{filled.web}/bulk/{quote(ODD_ID, safe='')}")
    expect(page.get_by_text(ODD_ID, exact=True)).to_be_visible()
    expect(page.get_by_text("The thirteen numbers")).to_be_visible()
    quiet(page)


def test_a_trace_shows_a_spans_attributes_and_logs(page: Page, filled: Filled) -> None:
    page.goto(f"{filled.web}/trace/{filled.failed['trace_id']}?span={filled.failed['span_id']}")
    expect(page.get_by_text("Logs of this span")).to_be_visible()
    expect(page.get_by_role("cell", name="failure_domain")).to_be_visible()
    expect(page.get_by_text("job started").first).to_be_visible()
    page.get_by_role("cell", name="POST /bulks").first.click()
    expect(page.get_by_text("Span POST /bulks")).to_be_visible()
    quiet(page)


def test_inference_sets_the_models_side_by_side(page: Page, filled: Filled) -> None:
    page.goto(filled.web + "/inference")
    for model in ("smollm2-135m-q4_1", "smollm2-135m-q8_0"):
        expect(page.get_by_role("cell", name=model)).to_be_visible()
    expect(page.locator("canvas")).to_have_count(3)
    quiet(page)


def test_logs_are_searched_and_kept_to_a_bulk(page: Page, filled: Filled) -> None:
    page.goto(filled.web + "/logs?bulk=sample-001")
    expect(page.get_by_text(f"1 to {min(100, filled.logged)}")).to_be_visible()
    expect(page.get_by_role("cell", name="sample-002")).to_have_count(0)
    page.get_by_label("text").first.fill("a heartbeat")
    expect(page.get_by_text("No log matches.")).to_be_visible()
    page.get_by_role("switch", name="heartbeats").click()
    expect(page.get_by_role("cell", name="a heartbeat")).to_be_visible()
    page.get_by_label("text").first.fill("nowhere to be found")
    expect(page.get_by_text("No log matches.")).to_be_visible()
    quiet(page)
