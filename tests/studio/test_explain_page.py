"""The verdict on a bulk's page and the page of all its evidence, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import pyarrow.compute as pc
import pytest
from playwright.sync_api import Page, expect

from bulkscope_studio.analysis.explain import findings
from bulkscope_studio.storage.store import Store
from tests.rows import BEGIN_NS
from tests.simulator.scenarios import scenarios
from tests.studio import otlp
from tests.studio.browsing import quiet
from tests.studio.explaining import Job, Tables, insert, simulated, written
from tests.studio.sample import fill
from tests.studio.serving import Addresses, studio

ODD = "a/b c?d&é<b>{{1}}"
LONG = "night-run-of-all-prompts-with-every-model-" * 4
NAMES = {"full": "cpu/threads/join/8x1on4", "broken": "failure/EngineError/0.3/0", "unfit": "unfit/producers/0.25/01"}


def moved(tables: Tables, bulk: str, seconds: float) -> Tables:
    """Rename the simulator's bulk, and let it have begun ``seconds`` ago."""
    by, made = time.time_ns() - round(seconds * 1e9) - BEGIN_NS, {}
    for name, content in tables.items():
        for column in content.column_names:
            at = content.column_names.index(column)
            if column in ("start_ns", "end_ns", "time_ns", "observed_ns"):
                content = content.set_column(at, column, pc.add(content[column], by))
            if column == "bulk_id":
                content = content.set_column(at, column, pc.replace_substring_regex(content[column], "^bulk$", bulk))
        made[name] = content
    return made


def running(bulk: str, open_: int) -> Tables:
    """Four jobs that have ended and ``open_`` that go on, put a moment ago."""
    jobs = [Job(f"{bulk}-{n}", 0.0, float(n), n + 1.0, bulk=bulk) for n in range(4)]
    jobs += [Job(f"{bulk}-{n}", 0.0, 4.0, None, worker=n, seen=5.0, bulk=bulk) for n in range(4, 4 + open_)]
    by = time.time_ns() - 6 * 10**9 - BEGIN_NS
    made = {}
    for name, content in written(jobs).items():
        for column in ("start_ns", "end_ns", "time_ns"):
            if column in content.column_names:
                at = content.column_names.index(column)
                content = content.set_column(at, column, pc.add(content[column], by))
        made[name] = content
    return made


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    db: Path = tmp_path_factory.mktemp("explain") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), start_ns=time.time_ns() - 4000 * 10**9)
    for name in (ODD, LONG):
        store.connection().execute(
            "INSERT INTO spans BY NAME SELECT * REPLACE ($id AS bulk_id) FROM spans WHERE bulk_id = 'sample-002'",
            {"id": name},
        )
    known = {scenario.name: scenario for scenario in scenarios()}
    for number, (bulk, name) in enumerate(NAMES.items()):
        insert(store, moved(simulated(replace(known[name]))[0], bulk, 900.0 - 300 * number))
    store.close()
    with studio(db, "--no-host") as addresses:
        yield addresses


def test_a_bulks_page_says_what_held_it_up_and_leads_to_the_evidence(page: Page, filled: Addresses) -> None:
    page.goto(filled.web + "/bulk/full")
    expect(page.get_by_text("At capacity: cores", exact=True)).to_be_visible()
    expect(page.get_by_text("The bulk's own 8 workers want")).to_be_visible()
    page.get_by_role("link", name="Evidence, and where the time went").click()
    expect(page).to_have_url(filled.web + "/explain/full")
    expect(page.get_by_text("Where the jobs' time went")).to_be_visible()
    expect(page.get_by_text("Longest chain")).to_be_visible()
    quiet(page)


@pytest.mark.parametrize(("bulk", "title"), [("full", "At capacity: cores"), ("broken", "Internal failure"),
                                             ("unfit", "Data unfit")])  # fmt: skip
def test_the_page_shows_every_finding_in_its_order(page: Page, filled: Addresses, bulk: str, title: str) -> None:
    page.goto(f"{filled.web}/explain/{bulk}")
    expect(page.get_by_text(title, exact=True)).to_be_visible()
    shown = page.locator(".q-expansion-item")
    expect(shown).to_have_count(len(findings.TITLES))
    texts = shown.all_inner_texts()
    for text, name in zip(texts, findings.TITLES.values(), strict=True):
        assert f"{name}:" in text
    asked = httpx.get(f"{filled.web}/api/bulks/{bulk}/explain").json()
    assert [asked["verdict"]["text"]] == [f["text"] for f in asked["findings"] if f["code"] == asked["verdict"]["code"]]
    for item in asked["verdict"]["evidence"]:
        expect(page.get_by_role("cell", name=item["text"], exact=True).first).to_be_attached()
    shown.nth(1).click()
    expect(shown.nth(1).get_by_text(asked["findings"][1]["evidence"][0]["text"])).to_be_visible()
    quiet(page)


