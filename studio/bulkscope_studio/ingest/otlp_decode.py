"""Encoded OTLP requests to Arrow tables with the columns of ``schema.sql``.

What cannot be stored is refused by record, with the reason; what is too large is cut, and a number that nothing can
have measured has no column: both are counted. A large request is decoded in parts, so that memory follows the bytes
and not the number of records.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from bulkscope import conventions as c
from bulkscope_studio.ingest import spans
from bulkscope_studio.ingest.envelope import Group, Malformed, batches, requests
from bulkscope_studio.storage import workers
from bulkscope_studio.storage.tables import (
    IDS,
    JOB_PID,
    LOG_ATTRIBUTES,
    LOGS,
    POINTS,
    SPAN_ATTRIBUTES,
    SPANS,
    TABLES,
    TYPES,
    to_arrow,
)
from bulkscope_studio.storage.values import MANY_ATTRIBUTES, MAX_ATTRIBUTES, Values, dump

__all__ = [
    "LOGS", "POINTS", "SPAN_ATTRIBUTES", "TABLES", "Decoded", "Malformed", "dump", "ingest_rows", "parts",
    "to_arrow",
]  # fmt: skip

# A part of a request: what is decoded, and stored in one transaction. A request of the SDKs is one part.
MAX_PART_ROWS, MAX_PART_BYTES = 50_000, 16 * 2**20
# A metric is one message with all its points, and takes ten times its bytes while they are read.
MAX_METRIC_BYTES = 8 * 2**20
# SDKs make 160 exponential buckets a sign at most, and some tens of others.
MAX_BUCKETS, MAX_QUANTILES = 4096, 1000
_INT64 = 2**63


@dataclass
class Decoded:
    """Arrow tables by name, and what was not taken: refused records and cut values, by reason."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    truncated: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    last: bool = True  # of the parts of its request
    nbytes: int = 0  # that the tables take, or somewhat fewer: adding up their buffers costs 0.4 us a span

    def message(self) -> str:
        """Return what the sender is told of the refused records."""
        return "; ".join(f"{count} refused: {reason}" for reason, count in self.refused.items())

    def arrow(self) -> dict[str, pa.Table]:
        """Return the tables, with the columns of ``schema.sql``."""
        return dict(self.tables)

    @classmethod
    def together(cls, parts: Iterable[Decoded]) -> Decoded:
        """Return the parts of one request as one."""
        whole = cls()
        tables: dict[str, list[pa.Table]] = {}
        for part in parts:
            whole.add_counts(part)
            for name, table in part.tables.items():
                tables.setdefault(name, []).append(table)
        whole.tables = {name: pa.concat_tables(found) for name, found in tables.items()}
        return whole

    def add_counts(self, other: Decoded) -> None:
        """Add what ``other`` took and did not take."""
        self.refused += other.refused
        self.truncated += other.truncated
        self.accepted += other.accepted
        self.nbytes += other.nbytes


def parts(signal: str, *bodies: bytes | bytearray) -> Iterator[Decoded]:
    """Yield what an encoded request of ``traces``, ``logs`` or ``metrics`` holds, in parts: one at least.

    Several requests for traces are decoded as one. The last part says that it is (``last``), so that nobody decodes
    another to find out. Raises ``Malformed``, after the parts before where the request is larger than one.
    """
    table, cut, decode = _SIGNALS[signal]
    part = _Part(table)
    for some in cut(*bodies):
        for rows in decode(part, some):
            part.add(rows)
            if part.full():
                yield part.decoded(last=False)
                part = _Part(table)
        if part.full():
            yield part.decoded(last=False)
            part = _Part(table)
    yield part.decoded(last=True)


_WIDTH = {"b": 1 / 8, "n": 4, "s": 4, "D": 4, "I": 4}
# What a row takes beside its text: offsets, numbers, and a bit of each column for whether it is there.
_ROW_BYTES = {
    name: math.ceil(sum(_WIDTH.get(kind, 8) + 1 / 8 for _, kind in columns)) for name, columns in TABLES.items()
}


