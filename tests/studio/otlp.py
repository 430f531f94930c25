"""Builds OTLP requests, and serves the OTLP end point in process with its store at hand."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from bulkscope_studio.ingest.intake import Intake
from bulkscope_studio.ingest.otlp_http import OtlpHttp
from bulkscope_studio.ingest.writer import Ingest
from bulkscope_studio.storage.store import Store

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
_numbers = itertools.count(1)


def pairs(target: Any, attributes: dict[str, Any]) -> None:
    """Append attributes to a repeated KeyValue field."""
    for key, value in attributes.items():
        pair = KeyValue(key=key)
        kind = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}[type(value)]
        setattr(pair.value, kind, value)
        target.append(pair)


def traces(
    *attributes: dict[str, Any], resource: dict[str, Any] | None = None, **fields: Any
) -> ExportTraceServiceRequest:
    """Return a request with a good span for each of ``attributes``; ``fields`` replace parts of every span."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    pairs(group.resource.attributes, {"service.name": "tests"} if resource is None else resource)
    scope = group.scope_spans.add()
    scope.scope.name = "scope"
    now = time.time_ns()
    for one in attributes:
        number = next(_numbers)
        good: dict[str, Any] = {
            "trace_id": number.to_bytes(16, "big"), "span_id": number.to_bytes(8, "big"), "name": "a span",
            "kind": 2, "start_time_unix_nano": now - 1000, "end_time_unix_nano": now,
        }  # fmt: skip
        pairs(scope.spans.add(**good | fields).attributes, one)
    return request


def logs(*bodies: str, **fields: Any) -> ExportLogsServiceRequest:
    """Return a request with a log record for each body."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for body in bodies:
        record = scope.log_records.add(**{"time_unix_nano": time.time_ns(), "severity_number": 9} | fields)
        record.body.string_value = body
    return request


def gauge(*values: float, name: str = "g", **fields: Any) -> ExportMetricsServiceRequest:
    """Return a request with a gauge of one point a value."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name, unit="1")
    for value in values:
        metric.gauge.data_points.add(**{"time_unix_nano": time.time_ns(), "as_double": value} | fields)
    return request


@dataclass(frozen=True)
class Receiver:
    """A receiver in process: a client for it, its store and its counts."""

    http: httpx.AsyncClient
    store: Store
    ingest: Ingest

    def rows(self, sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.store.query(sql).to_pylist()
        return found

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])

    async def refused(self) -> list[tuple[str, str]]:
        """Return (signal, reason) of every refusal, once the writer has written them."""
        await asyncio.wrap_future(self.ingest.submit_tables({}))
        return [(row["signal"], row["reason"]) for row in self.rows("SELECT * FROM ingest ORDER BY time_ns")]


@asynccontextmanager
async def receiver(folder: Path, max_body: int = 1 << 20) -> AsyncIterator[Receiver]:
    """Serve an empty store; the limit of a body is 1 MiB unless said otherwise."""
    store = Store(folder / "s.duckdb")
    ingest = Ingest(store)
    intake = Intake(ingest)
    transport = httpx.ASGITransport(OtlpHttp(intake, max_body))
    async with httpx.AsyncClient(transport=transport, base_url="http://studio") as http:
        yield Receiver(http, store, ingest)
    ingest.close()
    intake.close()
    store.close()
