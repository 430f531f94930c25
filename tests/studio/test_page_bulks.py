"""The page of the bulks and the search of every page, in a browser, against what the API says."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from bulkscope_studio.storage.store import Store
from tests.processes import PATIENCE_S
from tests.studio.going import Going
from tests.studio.sample import fill
from tests.studio.serving import Addresses, studio

pytestmark = pytest.mark.browser

BULKS = 57  # more than a page of the list, of which two are called otherwise
OTHERS = ("nightly/a b", "<b>bold</b>")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    db = tmp_path_factory.mktemp("bulks") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), bulks=BULKS, jobs=7)
    for n, name in enumerate(OTHERS):
        for table in ("spans", "logs"):
            store.connection().execute(
                f"UPDATE {table} SET bulk_id = $1 WHERE bulk_id = $2", [name, f"sample-{n + 2:03}"]
            )
    store.close()
    with studio(db, "--no-host", "--retention", "9000d") as running:
        yield running


def api(at: Addresses, path: str, **params: Any) -> Any:
    answer = httpx.get(f"{at.web}/api/v1{path}", params=params, timeout=PATIENCE_S)
    answer.raise_for_status()
    return answer.json()


def ids(page: Page) -> Locator:
    return page.locator("tbody tr td:nth-child(2) a.id")


def shows(page: Page, names: list[str]) -> None:
    """The list has these bulks in this order, whatever they are called."""
    expect(ids(page)).to_have_text(names)


def listed(at: Addresses, **params: Any) -> list[str]:
    return [row["id"] for row in api(at, "/bulks", **{"limit": 50, **params})["bulks"]]


def test_order_filters_and_page_are_those_of_the_address(page: Page, at: Addresses) -> None:
    page.goto(at.web)
    expect(page).to_have_title("Bulks – Bulkscope")
    expect(page.get_by_role("heading", level=1)).to_have_text("Bulks")
    shows(page, listed(at))
    page.get_by_role("button", name="After").click()
    expect(page).to_have_url(re.compile(r"offset=50"))
    shows(page, listed(at, offset=50))
    page.get_by_role("button", name="work p95").click()
    # Another order begins at its first page.
    expect(page).to_have_url(re.compile(r"\?sort=-work_p95_s$"))
    shows(page, listed(at, sort="-work_p95_s"))
    expect(page.get_by_role("columnheader", name="work p95")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("button", name="work p95").click()
    shows(page, listed(at, sort="work_p95_s"))
    page.get_by_label("with failed jobs").check()
    shows(page, listed(at, sort="work_p95_s", failed=True))
    page.go_back()
    shows(page, listed(at, sort="work_p95_s"))
    page.get_by_label("part of a bulk's id").fill("NIGHT")
    shows(page, ["nightly/a b"])
    expect(page).to_have_url(re.compile(r"search=NIGHT"))
    page.reload()
    shows(page, ["nightly/a b"])
    page.get_by_role("button", name="Clear").click()
    shows(page, listed(at, sort="work_p95_s"))
    page.get_by_label("time range", exact=True).select_option("last hour")
    expect(page.get_by_text("No bulk fits.")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    shows(page, listed(at, sort="work_p95_s"))


def test_a_row_has_the_numbers_of_the_api_and_its_verdict_in_time(page: Page, at: Addresses) -> None:
    page.goto(f"{at.web}/?search=sample-001")
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    verdict = api(at, "/bulks/sample-001/explanation")["verdict"]["title"]
    expect(row.get_by_role("link", name=verdict)).to_be_visible()
    said = api(at, "/bulks/sample-001/summary")
    cells = dict(zip(page.locator("thead th").all_inner_texts(), row.locator("td").all_inner_texts(), strict=True))
    for title, number in (("wait p95", said["wait_p95_s"]), ("work p95", said["work_p95_s"]), ("took", said["took_s"])):
        value, unit = cells[title].split()
        assert float(value) * {"s": 1, "ms": 1e-3, "min": 60}[unit] == pytest.approx(number, rel=0.01)
    assert float(cells["tokens/s"]) == pytest.approx(said["tokens_per_s"], rel=0.01)
    assert (cells["jobs"], cells["failed"]) == (str(said["sent_jobs"]), str(said["failed_jobs"]))


def choose(page: Page, name: str) -> None:
    page.get_by_label(f"choose {name}", exact=True).check()


def test_two_are_chosen_and_compared_and_the_choice_stays(page: Page, at: Addresses) -> None:
    page.goto(at.web)
    one, other = "sample-040", "sample-041"
    choose(page, one)
    group = page.get_by_role("group", name="the chosen bulks")
    expect(group.get_by_role("button", name="Compare")).to_be_disabled()
    choose(page, other)
    page.get_by_role("button", name="After").click()
    expect(group).to_contain_text("2 chosen")
    page.reload()
    expect(group).to_contain_text("2 chosen")
    link = group.get_by_role("link", name="Compare").get_attribute("href")
    assert link == f"/compare?a={one}&b={other}"
    choose(page, "sample-004")
    expect(group).to_contain_text("3 chosen")
    group.get_by_role("button", name="Choose none").click()
    expect(group).to_have_count(0)


def test_lists_and_jobs_are_exported(page: Page, at: Addresses) -> None:
    page.goto(f"{at.web}/?search=night&sort=id")
    page.get_by_role("button", name="Export the list").click()
    with page.expect_download() as waited:
        page.get_by_role("link", name="CSV").click()
    lines = waited.value.path().read_text().splitlines()
    assert waited.value.suggested_filename == "bulks.csv"
    assert len(lines) == 2
    assert lines[1].startswith('"nightly/a b"')
    choose(page, "nightly/a b")
    page.get_by_role("button", name="Export jobs").click()
    with page.expect_download() as waited:
        page.get_by_role("link", name="JSON Lines").click()
    jobs = api(at, "/bulks/nightly%2Fa%20b/jobs")["jobs"]
    assert len(waited.value.path().read_text().splitlines()) == len(jobs) > 0


def test_a_bulk_is_kept_with_a_note_and_deleted_when_asked_twice(page: Page, at: Addresses) -> None:
    name = f"gone-{time.time_ns()}"
    going = Going(at.otlp_http, name, jobs=2, ago_s=300)
    going.put()
    going.work(2)
    page.goto(f"{at.web}/?search={name}")
    choose(page, name)
    page.get_by_role("button", name="Keep as…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("name").fill(f"run-{name}")
    dialog.get_by_label("note").fill("before <b>the</b> change")
    dialog.get_by_role("button", name="Keep").click()
    chip = page.locator("tbody").get_by_role("link", name=f"run-{name}")
    expect(chip).to_have_attribute("title", "before <b>the</b> change")
    assert api(at, f"/runs/run-{name}")["bulks"] == [name]
    page.get_by_role("button", name="Delete…").click()
    dialog.get_by_role("button", name="Delete…").click()
    assert listed(at, search=name) == [name]  # asked once, nothing has gone
    dialog.get_by_role("button", name="Yes").click()
    expect(page.get_by_text("1 bulk deleted.")).to_be_visible()
    expect(page.get_by_text("No bulk fits.")).to_be_visible()
    assert listed(at, search=name) == []
    assert api(at, f"/runs/run-{name}")["note"] == "before <b>the</b> change"


def test_what_runs_is_on_top_with_its_end_until_it_has_ended(page: Page, at: Addresses) -> None:
    name = f"going-{time.time_ns()}"
    going = Going(at.otlp_http, name, jobs=60)
    going.put()
    going.work(41)
    going.work(4, error="ConnectionResetError")
    page.goto(at.web)
    card = page.get_by_role("region", name=f"progress of {name}")
    expect(card).to_contain_text("45 of 60 jobs")
    expect(card).to_contain_text("4 failed")
    expect(card).to_contain_text(re.compile(r"Ends in ~.+ \(.+\)?, at \d\d:\d\d:\d\d UTC"))
    expect(card).to_contain_text(re.compile(r"jobs/s"))
    expect(page.locator("tbody tr").first).to_contain_text("running")
    going.work(15)
    expect(card).to_have_count(0)
    row = page.locator("tbody tr", has_text=name)
    expect(row).not_to_contain_text("running")
    expect(row).to_contain_text("60")


def test_failures_of_the_last_hour_by_error_are_two_choices_away(page: Page, at: Addresses) -> None:
    name = f"fails-{time.time_ns()}"
    going = Going(at.otlp_http, name, jobs=3, ago_s=120)
    going.put()
    going.work(1, error="TimeoutError<i>")
    going.work(2, error=f"Error{name}")
    page.goto(at.web)
    page.get_by_role("tab", name="Failed, by error").click()
    expect(page.locator("tbody tr").first).to_be_visible()
    page.get_by_label("time range", exact=True).select_option("last hour")
    row = page.locator("tbody tr", has_text=f"Error{name}")
    expect(row).to_have_count(1)
    found = api(at, "/failures", since_ns=time.time_ns() - 3600 * 10**9)["failures"]
    expect(page.locator("tbody tr")).to_have_count(len(found))
    (own,) = (each for each in found if each["error_type"] == f"Error{name}")
    assert (own["attempts"], own["jobs"]) == (2, 2)
    expect(row).to_contain_text("infra")
    page.go_back()
    # The failures that the store had before are of another day.
    expect(page.locator("tbody tr")).to_have_count(len(api(at, "/failures")["failures"]))
    page.locator("tbody tr", has_text=f"Error{name}").get_by_role("link", name=f"{name}-001").click()
    expect(page).to_have_url(re.compile(rf"/job/{name}-001\?bulk={name}"))


def test_any_id_is_found_by_the_keyboard(page: Page, at: Addresses) -> None:
    page.goto(at.web)
    expect(ids(page).first).to_be_visible()
    page.keyboard.press("/")
    field = page.get_by_role("combobox", name="find a bulk")
    expect(field).to_be_focused()
    page.keyboard.type("sample-00")
    hits = page.locator("#found [role=option]")
    found = api(at, "/search", text="sample-00", limit=12)["found"]
    expect(hits).to_have_count(len(found))
    expect(hits.first).to_contain_text(found[0]["id"])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(hits.nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"/bulk/{found[1]['id']}$"))
    # One hit is gone to at once, also where Enter comes before the hits.
    job = api(at, "/bulks/sample-001/jobs", limit=1)["jobs"][0]
    page.keyboard.press("/")
    page.keyboard.type(job["trace_id"])
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"/trace/{job['trace_id']}"))
    page.keyboard.press("/")
    page.keyboard.type("nothing is called so")
    expect(page.get_by_text("Nothing is called or begins with")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Nothing is called or begins with")).to_be_hidden()


def test_the_worker_that_was_found_filters_the_bulks(page: Page, at: Addresses) -> None:
    worker = api(at, "/bulks/sample-001/jobs", limit=1)["jobs"][0]["worker"]
    page.goto(at.web)
    page.get_by_role("combobox", name="find a bulk").fill(worker)
    page.locator("#found [role=option]").first.click()
    expect(page).to_have_url(re.compile("worker="))
    shows(page, listed(at, worker=worker))


def test_the_empty_studio_names_the_command_for_its_own_port(page: Page, empty: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(empty)
    status = httpx.get(f"{empty}/api/v1/status").json()
    command = f"OTEL_EXPORTER_OTLP_ENDPOINT={status['otlp_http']} bulkscope run <your command>"
    expect(page.locator("pre")).to_have_text(command)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == command
