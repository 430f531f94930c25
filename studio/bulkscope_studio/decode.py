"""OTLP messages to rows: pure functions, one for each signal.

A row is a list in the order of ``schema.sql``. What cannot be stored is refused by record, with the
reason; what is too large is cut, and counted. The loops are written flat on purpose: at 20,000 spans a
second a function call for each attribute would cost a tenth of a core.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from bulkscope import conventions as c

MAX_STRING = 64 * 1024
MAX_ATTRIBUTES = 1000
_FIRST_NS = 31_536_000 * 10**9  # 1971: anything before is a clock that was never set
_DAY_NS = 86_400 * 10**9

_TYPES = {"s": pa.string(), "i": pa.int64(), "n": pa.int32(), "d": pa.float64(), "b": pa.bool_(),
          "D": pa.list_(pa.float64()), "I": pa.list_(pa.int64())}  # fmt: skip


def _columns(text: str) -> list[tuple[str, str]]:
    return [(name, kind) for name, _, kind in (word.partition(":") for word in text.split())]


SPANS = _columns(
    "trace_id:s span_id:s parent_span_id:s name:s kind:s start_ns:i end_ns:i status:s status_message:s scope:s "
    "resource_id:s service_name:s service_instance_id:s host_name:s pid:i bulk_id:s bulk_id_source:s job_id:s "
    "bulk_size:i outcome:s failure_domain:s error_type:s enqueue_duration:d http_route:s http_method:s "
    "http_status:n queue:s task:s wait:d delay:d attempt:n wait_ratio:d model:s provider:s input_tokens:i "
    "output_tokens:i cached_tokens:i ttft:d prefill:d decode:d cpu_time:d cpu_utilization:d cpu_exact:b "
    "cpu_pressure:d cpu_throttled:d memory_start:i memory_peak:i memory_growth:i memory_file:i memory_anon:i "
    "memory_limit:i memory_exact:b tokens_per_second:d decode_tokens_per_second:d attributes:s events:s links:s "
    "dropped:i cpu_wait:d"
)
LOGS = _columns(
    "time_ns:i observed_ns:i trace_id:s span_id:s severity_number:n severity:s event_name:s body:s scope:s "
    "resource_id:s service_name:s service_instance_id:s host_name:s pid:i bulk_id:s job_id:s attributes:s dropped:i"
)
POINTS = _columns(
    "time_ns:i start_ns:i name:s unit:s type:s temporality:s monotonic:b scope:s resource_id:s service_name:s "
    "service_instance_id:s host_name:s pid:i attributes:s value:d count:i sum:d min:d max:d bounds:D buckets:I "
    "detail:s"
)
RESOURCES = _columns("resource_id:s attributes:s")
INGEST = _columns("time_ns:i signal:s transport:s outcome:s reason:s records:i")
TABLES = {"spans": SPANS, "logs": LOGS, "points": POINTS, "resources": RESOURCES, "ingest": INGEST}

SPAN_ATTRIBUTES = {
    c.BULK_ID: "bulk_id", c.BULK_ID_SOURCE: "bulk_id_source", c.JOB_ID: "job_id", c.BULK_SIZE: "bulk_size",
    c.BULK_OUTCOME: "outcome", c.BULK_FAILURE_DOMAIN: "failure_domain", c.ERROR_TYPE: "error_type",
    c.BULK_ENQUEUE_DURATION: "enqueue_duration", c.HTTP_ROUTE: "http_route", c.HTTP_REQUEST_METHOD: "http_method",
    c.HTTP_RESPONSE_STATUS_CODE: "http_status", c.MESSAGING_DESTINATION: "queue", c.TASK_NAME: "task",
    c.TIME_IN_QUEUE: "wait", c.JOB_DELAY: "delay", c.JOB_ATTEMPT: "attempt", c.JOB_WAIT_RATIO: "wait_ratio",
    c.GEN_AI_MODEL: "model", c.GEN_AI_PROVIDER: "provider", c.GEN_AI_INPUT_TOKENS: "input_tokens",
    c.GEN_AI_OUTPUT_TOKENS: "output_tokens", c.GEN_AI_CACHED_TOKENS: "cached_tokens", c.GEN_AI_TTFT: "ttft",
    c.GEN_AI_PREFILL: "prefill", c.GEN_AI_DECODE: "decode", c.CPU_TIME: "cpu_time",
    c.CPU_UTILIZATION: "cpu_utilization", c.CPU_EXACT: "cpu_exact", c.CPU_PRESSURE: "cpu_pressure",
    c.CPU_THROTTLED: "cpu_throttled", c.CPU_WAIT: "cpu_wait",
    c.MEMORY_START: "memory_start", c.MEMORY_PEAK: "memory_peak",
    c.MEMORY_GROWTH: "memory_growth", c.MEMORY_FILE: "memory_file", c.MEMORY_ANON: "memory_anon",
    c.MEMORY_LIMIT: "memory_limit", c.MEMORY_EXACT: "memory_exact", c.TOKENS_PER_SECOND: "tokens_per_second",
    c.DECODE_TOKENS_PER_SECOND: "decode_tokens_per_second",
}  # fmt: skip
_LOG_ATTRIBUTES = {c.BULK_ID: "bulk_id", c.JOB_ID: "job_id"}

# What a column of each type takes; anything else stays among the attributes as it came.
_ACCEPTS = {"s": ("string_value",), "i": ("int_value",), "n": ("int_value",), "b": ("bool_value",),
            "d": ("double_value", "int_value")}  # fmt: skip


# Attribute: the index of its column, what the column takes, and what a number must stay below (int32 columns).
Promoted = dict[str, tuple[int, tuple[str, ...], float]]


def _promoted(columns: list[tuple[str, str]], names: dict[str, str]) -> Promoted:
    position = {
        name: (index, _ACCEPTS[kind], 2**31 if kind == "n" else math.inf)
        for index, (name, kind) in enumerate(columns)
        if kind in _ACCEPTS
    }
    return {attribute: position[column] for attribute, column in names.items()}


_SPAN_PROMOTED = _promoted(SPANS, SPAN_ATTRIBUTES)
# A parent tells of a job whose process was killed: its span says whose work it was.
_JOB_PROMOTED = _promoted(SPANS, {**SPAN_ATTRIBUTES, c.PROCESS_PID: "pid"})
_LOG_PROMOTED = _promoted(LOGS, _LOG_ATTRIBUTES)
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_CONSUMER = _KINDS.index("CONSUMER")
_STATUS = ("UNSET", "OK", "ERROR")


@dataclass
class Decoded:
    """Rows by table, and what was not taken: refused records and cut values, by reason."""

    rows: dict[str, list[list[Any]]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    truncated: Counter[str] = field(default_factory=Counter)
    accepted: int = 0

    def message(self) -> str:
        """Return what the sender is told of the refused records."""
        return "; ".join(f"{count} refused: {reason}" for reason, count in self.refused.items())

    def arrow(self) -> dict[str, pa.Table]:
        """Return the rows as Arrow tables with the columns of ``schema.sql``."""
        return {name: to_arrow(name, rows) for name, rows in self.rows.items() if rows}


def to_arrow(table: str, rows: list[list[Any]]) -> pa.Table:
    """Return rows of ``table`` as an Arrow table."""
    columns = TABLES[table]
    arrays = [
        pa.array(values, _TYPES[kind]) for (_, kind), values in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    return pa.table(arrays, names=[name for name, _ in columns])


class _Decoder:
    def __init__(self) -> None:
        self.out = Decoded()
        self.latest = time.time_ns() + _DAY_NS

    def text(self, value: str) -> str:
        if len(value) > MAX_STRING:
            self.out.truncated["string longer than 64 KiB"] += 1
            return value[:MAX_STRING]
        return value

    def value(self, any_value: Any, depth: int = 0) -> Any:
        """Return an OTLP value as what JSON can hold."""
        kind = any_value.WhichOneof("value")
        if kind == "string_value":
            return self.text(any_value.string_value)
        if kind == "double_value":
            number = any_value.double_value
            return number if math.isfinite(number) else str(number)
        if kind is None:
            return None
        if kind == "bytes_value":
            return self.text(any_value.bytes_value.hex())
        if depth > 8:
            self.out.truncated["value nested deeper than 8"] += 1
            return None
        if kind == "array_value":
            values = any_value.array_value.values
            if len(values) > MAX_ATTRIBUTES:
                self.out.truncated["array of more than 1,000 values"] += 1
            return [self.value(item, depth + 1) for item in values[:MAX_ATTRIBUTES]]
        if kind == "kvlist_value":
            return self.mapping(any_value.kvlist_value.values, depth + 1)
        return getattr(any_value, kind)

    def attributes(self, pairs: Any, row: list[Any], promoted: Promoted) -> str | None:
        """Put promoted attributes into ``row``; return the others as JSON, None when there are none."""
        rest: dict[str, Any] = {}
        if len(pairs) > MAX_ATTRIBUTES:
            self.out.truncated["more than 1,000 attributes"] += 1
            pairs = pairs[:MAX_ATTRIBUTES]
        for pair in pairs:
            any_value = pair.value
            kind = any_value.WhichOneof("value")
            place = promoted.get(pair.key)
            if place is not None and kind in place[1]:
                value = getattr(any_value, kind)
                if kind == "string_value":
                    row[place[0]] = value if len(value) <= MAX_STRING else self.text(value)
                    continue
                if -place[2] < value < place[2]:
                    row[place[0]] = value
                    continue
            key = pair.key
            if len(key) > MAX_STRING:
                key = self.text(key)
            if kind == "string_value":
                value = any_value.string_value
                rest[key] = value if len(value) <= MAX_STRING else self.text(value)
            elif kind == "int_value":
                rest[key] = any_value.int_value
            else:
                rest[key] = self.value(any_value)
        return dump(rest) if rest else None

    def mapping(self, pairs: Any, depth: int = 0) -> dict[str, Any]:
        """Return key-value pairs as a dict, at most 1,000."""
        if len(pairs) > MAX_ATTRIBUTES:
            self.out.truncated["more than 1,000 attributes"] += 1
        return {self.text(pair.key): self.value(pair.value, depth) for pair in pairs[:MAX_ATTRIBUTES]}

    def resource(self, message: Any) -> list[Any]:
        """Return the columns that a resource gives to each of its records; note the resource itself."""
        row: list[Any] = []
        rest = self.mapping(message.attributes)
        text = dump(rest)
        identity = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.out.rows.setdefault("resources", []).append([identity, text])

        def known(name: str) -> str | None:
            value = rest.get(name)
            return value if isinstance(value, str) else None

        pid = rest.get(c.PROCESS_PID)
        row += [identity, known(c.SERVICE_NAME), known(c.SERVICE_INSTANCE_ID), known(c.HOST_NAME)]
        return [*row, pid if isinstance(pid, int) and not isinstance(pid, bool) else None]

    def bad_time(self, moment: int) -> str | None:
        if moment == 0:
            return "timestamp is 0"
        if moment < _FIRST_NS:
            return "timestamp is before 1971"
        return "timestamp is more than a day in the future" if moment > self.latest else None


def dump(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys: equal attributes give equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


_INTS = {name: index for index, (name, _) in enumerate(SPANS)}
_WIDTH, _LOG_WIDTH = len(SPANS), len(LOGS)
_RESOURCE_AT = _INTS["resource_id"]
_INSTANCE_AT, _PID_AT = _INTS["service_instance_id"], _INTS["pid"]
_TAIL_AT = _INTS["attributes"]
_LOG_INDEX = {name: index for index, (name, _) in enumerate(LOGS)}


def traces(request: Any) -> Decoded:
    """Decode an ``ExportTraceServiceRequest``."""
    decoder = _Decoder()
    out = decoder.out
    rows = out.rows.setdefault("spans", [])
    for group in request.resource_spans:
        resource = decoder.resource(group.resource)
        for scoped in group.scope_spans:
            scope = decoder.text(scoped.scope.name)
            for span in scoped.spans:
                trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
                start, end = span.start_time_unix_nano, span.end_time_unix_nano
                reason = None
                if len(trace_id) != 16 or not any(trace_id):
                    reason = "trace id is not 16 bytes, or all zero"
                elif len(span_id) != 8 or not any(span_id):
                    reason = "span id is not 8 bytes, or all zero"
                elif parent and len(parent) != 8:
                    reason = "parent span id is not 8 bytes"
                elif end < start:
                    reason = decoder.bad_time(end) or "span ends before it starts"
                elif start < _FIRST_NS or end > decoder.latest:
                    reason = decoder.bad_time(start) or decoder.bad_time(end)
                if reason is not None:
                    out.refused[reason] += 1
                    continue
                row: list[Any] = [None] * _WIDTH
                row[0], row[1] = trace_id.hex(), span_id.hex()
                if parent and any(parent):
                    row[2] = parent.hex()
                row[3] = decoder.text(span.name)
                row[4] = _KINDS[span.kind] if 0 <= span.kind < 6 else _KINDS[0]
                row[5], row[6] = start, end
                code = span.status.code
                row[7] = _STATUS[code] if 0 <= code < 3 else _STATUS[0]
                row[8] = decoder.text(span.status.message) or None
                row[9] = scope
                row[_RESOURCE_AT : _RESOURCE_AT + 5] = resource
                promoted = _SPAN_PROMOTED if span.kind != _CONSUMER else _JOB_PROMOTED
                row[_TAIL_AT] = decoder.attributes(span.attributes, row, promoted)
                if row[_PID_AT] != resource[-1]:
                    row[_INSTANCE_AT] = None
                if span.events:
                    row[_TAIL_AT + 1] = dump(
                        [
                            {
                                "time_ns": event.time_unix_nano,
                                "name": decoder.text(event.name),
                                "attributes": decoder.mapping(event.attributes),
                            }
                            for event in span.events[:MAX_ATTRIBUTES]
                        ]
                    )
                if span.links:
                    row[_TAIL_AT + 2] = dump(
                        [
                            {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()}
                            for link in span.links[:MAX_ATTRIBUTES]
                        ]
                    )
                dropped = span.dropped_attributes_count + span.dropped_events_count + span.dropped_links_count
                row[_TAIL_AT + 3] = dropped or None
                rows.append(row)
    out.accepted = len(rows)
    return out


def logs(request: Any) -> Decoded:
    """Decode an ``ExportLogsServiceRequest``."""
    decoder = _Decoder()
    out = decoder.out
    rows = out.rows.setdefault("logs", [])
    for group in request.resource_logs:
        resource = decoder.resource(group.resource)
        for scoped in group.scope_logs:
            scope = decoder.text(scoped.scope.name)
            for record in scoped.log_records:
                moment = record.time_unix_nano or record.observed_time_unix_nano
                reason = decoder.bad_time(moment)
                if len(record.trace_id) not in (0, 16):
                    reason = "trace id is not 16 bytes"
                elif len(record.span_id) not in (0, 8):
                    reason = "span id is not 8 bytes"
                if reason is not None:
                    out.refused[reason] += 1
                    continue
                row: list[Any] = [None] * _LOG_WIDTH
                observed = record.observed_time_unix_nano
                row[0] = moment
                row[1] = observed if observed and decoder.bad_time(observed) is None else None
                row[2] = record.trace_id.hex() if any(record.trace_id) else None
                row[3] = record.span_id.hex() if any(record.span_id) else None
                row[4] = record.severity_number or None
                row[5] = decoder.text(record.severity_text) or None
                row[6] = decoder.text(record.event_name) or None
                body = decoder.value(record.body)
                row[7] = body if body is None or isinstance(body, str) else dump(body)
                row[8] = scope
                row[9:14] = resource
                row[_LOG_INDEX["attributes"]] = decoder.attributes(record.attributes, row, _LOG_PROMOTED)
                row[_LOG_INDEX["dropped"]] = record.dropped_attributes_count or None
                rows.append(row)
    out.accepted = len(rows)
    return out


_METRIC_TYPES = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_TEMPORALITY = (None, "delta", "cumulative")


def metrics(request: Any) -> Decoded:
    """Decode an ``ExportMetricsServiceRequest``; a record is a data point."""
    decoder = _Decoder()
    rows = decoder.out.rows.setdefault("points", [])
    for group in request.resource_metrics:
        resource = decoder.resource(group.resource)
        for scoped in group.scope_metrics:
            scope = decoder.text(scoped.scope.name)
            for metric in scoped.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                data = getattr(metric, kind)
                temporality = _TEMPORALITY[data.aggregation_temporality % 3] if kind in _METRIC_TYPES[1:4] else None
                monotonic = data.is_monotonic if kind == "sum" else None
                head = [
                    decoder.text(metric.name),
                    decoder.text(metric.unit) or None,
                    kind,
                    temporality,
                    monotonic,
                    scope,
                    *resource,
                ]
                for point in data.data_points:
                    _point(decoder, rows, kind, head, point)
    decoder.out.accepted = len(rows)
    return decoder.out


def _point(decoder: _Decoder, rows: list[list[Any]], kind: str, head: list[Any], point: Any) -> None:
    reason = decoder.bad_time(point.time_unix_nano)
    value = count = total = low = high = bounds = buckets = detail = None
    if reason is None and not point.flags & 1:  # flag 1: the series says that it has no value
        if kind in ("gauge", "sum"):
            which = point.WhichOneof("value")
            value = None if which is None else float(getattr(point, which))
            if value is None:
                reason = "point without a value"
        else:
            count, total = point.count, point.sum if kind == "summary" or point.HasField("sum") else None
            if kind != "summary":
                low = point.min if point.HasField("min") else None
                high = point.max if point.HasField("max") else None
            if kind == "histogram":
                bounds, buckets = list(point.explicit_bounds), list(point.bucket_counts)
                if buckets and len(buckets) != len(bounds) + 1:
                    reason = "histogram whose buckets do not fit its bounds"
                elif sum(buckets) != count and buckets:
                    reason = "histogram whose buckets do not add up to its count"
            elif kind == "summary":
                detail = dump([[q.quantile, q.value] for q in point.quantile_values])
            else:
                detail = dump(
                    {
                        "scale": point.scale,
                        "zero_count": point.zero_count,
                        "positive": [point.positive.offset, list(point.positive.bucket_counts)],
                        "negative": [point.negative.offset, list(point.negative.bucket_counts)],
                    }
                )
        if any(n is not None and not math.isfinite(n) for n in (value, total, low, high, *(bounds or ()))):
            reason = "value is NaN or infinite"
        if any(n is not None and n >= 2**63 for n in (count, *(buckets or ()))):
            reason = "count beyond 64 bits"
    if reason is not None:
        decoder.out.refused[reason] += 1
        return
    attributes = decoder.attributes(point.attributes, [], {})
    start = point.start_time_unix_nano
    start = start if 0 < start <= point.time_unix_nano else None
    rows.append(
        [point.time_unix_nano, start, *head, attributes, value, count, total, low, high, bounds, buckets, detail]
    )


def ingest_rows(decoded: Decoded, signal: str, transport: str) -> list[list[Any]]:
    """Return the rows of table ``ingest`` that say what was refused or cut."""
    now = time.time_ns()
    pairs: Iterable[tuple[str, Counter[str]]] = (("refused", decoded.refused), ("truncated", decoded.truncated))
    return [[now, signal, transport, kind, reason, n] for kind, found in pairs for reason, n in found.items()]
