"""The page of a bulk: it says what the API says, each number leads to its jobs, and every state is an address."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from bulkscope_studio.storage.store import Store
from tests.processes import PATIENCE_S
from tests.rows import BEGIN_NS, SECOND, Row, add, span
from tests.studio.browsing import browser, page
from tests.studio.otlp import PROTOBUF, traces
from tests.studio.sample import fill
from tests.studio.serving import Addresses, studio

__all__ = ["browser", "page"]
pytestmark = pytest.mark.browser
JOBS = 40
WORKER = {"host_name": "h", "pid": 1, "service_instance_id": "i1", "service_name": "svc"}


class Spans:
    """Spans of jobs without an inference, each with ids of its own."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(
        self, kind: str, bulk: str, job: str | None, start_ns: int, end_ns: int | None = None, **columns: Any
    ) -> None:
        number = len(self.rows) + 0xB0000
        given = {
            "trace_id": f"{number:032x}",
            "span_id": f"{number:016x}",
            "bulk_id": bulk,
            "job_id": job,
            "queue": "q",
        }
        self.rows.append(span(kind, start_ns, start_ns + 1000 if end_ns is None else end_ns, **given | columns))

    def sent(self, bulk: str, job: str, at_ns: int, **columns: Any) -> None:
        self.add("PRODUCER", bulk, job, at_ns, **{"attempt": 1} | columns)

    def done(self, bulk: str, job: str, put_ns: int, start_ns: int, end_ns: int, **columns: Any) -> None:
        given = {"attempt": 1, "outcome": "ok", "wait": (start_ns - put_ns) / 1e9} | WORKER | columns
        self.add("CONSUMER", bulk, job, start_ns, end_ns, **given)


def odd(store: Store) -> None:
    """Add a bulk with jobs cancelled, not sent and sent twice, and one nested in it; one of which a sampler left jobs
    out; one that runs, and one whose id is long."""
    spans, begin = Spans(), BEGIN_NS + 36_000 * SECOND
    for n in range(4):
        spans.sent("odd", f"o{n}", begin)
        spans.done("odd", f"o{n}", begin, begin + n * SECOND, begin + (n + 1) * SECOND)
    spans.sent("odd", "off", begin)
    spans.add("CLIENT", "odd", "off", begin + SECOND, outcome="cancelled", error_type="revoked")
    spans.sent("odd", "away", begin, status="ERROR", outcome="not_sent", error_type="ConnectionError")
    spans.sent("odd", "o1", begin + 1, outcome="duplicate", error_type="duplicate")
    spans.sent("inner", "i0", begin + SECOND, parent_bulk_id="odd")
    spans.done("inner", "i0", begin + SECOND, begin + 2 * SECOND, begin + 3 * SECOND)
    spans.done("sampled", "s0", begin, begin + SECOND, begin + 2 * SECOND, resource_id="cut")
    long = "x" * 168
    spans.sent(long, "l0", begin)
    spans.done(long, "l0", begin, begin + SECOND, begin + 2 * SECOND)
    now = time.time_ns()
    for n in range(12):
        spans.sent("running", f"r{n}", now - 20 * SECOND)
        if n < 8:
            at = now - (18 - 2 * n) * SECOND
            spans.done("running", f"r{n}", now - 20 * SECOND, at, at + 2 * SECOND)
    add(store.connection(), "spans", spans.rows)
    said = {"bulk.sampling": "traceidratio", "bulk.sampling.ratio": 0.2}
    add(store.connection(), "resources", [{"resource_id": "cut", "attributes": json.dumps(said)}])


@dataclass(frozen=True)
class Running:
    at: Addresses
    http: httpx.Client

    def get(self, path: str, **params: Any) -> Any:
        answer = self.http.get(f"/api/v1{path}", params=params or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def open(self, page: Page, bulk: str, query: str = "") -> None:
        page.goto(f"{self.at.web}/bulk/{bulk}{query}")
        expect(page.locator("h1")).to_have_count(1)
        settled(page)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    db = tmp_path_factory.mktemp("page") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), jobs=JOBS, workers=3)
    odd(store)
    store.close()
    with (
        studio(db, "--no-host", "--retention", "9000d") as at,
        httpx.Client(base_url=at.web, timeout=PATIENCE_S) as http,
    ):
        yield Running(at, http)