class _Part:
    """One part in the making."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.values = Values()
        self.refused: Counter[str] = Counter()
        self.rows = self.nbytes = 0
        self._tables: list[pa.Table] = []
        self._resources: dict[bytes, list[Any]] = {}
        self._texts: dict[str, str] = {}
        self._scopes: dict[bytes, str] = {}
        self.places: dict[str, str | None] = {}  # by resource id

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        self.rows += len(table)
        self.nbytes += len(table) * _ROW_BYTES[self.table]

    def full(self) -> bool:
        """Return whether the part is to end; refused records count too, for the time that they take."""
        return self.rows + self.refused.total() >= MAX_PART_ROWS or self.nbytes >= MAX_PART_BYTES

    def decoded(self, last: bool) -> Decoded:
        tables = {self.table: pa.concat_tables(self._tables)} if self.rows else {}
        if self._texts:
            tables["resources"] = to_arrow("resources", [list(pair) for pair in self._texts.items()])
        return Decoded(tables, self.refused, self.values.truncated, self.rows, last, self.nbytes)

    def owner(self, resource: bytes, scope: bytes) -> list[Any]:
        """Return the columns (``_OWNER``) that scope and resource, encoded, give to each record; note the resource."""
        found = self._resources.get(resource)
        if found is None:
            found = self._resources[resource] = self._resource(_message(Resource, resource))
        name = self._scopes.get(scope)
        if name is None:
            name = self._scopes[scope] = self.values.text(_message(InstrumentationScope, scope).name)
        return [name, *found]

    def _resource(self, message: Any) -> list[Any]:
        rest = self.values.mapping(message.attributes)
        text = dump(rest)
        identity = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self._texts[identity] = text
        self.nbytes += len(text) + len(identity)

        def known(name: str) -> str | None:
            value = rest.get(name)
            return value if isinstance(value, str) else None

        pid = rest.get(c.PROCESS_PID)
        good = isinstance(pid, int) and not isinstance(pid, bool) and JOB_PID.low <= pid <= JOB_PID.high
        pid = pid if good else None
        service, instance, host = map(known, (c.SERVICE_NAME, c.SERVICE_INSTANCE_ID, c.HOST_NAME))
        where = self.places[identity] = workers.place(rest)
        return [identity, service, instance, host, pid, workers.name(where, pid, instance, service, workers.slot(rest))]

    def attributes(self, pairs: Any, texts: dict[str, str | None]) -> str | None:
        """Put strings whose keys are in ``texts`` there; return the others as JSON, None when there are none."""
        values = self.values
        rest: dict[str, Any] = {}
        if len(pairs) > MAX_ATTRIBUTES:
            values.truncated[MANY_ATTRIBUTES] += 1
            pairs = pairs[:MAX_ATTRIBUTES]
        for pair in pairs:
            kind = pair.value.WhichOneof("value")
            if pair.key in texts and kind == "string_value":
                texts[pair.key] = values.text(pair.value.string_value)
            elif pair.key in texts and pair.key in IDS and kind == "int_value":
                texts[pair.key] = str(pair.value.int_value)
            else:
                rest[values.text(pair.key)] = values.value(pair.value)
        return dump(rest) if rest else None


def _message(kind: Any, encoded: bytes) -> Any:
    try:
        return kind.FromString(encoded)
    except DecodeError as error:
        raise Malformed(str(error)) from error


_OWNER = ("scope", "resource_id", "service_name", "service_instance_id", "host_name", "pid", "worker")


def _traces(part: _Part, encoded: list[bytes]) -> Iterator[pa.Table]:
    part.nbytes += sum(map(len, encoded))
    read = spans.Requests(encoded)
    owners = [part.owner(*each) for each in read.scopes]
    columns, kept = spans.decode(read, part.values, part.refused)
    if not len(kept):
        return
    owner = read.owner[kept]
    named = dict(zip(_OWNER, zip(*owners, strict=True), strict=True))
    kinds = dict(SPANS)
    of_owner = {name: _spread(pa.array(column, TYPES[kinds[name]]), owner) for name, column in named.items()}
    if "pid" in columns:  # a parent's word of a child: the work is the child's, which has no instance of its own
        pid = pc.coalesce(columns["pid"], of_owner["pid"])
        other = pc.fill_null(pc.not_equal(pid, of_owner["pid"]), pc.is_valid(pid))
        of_owner["service_instance_id"] = pc.if_else(other, None, of_owner["service_instance_id"])
        columns["pid"] = pid
        of_owner["worker"] = _told(part, of_owner, pid, other, columns.get("attributes"))
    columns = of_owner | columns
    nulls: dict[str, pa.Array] = {}
    arrays = []
    for name, kind in SPANS:
        column = columns.get(name)
        if column is None:
            column = nulls.get(kind)
            if column is None:
                column = nulls[kind] = pa.nulls(len(kept), TYPES[kind])
        arrays.append(column)
    yield pa.Table.from_arrays(arrays, [name for name, _ in SPANS])


def _told(
    part: _Part, of_owner: dict[str, pa.Array], pid: pa.Array, other: pa.Array, attributes: pa.Array | None
) -> pa.Array:
    """Return the names of workers, where ``other`` those of the processes that a span tells of."""
    names: list[str] = of_owner["worker"].to_pylist()
    for row in np.flatnonzero(other.to_numpy(zero_copy_only=False)).tolist():
        where = part.places[of_owner["resource_id"][row].as_py()]
        said = None if attributes is None else attributes[row].as_py()
        slot = None if said is None or c.WORKER_SLOT not in said else workers.slot(orjson.loads(said))
        names[row] = workers.name(where, pid[row].as_py(), None, of_owner["service_name"][row].as_py(), slot)
    return pa.array(names, pa.string())


def _spread(column: pa.Array, owner: Any) -> pa.Array:
    return pa.repeat(column[0], len(owner)) if len(column) == 1 else column.take(pa.array(owner))


_LOG_WIDTH = len(LOGS)
_LOG_INDEX = {name: index for index, (name, _) in enumerate(LOGS)}


def _logs(part: _Part, groups: list[Group]) -> Iterator[pa.Table]:
    rows = []
    for group in groups:
        part.nbytes += sum(map(len, group.records))
        owner = part.owner(group.resource, group.scope)
        for encoded in group.records:
            row = _log(part, _message(LogRecord, encoded), owner)
            if row is not None:
                rows.append(row)
    if rows:
        yield to_arrow("logs", rows)


def _log(part: _Part, record: Any, owner: list[Any]) -> list[Any] | None:
    values = part.values
    moment = record.time_unix_nano or record.observed_time_unix_nano
    reason = values.bad_time(moment)
    if len(record.trace_id) not in (0, 16):
        reason = "trace id is not 16 bytes"
    elif len(record.span_id) not in (0, 8):
        reason = "span id is not 8 bytes"
    if reason is not None:
        part.refused[reason] += 1
        return None
    row: list[Any] = [None] * _LOG_WIDTH
    observed = record.observed_time_unix_nano
    row[0] = moment
    row[1] = observed if observed and values.bad_time(observed) is None else None
    row[2] = record.trace_id.hex() if any(record.trace_id) else None
    row[3] = record.span_id.hex() if any(record.span_id) else None
    row[4] = record.severity_number or None
    row[5] = values.text(record.severity_text) or None
    row[6] = values.text(record.event_name) or None
    body = values.value(record.body)
    row[7] = body if body is None or isinstance(body, str) else dump(body)
    row[8:14], row[-1] = owner[:-1], owner[-1]
    texts: dict[str, str | None] = dict.fromkeys(LOG_ATTRIBUTES)
    row[_LOG_INDEX["attributes"]] = part.attributes(record.attributes, texts)
    for key, column in LOG_ATTRIBUTES.items():
        row[_LOG_INDEX[column]] = texts[key]
    row[_LOG_INDEX["dropped"]] = record.dropped_attributes_count or None
    return row


_METRIC_TYPES = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_TEMPORALITY = (None, "delta", "cumulative")
# Points that are rows at once.
_POINT_ROWS = 8192


def _metrics(part: _Part, groups: list[Group]) -> Iterator[pa.Table]:
    rows: list[list[Any]] = []
    for group in groups:
        part.nbytes += sum(map(len, group.records))
        owner = part.owner(group.resource, group.scope)
        for encoded in group.records:
            if len(encoded) > MAX_METRIC_BYTES:
                part.refused["metric larger than 8 MiB"] += 1
                continue
            metric = _message(Metric, encoded)
            kind = metric.WhichOneof("data")
            if kind is None:
                continue
            data = getattr(metric, kind)
            temporality = _TEMPORALITY[data.aggregation_temporality % 3] if kind in _METRIC_TYPES[1:4] else None
            monotonic = data.is_monotonic if kind == "sum" else None
            name, unit = part.values.text(metric.name), part.values.text(metric.unit) or None
            head = [name, unit, kind, temporality, monotonic, *owner[:-1]]
            for point in data.data_points:
                row = _point(part, kind, head, point)
                if row is not None:
                    rows.append([*row, owner[-1]])
                if len(rows) >= _POINT_ROWS:
                    yield to_arrow("points", rows)
                    rows = []
    if rows:
        yield to_arrow("points", rows)


def _point(part: _Part, kind: str, head: list[Any], point: Any) -> list[Any] | None:
    reason = part.values.bad_time(point.time_unix_nano)
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
                bounds, buckets, reason = _buckets(point)
            elif kind == "summary":
                if len(point.quantile_values) > MAX_QUANTILES:
                    part.values.truncated["more than 1,000 quantiles"] += 1
                detail = dump([[q.quantile, q.value] for q in point.quantile_values[:MAX_QUANTILES]])
            else:
                signs = (point.positive, point.negative)
                if any(len(sign.bucket_counts) > MAX_BUCKETS for sign in signs):
                    reason = _MANY_BUCKETS
                else:
                    positive, negative = ([sign.offset, list(sign.bucket_counts)] for sign in signs)
                    detail = dump(
                        {
                            "scale": point.scale,
                            "zero_count": point.zero_count,
                            "positive": positive,
                            "negative": negative,
                        }
                    )
        measured = [n for n in (value, total, low, high) if n is not None]
        if not all(map(math.isfinite, (*measured, *(bounds or ())))):
            reason = "value is NaN or infinite"
        elif any(abs(n) > _INT64 for n in measured):
            reason = "value beyond 64 bits"
        if any(n is not None and n >= _INT64 for n in (count, *(buckets or ()))):
            reason = "count beyond 64 bits"
    if reason is not None:
        part.refused[reason] += 1
        return None
    attributes = part.attributes(point.attributes, {})
    start = point.start_time_unix_nano
    start = start if 0 < start <= point.time_unix_nano else None
    return [point.time_unix_nano, start, *head, attributes, value, count, total, low, high, bounds, buckets, detail]


_MANY_BUCKETS = "histogram of more than 4,096 buckets"


def _buckets(point: Any) -> tuple[list[float] | None, list[int] | None, str | None]:
    """Return the bounds and counts of a histogram, and why they cannot be kept."""
    if max(len(point.bucket_counts), len(point.explicit_bounds)) > MAX_BUCKETS:
        return None, None, _MANY_BUCKETS
    bounds, buckets = list(point.explicit_bounds), list(point.bucket_counts)
    if buckets and len(buckets) != len(bounds) + 1:
        return bounds, buckets, "histogram whose buckets do not fit its bounds"
    if buckets and sum(buckets) != point.count:
        return bounds, buckets, "histogram whose buckets do not add up to its count"
    return bounds, buckets, None


# The table, what cuts requests into what is decoded at once, and what decodes it.
_SIGNALS: dict[str, tuple[str, Callable[..., Iterator[Any]], Callable[[_Part, Any], Iterator[pa.Table]]]] = {
    "traces": ("spans", requests, _traces),
    "logs": ("logs", batches, _logs),
    "metrics": ("points", batches, _metrics),
}


def ingest_rows(decoded: Decoded, signal: str, transport: str) -> list[list[Any]]:
    """Return the rows of table ``ingest`` that say what was refused or cut."""
    now = time.time_ns()
    pairs: Iterable[tuple[str, Counter[str]]] = (("refused", decoded.refused), ("truncated", decoded.truncated))
    return [[now, signal, transport, kind, reason, n] for kind, found in pairs for reason, n in found.items()]
