"""The Collector with a backend that is ill for half a minute, and killed in the middle: nothing is missing afterwards.

And with its own disk full: what it does then, and what its metrics say. The backends here answer as ill ones do; what
is under test, the Collector and the project's configuration, is real.
"""

from __future__ import annotations

import gzip
import os
import re
import socket
import struct
import subprocess
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
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import serving
from tests.engines.servers import ROOT, Server, collector, eventually, http
from tests.production.prometheus import server as prometheus

ILL_SECONDS = 30.0
BATCH = 50
# Elasticsearch's limit of an OTLP request (http.max_protobuf_content_length), of what it is unpacked.
REQUEST_BYTES = 8 << 20
# What the configuration cuts requests at.
MOST_BYTES = 4_000_000
# Of each record here.
FILLED = "x" * 250


@dataclass
class Backend:
    """An end point that keeps the number of each record that it has accepted."""

    url: str = ""
    ill: str = ""
    got: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    largest: int = 0  # bytes of a request, unpacked


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
            found.largest = max(found.largest, len(body))
            if len(body) > REQUEST_BYTES:
                self.answer(413)
                return
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
        self.refused: Counter[int] = Counter()
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
            span = spans.add(
                name=f"span{name}", trace_id=b"t" * 16, span_id=struct.pack(">Q", n + 1),
                start_time_unix_nano=now, end_time_unix_nano=now + 1,
            )  # fmt: skip
            span.attributes.add(key="filled").value.string_value = FILLED
        yield "traces", [span.name for span in spans], traces.SerializeToString()
        logs = ExportLogsServiceRequest()
        records = logs.resource_logs.add().scope_logs.add().log_records
        for name in names:
            record = records.add(time_unix_nano=now)
            record.body.string_value = f"log{name}"
            record.attributes.add(key="filled").value.string_value = FILLED
        yield "logs", [record.body.string_value for record in records], logs.SerializeToString()
        metrics = ExportMetricsServiceRequest()
        found = metrics.resource_metrics.add().scope_metrics.add().metrics
        for name in names:
            found.add(name=f"metric{name}", description=FILLED).gauge.data_points.add(time_unix_nano=now, as_double=1.0)
        yield "metrics", [metric.name for metric in found], metrics.SerializeToString()

    def _run(self) -> None:
        while not self._ended.is_set():
            for signal, names, body in self._requests():
                try:
                    http("POST", f"{self._server.url}/v1/{signal}", body, "application/x-protobuf")
                except urllib.error.HTTPError as error:
                    self.refused[error.code] += 1
                    continue  # not acknowledged: a service would keep it and try again
                except OSError:
                    continue  # the same: it was killed
                self.acknowledged[signal].update(names)
            self._ended.wait(0.02)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def counted(server: Server, metric: str, **labels: str) -> float:
    """Return the sum of a counter of the Collector's own metrics over its other labels; 0 where it has not counted."""
    text = http("GET", f"http://127.0.0.1:{server.ports['METRICS']}/metrics").decode()
    found = re.findall(rf"^{metric}(?:_total)?\{{(.*)\}} (\S+)$", text, re.MULTILINE)
    wanted = [f'{name}="{value}"' for name, value in labels.items()]
    return sum(float(value) for listed, value in found if all(one in listed for one in wanted))


def missing(load: Load, store: Backend, metrics: Backend) -> int:
    return (
        len((load.acknowledged["traces"] | load.acknowledged["logs"]) - set(store.got))
        + len(load.acknowledged["metrics"] - set(metrics.got))
    )  # fmt: skip


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
        # Whatever is in flight at the kill may come a second time: two requests each of two signals, one of metrics.
        assert twice <= (2 + 2 + 1) * MOST_BYTES / len(FILLED)


