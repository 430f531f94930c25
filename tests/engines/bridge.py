"""Stands in for Elasticsearch's OTLP end points, which the engine here lacks: OTLP in, documents out by ``_bulk``.

The documents are those of Elasticsearch 9.5's ``x-pack/plugin/otel-data`` (``SpanDocumentBuilder``,
``LogDocumentBuilder``, ``MetricDocumentBuilder``, ``TargetIndex``): flat keys under ``attributes``,
``resource.attributes`` and ``scope.attributes``, times in milliseconds, durations in nanoseconds. An attribute that
is neither a scalar nor an array of scalars is refused there, and so here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import urllib.error
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests import serving
from tests.engines.servers import http

# (data stream, document, dynamic templates by path)
Document = tuple[str, dict[str, Any], dict[str, str]]

KINDS = (None, "Internal", "Server", "Client", "Producer", "Consumer")
STATUS = (None, "Ok", "Error")
_ROUTING = ("data_stream.type", "data_stream.dataset", "data_stream.namespace", "elasticsearch.index")


class RefusedError(Exception):
    """An attribute that Elasticsearch does not take."""


class BusyError(Exception):
    """A document that Elasticsearch would take later: its disk or its queue is full. The answer to all is 429 then."""


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind not in ("string_value", "bool_value", "int_value", "double_value"):
        raise RefusedError(f"Unsupported attribute value type: {kind}")
    return getattr(value, kind)


def _attributes(holder: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "attributes": {pair.key: _value(pair.value) for pair in holder.attributes if pair.key not in _ROUTING}
    }
    if getattr(holder, "dropped_attributes_count", 0):
        found["dropped_attributes_count"] = holder.dropped_attributes_count
    return found


def _some(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "", 0)}


def _stream(kind: str, record: Any, scope: Any, resource: Any) -> dict[str, str]:
    """Return the data stream of a record: attributes first, then a receiver's name in the scope."""
    wanted: dict[str, str] = {}
    for holder in (resource, scope, record):
        for pair in holder.attributes:
            if pair.key in _ROUTING:
                wanted[pair.key] = pair.value.string_value
    receiver = re.search(r"/(?:receiver|connector)/(\w+(?:receiver|connector))(?:/|$)", scope.name)
    dataset = wanted.get("data_stream.dataset") or (receiver[1] if receiver else "generic")
    return {"type": kind, "dataset": f"{dataset}.otel", "namespace": wanted.get("data_stream.namespace") or "default"}


def _document(
    kind: str, record: Any, group: Any, scoped: Any, fields: dict[str, Any], templates: dict[str, str] | None = None
) -> Document:
    stream = _stream(kind, record, scoped.scope, group.resource)
    document = {
        **fields,
        "data_stream": stream,
        "resource": _some(schema_url=group.schema_url) | _attributes(group.resource),
        "scope": _some(schema_url=scoped.schema_url, name=scoped.scope.name, version=scoped.scope.version)
        | _attributes(scoped.scope),
    }
    return f"{kind}-{stream['dataset']}-{stream['namespace']}", document, templates or {}


def spans(request: Any) -> Iterator[Document]:
    """Yield (data stream, document) of each span."""
    for group in request.resource_spans:
        for scoped in group.scope_spans:
            for span in scoped.spans:
                links = [
                    {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), **_attributes(link)}
                    for link in span.links
                ]
                fields = {
                    "@timestamp": (span.start_time_unix_nano or span.end_time_unix_nano) // 10**6,
                    "duration": span.end_time_unix_nano - span.start_time_unix_nano,
                    "kind": KINDS[span.kind],
                    "links": links or None,
                    "status": _some(code=STATUS[span.status.code], message=span.status.message) or None,
                    **_some(
                        trace_id=span.trace_id.hex(), span_id=span.span_id.hex(),
                        parent_span_id=span.parent_span_id.hex(), trace_state=span.trace_state, name=span.name,
                        dropped_events_count=span.dropped_events_count, dropped_links_count=span.dropped_links_count,
                    ),
                    **_attributes(span),
                }  # fmt: skip
                kept = {name: value for name, value in fields.items() if value is not None}
                yield _document("traces", span, group, scoped, kept)


def logs(request: Any) -> Iterator[Document]:
    """Yield (data stream, document) of each log record."""
    for group in request.resource_logs:
        for scoped in group.scope_logs:
            for record in scoped.log_records:
                time = record.time_unix_nano or record.observed_time_unix_nano
                fields = {
                    "@timestamp": f"{time // 10**6}.{time % 10**6:06d}",
                    "observed_timestamp": f"{record.observed_time_unix_nano // 10**6}",
                    **_some(
                        severity_number=record.severity_number, severity_text=record.severity_text,
                        event_name=record.event_name, span_id=record.span_id.hex(), trace_id=record.trace_id.hex(),
                    ),
                    **_attributes(record),
                }  # fmt: skip
                if record.HasField("body"):
                    fields["body"] = {"text": _value(record.body)}
                yield _document("logs", record, group, scoped, fields)


