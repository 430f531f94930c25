"""CPU microseconds that telemetry adds to one FastAPI request: ours, the stock one, FastAPI's own.

    python bench/overhead.py [--requests N] [--repeats N] [--routes 1,61]

Every variant serves the same application with the same versions (one uvicorn worker, no access log) and
sends to the same local OTLP end point. The variants take turns, each repeat with a fresh server; what is
measured is the CPU clock of the server's process (user and system, exporter threads included) over a
fixed number of requests on one kept-alive connection. The table has the median of the repeats.
Linux only: the CPU clock of another process is read through its clock id.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APPS = ROOT / "bench" / "apps"
sys.path.insert(0, str(ROOT))

from tests.venvs import venv  # noqa: E402

_WARM_UP = 500
_REQUEST = b"GET /items/7 HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\naccept: */*\r\n\r\n"
# Pinned to what runs beside this script, so that only the telemetry differs.
_SAME = (
    "fastapi",
    "starlette",
    "pydantic",
    "pydantic-core",
    "anyio",
    "uvicorn",
    "httptools",
    "uvloop",
    "h11",
)
_STOCK = (
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-distro",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-instrumentation-fastapi",
)
UVICORN = ["app:app", "--host", "127.0.0.1", "--port", "0", "--no-access-log"]


@dataclass(frozen=True)
class Variant:
    """One way to run the application."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def pinned(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        try:
            yield f"{name}=={version(name)}"
        except PackageNotFoundError:
            continue


def variants() -> list[Variant]:
    ours = Path(sys.executable).parent
    theirs = venv("stock", [*pinned(_SAME + _STOCK)]).parent
    # It pins the SDK that it was made with, which may be an older one.
    elastic = venv("elastic", [*pinned(_SAME), "elastic-opentelemetry", _STOCK[-1]]).parent
    return [
        Variant("no telemetry", [str(theirs / "uvicorn")]),
        Variant(
            "stock `opentelemetry-instrument`",
            [str(theirs / "opentelemetry-instrument"), "uvicorn"],
            {"OTEL_LOGS_EXPORTER": "none"},
        ),
        Variant(
            "Elastic's distribution",
            [str(elastic / "opentelemetry-instrument"), "uvicorn"],
            {"OTEL_LOGS_EXPORTER": "none"},
        ),
        Variant("FastAPI's own", [str(theirs / "python"), str(APPS / "native.py")]),
        Variant("`bulkscope run`", [str(ours / "bulkscope"), "run", "uvicorn"]),
        Variant(
            "`bulkscope run`, no log of hits",
            [str(ours / "bulkscope"), "run", "uvicorn"],
            {"OTEL_LOGS_EXPORTER": "none", "BULKSCOPE_ACCESS_EVENTS": "0"},
        ),
    ]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, ended threads included (clock_getcpuclockid(3), Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


@contextmanager
def started(command: list[str], environment: dict[str, str], ready: str) -> Iterator[tuple[int, int]]:
    """Run a server; yields its pid and the port that it prints (first group of ``ready``)."""
    process = subprocess.Popen(
        command, env=environment, cwd=APPS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    output = []
    try:
        for line in process.stdout:
            output.append(line)
            if found := re.search(ready, line):
                break
        else:
            raise SystemExit(f"{' '.join(command)} did not start:\n{''.join(output)}")
        # What it prints later must not fill the pipe and stop it.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield process.pid, int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(connection: socket.socket, count: int) -> None:
    """Send ``count`` requests, one after the other, and read each answer whole."""
    for _ in range(count):
        connection.sendall(_REQUEST)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(65536)
            if not part:
                raise SystemExit("the server closed the connection")
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the server answered {head!r}")
        length = re.search(rb"content-length: (\d+)", head)
        missing = int(length[1]) - len(body) if length else 0
        while missing > 0:
            missing -= len(connection.recv(missing))


def environment(variant: Variant, endpoint: str, routes: int) -> dict[str, str]:
    """Return the environment that a variant's server is started in."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "BULKSCOPE_"))}
    # An installed service has its bytecode; without, each start would compile what telemetry imports, 0.2 s.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    path = f"{Path(variant.command[0]).parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept | {
        "PATH": path,
        "PYTHONPATH": "",
        "ROUTES": str(routes),
        "OTEL_SERVICE_NAME": "bench",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        **variant.environment,
    }


def measure(variant: Variant, endpoint: str, routes: int, requests: int) -> float:
    """Return CPU seconds of one request."""
    with (
        started(
            [*variant.command, *UVICORN], environment(variant, endpoint, routes), r"running on http://[\d.]+:(\d+)"
        ) as (pid, port),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(connection, _WARM_UP)
        before = cpu_seconds(pid)
        ask(connection, requests)
        return (cpu_seconds(pid) - before) / requests


def table(results: dict[tuple[int, str], list[float]], stock: str) -> str:
    """Return the results as a Markdown table; overheads are medians of differences within a repeat."""
    lines = [
        "| routes | variant | CPU µs a request | added µs | min–max | of stock |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for routes in sorted({routes for routes, _ in results}):
        none = results[routes, "no telemetry"]

        def added(name: str, routes: int = routes, none: list[float] = none) -> list[float]:
            return [(with_it - without) * 1e6 for with_it, without in zip(results[routes, name], none, strict=True)]

        reference = statistics.median(added(stock))
        for (count, name), values in results.items():
            if count != routes:
                continue
            total = f"| {routes} | {name} | {statistics.median(values) * 1e6:.0f} |"
            if values is none:
                lines.append(f"{total} – | – | – |")
                continue
            more = added(name)
            median = statistics.median(more)
            lines.append(f"{total} {median:.0f} | {min(more):.0f}–{max(more):.0f} | {median / reference:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000, help="requests measured in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--routes", default="1,61", help="sizes of the application, with commas")
    arguments = parser.parse_args()
    compared = variants()
    sizes = [int(size) for size in arguments.routes.split(",")]
    results: dict[tuple[int, str], list[float]] = {}
    with started([sys.executable, str(APPS / "sink.py")], dict(os.environ), r"^(\d+)$") as (_, port):
        sink = f"http://127.0.0.1:{port}"
        for repeat in range(arguments.repeats):
            for routes in sizes:
                for number, variant in enumerate(compared):
                    print(
                        f"repeat {repeat + 1}/{arguments.repeats}, {routes} routes, {variant.name}",
                        file=sys.stderr,
                    )
                    took = measure(variant, f"{sink}/{number}", routes, arguments.requests)
                    results.setdefault((routes, variant.name), []).append(took)
        with urllib.request.urlopen(sink, timeout=10) as answer:
            received = json.load(answer)
    for number, variant in enumerate(compared[1:], 1):
        if not received.get(f"/{number}/v1/traces"):
            raise SystemExit(f"{variant.name} sent no span: nothing was measured")
    print(
        f"Python {sys.version.split()[0]}, {', '.join(pinned(('fastapi', 'uvicorn', 'opentelemetry-sdk')))}, "
        f"{arguments.requests} requests x {arguments.repeats}\n"
    )
    print(table(results, compared[1].name))


if __name__ == "__main__":
    main()