def settled(page: Page) -> None:
    expect(page.get_by_text("loading…")).to_have_count(0, timeout=60_000)
    expect(page.locator("[aria-busy=true]")).to_have_count(0, timeout=60_000)


def ids(page: Page) -> list[str]:
    """Return the jobs of the table that is shown."""
    expect(jobs(page)).to_be_visible()
    settled(page)
    return [str(text) for text in jobs(page).locator("tbody tr td:first-child a").all_inner_texts()]


def jobs(page: Page) -> Locator:
    return page.get_by_role("table", name="jobs", exact=True)


def query(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def figure(page: Page, name: str) -> Locator:
    return page.get_by_label("key numbers").get_by_role("link").filter(has=page.get_by_text(name, exact=True))


def test_it_says_what_the_api_says(running: Running, page: Page) -> None:
    running.open(page, "sample-001")
    found, report = running.get("/bulks/sample-001/explanation"), running.get("/bulks/sample-001/report")
    expect(page).to_have_title("sample-001 – Bulkscope")
    expect(page.locator("h1")).to_have_text("sample-001")
    verdict = page.get_by_label("verdict")
    expect(verdict.get_by_role("heading", level=2)).to_have_text(re.compile(re.escape(found["verdict"]["title"]), re.I))
    expect(verdict).to_contain_text(found["verdict"]["text"])
    for note in found["notes"]:
        expect(verdict).to_contain_text(note)
    progress = report["progress"]
    expect(figure(page, "done")).to_contain_text(f"{progress['done']} of {progress['sent']} sent")
    expect(figure(page, "failed")).to_contain_text(f"{progress['failed']} {report['total']['jobs']['retries']} retry")
    every = running.get("/bulks/sample-001/jobs", sort="-excess_s", limit=25)
    assert ids(page) == [job["id"] for job in every["jobs"]]
    bar = page.get_by_role("img", name=re.compile("^where the workers' time went: "))
    assert float(sum(map(float, re.findall(r"([\d.]+) %", bar.get_attribute("aria-label") or "")))) == pytest.approx(
        100, abs=3
    )


def test_a_key_number_leads_to_its_jobs_and_back_again(running: Running, page: Page) -> None:
    running.open(page, "sample-001", "?worker=nobody&from=1&to=20")
    expect(page.get_by_text("No job fits.")).to_be_visible()
    figure(page, "done").click()
    assert query(page) == {"tab": "jobs", "status": "done"}
    expect(page.get_by_role("tab", name="All jobs")).to_have_attribute("aria-selected", "true")
    done = running.get("/bulks/sample-001/jobs", status="done", limit=25)
    expect(page.get_by_text(f"1 to 25 of {done['total']} jobs")).to_be_visible()
    assert ids(page) == [job["id"] for job in done["jobs"]]
    page.go_back()
    assert query(page) == {"worker": "nobody", "from": "1", "to": "20"}
    expect(page.get_by_role("tab", name="Slow for their size")).to_have_attribute("aria-selected", "true")
    figure(page, "peak RAM").click()
    most = running.get("/bulks/sample-001/jobs", sort="-memory_peak_bytes", limit=25)
    expect(page.locator("th[aria-sort=descending]")).to_have_text(re.compile("RAM"))
    assert ids(page) == [job["id"] for job in most["jobs"]]


def test_jobs_are_sorted_filtered_and_paged_by_the_address(running: Running, page: Page) -> None:
    running.open(page, "sample-001", "?tab=work")
    path = "/bulks/sample-001/jobs"
    assert ids(page) == [job["id"] for job in running.get(path, sort="-work_s", limit=25)["jobs"]]
    page.get_by_role("button", name="After").click()
    expect(page.get_by_text(f"26 to {JOBS} of {JOBS} jobs")).to_be_visible()
    assert query(page) == {"tab": "work", "offset": "25"}
    page.get_by_role("button", name="tokens out").click()
    assert query(page) == {"tab": "work", "sort": "-output_tokens"}
    expect(page.locator("th[aria-sort]")).to_have_text(re.compile("tokens out"))
    assert ids(page) == [job["id"] for job in running.get(path, sort="-output_tokens", limit=25)["jobs"]]
    worker = jobs(page).locator("tbody tr").first.get_by_title("jobs of this worker")
    name = worker.inner_text()
    worker.click()
    chip = page.get_by_title("take this filter away")
    expect(chip).to_have_text(f"worker {name} ×")
    wanted = running.get(path, sort="-output_tokens", worker=name, limit=25)
    assert 0 < wanted["total"] < JOBS
    expect(jobs(page).locator("tbody tr")).to_have_count(min(25, wanted["total"]))
    assert ids(page) == [job["id"] for job in wanted["jobs"]]
    page.reload()
    expect(jobs(page).locator("tbody tr")).to_have_count(min(25, wanted["total"]))
    chip.click()
    assert "worker" not in query(page)
    page.get_by_label("status", exact=True).select_option("failed")
    expect(jobs(page).locator("tbody tr")).to_have_count(1)
    page.get_by_role("tab", name="Longest wait").click()
    assert query(page) == {"tab": "wait"}
    assert ids(page) == [job["id"] for job in running.get(path, sort="-wait_s", limit=25)["jobs"]]
    page.get_by_label("search in the ids of jobs").fill("no such job")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No job fits.")).to_be_visible()
    page.get_by_role("link", name="Show those of all filters").click()
    expect(jobs(page)).to_be_visible()


def test_a_range_of_the_time_chooses_the_jobs_in_it(running: Running, page: Page) -> None:
    summary = running.get("/bulks/sample-002/summary")
    low, high = summary["took_s"] * 0.3, summary["took_s"] * 0.5
    running.open(page, "sample-002", f"?tab=jobs&from={low}&to={high}")
    first = summary["start_ns"]
    some = running.get(
        "/bulks/sample-002/jobs", from_ns=round(first + low * 1e9), to_ns=round(first + high * 1e9), limit=25
    )
    assert 0 < some["total"] < JOBS
    assert ids(page) == [job["id"] for job in some["jobs"]]
    page.get_by_title("take this filter away").click()
    assert query(page) == {"tab": "jobs"}
    expect(page.get_by_text(f"1 to 25 of {JOBS} jobs")).to_be_visible()


def test_failures_by_error_lead_to_their_jobs_and_log(running: Running, page: Page) -> None:
    running.open(page, "sample-001")
    page.get_by_role("tab", name="Failed, by error").click()
    found = running.get("/bulks/sample-001/failures")["failures"]
    table = page.get_by_role("table", name="failed attempts by error")
    expect(table.locator("tbody tr")).to_have_count(len(found))
    final = next(row for row in found if row["attempts"] > row["retried_attempts"])
    row = table.locator("tbody tr").filter(has_text=final["error_type"])
    expect(row).to_contain_text(final["example"]["job"])
    log = row.get_by_role("link", name="log").get_attribute("href") or ""
    assert parse_qs(urlsplit(log).query) == {"bulk": ["sample-001"], "job": [final["example"]["job"]]}
    row.get_by_role("link", name=final["error_type"]).click()
    assert query(page) == {"tab": "failed", "domain": final["failure_domain"], "error": final["error_type"]}
    wanted = running.get("/bulks/sample-001/jobs", status="failed", error_type=final["error_type"])["jobs"]
    assert sorted(ids(page)) == sorted(job["id"] for job in wanted)
    jobs(page).locator("tbody tr td:first-child a").first.click()
    expect(page).to_have_url(re.compile(r"/job/.+\?bulk=sample-001$"))


def test_workers_and_models_lead_to_their_jobs(running: Running, page: Page) -> None:
    running.open(page, "sample-001", "?tab=workers&sort=-work_p95_s")
    workers = running.get("/bulks/sample-001/workers", sort="-work_p95_s")["workers"]
    table = page.get_by_role("table", name="workers", exact=True)
    assert table.locator("tbody tr td:first-child").all_inner_texts() == [row["name"] for row in workers]
    table.get_by_role("link", name=workers[0]["name"], exact=True).click()
    assert query(page) == {"tab": "jobs", "worker": workers[0]["name"]}
    wanted = running.get("/bulks/sample-001/jobs", worker=workers[0]["name"], limit=25)["jobs"]
    expect(jobs(page).locator("tbody tr")).to_have_count(len(wanted))
    assert ids(page) == [job["id"] for job in wanted]
    page.get_by_role("tab", name="By model").click()
    report = running.get("/bulks/sample-001/report")
    expect(page.get_by_role("table", name="models").locator("tbody tr")).to_have_count(len(report["models"]))


def test_the_evidence_has_every_finding_and_the_thirteen_numbers(running: Running, page: Page) -> None:
    running.open(page, "sample-001")
    page.get_by_role("link", name="All evidence").click()
    found = running.get("/bulks/sample-001/explanation")
    findings = page.locator("details.finding")
    expect(findings).to_have_count(len(found["findings"]))
    marks = {True: "✗ holds", False: "✓ fine", None: "? unknown"}
    for shown, each in zip(findings.all(), found["findings"], strict=True):
        expect(shown.locator("summary")).to_contain_text(marks[each["holds"]])
        expect(shown.locator("summary")).to_contain_text(each["title"])
        for item in each["evidence"]:
            expect(shown).to_contain_text(item["text"])
    numbers = page.get_by_label("the thirteen numbers").locator("tbody tr")
    expect(numbers).to_have_count(13)
    for row, number in zip(numbers.all(), running.get("/numbers"), strict=True):
        expect(row).to_contain_text(number["definition"].replace("`", ""))
    tokens = f"{round(running.get('/bulks/sample-001/report')['total']['inferences']['output_tokens']):,}"
    expect(numbers.nth(9)).to_contain_text(tokens)


def test_the_log_is_searched(running: Running, page: Page) -> None:
    running.open(page, "sample-001", "?tab=log")
    lines = running.get("/logs", bulk="sample-001", limit=100)["logs"]
    table = page.get_by_role("table", name="log records, newest first", exact=True)
    expect(table.locator("tbody tr")).to_have_count(len(lines))
    page.get_by_label("from severity").select_option("error")
    worse = running.get("/logs", bulk="sample-001", limit=100, severity="error")["logs"]
    assert 0 < len(worse) < len(lines)
    expect(table.locator("tbody tr")).to_have_count(len(worse))


def test_odd_bulks_say_what_is_odd(running: Running, page: Page) -> None:
    running.open(page, "odd")
    for text in ("1 cancelled", "1 not sent", "1 duplicate"):
        expect(page.locator(".chip", has_text=text)).to_be_visible()
    page.get_by_role("link", name="inner").click()
    expect(page.locator("h1")).to_have_text("inner")
    expect(page.get_by_role("link", name="odd", exact=True)).to_be_visible()
    page.get_by_role("tab", name="By model").click()
    expect(page.get_by_text("No inference was recorded")).to_have_count(2)
    running.open(page, "sampled")
    expect(page.locator(".chip", has_text="sampled")).to_be_visible()
    expect(page.get_by_label("verdict")).to_contain_text("about 20 %")
    running.open(page, "x" * 168)
    expect(page.locator("h1")).to_have_attribute("title", "x" * 168)


def test_an_unknown_bulk_names_the_nearest(running: Running, browser: Browser) -> None:
    """On a page of its own: the browser's console tells of the answer 404."""
    page = browser.new_page()
    page.goto(f"{running.at.web}/bulk/sample-01")
    expect(page.locator("h1")).to_have_text("sample-01")
    near = page.get_by_role("alert").get_by_role("link").first
    expect(near).to_have_text(re.compile("^sample-00"))
    near.click()
    expect(page.locator("h1")).to_have_text(re.compile("^sample-00"))
    settled(page)
    page.close()


def test_latest_is_the_newest(running: Running, page: Page) -> None:
    running.open(page, "latest")
    expect(page.locator("h1")).to_have_text(running.get("/bulks/latest/summary")["id"])


def test_a_bulk_is_kept_and_its_note_changed(running: Running, page: Page) -> None:
    running.open(page, "sample-002")
    name = f"base.{time.time_ns()}"
    page.get_by_role("button", name="Keep as…").click()
    page.get_by_label("name", exact=True).fill(name)
    page.get_by_label("note", exact=True).fill("before the change")
    page.get_by_role("dialog").get_by_role("button", name="Keep", exact=True).click()
    expect(page.get_by_text(name)).to_be_visible()
    expect(page.get_by_text("before the change")).to_be_visible()
    assert running.get(f"/runs/{name}")["bulks"] == ["sample-002"]
    page.get_by_role("button", name=f"change what is kept as {name}").click()
    page.get_by_label("note", exact=True).fill("the base line")
    page.get_by_role("button", name="Save the note").click()
    expect(page.get_by_text("the base line")).to_be_visible()
    assert running.get(f"/runs/{name}")["note"] == "the base line"
    page.get_by_role("button", name=f"change what is kept as {name}").click()
    page.get_by_role("button", name="Keep it no longer…").click()
    assert running.get(f"/runs/{name}")["name"] == name
    page.get_by_role("button", name="Yes, keep it no longer").click()
    expect(page.get_by_text(name)).to_have_count(0)


def test_jobs_are_exported_as_they_are_filtered(running: Running, page: Page) -> None:
    running.open(page, "sample-001", "?tab=jobs&status=failed")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as file:
        page.get_by_role("link", name="JSON, a line a job").click()
    saved = Path(file.value.path()).read_text()
    assert [json.loads(line) for line in saved.splitlines()] == running.get(
        "/bulks/sample-001/jobs", status="failed", limit=100
    )["jobs"]


def test_a_bulk_is_deleted_only_when_asked_twice(running: Running, page: Page) -> None:
    name = f"gone-{time.time_ns()}"
    body = traces({"bulk.id": name, "bulk.job.id": "j"}, kind=5).SerializeToString()
    assert httpx.post(f"{running.at.otlp_http}/v1/traces", content=body, headers=PROTOBUF).status_code == 200
    running.open(page, name)
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete…").click()
    assert running.get(f"/bulks/{name}/summary")["id"] == name
    sure = page.get_by_role("dialog").get_by_role("button", name=re.compile("Yes, delete for good|although it runs"))
    sure.click()
    # A record came a moment ago: one that may still run is asked for once more.
    again = page.get_by_role("dialog").get_by_role("button", name="Delete it although it runs")
    expect(
        again.or_(
            page.get_by_role("navigation", name="Pages")
            .get_by_role("link", name="Bulks", exact=True)
            .and_(page.locator("[aria-current=page]"))
        )
    ).to_be_visible()
    if again.is_visible():
        again.click()
    expect(page).to_have_url(f"{running.at.web}/")
    assert running.http.get(f"/api/v1/bulks/{name}/summary").status_code == 404


def test_a_running_bulk_tells_its_end_and_ends_under_the_eyes(running: Running, page: Page) -> None:
    name = f"live-{time.time_ns()}"
    now = time.time_ns()

    def send(n: int, kind: int, start: int, end: int, **more: Any) -> None:
        own = {"bulk.id": name, "bulk.job.id": f"{name}-{n}", "messaging.destination.name": "q", **more}
        of = {"kind": kind, "start_time_unix_nano": start, "end_time_unix_nano": end}
        body = traces(own, resource={"service.name": "w", "service.instance.id": "w1"}, **of).SerializeToString()
        answer = httpx.post(f"{running.at.otlp_http}/v1/traces", content=body, headers=PROTOBUF)
        assert answer.status_code == 200

    def work(n: int, start: int, end: int) -> None:
        send(n, 5, start, end, **{"messaging.operation.type": "process", "bulk.job.attempt": 1, "bulk.outcome": "ok",
                                  "messaging.message.time_in_queue": (start - now) / 1e9 + 20})  # fmt: skip

    for n in range(4):
        send(n, 4, now - 20 * SECOND, now - 20 * SECOND + 1000)
    for n in range(3):
        work(n, now - (18 - 5 * n) * SECOND, now - (14 - 5 * n) * SECOND)
    running.open(page, name)
    expect(page.locator(".chip", has_text="running")).to_be_visible()
    progress = page.get_by_label("progress")
    expect(progress).to_contain_text("3 of 4 jobs")
    work(3, now - SECOND, now)
    expect(page.locator(".chip", has_text="complete")).to_be_visible()
    expect(progress).to_have_count(0)
    expect(figure(page, "done")).to_contain_text("4 of 4 sent")
