"""What a page costs whoever looks at it, in Chromium: bytes until it is drawn, the browser's main thread, and at rest.

    python bench/page.py [--jobs N] [--bulks N] [--rest SECONDS]

The store is the tests' sample: one bulk of N jobs by 64 workers, and small ones beside it. Each page is opened with
nothing cached. The table has the bytes as they were sent, the requests, the CPU of the browser's main thread until
nothing is asked any more; and then, of a finished bulk's tab left open: what the main thread and the studio took.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

from bulkscope_studio.storage import summaries  # noqa: E402
from bulkscope_studio.storage.store import Store  # noqa: E402
from tests.rows import BEGIN_NS  # noqa: E402
from tests.studio.sample import fill  # noqa: E402
from tests.studio.serving import studio  # noqa: E402

DAY_NS = 86_400 * 10**9


def make(path: Path, jobs: int, bulks: int) -> None:
    """Write the store, with its table of bulks."""
    store = Store(path)
    connection = store.connection()
    fill(connection, bulks, 4, start_ns=BEGIN_NS)
    connection.execute("UPDATE spans SET bulk_id = 'small-' || bulk_id")
    connection.execute("UPDATE logs SET bulk_id = 'small-' || bulk_id")
    fill(connection, 1, jobs, workers=64, seed=3, start_ns=BEGIN_NS + 20 * DAY_NS)
    with store.writing() as writing:
        summaries.ensure(writing)
        while summaries.refresh(writing):
            pass
    store.close()


def process_of(url: str) -> psutil.Process:
    """Return the studio that listens there."""
    port = int(url.rpartition(":")[2])
    found = (each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    return psutil.Process(next(each.pid for each in found if each.laddr.port == port))


def cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def main_thread(session: Any) -> float:
    """Return the seconds that the page's main thread has worked."""
    found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return float(found["TaskDuration"])


def opened(browser: Browser, url: str, process: psutil.Process) -> tuple[Page, Any, str]:
    """Open a page in a context of its own; return it and its line of the table."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("Network.enable")
    sent = {"bytes": 0.0, "requests": 0}

    def loaded(event: dict[str, Any]) -> None:
        sent["bytes"] += event["encodedDataLength"]
        sent["requests"] += 1

    session.on("Network.loadingFinished", loaded)
    began, before = time.perf_counter(), cpu(process)
    page.goto(url, timeout=300_000)
    expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=300_000)
    page.wait_for_timeout(300)
    expect(page.get_by_text("loading…")).to_have_count(0, timeout=300_000)
    took = time.perf_counter() - began
    page.wait_for_timeout(1000)
    line = (
        f"{sent['bytes'] / 1e3:.0f} | {sent['requests']} | {took:.1f} | {main_thread(session):.2f} | "
        f"{cpu(process) - before:.2f} | {page.evaluate('document.documentElement.scrollHeight')}"
    )
    return page, session, line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--bulks", type=int, default=2_000)
    parser.add_argument("--rest", type=float, default=20.0)
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is not installed; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        began = time.perf_counter()
        with studio(Path(folder) / "empty.duckdb", "--no-host") as running:
            ready = time.perf_counter() - began
            empty = process_of(running.web)
            time.sleep(3)
            before = cpu(empty)
            time.sleep(given.rest)
            print(
                f"Empty studio: ready after {ready:.2f} s, {empty.memory_info().rss / 2**20:.0f} MiB resident, at rest "
                f"{100 * (cpu(empty) - before) / given.rest:.2f} % of a core.\n"
            )
        make(Path(folder) / "s.duckdb", given.jobs, given.bulks)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with studio(Path(folder) / "s.duckdb", "--no-host", "--retention", "9999d") as running:
            process = process_of(running.web)
            print("| page | sent, kB | requests | drawn, s | main thread, CPU-s | studio, CPU-s | height, px |")
            print("|---|---:|---:|---:|---:|---:|---:|")
            for name, path in (
                ("list", "/"), ("bulk", "/bulk/sample-001"), ("live", "/live"), ("models", "/models"),
                ("logs", "/logs"),
            ):  # fmt: skip
                page, session, line = opened(browser, running.web + path, process)
                print(f"| {name} | {line} |", flush=True)
                if name == "bulk":
                    page.wait_for_timeout(3000)
                    rest, busy = main_thread(session), cpu(process)
                    page.wait_for_timeout(1e3 * given.rest)
                    at_rest = (main_thread(session) - rest) / given.rest, (cpu(process) - busy) / given.rest
                page.context.close()
            size = process.memory_info().rss / 2**20
            print(
                f"\nThe finished bulk's tab at rest: {100 * at_rest[0]:.2f} % of the browser's main thread, "
                f"{100 * at_rest[1]:.2f} % of a core in the studio, which is {size:.0f} MiB."
            )
        browser.close()


if __name__ == "__main__":
    main()
