"""The end that a running studio gives for bulks that real Celery workers do, against when they then ended.

    python bench/endings_live.py [--bulks N] [--jobs N]

Jobs sleep for times with a heavy tail (lognormal, sigma 0.8), so that a busy machine makes them no longer. Two workers
(solo pools) under `bulkscope run`, a real Valkey, a real studio, asked over HTTP every second.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from demo import client, valkey  # noqa: E402
from demo.processes import Children, free_port  # noqa: E402

BIN = Path(sys.executable).parent
SHARES = (0.25, 0.5, 0.75)
TASKS = """
import os, time
from celery import Celery
app = Celery("tasks", broker=os.environ["BROKER"])
app.conf.worker_prefetch_multiplier = 1

@app.task(ignore_result=True)
def work(seconds, bulk_id):
    time.sleep(seconds)
"""
SEND = """
import sys
from tasks import work
for seconds in sys.argv[2:]:
    work.delay(float(seconds), bulk_id=sys.argv[1])
"""


def watched(web: str, bulk: str) -> list[dict[str, Any]]:
    """Ask until the bulk is complete; return every answer."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["state"] != "complete":
        time.sleep(1.0)
        try:
            found.append(client.get(f"{web}/api/bulks/{bulk}/ending"))
        except OSError:  # not there yet
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bulks", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        children = Children(Path(name))
        children.catch_signals()
        try:
            measure(Path(name), children, given.bulks, given.jobs)
        finally:
            children.end(print)


def measure(folder: Path, children: Children, bulks: int, jobs: int) -> None:
    """Run the bulks one after the other, and print what was said of each at a quarter, a half and three quarters."""
    (folder / "tasks.py").write_text(TASKS)
    (folder / "send.py").write_text(SEND)
    page, otlp, grpc, broker = (free_port() for _ in range(4))
    env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env |= {
        "BROKER": f"redis://127.0.0.1:{broker}/0", "PYTHONPATH": str(folder),
        "PATH": f"{BIN}{os.pathsep}{env.get('PATH', '')}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
    }  # fmt: skip
    ports = ["--port", str(page), "--otlp-http-port", str(otlp), "--otlp-grpc-port", str(grpc)]
    words = [str(BIN / "bulkscope"), "studio", "--db", str(folder / "s.duckdb"), *ports]
    children.start("studio", words, env=env, cwd=folder, grace_s=20)
    children.start("valkey", valkey.command(broker, folder), env=env, cwd=folder)
    web = f"http://127.0.0.1:{page}"
    children.wait("Valkey", lambda: valkey.answers(broker), 60)
    children.wait("the studio", lambda: client.answers(f"{web}/api/bulks"), 120)
    run = [str(BIN / "bulkscope"), "run"]
    for number in (1, 2):
        words = ["celery", "-A", "tasks", "worker", "-P", "solo", "-n", f"w{number}@%h", "--loglevel", "WARNING"]
        children.start(f"worker-{number}", [*run, *words], env=env, cwd=folder)
    asked = held = 0
    print("| bulk | at | left, given (95 %) | left, true | held |\n|---|---:|---|---:|---|")
    for n in range(bulks):
        drawn = random.Random(n)
        works = [f"{drawn.lognormvariate(0, 0.8):.3f}" for _ in range(jobs)]
        subprocess.run([*run, "python", "send.py", f"b{n}", *works], cwd=folder, env=env, check=True)
        answers = watched(web, f"b{n}")
        end = answers[-1]["ended_ns"]
        for share in SHARES:
            told = (one for one in answers if one["left_s"] and one["progress"]["done"] >= share * jobs)
            one = next(told, None)
            if one is None:
                continue
            true, left = (end - one["now_ns"]) / 1e9, one["left_s"]
            fits = left["low"] <= true <= left["high"]
            asked, held = asked + 1, held + fits
            interval = f"{left['value']:.1f} s ({left['low']:.1f} to {left['high']:.1f})"
            print(f"| b{n} | {share:.0%} | {interval} | {true:.1f} s | {'yes' if fits else 'no'} |", flush=True)
    print(f"\n{held} of {asked} held")


if __name__ == "__main__":
    main()
