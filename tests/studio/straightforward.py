"""Decodes spans one after the other, from protobuf's own messages: what the fast decoder has to give, row by row."""

from __future__ import annotations

import math
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope import conventions as c
from bulkscope_studio.ingest.otlp_decode import Decoded, to_arrow
from bulkscope_studio.storage import workers
from bulkscope_studio.storage.tables import JOB_PID, SPAN_PLACES, SPANS, Place
from bulkscope_studio.storage.values import Values, dump

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUS = ("UNSET", "OK", "ERROR")
TAKES = {"s": ("string_value",), "i": ("int_value",), "n": ("int_value",), "b": ("bool_value",),
         "d": ("double_value", "int_value")}  # fmt: skip


def traces(body: bytes) -> Decoded:
    """Decode an ``ExportTraceServiceRequest``; raises ``google.protobuf.message.DecodeError``."""
    request = ExportTraceServiceRequest.FromString(body)
    out, values = Decoded(), Values()
    rows: list[dict[str, Any]] = []
    resources: dict[str, str] = {}
    for group in request.resource_spans:
        # What the rows of a resource have in common is made by the code that logs and points share.
        from bulkscope_studio.ingest.otlp_decode import _Part

        part = _Part("spans")
        part.values = values
        owner = part._resource(group.resource)
        resources |= part._texts
        for scoped in group.scope_spans:
            scope = values.text(scoped.scope.name)
            for span in scoped.spans:
                reason = refusal(span, values)
                if reason is not None:
                    out.refused[reason] += 1
                    continue
                names = ("resource_id", "service_name", "service_instance_id", "host_name", "pid", "worker")
                row = dict(zip(names, owner, strict=True)) | {"scope": scope} | own(span, values)
                rest = attributes(span, row, values)
                row["attributes"] = dump(rest) if rest else None
                if row["pid"] != owner[4]:
                    row["service_instance_id"] = None
                    where = part.places[row["resource_id"]]
                    row["worker"] = workers.name(where, row["pid"], None, row["service_name"])
                rows.append(row)
    out.truncated, out.accepted = values.truncated, len(rows)
    if rows:
        out.tables["spans"] = to_arrow("spans", [[row.get(name) for name, _ in SPANS] for row in rows])
    if resources:
        out.tables["resources"] = to_arrow("resources", [list(pair) for pair in resources.items()])
    return out


def refusal(span: Any, values: Values) -> str | None:
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if len(span.trace_id) != 16 or not any(span.trace_id):
        return "trace id is not 16 bytes, or all zero"
    if len(span.span_id) != 8 or not any(span.span_id):
        return "span id is not 8 bytes, or all zero"
    if len(span.parent_span_id) not in (0, 8):
        return "parent span id is not 8 bytes"
    if end < start:
        return values.bad_time(end) or "span ends before it starts"
    return values.bad_time(start) or values.bad_time(end)


def own(span: Any, values: Values) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() if any(span.parent_span_id) else None,
        "name": values.text(span.name),
        "kind": KINDS[span.kind] if 0 <= span.kind < 6 else KINDS[0],
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "status": STATUS[span.status.code] if 0 <= span.status.code < 3 else STATUS[0],
        "status_message": values.text(span.status.message) or None,
        "events": events(span, values),
        "links": links(span, values),
        "dropped": span.dropped_attributes_count + span.dropped_events_count + span.dropped_links_count or None,
    }


def events(span: Any, values: Values) -> str | None:
    if len(span.events) > 128:
        values.truncated["more than 128 events"] += 1
    found = [
        {"time_ns": one.time_unix_nano, "name": values.text(one.name), "attributes": values.mapping(one.attributes)}
        for one in span.events[:128]
    ]
    return dump(found) if found else None


def links(span: Any, values: Values) -> str | None:
    if len(span.links) > 1000:
        values.truncated["more than 1,000 links"] += 1
    found = []
    for one in span.links[:1000]:
        if len(one.trace_id) == 16 and len(one.span_id) == 8:
            found.append({"trace_id": one.trace_id.hex(), "span_id": one.span_id.hex()})
        else:
            values.truncated["link without a trace id of 16 bytes and a span id of 8"] += 1
    return dump(found) if found else None


def attributes(span: Any, row: dict[str, Any], values: Values) -> dict[str, Any]:
    """Put what has a column into ``row``; return the rest."""
    rest: dict[str, Any] = {}
    if len(span.attributes) > 1000:
        values.truncated["more than 1,000 attributes"] += 1
    for pair in span.attributes[:1000]:
        place: Place | None = SPAN_PLACES.get(pair.key)
        if pair.key == c.PROCESS_PID and span.kind == KINDS.index("CONSUMER"):
            place = JOB_PID
        kind = pair.value.WhichOneof("value")
        if pair.key in (c.BULK_ID, c.JOB_ID, c.BULK_PARENT_ID) and kind == "int_value":
            row[SPAN_PLACES[pair.key].column] = str(pair.value.int_value)
            continue
        if place is not None and kind in TAKES[place.kind]:
            value = getattr(pair.value, kind)
            if kind == "string_value":
                row[place.column] = values.text(value)
                continue
            if not isinstance(value, bool) and not (math.isfinite(value) and place.low <= value <= place.high):
                values.truncated["number out of range"] += 1
            else:
                row[place.column] = float(value) if place.kind == "d" else value
                continue
        rest[values.text(pair.key)] = values.value(pair.value)
    return rest
