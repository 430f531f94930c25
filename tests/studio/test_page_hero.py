"""A bulk over its time, in a browser: what the API says is what is lit, at every zoom."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from bulkscope_studio.storage.store import Store
from tests.processes import PATIENCE_S
from tests.rows import BEGIN_NS, SECOND, add, span
from tests.studio.otlp import PROTOBUF, traces
from tests.studio.sample import fill
from tests.studio.serving import Addresses, studio

pytestmark = pytest.mark.browser

# Which bins of each lane are lit, read from the pixels in the middle of the strip, and what the API says of the same.
LIT = """async () => {
  const root = document.querySelector('script[type=module]').src.replace('/app.js', '');
  const {layout} = await import(root + '/parts/hero.js');
  const {colour} = await import(root + '/core/colour.js');
  const urls = performance.getEntriesByType('resource').map(({name}) => name);
  const url = urls.filter((name) => name.includes('/overtime?')).at(-1);
  const found = await (await fetch(url)).json();
  const canvas = document.querySelector('canvas[data-name=lanes]');
  const wide = document.querySelector('canvas[data-name=jobs]').clientWidth, left = wide < 600 ? 60 : 92;
  const {tops, height} = layout(found.lanes);
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const idle = colour('idle').match(/\\d+/g).map(Number);
  const lit = found.lanes.map((lane, n) => lane.busy.map((_, bin) => {
    const x = Math.floor(left + (bin + .5) / found.bins * (wide - left)), y = tops[n] + Math.floor((height - 1) / 2);
    const at = 4 * (y * canvas.width + x);
    return [0, 1, 2].some((part) => Math.abs(data[at + part] - idle[part]) > 4);
  }));
  return {url, lanes: found.lanes, bins: found.bins, lit, height: canvas.clientHeight};
}"""


@dataclass(frozen=True)
class Filled:
    at: Addresses

    def get(self, path: str, **params: Any) -> Any:
        answer = httpx.get(f"{self.at.web}/api/v1{path}", params=params, timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A bulk of 12 workers on 3 hosts, one of an hour with jobs of 1 ms, one of 300 workers."""
    store = Store(tmp_path_factory.mktemp("hero") / "s.duckdb")
    fill(store.connection(), bulks=1, jobs=240, workers=12)
    store.connection().execute("UPDATE spans SET host_name = 'node-' || (pid % 3) WHERE kind = 'CONSUMER'")
    milli = SECOND // 1000
    short = [
        span("CONSUMER", BEGIN_NS + at, BEGIN_NS + at + milli, span_id=f"s{at}", job_id=f"j{at}", bulk_id="short",
             trace_id="t", host_name="h", pid=1, outcome="ok", wait=0.0)
        for at in (n * n * 2 * SECOND for n in range(43))
    ]  # fmt: skip
    many = [
        span("CONSUMER", BEGIN_NS + n * milli, BEGIN_NS + (n + 900) * milli, span_id=f"m{n}", job_id=f"m{n}",
             bulk_id="many", trace_id="u", host_name=f"host-{n // 8:02d}", pid=n, service_instance_id=f"w{n}",
             outcome="ok", wait=0.0)
        for n in range(300)
    ]  # fmt: skip
    add(store.connection(), "spans", short + many)
    path = store.path
    store.close()
    with studio(path, "--no-host", "--retention", "9999d") as running:
        yield Filled(running)


def opened(page: Page, at: Addresses, bulk: str, query: str = "") -> None:
    page.goto(f"{at.web}/bulk/{bulk}{query}")
    drawn(page)


def drawn(page: Page) -> None:
    """Wait until what is drawn is what was asked for."""
    expect(page.locator("canvas[data-name=lanes]")).to_be_visible()
    expect(page.locator(".hero[aria-busy=true]")).to_have_count(0)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def axis(page: Page) -> dict[str, float]:
    canvas = page.locator("canvas[data-name=jobs]")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    left = 60 if box["width"] < 600 else 92
    return {"x": box["x"] + left, "width": box["width"] - left, "y": box["y"] + 60}


