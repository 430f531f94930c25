"""The time of each page's queries, and of what commands ask, on a store of a million spans, or of ten.

    python bench/pages.py [--spans N] [--store FILE]

The store is the tests' sample, bulks of 333 jobs with ids that no order is in: a million spans, copied to earlier times
until there are enough, stored in the order in which they would have come. Each page's queries run as the page runs
them, at once and with all rows fetched; the table has the first run, on a file just opened, and of 20 more the median,
the 95th percentile, and the median of the CPU that they took. ``--store`` keeps the file, and takes
one that is there.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import duckdb  # noqa: E402

from bulkscope_studio.server.pages.data import Data  # noqa: E402
from bulkscope_studio.server.pages.logs import search  # noqa: E402
from bulkscope_studio.server.pages.overview import MOST_WAITS  # noqa: E402
from bulkscope_studio.services import capacities, explanations, figures, reports  # noqa: E402
from bulkscope_studio.services.bulks import latest, list_bulks, not_found  # noqa: E402
from bulkscope_studio.services.endings import Ends  # noqa: E402
from bulkscope_studio.storage import summaries  # noqa: E402
from bulkscope_studio.storage.store import Store  # noqa: E402
from tests.studio.sample import fill  # noqa: E402

JOBS = 333
# A job leaves three spans, a bulk one more.
PART = 1000 * (3 * JOBS + 1)
RECENT_NS = 900 * 10**9
GAP_NS = 60 * 10**9
RUNS = 20
SETTINGS = {"memory_limit": "512MB", "threads": 2}
_ID = "md5(bulk_id || '{n}')"
_COPY = {
    "spans": "end_ns: start_ns - {d} AS start_ns, end_ns - {d} AS end_ns, " + _ID + " AS bulk_id,"
    " job_id || '-{n}' AS job_id, {t}",
    "logs": "time_ns: time_ns - {d} AS time_ns, " + _ID + " AS bulk_id, job_id || '-{n}' AS job_id, {t}",
    "points": "time_ns: time_ns - {d} AS time_ns",
}


def make(path: Path, spans: int) -> None:
    """Write a store of about so many spans, whose table of bulks is summed up."""
    Store(path).close()
    bulks = max(1, min(spans, PART) // (3 * JOBS + 1))
    # Not by the store, whose settings are locked and keep no order.
    with duckdb.connect(str(path), config={"memory_limit": "2GB"}) as connection:
        fill(connection, bulks, JOBS)
        first, last, held = connection.execute("SELECT min(start_ns), max(end_ns), count(*) FROM spans").fetchone() or (
            0,
            0,
            1,
        )
        copies = max(1, round(spans / held))
        for table in _COPY:
            connection.execute(f"CREATE TEMP TABLE base_{table} AS FROM {table}")
            connection.execute(f"DELETE FROM {table}")
        for n in reversed(range(copies)):
            print(f"copy {copies - n} of {copies}", file=sys.stderr)
            trace = f"'{n:04x}' || substr(trace_id, 5) AS trace_id, '{n:04x}' || substr(span_id, 5) AS span_id"
            for table, text in _COPY.items():
                order, _, columns = text.partition(": ")
                if table == "spans":
                    columns += f", '{n:04x}' || substr(parent_span_id, 5) AS parent_span_id"
                replaced = columns.format(d=n * (last - first + GAP_NS), n=n, t=trace)
                connection.execute(
                    f"INSERT INTO {table} SELECT * REPLACE ({replaced}) FROM base_{table} ORDER BY {order}"
                )
    store = Store(path)
    with store.writing() as connection:
        summaries.ensure(connection)
        while summaries.refresh(connection):
            pass
    store.close()


Ask = Callable[[], Awaitable[Any]]


def pages(data: Data, at: dict[str, Any]) -> dict[str, Ask]:
    """Return what each page asks when it is refreshed, and what commands ask."""
    store, bulk = data.store, str(at["bulk_id"])

    async def overview(**window: object) -> None:
        given = at | window
        names = ("requests", "jobs", "tokens", "points", "ingest")
        await data.stored()
        _, jobs, *_ = await asyncio.gather(*(data.rows(name, **given) for name in names))
        ended = sum(row["done"] + row["failed"] for row in jobs)
        await data.sampled("waits", MOST_WAITS / max(1, ended), **given)

    async def one() -> None:
        known = await data.extent(bulk)
        assert known is not None
        given = at | known.bounds | {"from_ns": known.first_ns, "to_ns": known.last_ns, "bin_ns": 2 * 10**9}
        names = ("bulk_numbers", "bulk_progress", "bulk_jobs", "bulk_points", "bulk_worst", "lost")
        await asyncio.gather(*(data.rows(name, **given) for name in names))
        await data.rows("bulk_worst", **given | {"failed": True})
        await data.asked(lambda: figures.of_bulk(store, bulk, known))

    async def inference() -> None:
        found = await data.rows("model_counts")
        share = figures.MOST / max(1, sum(row["n"] for row in found))
        await asyncio.gather(data.asked(lambda: figures.of_models(store, share)), data.sampled("scatter", share))

    async def found(**given: object) -> None:
        wanted = {name: at[name] for name in ("text", "severity", "bulk_id", "service", "offset")}
        await search(data, **wanted | given)

    def rows(*names: str, **given: object) -> Ask:
        async def ask() -> None:
            await asyncio.gather(*(data.rows(name, **at | given) for name in names))

        return ask

    def call(work: Callable[..., object], *given: object) -> Ask:
        return lambda: asyncio.to_thread(work, *given)

    recent = {"from_ns": int(at["to_ns"]) - RECENT_NS, "bin_ns": 6 * 10**9}
    return {
        "Overview, all": overview, "Overview, 15 min": lambda: overview(**recent), "Bulks": rows("bulks", "ingest"),
        "Bulk": one, "Trace": rows("trace", "span", "span_logs"), "Inference": inference,
        "Logs": lambda: found(bulk_id=None), "Logs, text search": lambda: found(bulk_id=None, text="no such text"),
        "Logs of a bulk": found,
        "all bulks (`bulkscope bulks`)": call(list_bulks, store), "`latest`": call(latest, store),
        "an unknown id": call(not_found, store, "no such bulk"),
        "`report latest`": call(reports.bulk_report, store, "latest"),
        "`report` of an old one": call(reports.bulk_report, store, bulk),
        "`explain latest`": call(explanations.bulk_explanation, store, "latest"),
        "`capacity --last 1h`": call(capacities.system_capacity, store),
    }  # fmt: skip


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(path: Path) -> None:
    """Print the table."""
    store = Store(path, **SETTINGS)  # type: ignore[arg-type]
    counts = [
        store.query(f"SELECT count(*) AS n FROM {t}")["n"][0].as_py() for t in ("spans", "points", "logs", "bulks")
    ]
    (extent,) = store.query("SELECT min(start_ns) AS a, max(end_ns) AS b FROM spans").to_pylist()
    (job,) = store.query(
        "SELECT bulk_id, trace_id, span_id FROM spans WHERE kind = 'CONSUMER' ORDER BY start_ns LIMIT 1"
    ).to_pylist()
    store.close()
    at: dict[str, Any] = {
        **job, "bulk": job["bulk_id"], "from_ns": extent["a"], "to_ns": extent["b"], "silent_ns": extent["b"],
        "bin_ns": (extent["b"] - extent["a"]) // 150, "limit": 3000, "text": None, "severity": None, "service": None,
        "offset": 0, "failed": False,
    }  # fmt: skip
    print(
        "{:,} spans, {:,} points, {:,} log records, {:,} bulks; {} MB\n".format(*counts, path.stat().st_size // 10**6)
    )
    print("| page | first, ms | median, ms | p95, ms | CPU, ms |\n|---|---:|---:|---:|---:|")
    for name in pages(Data(store, dict, Ends(store)), at):
        store = Store(path, **SETTINGS)  # type: ignore[arg-type]
        ask = pages(Data(store, dict, Ends(store)), at)[name]
        took, used = [], []
        for _ in range(RUNS + 1):
            began, before = time.perf_counter(), _cpu()
            asyncio.run(_awaited(ask))
            took.append((time.perf_counter() - began) * 1e3)
            used.append((_cpu() - before) * 1e3)
        store.close()
        p95 = statistics.quantiles(took[1:], n=20)[-1]
        cells = (took[0], statistics.median(took[1:]), p95, statistics.median(used[1:]))
        print(f"| {name} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |", flush=True)


async def _awaited(ask: Ask) -> None:
    await ask()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--store", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.store or Path(folder) / "s.duckdb"
        if not path.exists():
            make(path, arguments.spans)
        measure(path)


if __name__ == "__main__":
    main()