def send_logs(server: Server, sizes: list[tuple[str, int]]) -> None:
    """Send log records in one request, each a name and the bytes of an attribute."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for name, size in sizes:
        record = records.add(time_unix_nano=time.time_ns())
        record.body.string_value = name
        record.attributes.add(key="exception.stacktrace").value.string_value = "x" * size
    http("POST", f"{server.url}/v1/logs", request.SerializeToString(), "application/x-protobuf")


def test_a_backlog_of_large_records_is_cut_to_what_elasticsearch_takes(tmp_path: Path) -> None:
    """A storm of failures, every second record with a chained traceback, while Elasticsearch is away."""
    with backend() as store, backend() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        with collector(tmp_path, {**backends, "COLLECTOR_HOST_INTERVAL": "1h"}) as server:
            store.ill = "503"
            names = [f"log-{number}" for number in range(4096)]
            for first in range(0, len(names), 512):  # as an SDK sends them
                send_logs(server, [(name, 18_000 * (n % 2)) for n, name in enumerate(names[first : first + 512])])
            time.sleep(3)
            store.ill = ""
            eventually(lambda: not set(names) - set(store.got), 60)
            assert counted(server, "otelcol_exporter_send_failed_log_records") == 0
        assert MOST_BYTES / 2 < store.largest <= MOST_BYTES


def test_a_request_of_thirty_megabytes_is_taken_and_handed_on_in_parts(tmp_path: Path) -> None:
    """512 records, as many as an SDK sends at once, each with the longest traceback that ours sends."""
    with backend() as store, backend() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        with collector(tmp_path, {**backends, "COLLECTOR_HOST_INTERVAL": "1h"}) as server:
            names = [f"log-{number}" for number in range(512)]
            send_logs(server, [(name, 60_000) for name in names])
            eventually(lambda: not set(names) - set(store.got), 60)
        assert store.largest <= MOST_BYTES


def test_a_record_larger_than_a_request_takes_none_along_but_what_follows_it_in_its_own_request(tmp_path: Path) -> None:
    """exporterhelper 0.160 gives up what is left of the request, with a warning, and counts it nowhere."""
    with backend() as store, backend() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        with collector(tmp_path, {**backends, "COLLECTOR_HOST_INTERVAL": "1h"}) as server:
            send_logs(server, [("before", 10)])
            send_logs(server, [("ahead", 10), ("huge", MOST_BYTES), ("behind", 10)])
            send_logs(server, [("after", 10)])
            eventually(lambda: {"before", "ahead", "after"} <= set(store.got))
            assert "dropping items: 2" in server.log.read_text()
            send_logs(server, [("later", 10)])
            eventually(lambda: "later" in store.got)
        assert set(store.got) == {"before", "ahead", "after", "later"}


def test_a_full_queue_refuses_and_says_so(tmp_path: Path) -> None:
    with backend() as store, backend() as metrics:
        backends = {
            "ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url, "COLLECTOR_QUEUE_ITEMS": "5000",
        }  # fmt: skip
        with collector(tmp_path, backends) as server:
            store.ill = "503"
            load = Load(server)

            eventually(lambda: counted(server, "otelcol_exporter_enqueue_failed_spans") > 0)
            acknowledged = len(load.acknowledged["metrics"])
            eventually(lambda: len(load.acknowledged["metrics"]) > acknowledged + 10 * BATCH)
            store.ill = ""
            load.end()
            eventually(lambda: missing(load, store, metrics) == 0, 120)
            assert len(load.acknowledged["traces"]) < load.number  # what did not fit was refused, not swallowed


SIGNALS = ("spans", "log_records", "metric_points")


@pytest.mark.parametrize("code", ["400", "401", "500"])
def test_what_a_final_refusal_costs_is_lost_at_once_and_counted_one_by_one(tmp_path: Path, code: str) -> None:
    with backend() as store, backend() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        with collector(tmp_path, {**backends, "COLLECTOR_HOST_INTERVAL": "1h"}) as server:
            # The host's only points are delivered, and so not counted among the services'.
            eventually(lambda: store.asked and metrics.asked)
            store.ill = metrics.ill = code
            load = Load(server)
            eventually(lambda: store.asked >= 4 and metrics.asked >= 4)
            load.end()
            sent = dict(
                zip(SIGNALS, (len(load.acknowledged[one]) for one in ("traces", "logs", "metrics")), strict=True)
            )

            def lost() -> dict[str, float]:
                return {signal: counted(server, f"otelcol_exporter_send_failed_{signal}") for signal in SIGNALS}

            eventually(lambda: lost() == sent)
            asked = store.asked, metrics.asked
            store.ill = metrics.ill = ""
            again = Load(server)
            eventually(lambda: store.got and metrics.got)
            again.end()
            eventually(lambda: missing(again, store, metrics) == 0)
            assert missing(load, store, metrics) > 0  # nothing of it is kept anywhere
            assert asked < (store.asked, metrics.asked)


MIB = 2**20


class Disk:
    """A small file system of its own, which can be filled to the last block by another program's file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._other = folder / "of another program"

    @property
    def free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        with self._other.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                assert self.free == 0

    def make_room(self) -> None:
        self._other.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """What `collector` in this folder has its queues on."""
    folder = tmp_path / "storage"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={48 * MIB}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here, which takes root: {done.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def losing() -> str:
    """Return the expression of the alert that must come of it."""
    for group in yaml.safe_load((ROOT / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            if rule.get("alert") == "BulkscopeCollectorLosing":
                return str(rule["expr"])
    raise AssertionError("there is no such alert")


def test_with_its_disk_full_it_refuses_says_so_and_delivers_what_waited_when_there_is_room(
    tmp_path: Path, disk: Disk
) -> None:
    with backend() as store, backend() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        (tmp_path / "prometheus").mkdir()
        with (
            collector(tmp_path, backends) as server,
            prometheus.serve(
                tmp_path / "prometheus", {"otel-collector": f"127.0.0.1:{server.ports['METRICS']}"}
            ) as watching,
        ):
            load = Load(server)
            eventually(lambda: store.got and metrics.got)
            store.ill = metrics.ill = "503"
            # More than what is under way, of which each took what came in a second, and one in the making that is full:
            # nothing is handed out now.
            full = 1.5 * MOST_BYTES / len(FILLED)
            eventually(lambda: all(len(names) > full for names in load.acknowledged.values()), 120)
            assert not watching.query(losing())
            disk.fill()

            eventually(lambda: all(counted(server, f"otelcol_exporter_enqueue_failed_{signal}") for signal in SIGNALS))
            lost_by = {"otlphttp/elasticsearch", "otlphttp/prometheus"}
            watching.wait(losing(), lambda found: lost_by <= {labels.get("exporter") for labels, _ in found})
            # Services are answered what they try again.
            assert load.refused
            assert set(load.refused) == {503}

            # First the room, then the backends.
            disk.make_room()
            before = {signal: len(names) for signal, names in load.acknowledged.items()}
            eventually(lambda: all(len(load.acknowledged[signal]) > before[signal] + BATCH for signal in before))
            store.ill = metrics.ill = ""
            load.end()
            eventually(lambda: missing(load, store, metrics) == 0, 120)


def test_with_its_disk_full_and_the_backends_well_it_recovers_by_itself(
    tmp_path: Path, disk: Disk, record_property: Any
) -> None:
    """What is handed out of a queue while the queue's file cannot be written may be lost, and is not counted.

    The queue (exporterhelper 0.160, ``getNextItem``) notes what it hands out; where that cannot be written, it
    leaves the record out and goes on. How much that is depends on which pages of the file are free.
    """
    with backend() as store, backend() as metrics:
        backends = {"ELASTICSEARCH_ENDPOINT": store.url, "PROMETHEUS_ENDPOINT": metrics.url}
        with collector(tmp_path, backends) as server:
            full = Load(server)
            eventually(lambda: store.got and metrics.got)
            disk.fill()
            eventually(lambda: counted(server, "otelcol_exporter_enqueue_failed_spans") > 0)
            full.end()
            disk.make_room()
            after = Load(server)
            after.number = full.number
            eventually(lambda: all(len(names) > 20 * BATCH for names in after.acknowledged.values()))
            after.end()
            eventually(lambda: missing(after, store, metrics) == 0, 120)
            lost = missing(full, store, metrics)
        sent = sum(len(names) for names in full.acknowledged.values())
        record_property("sent", sent)
        record_property("lost", lost)
        print(f"disk full, backends well: {sent} acknowledged, {lost} lost")
