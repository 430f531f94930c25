"""What all pages share: nothing that axe-core finds, a frame that keeps what was chosen, a studio that goes away."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from bulkscope_studio.server import web
from bulkscope_studio.storage.store import Store
from tests import npm
from tests.processes import BIN, wait_for_line
from tests.studio.sample import fill
from tests.studio.serving import studio

pytestmark = pytest.mark.browser
SIZES = [(1440, "light"), (1920, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frame") / "s.duckdb"
    store = Store(path)
    fill(store.connection(), jobs=24)
    store.close()
    return path


@pytest.fixture(scope="module")
def address(db: Path) -> Iterator[str]:
    with studio(db, "--no-host", "--retention", "9999d") as running:
        yield running.web


def paths(address: str) -> dict[str, str]:
    """Return an address of each page, with what it shows of one thing."""
    (job,) = httpx.get(f"{address}/api/v1/bulks/sample-001/jobs", params={"limit": 1}, timeout=60).json()["jobs"]
    found = {page: page for page in web.PAGES}
    found |= {
        "/bulk": "/bulk/sample-001", "evidence": "/bulk/sample-001?tab=evidence",
        "workers": "/bulk/sample-001?tab=workers", "/job": f"/job/{job['id']}?bulk=sample-001",
        "/trace": f"/trace/{job['trace_id']}?span={job['span_id']}",
        "/compare": "/compare?a=sample-001&b=sample-002", "unknown bulk": "/bulk/nothing", "no page": "/nowhere",
    }  # fmt: skip
    assert {f"/{re.split('[/?]', path)[1]}" for path in found.values()} >= {*web.PAGES[1:], *web.OF_ONE}
    return found


@pytest.mark.parametrize(("width", "scheme"), SIZES, ids=[f"{width} {scheme}" for width, scheme in SIZES])
def test_axe_finds_nothing_on_any_page(browser: Browser, address: str, width: int, scheme: Any, tmp_path: Path) -> None:
    script = (npm.installed(npm.AXE) / "axe-core" / "axe.min.js").read_text()
    # The policy of our pages forbids what the check itself is: a script from elsewhere.
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    found: dict[str, list[str]] = {}
    for name, path in paths(address).items():
        page.goto(address + path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_text("loading…")).to_have_count(0)
        page.evaluate(script)
        violations = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
        if violations:
            found[name] = [f"{each['id']}: {[node['html'][:160] for node in each['nodes'][:3]]}" for each in violations]
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            found.setdefault(name, []).append(f"the page is {wide} px wide")
        if name in found:
            page.screenshot(path=tmp_path / f"{name.strip('/') or 'list'}.png", full_page=True)
    context.close()
    assert found == {}


def test_colours_and_zone_are_kept(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("colours").select_option("dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_label("times in").select_option("local")
    page.get_by_role("link", name="Live").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_label("times in")).to_have_value("local")
    page.get_by_label("colours").select_option("auto")
    expect(page.locator("html")).not_to_have_attribute("data-theme", re.compile("."))


def test_links_go_without_loading_the_document_and_back_works(page: Page, address: str) -> None:
    page.goto(address)
    page.evaluate("window.kept = true")
    for name in ("Live", "Models", "Capacity", "Compare", "Logs"):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(name))
        expect(page.get_by_role("link", name=name, exact=True)).to_have_attribute("aria-current", "page")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    assert page.evaluate("window.kept")


def test_a_page_that_is_not_there_says_so(browser: Browser, address: str) -> None:
    page = browser.new_page()
    answer = page.goto(f"{address}/nowhere")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_contain_text("/nowhere")
    page.get_by_role("link", name="All bulks").click()
    expect(page).to_have_url(f"{address}/")
    page.close()


def test_a_studio_that_goes_is_told_and_comes_back_where_the_page_was(browser: Browser, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    store = Store(db)
    fill(store.connection(), jobs=12)
    store.close()
    words = [str(BIN / "bulkscope"), "studio", "--db", str(db), "--no-host", "--retention", "9999d"]
    words += ["--otlp-http-port", "0", "--otlp-grpc-port", "0", "--port"]

    def start(port: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen([*words, port], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        lines = wait_for_line(process, "Data  ").splitlines()
        return process, next(line.split()[-1] for line in lines if line.startswith("Studio "))

    process, url = start("0")
    page = browser.new_page()
    try:
        page.goto(f"{url}/bulk/sample-001?tab=longest")
        expect(page.get_by_role("tabpanel").locator("tbody tr").first).to_be_visible()
        before = page.url
        process.terminate()
        process.wait(60)
        expect(page.get_by_text("The studio does not answer.")).to_be_visible()
        expect(page.get_by_role("tabpanel").locator("tbody tr").first).to_be_visible()
        process, _ = start(url.rpartition(":")[2])
        expect(page.get_by_text("The studio does not answer.")).to_have_count(0)
        assert page.url == before
    finally:
        page.close()
        process.terminate()
        process.wait(60)


def test_a_bulk_that_has_ended_costs_its_tab_nothing(browser: Browser, address: str) -> None:
    """Once it is drawn nothing is asked, and nothing is drawn again."""
    page = browser.new_page()
    page.goto(f"{address}/bulk/sample-001")
    expect(page.get_by_text("loading…")).to_have_count(0)
    page.wait_for_timeout(3000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate("""() => { window.changes = 0; new MutationObserver((all) => window.changes += all.length)
        .observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true}); }""")
    page.wait_for_timeout(8000)
    assert [url for url in asked if not url.endswith("/status")] == []
    assert page.evaluate("window.changes") == 0
    page.close()