@pytest.mark.parametrize("bulk", list(NAMES))
def test_evidence_leads_to_pages_that_are_there(page: Page, filled: Addresses, bulk: str) -> None:
    found = httpx.get(f"{filled.web}/api/bulks/{bulk}/explain").json()
    links = {item["link"] for finding in found["findings"] for item in finding["evidence"] if item["link"]}
    links |= {straggler["link"] for straggler in found["stragglers"]}
    assert f"/bulk/{bulk}" in links
    for link in sorted(links):
        page.goto(filled.web + link)
        expect(page.locator(".bs-strip")).to_be_visible()
        expect(page.get_by_text("It has not arrived yet")).to_have_count(0)
        quiet(page)
    assert bulk != "broken" or any(link.startswith("/trace/") for link in links)


@pytest.mark.parametrize("bulk", [ODD, LONG])
def test_any_text_is_an_id(page: Page, filled: Addresses, bulk: str) -> None:
    page.goto(f"{filled.web}/explain/{quote(bulk, safe='')}")
    expect(page.get_by_role("link", name=bulk, exact=True)).to_be_visible()
    expect(page.get_by_text("Longest chain")).to_be_visible()
    page.get_by_role("link", name=bulk, exact=True).click()
    expect(page.get_by_text("The thirteen numbers")).to_be_visible()
    expect(page.get_by_text("What held it up")).to_be_visible()
    quiet(page)


def test_an_unknown_bulk_is_said(page: Page, filled: Addresses, empty: str) -> None:
    for web in (filled.web, empty):
        page.goto(web + "/explain/nobody")
        expect(page.get_by_text("No such bulk")).to_be_visible()
        quiet(page)
    page.get_by_role("link", name="All bulks").click()
    expect(page).to_have_url(empty + "/bulks")


def test_a_partial_bulk_says_so_and_is_looked_at_again(page: Page, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    store = Store(db)
    insert(store, running("going", 1))
    store.close()
    with studio(db, "--no-host") as addresses:
        page.goto(addresses.web + "/explain/going")
        expect(page.get_by_text("1 of 5 jobs has not ended.")).to_be_visible()
        expect(page.get_by_text("PARTIAL (running)")).to_be_visible()
        tell_end(addresses, "going", db)
        expect(page.get_by_text("Partial:")).to_have_count(0, timeout=40_000)
        expect(page.get_by_text("PARTIAL (running)")).to_have_count(0)
        quiet(page)
        page.goto("about:blank")  # before the studio ends


def test_a_bulk_that_has_not_ended_says_when_it_will(page: Page, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    store = Store(db)
    insert(store, running("going", 1))
    store.close()
    with studio(db, "--no-host") as addresses:
        page.goto(addresses.web + "/bulk/going")
        expect(page.get_by_text("When it ends", exact=True)).to_be_visible()
        expect(page.get_by_text("4 of 5 jobs, ")).to_be_visible()
        page.goto(addresses.web + "/bulks")
        expect(page.get_by_text("ends in", exact=True)).to_have_count(1)  # a narrow page hides the head of the table
        quiet(page)
        page.goto("about:blank")  # before the studio ends


def tell_end(addresses: Addresses, bulk: str, db: Path) -> None:
    """Send the span of the job that was going on."""
    now = time.time_ns()
    ended = otlp.traces(
        {"bulk.id": bulk, "bulk.job.id": f"{bulk}-4", "bulk.outcome": "ok", "bulk.job.attempt": 1},
        resource={"host.name": "h", "process.pid": 4, "service.instance.id": "i4"},
        kind=5, span_id=(5).to_bytes(8, "big"), trace_id=(5).to_bytes(16, "big"),
        start_time_unix_nano=now - 2 * 10**9, end_time_unix_nano=now,
    )  # fmt: skip
    sent = httpx.post(f"{addresses.otlp_http}/v1/traces", content=ended.SerializeToString(), headers=otlp.PROTOBUF)
    sent.raise_for_status()
