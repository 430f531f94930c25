"""Random OTLP requests: valid ones with odd values, and valid ones that are then damaged in their bytes or fields."""

from __future__ import annotations

import time
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope_studio.storage.tables import LOG_ATTRIBUTES, SPAN_ATTRIBUTES

REQUESTS: dict[str, Any] = {
    "traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest,
}  # fmt: skip
TEXTS = ["", "x", "é" * 200, "y" * 20_000, "z" * 70_000, "a\0b", "\u202e", "<b>", "latest", "'; --", "\x1b[31m", "ok"]
INTEGERS = [0, 1, -1, 7, 127, 128, 300, 2**31, 2**40, 2**40 + 1, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]
DOUBLES = [0.0, -0.0, 1.5, -1.0, 5e8, 1e9, 1e300, 1.7e308, 5e-324, float("nan"), float("inf"), float("-inf")]
KEYS = [
    *SPAN_ATTRIBUTES, *LOG_ATTRIBUTES, "process.pid", "service.name", "service.instance.id", "host.name", "a", "b", "",
    "é", "k" * 70_000, "bulk.job.started", "bulk.worker.cpus",
]  # fmt: skip


def request(signal: str, rng: Random) -> Any:
    """Return a valid request of a few groups."""
    made = REQUESTS[signal]()
    groups, scopes = {
        "traces": ("resource_spans", "scope_spans"), "logs": ("resource_logs", "scope_logs"),
        "metrics": ("resource_metrics", "scope_metrics"),
    }[signal]  # fmt: skip
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        group = getattr(made, groups).add()
        for key in ("service.name", "process.pid", "service.instance.id", "x"):
            if rng.random() < 0.6:
                value(group.resource.attributes.add(key=key).value, rng)
        for _ in range(rng.randrange(3)):
            scope = getattr(group, scopes).add()
            if rng.random() < 0.7:
                scope.scope.name = rng.choice(("a", "b"))
            for _ in range(rng.randrange(5)):
                {"traces": span, "logs": log, "metrics": metric}[signal](scope, rng)
    return made


def value(target: Any, rng: Random, depth: int = 0) -> None:
    """Fill an ``AnyValue``."""
    kind = rng.randrange(8 if depth < 10 else 5)
    if kind == 0:
        target.string_value = rng.choice(TEXTS)
    elif kind == 1:
        target.int_value = rng.choice(INTEGERS)
    elif kind == 2:
        target.double_value = rng.choice(DOUBLES)
    elif kind == 3:
        target.bool_value = rng.random() < 0.5
    elif kind == 4:
        target.bytes_value = rng.randbytes(rng.randrange(5))
    elif kind == 5:
        target.array_value.SetInParent()
        for _ in range(rng.randrange(3)):
            value(target.array_value.values.add(), rng, depth + 1)
    elif kind == 6:
        target.kvlist_value.SetInParent()
        for _ in range(rng.randrange(3)):
            value(target.kvlist_value.values.add(key=rng.choice("abc")).value, rng, depth + 1)


def attributes(target: Any, rng: Random) -> None:
    for _ in range(rng.choice((0, 1, 3, 8, 12))):
        pair = target.add(key=rng.choice(KEYS))
        if rng.random() < 0.9:
            value(pair.value, rng)
    if rng.random() < 0.03:
        for n in range(1005):
            target.add(key=f"k{n % 1003}").value.int_value = n


def ids(rng: Random) -> dict[str, bytes]:
    return {
        "trace_id": rng.choice((*[rng.randbytes(16)] * 6, b"", bytes(16), b"x" * 17)),
        "span_id": rng.choice((*[rng.randbytes(8)] * 6, b"", bytes(8))),
    }


def moment(rng: Random) -> int:
    now = time.time_ns()
    return rng.choice((*[now] * 6, now - 1, now - 10**9, now + 23 * 3600 * 10**9, 0, 5, 2**63, 2**64 - 1))


def span(scope: Any, rng: Random) -> None:
    made = scope.spans.add(
        **ids(rng), parent_span_id=rng.choice((b"", rng.randbytes(8), bytes(8), b"x")), name=rng.choice(TEXTS),
        kind=rng.choice((0, 1, 2, 3, 4, 5, 5, 5, 6, -1)), start_time_unix_nano=moment(rng),
        end_time_unix_nano=moment(rng), dropped_links_count=rng.choice((0, 0, 2, 2**32 - 1)),
    )  # fmt: skip
    attributes(made.attributes, rng)
    if rng.random() < 0.3:
        made.status.code, made.status.message = rng.choice((0, 1, 2, 3, -1)), rng.choice(TEXTS)
    if rng.random() < 0.2:
        for _ in range(rng.choice((1, 2, 130))):
            event = made.events.add(name=rng.choice(TEXTS), time_unix_nano=rng.randrange(2**64))
            value(event.attributes.add(key="x").value, rng)
    if rng.random() < 0.2:
        for _ in range(rng.choice((1, 2, 1003))):
            made.links.add(trace_id=rng.choice((rng.randbytes(16), b"x")), span_id=rng.choice((rng.randbytes(8), b"")))


