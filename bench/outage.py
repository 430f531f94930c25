"""What an instrumented service's users feel while the place telemetry goes to is slow, full, stuck or gone.

    python bench/outage.py [--seconds N] [--repeats N]

One uvicorn worker on one core serves the empty application to ``wrk`` on another: 8 connections, as fast as it can.
The end point is well while the service warms up, ill during the measured load, and well again afterwards; then
every span must have arrived or be among those that the service says it dropped. The variants take turns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.overhead import APPS, UVICORN, Variant, environment, started, variants  # noqa: E402
from bench.startup import resident  # noqa: E402
from tests.processes import free_port  # noqa: E402

ILLS = ("healthy", "slow", "full", "stuck", "gone")


class EndPoint:
    """A process that can be told to be ill, on one port for all its lives."""

    def __init__(self) -> None:
        self.port = free_port()
        self.before: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            # It shares a core with wrk, and must not make that wait: what it takes would look like latency.
            ["nice", "-n19", sys.executable, str(APPS / "endpoint.py"), str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self.process.pid, {1})
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path)
        return connection.getresponse().read()

    def stored(self) -> dict[str, int]:
        now: dict[str, int] = json.loads(self.ask("GET", "/"))
        return {name: self.before.get(name, 0) + number if name == "traces" else number for name, number in now.items()}

    def fall_ill(self, ill: str) -> None:
        if ill == "gone":
            self.before = self.stored()
            self.end()
        else:
            self.ask("POST", f"/mode/{ill}")

    def recover(self, ill: str) -> None:
        if ill == "gone":
            self.start()
        else:
            self.ask("POST", "/mode/healthy")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def end_point() -> Iterator[EndPoint]:
    running = EndPoint()
    try:
        yield running
    finally:
        running.end()


@dataclass(frozen=True)
class Felt:
    """One load: requests, requests a second, latencies in ms, resident MiB before and at its end."""

    requests: int
    rate: float
    p50: float
    p99: float
    before: float
    after: float


def load(port: int, seconds: float) -> tuple[int, float, float, float]:
    """Return requests, requests a second, p50 and p99 in ms."""
    output = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", "-c8", f"-d{seconds:.0f}s", "--latency", f"http://127.0.0.1:{port}/items/7"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", output)
    if failed:
        raise SystemExit(f"requests failed:\n{output}")

    def latency(percent: str) -> float:
        number, unit = re.findall(rf"{percent}%\s+([\d.]+)(us|ms|s)", output)[0]
        return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]

    count = int(re.findall(r"(\d+) requests in", output)[0])
    return count, float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0]), latency("50"), latency("99")


def measure(variant: Variant, ill: str, seconds: float) -> tuple[Felt, dict[str, int]]:
    """Return what was felt, and what became of the spans: made, arrived, dropped (as the service itself counts)."""
    with end_point() as target:
        url = f"http://127.0.0.1:{target.port}"
        env = environment(variant, url, 1) | {"OTEL_METRIC_EXPORT_INTERVAL": "1000"}
        with started([*variant.command, *UVICORN], env, r"running on http://[\d.]+:(\d+)") as (pid, port):
            os.sched_setaffinity(pid, {0})
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {0})
            warm, *_ = load(port, 2)
            before = resident(pid) / 2**20
            target.fall_ill(ill)
            count, rate, p50, p99 = load(port, seconds)
            after = resident(pid) / 2**20
            target.recover(ill)
            time.sleep(15)  # a retry may have to wait for its turn, and a request in flight for its time-out
        return Felt(count, rate, p50, p99, before, after), {"made": warm + count, **target.stored()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing; install it, for example with: sudo apt-get install wrk")
    by_name = {variant.name: variant for variant in variants()}
    bare, ours = by_name["no telemetry"], by_name["`bulkscope run`"]
    stock = by_name["stock `opentelemetry-instrument`"]
    cases = [(bare, "healthy"), (stock, "healthy"), *((ours, ill) for ill in ILLS)]
    found: dict[tuple[str, str], list[tuple[Felt, dict[str, int]]]] = {}
    for repeat in range(arguments.repeats):
        for variant, ill in cases:
            print(f"repeat {repeat + 1}/{arguments.repeats}, {variant.name}, {ill}", file=sys.stderr)
            found.setdefault((variant.name, ill), []).append(measure(variant, ill, arguments.seconds))
    print(
        "| variant | end point | requests/s | of bare | p50 ms | p99 ms | resident MiB | grew | requests answered "
        "| spans arrived | dropped |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    none = [felt.rate for felt, _ in found[bare.name, "healthy"]]
    for (name, ill), results in found.items():
        felts = [felt for felt, _ in results]
        share = statistics.median(felt.rate / base for felt, base in zip(felts, none, strict=True))
        spans = {key: sum(counts[key] for _, counts in results) for key in ("made", "traces", "dropped traces")}
        middle = {
            key: statistics.median(getattr(felt, key) for felt in felts) for key in ("rate", "p50", "p99", "after")
        }
        grew = max(felt.after - felt.before for felt in felts)
        counts = "– | – | –" if name == bare.name else " | ".join(f"{number:,}" for number in spans.values())
        print(
            f"| {name} | {'–' if name == bare.name else ill} | {middle['rate']:.0f} | {share:.2f} "
            f"| {middle['p50']:.1f} | {middle['p99']:.1f} | {middle['after']:.0f} | {grew:.0f} | {counts} |"
        )


if __name__ == "__main__":
    main()
