"""Metrics of the SDK to OTLP protobuf, as ``_otlp`` does it for spans and log records.

Field numbers are those of ``opentelemetry/proto/metrics/v1`` in OTLP 1.x.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from struct import Struct
from sys import byteorder
from typing import Any

from opentelemetry.sdk.metrics.export import ExponentialHistogram, Gauge, Histogram, MetricsData, Sum

from bulkscope._export.otlp import attributes_field, resource_field, scope_field, sized, text, varint

_DOUBLE = Struct("<d").pack
_FIXED64 = Struct("<Q").pack
_SFIXED64 = Struct("<q").pack


def _time(tag: bytes, nanoseconds: int | None) -> bytes:
    return tag + _FIXED64(nanoseconds) if nanoseconds else b""


def _double(tag: bytes, number: float | None) -> bytes:
    """Return an optional double: one that is 0 is written, one that is absent is not."""
    return b"" if number is None else tag + _DOUBLE(number)


def _packed(tag: bytes, kind: str, numbers: Iterable[float]) -> bytes:
    """Return a packed field of eight-byte numbers: ``kind`` is ``array``'s."""
    values = array(kind, numbers)
    if byteorder == "big":
        values.byteswap()
    return sized(tag, values.tobytes()) if values else b""


def _zigzag(tag: bytes, number: int) -> bytes:
    return tag + varint((number << 1 ^ number >> 63) & 0xFFFFFFFFFFFFFFFF) if number else b""


def _number(as_double: bytes, as_int: bytes, value: float) -> bytes:
    return as_int + _SFIXED64(value) if isinstance(value, int) else as_double + _DOUBLE(value)


def _exemplars(tag: bytes, exemplars: Iterable[Any]) -> bytes:
    out = []
    for exemplar in exemplars or ():
        content = _time(b"\x11", exemplar.time_unix_nano) + _number(b"\x19", b"\x31", exemplar.value)
        if exemplar.span_id is not None and exemplar.trace_id is not None:
            content += b"\x22\x08" + exemplar.span_id.to_bytes(8, "big")
            content += b"\x2a\x10" + exemplar.trace_id.to_bytes(16, "big")
        out.append(sized(tag, content + attributes_field(b"\x3a", exemplar.filtered_attributes)))
    return b"".join(out)


def _gauge_point(point: Any) -> bytes:
    return (
        _time(b"\x19", point.time_unix_nano) + _number(b"\x21", b"\x31", point.value)
        + _exemplars(b"\x2a", point.exemplars) + attributes_field(b"\x3a", point.attributes)
    )  # fmt: skip


def _sum_point(point: Any) -> bytes:
    return _time(b"\x11", point.start_time_unix_nano) + _gauge_point(point)


def _histogram_point(point: Any) -> bytes:
    return (
        _time(b"\x11", point.start_time_unix_nano) + _time(b"\x19", point.time_unix_nano)
        + _time(b"\x21", point.count) + _double(b"\x29", point.sum)
        + _packed(b"\x32", "Q", point.bucket_counts) + _packed(b"\x3a", "d", point.explicit_bounds)
        + _exemplars(b"\x42", point.exemplars) + attributes_field(b"\x4a", point.attributes)
        + _double(b"\x59", point.min) + _double(b"\x61", point.max)
    )  # fmt: skip


def _buckets(tag: bytes, buckets: Any) -> bytes:
    if not buckets.bucket_counts:
        return b""
    counts = b"".join([varint(count) for count in buckets.bucket_counts])
    return sized(tag, _zigzag(b"\x08", buckets.offset) + sized(b"\x12", counts))


def _exponential_point(point: Any) -> bytes:
    return (
        attributes_field(b"\x0a", point.attributes) + _time(b"\x11", point.start_time_unix_nano)
        + _time(b"\x19", point.time_unix_nano) + _time(b"\x21", point.count) + _double(b"\x29", point.sum)
        + _zigzag(b"\x30", point.scale) + _time(b"\x39", point.zero_count)
        + _buckets(b"\x42", point.positive) + _buckets(b"\x4a", point.negative)
        + (b"\x50" + varint(point.flags) if point.flags else b"") + _exemplars(b"\x5a", point.exemplars)
        + _double(b"\x61", point.min) + _double(b"\x69", point.max)
    )  # fmt: skip


# By type: the field of `Metric`, and how a point of it is written.
_KINDS: dict[type, tuple[bytes, Callable[[Any], bytes]]] = {
    Gauge: (b"\x2a", _gauge_point),
    Sum: (b"\x3a", _sum_point),
    Histogram: (b"\x4a", _histogram_point),
    ExponentialHistogram: (b"\x52", _exponential_point),
}


def _metric(metric: Any) -> bytes:
    data = metric.data
    tag, encode = _KINDS[type(data)]
    content = b"".join([sized(b"\x0a", encode(point)) for point in data.data_points])
    # A kind without a point is an absent field, as in the official encoder.
    if data.data_points:
        if temporality := getattr(data, "aggregation_temporality", 0):
            content += b"\x10" + varint(int(temporality))
        if getattr(data, "is_monotonic", False):
            content += b"\x18\x01"
        content = sized(tag, content)
    return (
        text(b"\x0a", metric.name)
        + text(b"\x12", metric.description or "")
        + text(b"\x1a", metric.unit or "")
        + content
    )


def encode_metrics(data: MetricsData) -> bytes:
    """Return an ``ExportMetricsServiceRequest``; raises ``KeyError`` for a kind of metric it does not know."""
    out = []
    for group in data.resource_metrics:
        parts = [resource_field(group.resource)]
        for scoped in group.scope_metrics:
            head, schema = scope_field(scoped.scope)
            metrics = b"".join([sized(b"\x12", _metric(metric)) for metric in scoped.metrics])
            parts.append(sized(b"\x12", head + metrics + schema))
        parts.append(text(b"\x1a", group.resource.schema_url or ""))
        out.append(sized(b"\x0a", b"".join(parts)))
    return b"".join(out)
