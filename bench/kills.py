"""What a killed worker loses: workers record a span every 10 ms and are killed by SIGKILL at a random moment.

    python bench/kills.py [--workers 1000] [--at-once 8]

Each worker is a forked child, as of Celery's or RQ's pools. For each, the age of the newest span that did not
arrive is taken at the moment of the kill: what was recorded before that is safe. Printed is how many workers
lost something older than half a second, which is the delay with which ``bulkscope run`` sends.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.processes import BIN, environment  # noqa: E402
from tests.sink import serve  # noqa: E402

PARENT = """
import os, random, sys, time, bulkscope
workers, at_once = int(sys.argv[1]), int(sys.argv[2])
random.seed(1)

def work(number):
    while True:
        with bulkscope.dequeue("q", job_id=f"{number}:{time.time_ns()}"):
            time.sleep(0.01)

running = {}
for number in range(workers):
    while len(running) >= at_once:
        pid, _ = os.waitpid(-1, 0)
        running.pop(pid)
    pid = os.fork()
    if pid == 0:
        work(number)
    running[pid] = number
    print(number, pid, flush=True)
while running:
    pid, _ = os.waitpid(-1, 0)
    running.pop(pid)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=8)
    arguments = parser.parse_args()
    chance = random.Random(1)
    killed: dict[int, int] = {}

    def kill(number: int, pid: int) -> None:
        time.sleep(chance.uniform(0.9, 1.6))
        killed[number] = time.time_ns()
        os.kill(pid, signal.SIGKILL)

    with serve() as sink:
        # The delays of `bulkscope run` itself, which the tests' environment sets to ten minutes.
        env = environment(sink.url, OTEL_BSP_SCHEDULE_DELAY="500", OTEL_BLRP_SCHEDULE_DELAY="500")
        words = [str(BIN / "bulkscope"), "run", sys.executable, "-c", PARENT, str(arguments.workers)]
        parent = subprocess.Popen([*words, str(arguments.at_once)], env=env, text=True, stdout=subprocess.PIPE)
        assert parent.stdout is not None
        for line in parent.stdout:
            number, pid = map(int, line.split())
            threading.Thread(target=kill, args=(number, pid)).start()
            if number % 100 == 99:
                print(f"{number + 1} of {arguments.workers}", file=sys.stderr)
        parent.wait()
        spans = [span["attributes"]["bulk.job.id"] for span in sink.spans]
        started = [log["attributes"]["bulk.job.id"] for log in sink.logs if log["event"] == "bulk.job.started"]
    newest: dict[int, int] = {}
    for job in spans:
        number, at = map(int, job.split(":"))
        newest[number] = max(newest.get(number, 0), at)
    silent = [number for number in killed if number not in newest]
    ages = sorted((killed[number] - at) / 1e9 for number, at in newest.items())
    late = [age for age in ages if age > 0.55]
    print("| workers killed | spans that arrived | starts that arrived | workers of which nothing arrived |"
          " newest span that arrived, age at the kill: median | 99 % | most | older than 0.55 s |")  # fmt: skip
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {len(killed)} | {len(spans):,} | {len(started):,} | {len(silent)} | {statistics.median(ages):.2f} s | "
        f"{ages[int(0.99 * len(ages))]:.2f} s | {ages[-1]:.2f} s | {len(late)} |"
    )


if __name__ == "__main__":
    main()
