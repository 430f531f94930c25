"""The Collector with a backend that is ill for half a minute, and killed in the middle: nothing is missing afterwards.

The backends here answer as ill ones do; what is under test, the Collector and the project's configuration, is real.
"""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import serving
from tests.engines.servers import Server, collector, eventually, http

ILL_SECONDS = 30.0
BATCH = 50


@dataclass
class Backend:
    """An end point that keeps the number of each record that it has accepted."""

    url: str = ""
    ill: str = ""
    got: Counter[str] = field(default_factory=Counter)
    asked: int = 0


def ids(path: str, body: bytes) -> Iterator[str]:
    if path.endswith("/traces"):
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            yield from (span.name for scope in group.scope_spans for span in scope.spans)
    elif path.endswith("/logs"):
        for group in ExportLogsServiceRequest.FromString(body).resource_logs:
            yield from (record.body.string_value for scope in group.scope_logs for record in scope.log_records)
    else:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                yield from (metric.name for metric in scope.metrics if metric.name.startswith("metric-"))


@contextmanager
def backend() -> Iterator[Backend]:
    found = Backend()
    lock = threading.Lock()

    class Handler(serving.Handler):
        def do_POST(self) -> None:
            body = self.content()
            found.asked += 1
            ill = found.ill
            if ill == "down":
                # Reset, as from a machine on which nothing listens.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                return
            if ill == "slow":
                time.sleep(3)
            if ill.isdecimal():
                self.answer(int(ill))
                return
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            with lock:
                found.got.update(ids(self.path, body))
            self.answer(200)

    with serving.serving(Handler) as found.url:
        yield found


class Load:
    """Sends spans, log records and metrics, each with a name of its own, and remembers what was acknowledged."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ended = threading.Event()
        self.acknowledged: dict[str, set[str]] = {"traces": set(), "logs": set(), "metrics": set()}
        self.number = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _requests(self) -> Iterator[tuple[str, list[str], bytes]]:
        now = time.time_ns()
        names = [f"-{self.number + n}" for n in range(BATCH)]
        self.number += BATCH
        traces = ExportTraceServiceRequest()
        spans = traces.resource_spans.add().scope_spans.add().spans
        for n, name in enumerate(names):
            spans.add(
                name=f"span{name}", trace_id=b"t" * 16, span_id=struct.pack(">Q", n + 1),
                start_time_unix_nano=now, end_time_unix_nano=now + 1,
            )  # fmt: skip
        yield "traces", [span.name for span in spans], traces.SerializeToString()
        logs = ExportLogsServiceRequest()
        records = logs.resource_logs.add().scope_logs.add().log_records
        for name in names:
            records.add(time_unix_nano=now).body.string_value = f"log{name}"
        yield "logs", [record.body.string_value for record in records], logs.SerializeToString()
        metrics = ExportMetricsServiceRequest()
        found = metrics.resource_metrics.add().scope_metrics.add().metrics
        for name in names:
            found.add(name=f"metric{name}").gauge.data_points.add(time_unix_nano=now, as_double=1.0)
        yield "metrics", [metric.name for metric in found], metrics.SerializeToString()

    def _run(self) -> None:
        while not self._ended.is_set():
            for signal, names, body in self._requests():
                try:
                    http("POST", f"{self._server.url}/v1/{signal}", body, "application/x-protobuf")
                except (OSError, urllib.error.HTTPError):
                    continue  # not acknowledged: a service would keep it and try again
                self.acknowledged[signal].update(names)
            self._ended.wait(0.02)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def missing(load: Load, store: Backend, metrics: Backend) -> int:
    return (
        len((load.acknowledged["traces"] | load.acknowledged["logs"]) - set(store.got))
        + len(load.acknowledged["metrics"] - set(metrics.got))
    )  # fmt: skip


@pytest.mark.timeout(240)
@pytest.mark.parametrize("ill", ["down", "slow", "429", "503"])
@pytest.mark.parametrize("which", ["elasticsearch", "prometheus"])
def test_nothing_is_missing_after_an_outage_with_the_collector_killed(
    which: str, ill: str, tmp_path: Path, record_property: Any
) -> None:
    with backend() as store, backend() as metrics:
        sick, well = (store, metrics) if which == "elasticsearch" else (metrics, store)
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        with collector(tmp_path, backends) as server:
            load = Load(server)
            eventually(lambda: store.got and metrics.got)
            sick.ill = ill
            began, before, well_before = time.monotonic(), sick.asked, sum(well.got.values())
            time.sleep(ILL_SECONDS / 2)
            server.kill()
            server.start()
            time.sleep(max(0.0, ILL_SECONDS - (time.monotonic() - began)))
            assert sick.asked > before  # it was tried
            assert sum(well.got.values()) > well_before + 100 * BATCH  # and the other backend has had its own meanwhile
            sick.ill = ""
            load.end()
            eventually(lambda: missing(load, store, metrics) == 0, 120)
        sent = sum(len(names) for names in load.acknowledged.values())
        twice = sum(count - 1 for got in (store.got, metrics.got) for count in got.values())
        record_property("sent", sent)
        record_property("twice", twice)
        print(f"{which} {ill}: {sent} acknowledged, 0 missing, {twice} twice")
        # Whatever is in flight at the kill, four requests of at most 5,000 for each signal, may come a second time.
        assert twice <= 3 * 4 * 5000


def test_a_full_queue_refuses_and_says_so(tmp_path: Path) -> None:
    with backend() as store, backend() as metrics:
        backends = {
            "ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url, "COLLECTOR_QUEUE_ITEMS": "5000",
        }  # fmt: skip
        with collector(tmp_path, backends) as server:
            store.ill = "503"
            load = Load(server)

            def failed() -> bool:
                text = http("GET", f"http://127.0.0.1:{server.ports['METRICS']}/metrics").decode()
                counts = [
                    line for line in text.splitlines() if line.startswith("otelcol_exporter_enqueue_failed_spans")
                ]
                return any(float(line.rpartition(" ")[2]) > 0 for line in counts)

            eventually(failed)
            acknowledged = len(load.acknowledged["metrics"])
            eventually(lambda: len(load.acknowledged["metrics"]) > acknowledged + 10 * BATCH)
            store.ill = ""
            load.end()
            eventually(lambda: missing(load, store, metrics) == 0, 120)
            assert len(load.acknowledged["traces"]) < load.number  # what did not fit was refused, not swallowed
