"""The time of what each page asks of the API, and of what commands ask, on a store of a million spans, or of ten.

    python bench/pages.py [--spans N] [--store FILE]

The store is the tests' sample, bulks of 333 jobs with ids that no order is in: a million spans, copied to earlier times
until there are enough, stored in the order in which they would have come. A page's questions are asked one after the
other, and their answers written whole; the table has the first run, on a file just opened, and of 20 more the median,
the 95th percentile, and the median of the CPU that they took. ``--store`` keeps the file, and takes
one that is there.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import duckdb  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from bulkscope_studio.server import app  # noqa: E402
from bulkscope_studio.services import capacities, explanations, reports  # noqa: E402
from bulkscope_studio.services.bulks import latest, list_bulks, not_found  # noqa: E402
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


Ask = Callable[[], object]


def pages(store: Store, at: dict[str, Any]) -> dict[str, Ask]:
    """Return what each page asks of the API when it is opened, and what commands ask."""
    client = TestClient(app.build(store, dict), base_url="http://127.0.0.1")
    bulk = quote(str(at["bulk_id"]), safe="")

    def asked(*paths: str) -> Ask:
        def ask() -> None:
            for path in paths:
                answer = client.get(f"/api/v1{path}")
                assert answer.status_code == 200, (path, answer.text[:200])

        return ask

    def call(work: Callable[..., object], *given: object) -> Ask:
        return lambda: work(*given)

    window = f"from_ns={at['from_ns']}&to_ns={at['to_ns']}"
    recent = f"from_ns={int(at['to_ns']) - RECENT_NS}&to_ns={at['to_ns']}"
    of = f"/bulks/{bulk}"
    return {
        "list of bulks": asked("/bulks?limit=50&spark=24", "/facets"),
        "failures of all": asked("/failures"),
        "bulk, first drawing": asked(
            f"{of}/summary", f"{of}/report", f"{of}/explanation", f"{of}/overtime?bins=1200", f"{of}/machine?bins=1200",
            f"{of}/jobs?sort=-excess_s&limit=50",
        ),
        "bulk, zoomed": asked(f"{of}/overtime?bins=1200&{window}", f"{of}/machine?bins=1200&{window}"),
        "a job": asked(f"{of}/job?id={quote(at['job_id'], safe='')}"),
        "a trace": asked(f"/traces/{at['trace_id']}", f"/traces/{at['trace_id']}/spans/{at['span_id']}"),
        "live, all": asked(f"/live?{window}"), "live, 15 min": asked(f"/live?{recent}"),
        "models": asked("/models", "/models/points"),
        "logs": asked("/logs", "/logs/histogram"), "logs, text search": asked("/logs?text=no+such+text"),
        "logs of a bulk": asked(f"/logs?bulk={bulk}", f"/logs/histogram?bulk={bulk}"),
        "search of an id": asked(f"/search?text={quote(at['job_id'], safe='')}"),
        "all bulks (`bulkscope bulks`)": call(list_bulks, store), "`latest`": call(latest, store),
        "an unknown id": call(not_found, store, "no such bulk"),
        "`report latest`": call(reports.bulk_report, store, "latest"),
        "`report` of an old one": call(reports.bulk_report, store, at["bulk_id"]),
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
        "SELECT bulk_id, job_id, trace_id, span_id FROM spans WHERE kind = 'CONSUMER' ORDER BY start_ns LIMIT 1"
    ).to_pylist()
    store.close()
    at: dict[str, Any] = {**job, "from_ns": extent["a"], "to_ns": extent["b"]}
    print(
        "{:,} spans, {:,} points, {:,} log records, {:,} bulks; {} MB\n".format(*counts, path.stat().st_size // 10**6)
    )
    print("| page | first, ms | median, ms | p95, ms | CPU, ms |\n|---|---:|---:|---:|---:|")
    for name in pages(store, at):
        store = Store(path, **SETTINGS)  # type: ignore[arg-type]
        ask = pages(store, at)[name]
        took, used = [], []
        for _ in range(RUNS + 1):
            began, before = time.perf_counter(), _cpu()
            ask()
            took.append((time.perf_counter() - began) * 1e3)
            used.append((_cpu() - before) * 1e3)
        store.close()
        p95 = statistics.quantiles(took[1:], n=20)[-1]
        cells = (took[0], statistics.median(took[1:]), p95, statistics.median(used[1:]))
        print(f"| {name} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |", flush=True)


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
