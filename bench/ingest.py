"""The studio under load: CPU and memory of spans that come through OTLP/HTTP, and where the time goes.

    python bench/ingest.py [--spans N] [--stages]

A real ``bulkscope studio`` on an empty file is held to one core; a client on another core sends spans as an
exporter does, 512 to a request (the SDK's batch), four requests in flight. A span has eleven attributes: web
requests, jobs and inferences of ours, and requests of a foreign instrumentation; ids and measurements differ. The
studio answers when they are committed to the file, so that the rate is of stored spans. Bodies are made before the
clock starts, which is when the studio has imported all it needs and does nothing. ``--stages`` measures the same
bodies in this process instead, each stage by itself.
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
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope import conventions as c

BATCH = 512
ATTRIBUTES = 11
WARMING = 20  # requests before the clock starts
IN_FLIGHT = 4
HEADERS = {"content-type": "application/x-protobuf"}
T = TypeVar("T")


def body(rng: random.Random, start_ns: int) -> bytes:
    """Return one request: as many spans of a web request, a job, an inference and a foreign client each."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    put(group.resource, {c.SERVICE_NAME: "worker", c.SERVICE_INSTANCE_ID: "w-1", c.HOST_NAME: "host", c.PROCESS_PID: 7})
    scope = group.scope_spans.add()
    scope.scope.name = "bulkscope"

    def span(name: str, kind: int, parent: bytes, n: int, attributes: dict[str, object]) -> bytes:
        made = scope.spans.add(
            trace_id=trace_id, span_id=rng.randbytes(8), parent_span_id=parent, name=name, kind=kind,
            start_time_unix_nano=start_ns + n, end_time_unix_nano=start_ns + n + 10**9,
        )  # fmt: skip
        assert len(attributes) == ATTRIBUTES
        put(made, attributes)
        return bytes(made.span_id)

    for n in range(BATCH // 4):
        trace_id, job_id = rng.randbytes(16), rng.randbytes(16).hex()
        web = span("POST /bulk", 2, b"", n, {
            c.BULK_ID: "bulk-1", c.BULK_ID_SOURCE: "body", c.BULK_OUTCOME: "ok", c.BULK_SIZE: 10,
            c.HTTP_ROUTE: "/bulk", c.HTTP_REQUEST_METHOD: "POST", c.HTTP_RESPONSE_STATUS_CODE: 200,
            c.BULK_ENQUEUE_DURATION: rng.random(), c.URL_PATH: "/bulk", c.URL_SCHEME: "http",
            "server.address": "127.0.0.1",
        })  # fmt: skip
        job = span("process prompts", 5, web, n, {
            c.BULK_ID: "bulk-1", c.JOB_ID: job_id, c.MESSAGING_SYSTEM: "redis", c.MESSAGING_OPERATION_NAME: "process",
            c.MESSAGING_DESTINATION: "prompts", c.TASK_NAME: "generate", c.JOB_ATTEMPT: 1, c.JOB_DELAY: 0.0,
            c.TIME_IN_QUEUE: rng.random(), c.JOB_WAIT_RATIO: rng.random(), c.BULK_OUTCOME: "ok",
        })  # fmt: skip
        inference = span("chat model", 1, job, n, {
            c.BULK_ID: "bulk-1", c.JOB_ID: job_id, c.GEN_AI_OPERATION: "chat", c.GEN_AI_PROVIDER: "llama_cpp",
            c.GEN_AI_MODEL: "model", c.GEN_AI_INPUT_TOKENS: 100, c.GEN_AI_OUTPUT_TOKENS: 32,
            c.GEN_AI_TTFT: rng.random(), c.CPU_TIME: rng.random(), c.CPU_EXACT: True, c.MEMORY_PEAK: 3 * 10**8,
        })  # fmt: skip
        span("GET", 3, inference, n, {
            "http.request.method": "GET", "url.full": f"http://example.org/{job_id}", "server.address": "example.org",
            "server.port": 80, "http.response.status_code": 200, "network.protocol.version": "1.1",
            "user_agent.original": "python-httpx/0.28", "network.peer.address": "10.0.0.1", "thread.id": 139_872,
            "thread.name": "MainThread", "peer.service": "example",
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


def settle(clock: int) -> None:
    """Wait until a process does nothing: the studio goes on importing its pages for seconds after it takes data."""
    while True:
        before = time.clock_gettime(clock)
        time.sleep(1)
        if time.clock_gettime(clock) - before < 0.05:
            return


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def stages(bodies: list[bytes]) -> None:
    """Print the CPU time of each stage, in this process: four requests at a time."""
    from bulkscope_studio.ingest import otlp_decode, spans
    from bulkscope_studio.storage.store import Store

    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        before = time.process_time()
        done = work()
        found[name] = (time.process_time() - before) / (len(bodies) * BATCH) * 1e6
        return done

    list(otlp_decode.parts("traces", bodies[0]))
    rounds = [bodies[at : at + IN_FLIGHT] for at in range(0, len(bodies), IN_FLIGHT)]
    timed("ptars: requests to Arrow", lambda: [spans.reader().list_to_record_batch(some) for some in rounds])
    decoded = timed(
        "all of decoding, that included",
        lambda: [otlp_decode.Decoded.together(otlp_decode.parts("traces", *some)) for some in rounds],
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "s.duckdb")
        connection = store.connection()

        def insert() -> None:
            for one in decoded:
                connection.execute("BEGIN")
                connection.register("incoming", one.tables["spans"])
                connection.execute("INSERT INTO spans SELECT * FROM incoming")
                connection.unregister("incoming")
                connection.execute("COMMIT")

        timed("insert and commit, four requests at a time", insert)
        store.close()
    print("| stage | CPU µs a span |")
    print("|---|---:|")
    for name, each in found.items():
        print(f"| {name} | {each:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=500_000)
    parser.add_argument("--stages", action="store_true", help="measure each stage in this process")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    studio_core, client_core = {cores[0]}, {cores[-1]}
    rng = random.Random(1)
    print("making the requests", file=sys.stderr)
    bodies = [body(rng, time.time_ns() - 10**10) for _ in range(max(1, arguments.spans // BATCH) + WARMING)]
    if arguments.stages:
        stages(bodies)
        return
    spans = (len(bodies) - WARMING) * BATCH
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
        send(port, bodies[:WARMING])
        settle(clock)
        print(f"sending {spans:,} spans", file=sys.stderr)
        before = time.clock_gettime(clock)
        seconds = send(port, bodies[WARMING:])
        cpu, peak = time.clock_gettime(clock) - before, peak_bytes(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        size = os.path.getsize(f"{folder}/s.duckdb")
    print("| spans | stored spans/s on one core | CPU µs a span | peak RSS | bytes a span in the file |")
    print("|---:|---:|---:|---:|---:|")
    rate, each = spans / seconds, cpu / spans * 1e6
    print(f"| {spans:,} | {rate:,.0f} | {each:.1f} | {peak / 2**20:.0f} MiB | {size / (len(bodies) * BATCH):.0f} |")


if __name__ == "__main__":
    main()
