"""What ``bulkscope explain`` costs on a large bulk, read from the studio's file.

    python bench/explain.py [--jobs N]

The store is the tests' sample: one bulk, its spans, logs and samples. Each run is a process of its own, which opens the
file and answers five times, as a studio does that is asked again; imports are not counted. Beside it are the queries
that the report of the same bulk asks, all rows fetched. CPU counts all threads; the peak is the process' resident
memory, libraries and DuckDB's buffers included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RUNS = 5
BULK = "sample-001"


def fill(path: Path, jobs: int) -> None:
    from bulkscope_studio.storage.store import Store
    from tests.studio import sample

    store = Store(path)
    (made,) = sample.fill(store.connection(), 1, jobs, faults=False)
    store.close()
    if made != BULK:
        raise SystemExit(f"the sample's bulk is called {made}, not {BULK}")


def measure(path: Path, what: str) -> None:
    """Print the seconds and the peak of RUNS answers, as JSON."""
    from bulkscope_studio.services import explanations
    from bulkscope_studio.storage import sql, summaries
    from bulkscope_studio.storage.store import Store

    store = Store(path, read_only=True)

    def queries() -> None:
        known = summaries.extent(store, BULK)
        assert known is not None
        extent = store.query("SELECT min(start_ns) AS a, max(end_ns) AS b FROM spans WHERE bulk_id = $b", {"b": BULK})
        window = {"first": extent["a"][0].as_py(), "last": extent["b"][0].as_py()}
        for name in ("attempts", "inferences", "requests"):
            store.query(sql.load(f"report_{name}"), {"bulk": BULK, **known.bounds})
        store.query(sql.load("report_host"), window)
        store.query(sql.load("lost"), {"bulk": BULK, "silent_ns": window["last"], **known.bounds})

    def explain() -> None:
        found = explanations.bulk_explanation(store, BULK)
        if found["state"] != "complete":
            raise SystemExit("the sample's bulk is not complete")
        json.dumps(found)

    asked: dict[str, Callable[[], None]] = {"explain": explain, "queries": queries}
    wall, cpu = [], []
    for _ in range(RUNS):
        began, spent = time.perf_counter(), time.process_time()
        asked[what]()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak * 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "WHAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(Path(arguments.measure[0]), arguments.measure[1])
    if arguments.jobs < 1:
        parser.error("--jobs must be 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.duckdb"
        print("filling the store", file=sys.stderr)
        fill(path, arguments.jobs)
        found = {}
        for what in ("explain", "queries"):
            words = [sys.executable, __file__, "--measure", str(path), what]
            found[what] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    print(f"{arguments.jobs:,} jobs\n")
    print("| | first, wall s | median, wall s | median, CPU s | peak RSS, MiB |\n|---|---:|---:|---:|---:|")
    for what, title in (("explain", "`explain`"), ("queries", "the report's queries")):
        wall, cpu = found[what]["wall"], found[what]["cpu"]
        middle = (statistics.median(wall), statistics.median(cpu))
        print(f"| {title} | {wall[0]:.2f} | {middle[0]:.2f} | {middle[1]:.2f} | {found[what]['peak'] / 2**20:.0f} |")
    ratio = statistics.median(found["explain"]["cpu"]) / statistics.median(found["queries"]["cpu"])
    print(f"\n`explain` takes {ratio:.2f} times the CPU of the report's queries.")


if __name__ == "__main__":
    main()