def metrics(request: Any) -> Iterator[Document]:
    """Yield a document for each group of points: one resource, scope, time, unit and set of attributes."""
    for group in request.resource_metrics:
        for scoped in group.scope_metrics:
            together: dict[tuple[Any, ...], tuple[Any, dict[str, Any], dict[str, str]]] = {}
            for metric in scoped.metrics:
                for point in getattr(metric, metric.WhichOneof("data")).data_points:
                    key = (point.time_unix_nano, metric.unit, json.dumps(_attributes(point), sort_keys=True))
                    _, values, templates = together.setdefault(key, (point, {}, {}))
                    values[metric.name], templates[f"metrics.{metric.name}"] = _number(metric, point)
            for (time, unit, attributes), (point, values, templates) in together.items():
                names = hashlib.sha256(",".join(sorted(values)).encode()).hexdigest()[:16]
                fields = {
                    "@timestamp": time // 10**6, **_some(unit=unit), **json.loads(attributes),
                    "metrics": values, "_metric_names_hash": names,
                }  # fmt: skip
                yield _document("metrics", point, group, scoped, fields, templates)


def _number(metric: Any, point: Any) -> tuple[Any, str]:
    """Return a point's value and the name of the dynamic template that it is stored by."""
    if metric.HasField("histogram"):
        # As Elasticsearch keeps histograms: the middle of each bucket that holds something, and how much.
        bounds = list(point.explicit_bounds)
        edges = zip([0.0, *bounds], [*bounds, bounds[-1] if bounds else 0.0], strict=True)
        filled = [
            ((low + high) / 2, count) for (low, high), count in zip(edges, point.bucket_counts, strict=True) if count
        ]
        return {"values": [value for value, _ in filled], "counts": [count for _, count in filled]}, "histogram"
    whole = point.WhichOneof("value") == "as_int"
    counter = metric.HasField("sum") and metric.sum.is_monotonic
    kind = f"{'counter' if counter else 'gauge'}_{'long' if whole else 'double'}"
    return (point.as_int if whole else point.as_double), kind


SIGNALS: dict[str, tuple[Any, Any, Any, str]] = {
    "traces": (ExportTraceServiceRequest, spans, ExportTraceServiceResponse, "rejected_spans"),
    "logs": (ExportLogsServiceRequest, logs, ExportLogsServiceResponse, "rejected_log_records"),
    "metrics": (ExportMetricsServiceRequest, metrics, ExportMetricsServiceResponse, "rejected_data_points"),
}


def store(url: str, documents: Iterable[Document]) -> list[str]:
    """Write documents with one ``_bulk``; returns the reason of each that was refused for good.

    Raises ``BusyError`` when one may be tried again, as ``AbstractOTLPTransportAction`` answers 429 then.
    """
    lines: list[str] = []
    for stream, document, templates in documents:
        action = {"_index": stream, **({"dynamic_templates": templates} if templates else {})}
        lines += json.dumps({"create": action}), json.dumps(document)
    if not lines:
        return []
    body = ("\n".join(lines) + "\n").encode()
    answer = json.loads(http("POST", f"{url}/_bulk", body, "application/x-ndjson"))
    failed = [item["create"] for item in answer["items"] if "error" in item["create"]]
    for item in failed:
        if item["status"] == 429:
            raise BusyError(item["error"]["reason"])
    return [item["error"]["reason"] for item in failed]


@contextmanager
def serve(elasticsearch: str) -> Iterator[str]:
    """Yield the base URL of an end point that stores in ``elasticsearch`` what arrives under ``/_otlp/v1``."""

    class Handler(serving.Handler):
        def do_POST(self) -> None:
            body = self.content()
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request, documents, response, rejected = SIGNALS[self.path.rpartition("/")[2]]
            try:
                refused = store(elasticsearch, documents(request.FromString(body)))
                answer = response()
                if refused:
                    setattr(answer.partial_success, rejected, len(refused))
                    answer.partial_success.error_message = refused[0]
                self.answer(200, answer.SerializeToString())
            except RefusedError as error:
                self.answer(400, str(error).encode())
            except BusyError as error:
                self.answer(429, str(error).encode())
            except (urllib.error.URLError, OSError) as error:
                self.answer(503, str(error).encode())

    with serving.serving(Handler) as url:
        yield url