def drag(page: Page, first: float, last: float) -> None:
    at = axis(page)
    page.mouse.move(at["x"] + first * at["width"], at["y"])
    page.mouse.down()
    page.mouse.move(at["x"] + last * at["width"], at["y"], steps=4)
    page.mouse.up()
    drawn(page)


def every_bar_is_lit(page: Page) -> int:
    """Hold the pixels against the API's numbers; return how many bins are lit."""
    found = page.evaluate(LIT)
    total = 0
    for lane, lit in zip(found["lanes"], found["lit"], strict=True):
        worked = {n for n, busy in enumerate(lane["busy"]) if busy} | {int(n) for n in lane["failed"]}
        shown = {n for n, is_lit in enumerate(lit) if is_lit}
        assert worked <= shown, (found["url"], lane["workers"], sorted(worked - shown))
        # A failure is two pixels wide, where a bin is one.
        assert len(shown - worked) <= len(lane["failed"]), (found["url"], lane["workers"], sorted(shown - worked))
        total += len(worked)
    return total


@pytest.mark.parametrize("bulk", ["sample-001", "short"])
def test_no_bar_vanishes_at_any_zoom(page: Page, filled: Filled, bulk: str) -> None:
    opened(page, filled.at, bulk)
    assert every_bar_is_lit(page) >= 25
    seen = [page.url]
    drag(page, 0.1, 0.6)
    for key in ("+", "ArrowRight", "+", "+", "ArrowLeft", "-"):
        every_bar_is_lit(page)
        seen.append(page.url)
        page.get_by_role("group", name=re.compile("the bulk over time")).focus()
        page.keyboard.press(key)
        expect(page).not_to_have_url(seen[-1])
        drawn(page)
    every_bar_is_lit(page)
    assert len(set(seen)) == len(seen)


def test_a_job_is_lit_where_it_ran_when_only_it_is_shown(page: Page, filled: Filled) -> None:
    jobs = filled.get("/bulks/sample-001/jobs", limit=1000, sort="-ended_ns")["jobs"]
    start = filled.get("/bulks/sample-001/overtime", bins=1)["from_ns"]
    last = jobs[0]
    begin, end = (last["ended_ns"] - start) / 1e9 - last["work_s"], (last["ended_ns"] - start) / 1e9
    opened(page, filled.at, "sample-001", f"?from={begin + last['work_s'] / 4:.3f}&to={end - last['work_s'] / 4:.3f}")
    found = page.evaluate(LIT)
    (mine,) = (n for n, lane in enumerate(found["lanes"]) if last["worker"] in lane["workers"])
    assert all(found["lit"][mine])


def test_the_range_is_in_the_address_and_back_and_all_work(page: Page, filled: Filled) -> None:
    opened(page, filled.at, "sample-001")
    whole = filled.get("/bulks/sample-001/overtime", bins=1)
    length = (whole["to_ns"] - whole["from_ns"]) / 1e9
    assert whole["from_ns"] == filled.get("/bulks/sample-001/summary")["start_ns"], "tables below count from the same"
    drag(page, 0.25, 0.5)
    found = re.search(r"from=([\d.]+)&to=([\d.]+)", page.url)
    assert found
    assert [float(at) for at in found.groups()] == pytest.approx([length / 4, length / 2], abs=length / 50)
    zoomed = page.url
    page.get_by_role("button", name="zoom in").click()
    expect(page).not_to_have_url(zoomed)
    page.go_back()
    expect(page).to_have_url(zoomed)
    page.get_by_role("button", name="All", exact=True).click()
    expect(page).not_to_have_url(re.compile("from="))
    page.go_back()
    drawn(page)
    at = axis(page)
    page.mouse.dblclick(at["x"] + at["width"] / 2, at["y"])
    expect(page).not_to_have_url(re.compile("from="))