def log(scope: Any, rng: Random) -> None:
    made = scope.log_records.add(
        **ids(rng), time_unix_nano=moment(rng), observed_time_unix_nano=moment(rng), severity_text=rng.choice(TEXTS),
        severity_number=rng.choice((0, 9, 24, 25, -1)), event_name=rng.choice(("", "bulk.job.started")),
    )  # fmt: skip
    value(made.body, rng)
    attributes(made.attributes, rng)


def metric(scope: Any, rng: Random) -> None:
    made = scope.metrics.add(name=rng.choice(TEXTS), unit=rng.choice(("", "s", "1")))
    kind = rng.choice(("gauge", "sum", "histogram", "exponential_histogram", "summary", ""))
    if not kind:
        return
    data = getattr(made, kind)
    data.SetInParent()
    for _ in range(rng.randrange(3)):
        point = data.data_points.add(time_unix_nano=moment(rng), start_time_unix_nano=moment(rng))
        point.flags = rng.choice((0, 0, 0, 1))
        attributes(point.attributes, rng)
        if kind in ("gauge", "sum"):
            if rng.random() < 0.5:
                point.as_double = rng.choice(DOUBLES)
            else:
                point.as_int = rng.choice(INTEGERS)
            continue
        counts = [rng.choice((0, 1, 2, 2**40, 2**64 - 1)) for _ in range(rng.choice((0, 1, 3, 3, 4097)))]
        point.count, point.sum = min(sum(counts), 2**64 - 1), rng.choice(DOUBLES)
        if kind == "histogram":
            point.bucket_counts.extend(counts)
            point.explicit_bounds.extend([1.5 * n for n in range(max(0, len(counts) - rng.choice((0, 1, 1, 1))))])
        elif kind == "summary":
            for _ in counts[:1003]:
                point.quantile_values.add(quantile=rng.choice(DOUBLES), value=rng.choice(DOUBLES))
        else:
            point.scale = rng.choice((0, 5, 2**31 - 1))
            point.positive.bucket_counts.extend(counts)


def damaged(body: bytes, rng: Random) -> bytes:
    """Return bytes with one to eight places changed."""
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x12, 0x1A))
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.randrange(1, 6))
        elif kind == 3:
            del changed[at : at + rng.randrange(1, 12)]
        elif kind == 4:
            del changed[at:]
        elif kind == 5 and changed:
            other = rng.randrange(len(changed))
            changed[at:at] = changed[other : other + rng.randrange(1, 60)]
        elif kind == 6:
            changed[at : at + 8] = rng.choice((0, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
    return bytes(changed)


def rearranged(message: Any, rng: Random) -> Any:
    """Return a copy of a message with one to four fields set, removed or multiplied anywhere in it."""
    made = type(message)()
    made.CopyFrom(message)
    for _ in range(rng.choice((1, 2, 4))):
        inside: list[Any] = []
        _walk(made, inside)
        target = rng.choice(inside)
        field = rng.choice(target.DESCRIPTOR.fields)
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if not field.is_repeated:
                getattr(target, field.name).SetInParent()
                continue
            items = getattr(target, field.name)
            if len(items) and rng.random() < 0.4:
                del items[rng.randrange(len(items))]
            elif 0 < len(items) < 50:
                for _ in range(rng.choice((1, 2, 20))):
                    items.add().CopyFrom(items[0])
            else:
                items.add()
        elif field.is_repeated:
            getattr(target, field.name).extend(_scalar(field, rng) for _ in range(rng.choice((1, 2, 5))))
        else:
            setattr(target, field.name, _scalar(field, rng))
    return made


def _walk(message: Any, into: list[Any]) -> None:
    into.append(message)
    for field, found in message.ListFields():
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            for one in found if field.is_repeated else [found]:
                _walk(one, into)


_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1), FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1), FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}  # fmt: skip


def _scalar(field: Any, rng: Random) -> Any:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice((b"", bytes(16), bytes(8), rng.randbytes(16), rng.randbytes(8), rng.randbytes(30)))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice([*TEXTS, *KEYS])
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(DOUBLES)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    low, high = _LIMITS[kind]
    return min(max(moment(rng) if "time" in field.name else rng.choice([*INTEGERS, low, high]), low), high)
