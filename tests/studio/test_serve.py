"""``bulkscope studio`` as its users run it: a process of its own, real exporters, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from bulkscope_studio.storage.store import Store
from tests.processes import BIN, wait_for_line
from tests.studio.otlp import PROTOBUF, traces
from tests.studio.serving import Addresses, studio

PORTS = ("--port", "0", "--otlp-http-port", "0", "--otlp-grpc-port", "0")


def count(db: Path, sql: str) -> int:
    store = Store(db, read_only=True)
    try:
        return int(store.query(f"SELECT count(*) AS n FROM {sql}").to_pylist()[0]["n"])
    finally:
        store.close()


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "bulkscope", "studio", *words], capture_output=True, text=True, timeout=60, **options)


EXPORTERS: dict[str, Callable[[Addresses], tuple[Any, Any, Any]]] = {
    "HTTP": lambda at: (
        HttpSpans(f"{at.otlp_http}/v1/traces"), HttpLogs(f"{at.otlp_http}/v1/logs"),
        HttpMetrics(f"{at.otlp_http}/v1/metrics"),
    ),
    "HTTP with gzip": lambda at: (
        HttpSpans(f"{at.otlp_http}/v1/traces", compression=Compression.Gzip),
        HttpLogs(f"{at.otlp_http}/v1/logs", compression=Compression.Gzip),
        HttpMetrics(f"{at.otlp_http}/v1/metrics", compression=Compression.Gzip),
    ),
    "gRPC": lambda at: (
        GrpcSpans(at.otlp_grpc, insecure=True), GrpcLogs(at.otlp_grpc, insecure=True),
        GrpcMetrics(at.otlp_grpc, insecure=True),
    ),
    "gRPC with gzip": lambda at: tuple(  # type: ignore[return-value]
        kind(at.otlp_grpc, insecure=True, compression=grpc.Compression.Gzip)
        for kind in (GrpcSpans, GrpcLogs, GrpcMetrics)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTERS)
def test_the_sdks_own_exporters_deliver_every_signal(name: str, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    with studio(db, "--no-host") as at:
        spans, logs, metrics = EXPORTERS[name](at)
        tracing, logging = TracerProvider(), LoggerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(spans))
        logging.add_log_record_processor(SimpleLogRecordProcessor(logs))
        metering = MeterProvider([PeriodicExportingMetricReader(metrics, export_interval_millis=10**9)])
        with tracing.get_tracer("t").start_as_current_span("outer") as span:
            span.set_attribute("bulk.id", "b")
            logging.get_logger("l").emit(body="said", attributes={"bulk.id": "b"})
        metering.get_meter("m").create_histogram("h").record(1.5)
        for provider in (tracing, logging, metering):
            provider.shutdown()
    assert count(db, "spans WHERE name = 'outer' AND bulk_id = 'b'") == 1
    assert count(db, "logs JOIN spans USING (trace_id, span_id) WHERE body = 'said'") == 1
    assert count(db, "points WHERE name = 'h' AND type = 'histogram' AND sum = 1.5") == 1
    assert count(db, "ingest") == 0


def test_a_grpc_request_with_a_bad_span_is_a_partial_success(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    with studio(db, "--no-host") as at, grpc.insecure_channel(at.otlp_grpc.removeprefix("http://")) as channel:
        request = traces({})
        request.MergeFrom(traces({}, trace_id=b"short"))
        said = TraceServiceStub(channel).Export(request).partial_success
        assert said.rejected_spans == 1
        assert said.error_message == "1 refused: trace id is not 16 bytes, or all zero"
    assert (count(db, "spans"), count(db, "ingest WHERE transport = 'grpc' AND outcome = 'refused'")) == (1, 1)


def test_a_grpc_request_over_the_limit_is_refused_and_the_studio_stays_up(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    with studio(db, "--no-host") as at, grpc.insecure_channel(at.otlp_grpc.removeprefix("http://")) as channel:
        stub = TraceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Export(traces({"x": "x" * (65 << 20)}))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        stub.Export(traces({}))
    assert count(db, "spans") == 1


def test_what_a_sender_was_told_is_stored_survives_kill_9(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    for round_ in range(1, 6):
        process = subprocess.Popen(
            [BIN / "bulkscope", "studio", "--db", db, "--no-host", *PORTS], text=True, stdout=subprocess.PIPE
        )
        address = next(
            line.split()[-1] for line in wait_for_line(process, "Data").splitlines() if line.startswith("OTLP/HTTP")
        )
        with httpx.Client() as client:
            for _ in range(20):
                body = traces({}, {}, {}).SerializeToString()
                answer = client.post(f"{address}/v1/traces", content=body, headers=PROTOBUF)
                assert answer.status_code == 200
        process.kill()
        process.wait()
        assert count(db, "spans") == round_ * 60


def test_a_second_studio_on_the_same_file_says_who_holds_it(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    with studio(db) as at:
        second = run("--db", str(db), *PORTS)
    assert second.returncode == 2
    assert "is held by process" in second.stderr
    assert at.web in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("option", ["--port", "--otlp-http-port", "--otlp-grpc-port"])
def test_a_port_that_is_taken_is_said_with_the_way_out(option: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = list(PORTS)
        ports[ports.index(option) + 1] = str(taken.getsockname()[1])
        refused = run("--db", str(tmp_path / "s.duckdb"), *ports)
    assert refused.returncode == 2
    assert f"choose another with {option}, or 0" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--retention", "soon"], "write for example 7d"),
        (["--max-size", "big"], "write for example 2GB"),
        (["--port", "99999"], "port 99999 cannot be used"),
        (["--port", "web"], "invalid int value"),
        (["--db", "/proc/none/s.duckdb"], "/proc/none"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_an_option_that_makes_no_sense_is_said(options: list[str], said: str, tmp_path: Path) -> None:
    defaults = [] if "--db" in options else ["--db", str(tmp_path / "s.duckdb")]
    refused = run(*PORTS, *defaults, *options)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_file_that_is_no_store_is_said(tmp_path: Path) -> None:
    other = tmp_path / "s.duckdb"
    other.write_text("a shopping list, and nothing that a database would keep in its first pages\n" * 100)
    refused = run("--db", str(other), *PORTS)
    assert refused.returncode == 2
    assert str(other) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert other.read_text().startswith("a shopping list")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_and_says_nothing_more(number: int, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    process = subprocess.Popen(
        [BIN / "bulkscope", "studio", "--db", db, *PORTS], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_for_line(process, "Data")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert not db.with_name("s.duckdb.studio.json").exists()
    assert not db.with_name("s.duckdb.wal").exists()


def test_every_server_listens_on_the_loopback_address_alone(tmp_path: Path) -> None:
    with studio(tmp_path / "s.duckdb") as at:
        ports = {int(url.rpartition(":")[2]) for url in (at.web, at.otlp_http, at.otlp_grpc)}
        table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = {
        (int(port, 16), address)
        for address, _, port in (line.split()[1].partition(":") for line in table.splitlines() if " 0A " in line)
        if int(port, 16) in ports
    }
    assert {port for port, _ in listening} == ports
    # The second is how gRPC's socket, which speaks both versions of IP, has 127.0.0.1.
    assert {address for _, address in listening} <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_the_host_is_sampled_into_the_same_store(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    with studio(db) as at:
        # The page's strip shows the file's size; the points are asked for when the studio has ended.
        with urllib.request.urlopen(f"{at.web}/api/bulks", timeout=30) as answer:
            assert json.load(answer) == []
        wait_for_points(db)
    assert count(db, "points WHERE name = 'system.memory.usage' AND host_name IS NOT NULL") > 0


def wait_for_points(db: Path) -> None:
    """Wait until something was written: the log of the file grows with the first sample."""
    wal = db.with_name(db.name + ".wal")
    start = wal.stat().st_size if wal.exists() else 0
    while not wal.exists() or wal.stat().st_size == start:
        os.sched_yield()
