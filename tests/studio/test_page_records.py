"""Pages of a job, a trace and the logs: what they say is what the API says, and each leads to the others."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page, expect

from bulkscope_studio.storage.store import Store
from bulkscope_studio.text.wording import number, seconds
from tests.rows import BEGIN_NS, add, span
from tests.studio.otlp import PROTOBUF, logs
from tests.studio.sample import fill
from tests.studio.serving import Addresses, asked, studio

pytestmark = pytest.mark.browser
MANY = 5_000
BULK = "sample-001"  # one of its jobs is tried again, see the sample


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    db = tmp_path_factory.mktemp("records") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), jobs=24)
    wide = [
        span("INTERNAL", BEGIN_NS + n * 1000, BEGIN_NS + n * 1000 + 500, trace_id="f" * 32, span_id=f"{n + 1:016x}",
             parent_span_id=f"{(n + 1) // 2:016x}" if n else None, name=f"step {n}")
        for n in range(MANY)
    ]  # fmt: skip
    # Two that name each other as parents, as no sane sender does.
    wide += [
        span("INTERNAL", BEGIN_NS, BEGIN_NS + 1, trace_id="e" * 32, span_id=f"{n:016x}", parent_span_id=f"{3 - n:016x}",
             name=f"circle {n}")
        for n in (1, 2)
    ]  # fmt: skip
    add(store.connection(), "spans", wide)
    store.close()
    with studio(db, "--no-host", "--retention", "9999d") as running:
        yield running


def job_of(filled: Addresses, **wanted: Any) -> dict[str, Any]:
    found: dict[str, Any] = asked(filled, f"/bulks/{BULK}/jobs", limit=1, **wanted)["jobs"][0]
    return found


def test_a_job_says_what_the_api_says_and_leads_to_its_trace(page: Page, filled: Addresses) -> None:
    job = job_of(filled, sort="-work_s", status="done")
    page.goto(f"{filled.web}/job/{quote(job['id'])}?bulk={BULK}")
    expect(page.get_by_role("heading", level=1)).to_have_text(job["id"])
    numbers = page.locator(".numbers")
    for value in (seconds(job["work_s"]), number(job["output_tokens"]), seconds(job["wait_s"])):
        expect(numbers).to_contain_text(value)
    bar = page.locator(".attempt .stack").last  # of the attempt that decides
    expect(bar).to_have_attribute("aria-label", re.compile(f"worked {re.escape(seconds(job['work_s']))}"))
    # The parts make the whole.
    widths = bar.locator("span").evaluate_all("all => all.map(each => parseFloat(each.style.width))")
    assert sum(widths) == pytest.approx(100, abs=0.5)
    page.get_by_text(f"attempt {job['attempt']}, span").click()
    expect(page.locator(".pairs").first).to_contain_text(job["span_id"])
    page.get_by_role("link", name="its trace").last.click()
    expect(page).to_have_url(re.compile(f"/trace/{job['trace_id']}\\?span={job['span_id']}"))
    expect(page.get_by_role("treeitem", selected=True)).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text(job["id"])


def test_each_attempt_of_a_job_has_its_bar(page: Page, filled: Addresses) -> None:
    job = job_of(filled, where="attempts>1")
    page.goto(f"{filled.web}/job/{quote(job['id'])}?bulk={BULK}")
    expect(page.locator(".attempt")).to_have_count(job["attempts"])
    expect(page.get_by_text("tried again").first).to_be_visible()


def test_a_job_without_its_bulk_is_looked_up_and_an_unknown_one_is_told(page: Page, filled: Addresses) -> None:
    job = job_of(filled)
    page.goto(f"{filled.web}/job/{quote(job['id'])}")
    expect(page).to_have_url(re.compile(f"bulk={BULK}"))
    expect(page.locator(".numbers")).to_be_visible()


def test_a_trace_of_thousands_draws_what_is_seen(page: Page, filled: Addresses) -> None:
    page.goto(f"{filled.web}/trace/{'f' * 32}")
    rows = page.get_by_role("treeitem")
    expect(page.get_by_text("5,000 spans")).to_be_visible()
    expect(rows.first).to_be_visible()
    assert rows.count() < 120
    tree = page.get_by_role("tree")
    tree.focus()
    page.keyboard.press("Home")
    expect(page).to_have_url(re.compile("span=0000000000000001"))
    page.keyboard.press("End")
    expect(page.get_by_role("treeitem", selected=True)).to_be_in_viewport()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")  # the root is open: it closes, and all is below it
    expect(rows).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(rows.nth(3)).to_be_visible()
    page.get_by_label("find spans").fill("step 4321")
    # It and the twelve above it.
    expect(rows).to_have_count(13)
    expect(page).to_have_url(re.compile("find=step"))
    page.reload()
    expect(rows).to_have_count(13)


def test_spans_that_are_each_others_parents_are_shown(page: Page, filled: Addresses) -> None:
    page.goto(f"{filled.web}/trace/{'e' * 32}")
    expect(page.get_by_role("treeitem")).to_have_count(2)


def test_a_range_of_a_trace_is_in_its_address(page: Page, filled: Addresses) -> None:
    page.goto(f"{filled.web}/trace/{'f' * 32}")
    expect(page.get_by_role("treeitem").first).to_be_visible()
    page.locator(".minimap").focus()
    page.keyboard.press("+")
    expect(page).to_have_url(re.compile(r"from=.*to="))
    page.get_by_role("button", name="All of its time").click()
    expect(page).not_to_have_url(re.compile("from="))


def test_logs_are_filtered_by_the_address(page: Page, filled: Addresses) -> None:
    every = asked(filled, "/logs/histogram")["total"]
    page.goto(f"{filled.web}/logs")
    expect(page.get_by_text(f"{number(every)} records")).to_be_visible()
    page.get_by_label("from severity").select_option("error")
    expect(page).to_have_url(re.compile("severity=error"))
    bad = asked(filled, "/logs/histogram", severity="error")["total"]
    assert 0 < bad < every
    expect(page.get_by_text(re.compile(f"^{number(bad)} records?"))).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(min(bad, 100))
    page.go_back()
    expect(page.get_by_text(f"{number(every)} records")).to_be_visible()


def test_the_tail_follows(page: Page, filled: Addresses) -> None:
    needle = f"needle{time.time_ns()}"
    page.goto(f"{filled.web}/logs?text={needle}&tail=1")
    expect(page.get_by_text("Nothing has come yet.")).to_be_visible()
    # The last one of another service, whose records come later with an earlier time.
    for n, ago_s in enumerate((2, 1, 60)):
        at = time.time_ns() - ago_s * 10**9
        body = logs(f"{needle} {n}", time_unix_nano=at).SerializeToString()
        assert httpx.post(f"{filled.otlp_http}/v1/logs", content=body, headers=PROTOBUF).status_code == 200
        expect(page.get_by_text(f"{needle} {n}", exact=True)).to_be_visible()
    assert [text[-1] for text in page.locator("tbody tr .wrap").all_inner_texts()] == ["1", "0", "2"]
    page.get_by_role("button", name="Hold").click()
    expect(page.get_by_text("held")).to_be_visible()
