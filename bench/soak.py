"""The studio in bad weather: nothing acknowledged is lost, nothing counts twice, memory and file stay bounded.

    python bench/soak.py [--seconds N] [--rate SPANS/S] [--max-size SIZE]

Twenty minutes of simulated time are pressed into ``--seconds``. Three senders keep what is not acknowledged and send it
again, as OTLP exporters do, and send one acknowledged request in fifty again, as if its answer had been lost. Meanwhile
four tabs are open in Chromium (without it: four clients of the API), two loops ask for reports, retention is at work on
a store that is too small for all, the studio is ended and started again twice, killed twice in the middle of commits,
and its disk is full for a while (it may not make its files any larger). At the end the file is read: every acknowledged
span is there, or counted as expired. Exits with 1 when anything of this does not hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: E402

from bulkscope_studio.text import parse  # noqa: E402
from tests.processes import BIN  # noqa: E402
from tests.studio.otlp import PROTOBUF, pairs  # noqa: E402

SIMULATED_S = 20 * 60
JOBS = 100  # jobs a request, three spans each: sent, done, inferred
REQUESTS_A_BULK = 10
SENDERS = 3
SENT_AGAIN = 50
# What the store may take of memory beside what DuckDB may: Python, Arrow and what waits.
PROCESS_BYTES = 300 * 2**20


def request(number: int, now_ns: int) -> bytes:
    """Return a request of 300 spans: ids from its number, so that it can be told apart; one bulk has ten of them."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    pairs(group.resource.attributes, {"service.name": "soak", "service.instance.id": f"worker-{number % 8}",
                                      "host.name": "host", "process.pid": number % 8})  # fmt: skip
    scope = group.scope_spans.add()
    draw = random.Random(number)
    bulk = f"bulk-{number // REQUESTS_A_BULK}"
    ids = itertools.count(number * 10_000 + 1)
    for job in range(JOBS):
        trace, sent, done = draw.getrandbits(128).to_bytes(16, "big"), next(ids), next(ids)
        common = {"bulk.id": bulk, "bulk.job.id": f"{number}-{job}", "messaging.destination.name": "prompts"}
        start = now_ns - 2 * 10**9 + job * 10**6
        for span_id, parent, kind, first, last, more in (
            (sent, 0, 4, start, start + 10**6, {}),
            (done, sent, 5, start + 10**8, start + 10**9, {"gen_ai.latency.time_in_queue": 0.1, "bulk.outcome": "ok"}),
            (next(ids), done, 1, start + 2 * 10**8, start + 9 * 10**8, {
                "gen_ai.request.model": "soak", "gen_ai.usage.input_tokens": 20 + draw.randrange(80),
                "gen_ai.usage.output_tokens": 10, "bulk.inference.cpu.time": draw.random(),
                "bulk.inference.memory.peak": draw.randrange(2**30)}),
        ):  # fmt: skip
            span = scope.spans.add(
                trace_id=trace, span_id=span_id.to_bytes(8, "big"), name="soak", kind=kind,
                start_time_unix_nano=first, end_time_unix_nano=last,
                parent_span_id=parent.to_bytes(8, "big") if parent else b"",
            )  # fmt: skip
            pairs(span.attributes, common | more)
    return message.SerializeToString()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Studio:
    """A studio that is ended, killed and started again on the same ports and file."""

    def __init__(self, db: Path, max_size: str) -> None:
        self.db, self._log = db, (db.parent / "studio.log").open("ab")
        web, otlp, grpc = free_ports(3)
        self.web, self.otlp = f"http://127.0.0.1:{web}", f"http://127.0.0.1:{otlp}"
        self._words = [
            str(BIN / "bulkscope"), "studio", "--db", str(db), "--port", str(web), "--otlp-http-port", str(otlp),
            "--otlp-grpc-port", str(grpc), "--max-size", max_size,
        ]  # fmt: skip
        self.peak = 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._words, stdout=self._log, stderr=self._log)
        while True:
            try:
                httpx.get(f"{self.web}/api/runs", timeout=5)
                return
            except httpx.TransportError:
                if self.process.poll() is not None:
                    raise SystemExit(f"the studio did not start; see {self._log.name}") from None
                time.sleep(0.1)

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        code = self.process.wait(60)
        if number == signal.SIGTERM and code != 0:
            raise SystemExit(f"the studio ended with {code}")

    def watch(self) -> None:
        """Note its memory."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        resident = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")]
        self.peak = max([self.peak, *resident])


class Senders:
    """Three threads that send, keep and send again."""

    def __init__(self, otlp: str, rate: float, began: float, pressed: float) -> None:
        self._url, self._pause = f"{otlp}/v1/traces", SENDERS * JOBS * 3 / rate
        self._began, self._pressed = began, pressed
        self._numbers, self._lock = itertools.count(), threading.Lock()
        self.ended = threading.Event()
        self.acknowledged, self.answers, self.resent = 0, Counter[str](), 0
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    def _now_ns(self) -> int:
        """Return the simulated time, which is the real one at the end."""
        left = self._pressed - (time.monotonic() - self._began)
        return time.time_ns() - int(max(0.0, left) * SIMULATED_S / self._pressed * 1e9)

    def _send(self) -> None:
        with httpx.Client(timeout=10) as client:
            due = time.monotonic()
            while not self.ended.is_set():
                with self._lock:
                    number = next(self._numbers)
                body = request(number, self._now_ns())
                self._deliver(client, body)
                with self._lock:
                    self.acknowledged += JOBS * 3
                if number % SENT_AGAIN == 0:
                    self._deliver(client, body)
                    with self._lock:
                        self.resent += JOBS * 3
                due += self._pause
                time.sleep(max(0.0, due - time.monotonic()))

    def _deliver(self, client: httpx.Client, body: bytes) -> None:
        while True:
            try:
                answer = client.post(self._url, content=body, headers=PROTOBUF)
                said = str(answer.status_code)
            except httpx.TransportError as error:
                said = type(error).__name__
            with self._lock:
                self.answers[said] += 1
            if said == "200":
                return
            if said.isdigit() and said not in ("429", "502", "503", "504"):
                raise SystemExit(f"the studio answered {said}, which is final: {answer.text[:200]}")
            time.sleep(0.5)

    def stop(self) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()


def tabs(web: str, ended: threading.Event) -> threading.Thread:
    """Hold four pages open until ``ended``; without Chromium ask what they would."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")

    def browse() -> None:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for path in ("/", "/live", "/models", "/logs"):
                browser.new_page().goto(web + path, timeout=60_000)
            ended.wait()
            browser.close()

    def ask() -> None:
        while not ended.wait(0.5):
            try:
                httpx.get(f"{web}/api/bulks", timeout=30)
            except httpx.TransportError:
                continue

    thread = threading.Thread(target=browse if chromium else ask, daemon=True)
    thread.start()
    return thread


