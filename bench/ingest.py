"""The studio under load: spans a second through OTLP/HTTP on one core, and its memory while it takes them.

    python bench/ingest.py [--spans N]

A real ``bulkscope studio`` on an empty file is held to one core; a client on another core sends spans as a
worker's exporter does, 512 to a request (the SDK's batch), four requests in flight. Every span has the
attributes of a real one and different ids; the studio answers when they are committed to the file, so
that the rate is of stored spans. Bodies are made before the clock starts.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope import conventions as c

BATCH = 512
IN_FLIGHT = 4
HEADERS = {"content-type": "application/x-protobuf"}


def body(rng: random.Random, start_ns: int) -> bytes:
    """Return one request: a worker's job spans, each with its inference span."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in ((c.SERVICE_NAME, "worker"), (c.SERVICE_INSTANCE_ID, "w-1"), (c.HOST_NAME, "host")):
        pair = group.resource.attributes.add()
        pair.key, pair.value.string_value = key, value
    scope = group.scope_spans.add()
    for n in range(BATCH // 2):
        trace_id, job_id = rng.randbytes(16), rng.randbytes(16).hex()
        outer = scope.spans.add(
            trace_id=trace_id, span_id=rng.randbytes(8), parent_span_id=rng.randbytes(8), name="process prompts",
            kind=5, start_time_unix_nano=start_ns + n, end_time_unix_nano=start_ns + n + 10**9,
        )  # fmt: skip
        inner = scope.spans.add(
            trace_id=trace_id, span_id=rng.randbytes(8), parent_span_id=outer.span_id, name="chat model",
            kind=1, start_time_unix_nano=start_ns + n, end_time_unix_nano=start_ns + n + 10**9,
        )  # fmt: skip
        shared = {c.BULK_ID: "bulk-1", c.JOB_ID: job_id}
        put(outer, shared | {
            c.MESSAGING_SYSTEM: "redis", c.MESSAGING_OPERATION_NAME: "process", c.MESSAGING_DESTINATION: "prompts",
            c.MESSAGING_MESSAGE_ID: job_id, c.TASK_NAME: "generate", c.JOB_ATTEMPT: 1, c.JOB_DELAY: 0.0,
            c.TIME_IN_QUEUE: rng.random(), c.JOB_WAIT_RATIO: rng.random(), c.BULK_OUTCOME: "ok",
        })  # fmt: skip
        put(inner, shared | {
            c.GEN_AI_OPERATION: "chat", c.GEN_AI_PROVIDER: "llama_cpp", c.GEN_AI_MODEL: "model",
            c.GEN_AI_MAX_TOKENS: 32, c.GEN_AI_INPUT_TOKENS: 100, c.GEN_AI_OUTPUT_TOKENS: 32,
            c.GEN_AI_TTFT: rng.random(), c.GEN_AI_PREFILL: rng.random(), c.GEN_AI_DECODE: rng.random(),
            c.CPU_TIME: rng.random(), c.CPU_EXACT: True, c.CPU_UTILIZATION: 0.5, c.CPU_PRESSURE: 0.1,
            c.MEMORY_START: 3 * 10**8, c.MEMORY_PEAK: 3 * 10**8, c.MEMORY_GROWTH: 0, c.MEMORY_FILE: 10**8,
            c.MEMORY_ANON: 2 * 10**8, c.MEMORY_LIMIT: 2**33, c.MEMORY_EXACT: True,
            c.TOKENS_PER_SECOND: 32.0, c.DECODE_TOKENS_PER_SECOND: 64.0,
        })  # fmt: skip
    return request.SerializeToString()


def put(span: object, attributes: dict[str, object]) -> None:
    for key, value in attributes.items():
        pair = span.attributes.add()  # type: ignore[attr-defined]
        pair.key = key
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        elif isinstance(value, float):
            pair.value.double_value = value
        else:
            pair.value.string_value = value


def send(port: int, bodies: list[bytes]) -> float:
    """Send all, ``IN_FLIGHT`` at a time; return the seconds until the last was answered."""
    waiting: SimpleQueue[bytes] = SimpleQueue()
    for one in bodies:
        waiting.put(one)
    failed: list[str] = []

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.suppress(Empty):
            while True:
                connection.request(
                    "POST", "/v1/traces", waiting.get_nowait(), {"content-type": "application/x-protobuf"}
                )
                answer = connection.getresponse()
                said = answer.read()
                if answer.status != 200 or said:
                    failed.append(f"{answer.status} {said[:200]!r}")
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(IN_FLIGHT)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"{len(failed)} requests were not taken whole, the first: {failed[0]}")
    return time.perf_counter() - began


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=500_000)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    studio_core, client_core = {cores[0]}, {cores[-1]}
    rng = random.Random(1)
    print("making the requests", file=sys.stderr)
    bodies = [body(rng, time.time_ns() - 10**10) for _ in range(max(1, arguments.spans // BATCH))]
    spans = len(bodies) * BATCH
    with tempfile.TemporaryDirectory() as folder:
        words = [str(Path(sys.executable).parent / "bulkscope"), "studio", "--db", f"{folder}/s.duckdb", "--no-host"]
        words += ["--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0"]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, studio_core)
        )
        os.sched_setaffinity(0, client_core)
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            if line.startswith("OTLP/HTTP"):
                port = int(line.rpartition(":")[2])
            if line.startswith("Data"):
                break
        clock = (~process.pid << 3) | 2  # the CPU clock of another process, clock_getcpuclockid(3)
        print(f"sending {spans:,} spans", file=sys.stderr)
        before = time.clock_gettime(clock)
        seconds = send(port, bodies)
        cpu, peak = time.clock_gettime(clock) - before, peak_bytes(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        size = os.path.getsize(f"{folder}/s.duckdb")
    print("| spans | stored spans/s on one core | CPU µs a span | peak RSS | bytes a span in the file |")
    print("|---:|---:|---:|---:|---:|")
    rate, each = spans / seconds, cpu / spans * 1e6
    print(f"| {spans:,} | {rate:,.0f} | {each:.1f} | {peak / 2**20:.0f} MiB | {size / spans:.0f} |")


if __name__ == "__main__":
    main()
