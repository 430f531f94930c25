"""Processes in containers of one host name, as requests that they send: process ids repeat, containers' ids do not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope_studio.storage import sql, summaries
from bulkscope_studio.storage.store import Store
from tests import decoding, rows
from tests.studio.otlp import pairs

BEGIN = time.time_ns() - 600 * 10**9
MIB = 2**20
CONTAINERS = tuple(digit * 64 for digit in "abc")
NAMES = tuple(f"dockhost/{container[:12]}:18" for container in CONTAINERS)


class Sent:
    """What processes send; of each its container and instance."""

    def __init__(self) -> None:
        self.traces, self.logs, self.metrics = (
            ExportTraceServiceRequest(), ExportLogsServiceRequest(), ExportMetricsServiceRequest()
        )  # fmt: skip
        self.number = 0

    def _resource(self, target: Any, container: str, instance: str, pid: int) -> None:
        pairs(target.attributes, {
            "service.name": "worker", "host.name": "dockhost", "process.pid": pid, "container.id": container,
            "service.instance.id": instance, "bulk.worker.cpus": 1.0, "bulk.worker.memory.limit": 1024 * MIB,
        })  # fmt: skip

    def span(
        self, container: str, instance: str, kind: int, begin: float, end: float, pid: int = 18, **attributes: Any
    ) -> bytes:
        group = self.traces.resource_spans.add()
        self._resource(group.resource, container, instance, pid)
        self.number += 1
        span = group.scope_spans.add().spans.add(
            trace_id=self.number.to_bytes(16, "big"), span_id=self.number.to_bytes(8, "big"), name="s", kind=kind,
            start_time_unix_nano=ns(begin), end_time_unix_nano=ns(end),
        )  # fmt: skip
        pairs(span.attributes, {name.replace("__", "."): value for name, value in attributes.items()})
        return bytes(span.span_id)

    def job(self, container: str, instance: str, job: str, begin: float, end: float) -> None:
        mine: dict[str, Any] = {"bulk__id": "b", "bulk__job__id": job}
        queue: dict[str, Any] = {"messaging__destination__name": "q"}
        self.span("0" * 64, "api", 4, 0.0, 0.001, 9, **mine, **queue)
        self.span(container, instance, 5, begin, end, **mine, **queue, gen_ai__latency__time_in_queue=begin)
        self.span(
            container, instance, 1, begin, end, **mine, gen_ai__request__model="m", gen_ai__usage__output_tokens=10,
            bulk__inference__memory__peak=300 * MIB, bulk__inference__memory__file=100 * MIB,
            bulk__inference__memory__limit=1024 * MIB,
        )  # fmt: skip

    def event(
        self, container: str, instance: str, name: str, at: float, job: str, span: int, pid: int = 18, **attributes: Any
    ) -> None:
        group = self.logs.resource_logs.add()
        self._resource(group.resource, container, instance, pid)
        record = group.scope_logs.add().log_records.add(
            time_unix_nano=ns(at), event_name=name, span_id=span.to_bytes(8, "big"), trace_id=span.to_bytes(16, "big")
        )
        named = {name.replace("__", "."): value for name, value in attributes.items()}
        pairs(record.attributes, {"bulk.id": "b", "bulk.job.id": job, **named})

    def resident(self, container: str, instance: str, at: float) -> None:
        group = self.metrics.resource_metrics.add()
        self._resource(group.resource, container, instance, 18)
        metric = group.scope_metrics.add().metrics.add(name="process.memory.usage", unit="By")
        metric.gauge.data_points.add(time_unix_nano=ns(at), as_double=300.0 * MIB)

    def stored(self) -> Store:
        store = Store(Path(":memory:"))
        known: dict[str, str] = {}
        for signal in ("traces", "logs", "metrics"):
            tables = getattr(decoding, signal)(getattr(self, signal)).arrow()
            known |= dict(zip(*tables.pop("resources", rows.table("resources", [])).to_pydict().values(), strict=True))
            rows.insert(store.connection(), tables)
        resources = ({"resource_id": name, "attributes": text} for name, text in known.items())
        rows.insert(store.connection(), {"resources": rows.table("resources", resources)})
        return store


def ns(at: float) -> int:
    return BEGIN + round(at * 1e9)


def lost(store: Store) -> list[dict[str, Any]]:
    """Return the attempts of bulk b that were lost with their workers."""
    extent = summaries.extent(store, "b")
    assert extent is not None
    asked = {"bulk": "b", "silent_ns": time.time_ns(), **extent.bounds}
    found: list[dict[str, Any]] = store.query(sql.load("lost"), asked).to_pylist()
    return found