def test_a_strip_chooses_its_worker_and_the_pointer_tells_of_it(page: Page, filled: Filled) -> None:
    opened(page, filled.at, "sample-001")
    lanes = filled.get("/bulks/sample-001/overtime", bins=10, lanes=96)["lanes"]
    canvas = page.locator("canvas[data-name=lanes]")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 4)
    (first,) = lanes[0]["workers"]
    expect(page.locator(".tip")).to_contain_text(f"{first} on {lanes[0]['host']}: busy")
    expect(page.locator(".tip")).to_contain_text("into the bulk")
    page.mouse.click(box["x"] + 200, box["y"] + 4)
    expect(page).to_have_url(re.compile(f"worker={re.escape(first).replace(':', '(:|%3A)')}"))
    expect(page.locator(".hero .chip")).to_contain_text(first)
    page.locator(".hero .chip").click()
    expect(page).not_to_have_url(re.compile("worker="))


def test_three_hundred_workers_stand_as_high_as_a_few(page: Page, filled: Filled) -> None:
    opened(page, filled.at, "many")
    found = page.evaluate(LIT)
    assert sum(len(lane["workers"]) for lane in found["lanes"]) == 300
    assert found["height"] <= 420
    every_bar_is_lit(page)
    expect(page.get_by_text("300 workers on 38 hosts")).to_be_visible()


def test_the_table_has_the_numbers_of_the_drawing(page: Page, filled: Filled) -> None:
    opened(page, filled.at, "sample-001")
    hero = page.locator(".hero")
    hero.get_by_text("as a table").click()
    total = filled.get("/bulks/sample-001/report")["total"]["jobs"]
    heads = hero.locator("table").first.locator("thead th").all_inner_texts()
    cells = hero.locator("table").first.locator("tbody tr").last.locator("td").all_inner_texts()
    last = dict(zip(heads, cells, strict=True))
    assert (last["done"], last["waiting"], last["running"]) == (str(total["done"]), "0", "0")
    expect(hero.locator("table").nth(1).locator("tbody tr")).to_have_count(12)
    # The numbers beside the title are those at the end of what is shown.
    drag(page, 0.2, 0.6)
    found = page.evaluate(LIT)
    to = int(re.findall(r"to_ns=(\d+)", found["url"])[0])
    wanted = filled.get("/bulks/sample-001/overtime", bins=1, to_ns=to)["jobs"]
    for state in ("done", "running", "waiting"):
        shown = hero.locator(".key span", has_text=state).first.locator("b")
        expect(shown).to_have_text(str(wanted[state][0]))


def test_a_running_bulk_is_drawn_anew_when_its_records_come_and_a_finished_one_never(
    page: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("running") / "s.duckdb"
    resource = {"service.name": "worker", "service.instance.id": "w1", "host.name": "h", "process.pid": 7}

    def ended(at: Addresses, *jobs: str) -> None:
        now = time.time_ns()
        request = traces(
            *({"bulk.id": "mine", "bulk.job.id": job, "bulk.job.outcome": "ok"} for job in jobs), resource=resource,
            kind=5, start_time_unix_nano=now - SECOND, end_time_unix_nano=now,
        )  # fmt: skip
        sent = httpx.post(f"{at.otlp_http}/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
        sent.raise_for_status()

    with studio(path, "--no-host") as at:
        ended(at, "a", "b")
        page.goto(f"{at.web}/bulk/mine")
        done = page.locator(".hero .key span", has_text="done").locator("b")
        expect(done).to_have_text("2")
        ended(at, "c")
        expect(done).to_have_text("3")
        # Without records nothing is asked for the drawing again.
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/overtime" in request.url else None)
        ended(at, "d")
        expect(done).to_have_text("4")
        seen = len(asked)
        page.wait_for_timeout(6000)
        assert len(asked) == seen