def reports(web: str, ended: threading.Event, said: Counter[str]) -> threading.Thread:
    """Ask for the newest bulk's report again and again."""

    def ask() -> None:
        while not ended.wait(0.2):
            try:
                said[str(httpx.get(f"{web}/api/bulks/latest/report", timeout=60).status_code)] += 1
            except httpx.TransportError:
                said["nobody"] += 1

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def full_disk(studio: Studio, seconds: float) -> None:
    """Let no file of the studio grow, as on a full disk, for a while."""
    sizes = [path.stat().st_size for path in studio.db.parent.glob(studio.db.name + "*") if path.is_file()]
    resource.prlimit(studio.process.pid, resource.RLIMIT_FSIZE, (max(sizes), resource.RLIM_INFINITY))
    time.sleep(seconds)
    resource.prlimit(studio.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--rate", type=float, default=5000)
    parser.add_argument("--max-size", default="40MB")
    options = parser.parse_args()
    limit = parse.size(options.max_size)
    with tempfile.TemporaryDirectory() as folder:
        return soak(Path(folder) / "soak.duckdb", options.seconds, options.rate, options.max_size, limit)


def soak(db: Path, seconds: float, rate: float, max_size: str, limit: int) -> int:
    """Run it all; return the exit code."""
    studio = Studio(db, max_size)
    began = time.monotonic()
    senders = Senders(studio.otlp, rate, began, seconds)
    ended = threading.Event()
    reported = Counter[str]()
    threads = [tabs(studio.web, ended), reports(studio.web, ended, reported), reports(studio.web, ended, reported)]
    largest = 0

    def restart(number: int) -> None:
        studio.end(number)
        time.sleep(1)
        studio.start()

    events: list[tuple[float, str, Callable[[], None]]] = [
        (0.20, "the studio is ended and started again", lambda: restart(signal.SIGTERM)),
        (0.35, "the studio is killed", lambda: restart(signal.SIGKILL)),
        (0.50, "the studio's disk is full for 10 s", lambda: full_disk(studio, 10)),
        (0.65, "the studio is killed", lambda: restart(signal.SIGKILL)),
        (0.80, "the studio is ended and started again", lambda: restart(signal.SIGTERM)),
    ]
    while time.monotonic() - began < seconds:
        if events and time.monotonic() - began > events[0][0] * seconds:
            share, what, happen = events.pop(0)
            print(f"{share * SIMULATED_S / 60:.0f} min: {what}", flush=True)
            happen()
        studio.watch()
        largest = max(largest, db.stat().st_size if db.exists() else 0)
        time.sleep(0.5)
    senders.stop()
    status = httpx.get(f"{studio.web}/api/bulks", timeout=60).status_code
    ended.set()
    for thread in threads:
        thread.join(60)
    studio.end(signal.SIGTERM)
    with duckdb.connect(str(db), read_only=True) as file:
        spans, distinct = (
            file.execute("SELECT count(*), count(DISTINCT (trace_id, span_id)) FROM spans").fetchone() or ()
        )
        told = dict(file.execute(
            "SELECT outcome, sum(records)::BIGINT FROM ingest WHERE signal IN ('spans', 'traces') GROUP BY outcome"
        ).fetchall())  # fmt: skip
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    expired, repeated = told.get("expired", 0), told.get("repeated", 0)
    bound = PROCESS_BYTES + int(min(max(memory / 16, 512e6), 2e9))
    rows = {
        "spans acknowledged": senders.acknowledged, "stored at the end": spans, "expired, counted": expired,
        "lost": senders.acknowledged - spans - expired, "twice": spans - distinct,
        "sent again though acknowledged": senders.resent, "counted as repeated": repeated,
        "memory, highest (MiB)": studio.peak >> 20, "memory, bound (MiB)": bound >> 20,
        "file, highest (MB)": largest // 10**6, "to be held at most (MB)": limit // 10**6,
        "answers to senders": json.dumps(senders.answers), "answers to reports": json.dumps(reported),
    }  # fmt: skip
    print("\n| | |\n|---|---:|")
    for name, value in rows.items():
        print(f"| {name} | {value:,} |" if isinstance(value, int) else f"| {name} | {value} |")
    held = {
        "nothing acknowledged is lost": spans + expired == senders.acknowledged,
        "nothing is stored twice": spans == distinct,
        "what came again is counted": repeated >= senders.resent,
        "memory is bounded": studio.peak <= bound,
        "the file is bounded": largest <= 2 * limit + 64 * 10**6,
        "retention was at work": expired > 0,
        "it answers at the end": status == 200,
        "no report failed": not reported.keys() - {"200", "404", "503", "nobody"},  # 404: none yet
    }
    failed = [name for name, holds in held.items() if not holds]
    print("\nall of it holds" if not failed else f"\ndoes not hold: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
