"""The time of each page's queries on a store of a million spans.

    python bench/pages.py [--spans N]

The store is the tests' sample, many bulks of 1,000 jobs. Each page's queries run as the page runs them, all
rows fetched; the table has the median of nine runs and the first one, on a file just opened.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bulkscope_studio.store import Store  # noqa: E402
from bulkscope_studio.web.data import Data  # noqa: E402
from tests.studio.sample import fill  # noqa: E402

JOBS = 1000
RECENT_NS = 900 * 10**9
_OVERVIEW = ("extent", "requests", "jobs", "tokens", "points", "tiles", "ingest")
# Pages and the queries that each runs at once, with what differs from the parameters common to all.
PAGES: dict[str, list[tuple[str, dict[str, object]]]] = {
    "Overview, all": [(name, {}) for name in _OVERVIEW],
    "Overview, 15 min": [(name, {"from_ns": "recent", "bin_ns": 6 * 10**9}) for name in _OVERVIEW],
    "Bulks": [("bulks", {}), ("ingest", {})],
    "Bulk": [
        ("bulk_numbers", {}), ("bulk_jobs", {}), ("bulk_points", {}), ("models", {}),
        ("bulk_worst", {"failed": False}), ("bulk_worst", {"failed": True}),
    ],
    "Trace": [("trace", {}), ("span", {}), ("span_logs", {})],
    "Inference": [("models", {"bulk_id": None}), ("scatter", {})],
    "Logs": [("extent", {}), ("logs", {"bulk_id": None})],
    "Logs, text search": [("logs", {"bulk_id": None, "text": "no such text"})],
    "Logs of a bulk": [("logs", {})],
}  # fmt: skip


async def run(data: Data, queries: list[tuple[str, dict[str, object]]], common: dict[str, object]) -> None:
    await asyncio.gather(*(data.rows(name, **(common | own)) for name, own in queries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.duckdb"
        store = Store(path)
        print("filling the store", file=sys.stderr)
        bulks = max(1, arguments.spans // (3 * JOBS))
        fill(store.connection(), bulks, JOBS)
        store.close()
        store = Store(path)
        count, points, logs = (
            store.query(f"SELECT count(*) AS n FROM {table}").to_pylist()[0]["n"]
            for table in ("spans", "points", "logs")
        )
        extent = store.query("SELECT min(start_ns) AS a, max(end_ns) AS b FROM spans").to_pylist()[0]
        job = store.query(
            "SELECT bulk_id, trace_id, span_id FROM spans WHERE kind = 'CONSUMER' ORDER BY start_ns LIMIT 1"
        ).to_pylist()[0]
        store.close()
        common: dict[str, object] = {
            **job, "from_ns": extent["a"], "to_ns": extent["b"], "bin_ns": (extent["b"] - extent["a"]) // 150,
            "credible_ns": extent["b"],
            "limit": 3000, "text": None, "severity": None, "service": None, "offset": 0, "failed": False,
        }  # fmt: skip
        for queries in PAGES.values():
            for _, own in queries:
                if own.get("from_ns") == "recent":
                    own["from_ns"] = extent["b"] - RECENT_NS
        print(f"{count:,} spans, {points:,} points, {logs:,} log records\n")
        print("| page | queries | first, ms | median, ms |\n|---|---:|---:|---:|")
        for page, queries in PAGES.items():
            store = Store(path)
            data = Data(store, dict)
            took = []
            for _ in range(10):
                began = time.perf_counter()
                asyncio.run(run(data, queries, common))
                took.append((time.perf_counter() - began) * 1e3)
            store.close()
            print(f"| {page} | {len(queries)} | {took[0]:.0f} | {statistics.median(took[1:]):.0f} |")


if __name__ == "__main__":
    main()
