"""Encoded spans to columns, all spans of a batch at a time.

ptars reads requests into Arrow without making an object of each span, with a description of a span that leaves
values, events and links encoded. Each attribute is then taken out of all spans at once: what its column takes goes
there, what has no column becomes JSON. Python works per value only for values of rare shapes.

What is refused, cut or out of range is what ``tests/studio/straightforward.py`` says, which decodes one span after
the other.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bulkscope import conventions as c
from bulkscope_studio.ingest.envelope import Malformed
from bulkscope_studio.storage.tables import IDS, JOB_PID, OUT_OF_RANGE, SPAN_PLACES, Place
from bulkscope_studio.storage.values import (
    FIRST_NS,
    LONG_STRING,
    MANY_ATTRIBUTES,
    MAX_ATTRIBUTES,
    MAX_STRING,
    Values,
    dump,
)

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

# OpenTelemetry's SDKs keep 128 of each; a request that sent jobs may link to many.
MAX_EVENTS, MAX_LINKS = 128, 1000
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_CONSUMER = _KINDS.index("CONSUMER")
_STATUS = ("UNSET", "OK", "ERROR")

# What a value is: the tag of the one field that its encoding holds, or one of these.
_STRING, _BOOL, _INT, _DOUBLE = 0x0A, 0x10, 0x18, 0x21
_NOTHING, _OTHER = 0, 255


def _kinds(*taken: int) -> Mask:
    found = np.zeros(256, np.bool_)
    found[list(taken)] = True
    return found


# By kind of column: the values that it takes, how they are held, and whether there is a range.
_TAKES = {"s": _kinds(_STRING), "b": _kinds(_BOOL), "i": _kinds(_INT), "n": _kinds(_INT), "d": _kinds(_INT, _DOUBLE)}
_DTYPES = {"s": np.int64, "b": np.bool_, "i": np.int64, "n": np.int32, "d": np.float64}
_MEASURED = "ind"
# Bytes that JSON does not take as they are.
_ESCAPED = np.isin(np.arange(256), [*range(0x20), ord('"'), ord("\\")])


class Requests:
    """Encoded requests for traces as columns: ``owner`` (n) is the place in ``scopes`` of each span's own.

    ``scopes`` are pairs of resource and scope, encoded.

    A resource without spans is a scope without spans. Raises ``Malformed``.
    """

    def __init__(self, encoded: list[bytes]) -> None:
        try:
            batch = reader().list_to_record_batch(encoded)
        except ValueError as error:
            raise Malformed(str(error)) from error
        groups = batch.column("groups").flatten()
        of_group = pc.struct_field(groups, "scopes")
        scopes = of_group.flatten()
        of_scope = pc.struct_field(scopes, "spans")
        names = iter(_whole(pc.struct_field(scopes, "scope")))
        self.scopes: list[tuple[bytes, bytes]] = []
        places: list[int] = []
        for resource, count in zip(
            _whole(pc.struct_field(groups, "resource")), _lengths(of_group).tolist(), strict=True
        ):
            places += range(len(self.scopes), len(self.scopes) + count)
            self.scopes += [(resource, next(names)) for _ in range(count)] or [(resource, b"")]
        self.owner = np.repeat(np.array(places, np.int64), _lengths(of_scope))
        spans = of_scope.flatten()
        self.spans = {field.name: column for field, column in zip(spans.type, spans.flatten(), strict=True)}

    def __len__(self) -> int:
        return len(self.owner)


def _whole(parts: pa.Array) -> list[bytes]:
    """Return messages of their parts: one that comes in several is what their bytes make when they are joined."""
    return [b"".join(some) for some in parts.to_pylist()]


def decode(requests: Requests, values: Values, refused: Counter[str]) -> tuple[dict[str, pa.Array], Array]:
    """Return the columns of spans that come from the spans themselves, and which spans they are of.

    Columns without a value are left out; ``pid`` is there when a job's span says whose work it was. Refused spans
    are counted by reason. Raises ``Malformed``.
    """
    if not len(requests):
        return {}, np.zeros(0, np.int64)
    spans = requests.spans
    good = _good(spans, values, refused)
    kept = np.flatnonzero(good)
    if len(kept) < len(good):
        chosen = pa.array(kept)
        spans = {name: column.take(chosen) for name, column in spans.items()}
    if not len(kept):
        return {}, kept
    kind = _ints(spans["kind"])
    kind = np.where((kind >= 0) & (kind < len(_KINDS)), kind, 0)
    columns: dict[str, pa.Array | None] = {
        "trace_id": _hex(spans["trace_id"], 16),
        "span_id": _hex(spans["span_id"], 8),
        "parent_span_id": _hex(spans["parent_span_id"], 8),
        "name": _cut(spans["name"], values),
        "kind": pa.array(_KINDS).take(pa.array(kind)),
        "start_ns": spans["start"].view(pa.int64()),
        "end_ns": spans["end"].view(pa.int64()),
        **_status(spans["status"], values),
        "events": _lists(spans["events"], lambda one: _events(one, values)),
        "links": _lists(spans["links"], lambda one: _links(one, values)),
        "dropped": _dropped(spans),
        **_Attributes(spans["attributes"], kind == _CONSUMER, values).columns(),
    }
    return {name: column for name, column in columns.items() if column is not None}, kept


@cache
def reader() -> Any:
    """Return what reads requests into Arrow: strings are checked, values, events and links stay encoded."""
    import ptars

    field = descriptor_pb2.FieldDescriptorProto
    text, binary, fixed = field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_FIXED64
    file = descriptor_pb2.FileDescriptorProto(name="bulkscope_traces.proto", package="bulkscope", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int | str]) -> None:
        made = file.message_type.add(name=name)
        for label, number, kind in fields:
            one = made.field.add(name=label.rstrip("*"), number=number)
            one.label = field.LABEL_REPEATED if label.endswith("*") else field.LABEL_OPTIONAL
            if isinstance(kind, str):
                one.type, one.type_name = field.TYPE_MESSAGE, kind
            else:
                one.type = kind  # type: ignore[assignment]

    # Values, resources and scopes are repeated, for a message that comes in several parts is what their bytes make
    # when they are joined.
    message("Pair", ("key", 1, text), ("value*", 2, binary))
    message("Status", ("message", 2, text), ("code", 3, field.TYPE_INT32))
    message(
        "Span", ("trace_id", 1, binary), ("span_id", 2, binary), ("parent_span_id", 4, binary), ("name", 5, text),
        ("kind", 6, field.TYPE_INT32), ("start", 7, fixed), ("end", 8, fixed), ("attributes*", 9, ".bulkscope.Pair"),
        ("dropped_attributes", 10, field.TYPE_UINT32), ("events*", 11, binary),
        ("dropped_events", 12, field.TYPE_UINT32), ("links*", 13, binary), ("dropped_links", 14, field.TYPE_UINT32),
        ("status", 15, ".bulkscope.Status"),
    )  # fmt: skip
    message("Scope", ("scope*", 1, binary), ("spans*", 2, ".bulkscope.Span"))
    message("Group", ("resource*", 1, binary), ("scopes*", 2, ".bulkscope.Scope"))
    message("Request", ("groups*", 1, ".bulkscope.Group"))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    handlers = ptars.HandlerPool([pool.FindFileByName(file.name)])
    return handlers.get_for_message(pool.FindMessageTypeByName("bulkscope.Request"))


def _good(spans: dict[str, pa.Array], values: Values, refused: Counter[str]) -> Mask:
    """Return which spans can be kept; the others are counted by reason."""
    lengths, zero = {}, {}
    for name, width in (("trace_id", 16), ("span_id", 8), ("parent_span_id", 8)):
        lengths[name] = _lengths(spans[name])
        zero[name] = lengths[name] != width
        right = np.flatnonzero(~zero[name])
        zero[name][right] = ~_fixed(spans[name], right, width).any(axis=1)
    start, end = _ints(spans["start"]), _ints(spans["end"])
    good: Mask = ~(zero["trace_id"] | zero["span_id"])
    good &= (lengths["parent_span_id"] == 0) | (lengths["parent_span_id"] == 8)
    good &= (end >= start) & (start >= FIRST_NS) & (end <= values.latest)
    for row in np.flatnonzero(~good).tolist():
        began, ended = int(start[row]), int(end[row])
        if zero["trace_id"][row]:
            reason = "trace id is not 16 bytes, or all zero"
        elif zero["span_id"][row]:
            reason = "span id is not 8 bytes, or all zero"
        elif lengths["parent_span_id"][row] not in (0, 8):
            reason = "parent span id is not 8 bytes"
        elif ended < began:
            reason = values.bad_time(ended) or "span ends before it starts"
        else:
            reason = values.bad_time(began) or values.bad_time(ended) or ""
        refused[reason] += 1
    return good


def _status(status: pa.Array, values: Values) -> dict[str, pa.Array | None]:
    if status.null_count == len(status):
        return {"status": pa.repeat(_STATUS[0], len(status))}
    message, code = (pc.struct_field(status, name) for name in ("message", "code"))
    codes = _ints(code.fill_null(0))
    codes = np.where((codes >= 0) & (codes < len(_STATUS)), codes, 0)
    said = _lengths(message.fill_null("")) > 0
    text = _cut(message.fill_null(""), values) if said.any() else None
    return {
        "status": pa.array(_STATUS).take(pa.array(codes)),
        "status_message": None if text is None else pc.if_else(pa.array(said), text, None),
    }


def _dropped(spans: dict[str, pa.Array]) -> pa.Array | None:
    names = ("dropped_attributes", "dropped_events", "dropped_links")
    total = sum(_ints(spans[name]).astype(np.int64) for name in names)
    return pa.array(total, mask=total == 0) if np.any(total) else None


def _lists(encoded: pa.Array, told: Any) -> pa.Array | None:
    """Return JSON of the spans that have events or links, None when no span has."""
    found = _lengths(encoded) > 0
    if not found.any():
        return None
    texts: list[str | None] = [None] * len(encoded)
    for row in np.flatnonzero(found).tolist():
        texts[row] = told(encoded[row].as_py())
    return pa.array(texts, pa.string())


def _events(encoded: list[bytes], values: Values) -> str:
    if len(encoded) > MAX_EVENTS:
        values.truncated["more than 128 events"] += 1
    events = [_message(Span.Event, one) for one in encoded[:MAX_EVENTS]]
    return dump(
        [
            {
                "time_ns": event.time_unix_nano,
                "name": values.text(event.name),
                "attributes": values.mapping(event.attributes),
            }
            for event in events
        ]
    )


def _links(encoded: list[bytes], values: Values) -> str | None:
    if len(encoded) > MAX_LINKS:
        values.truncated["more than 1,000 links"] += 1
    links = [_message(Span.Link, one) for one in encoded[:MAX_LINKS]]
    good = [link for link in links if len(link.trace_id) == 16 and len(link.span_id) == 8]
    if len(good) < len(links):
        values.truncated["link without a trace id of 16 bytes and a span id of 8"] += len(links) - len(good)
    return dump([{"trace_id": one.trace_id.hex(), "span_id": one.span_id.hex()} for one in good]) if good else None


def _message(kind: Any, encoded: bytes) -> Any:
    try:
        return kind.FromString(encoded)
    except DecodeError as error:
        raise Malformed(str(error)) from error


class _Attributes:
    """The attributes of a batch of spans: ``n`` spans with ``m`` attributes, one after the other.

    ``span`` (m) is the span of each; ``kind`` (m) what its value is; ``number`` (m) the value of numbers as a double;
    ``whole`` (m) of integers; ``string`` (m) the place of strings in ``strings``; ``other`` values of rare shapes.
    """

    def __init__(self, attributes: pa.Array, consumer: Mask, values: Values) -> None:
        self.values, self.consumer, self.n = values, consumer, len(attributes)
        counts = _lengths(attributes)
        pairs = attributes.flatten()
        many = counts > MAX_ATTRIBUTES
        if many.any():
            values.truncated[MANY_ATTRIBUTES] += int(many.sum())
            first = np.repeat(np.cumsum(counts) - counts, counts)
            pairs = pairs.filter(pa.array(np.arange(len(pairs)) - first < MAX_ATTRIBUTES))
            counts = np.minimum(counts, MAX_ATTRIBUTES)
        self.span = np.repeat(np.arange(self.n), counts)
        keys = pc.struct_field(pairs, "key").dictionary_encode()
        self.keys: list[str] = keys.dictionary.to_pylist()
        self.key = _ints(keys.indices)
        parts = pc.struct_field(pairs, "value")
        encoded = parts.flatten()
        if not (_lengths(parts) == 1).all():  # none, or in several parts
            encoded = pa.array([b"".join(one) for one in parts.to_pylist()], pa.binary())
        self._read(encoded)

    def _read(self, encoded: pa.Array) -> None:
        """Read values as every encoder writes them; hand others to protobuf."""
        m = len(encoded)
        offsets, data = _offsets(encoded), _data(encoded)
        at, length = offsets[:-1], offsets[1:] - offsets[:-1]
        filled = length > 0
        tag = np.zeros(m, np.uint8)
        tag[filled] = data[at[filled]]
        self.kind = np.full(m, _OTHER, np.uint8)
        self.kind[~filled] = _NOTHING
        self.number, self.whole = np.zeros(m), np.zeros(m, np.int64)
        self.strings: pa.Array
        self.other: dict[int, Any] = {}

        rows = np.flatnonzero((tag == _DOUBLE) & (length == 9))
        self.kind[rows] = _DOUBLE
        self.number[rows] = np.ascontiguousarray(_gather(data, at[rows] + 1, 8)).view("<f8").ravel()

        rows = np.flatnonzero((tag == _BOOL) & (length == 2))
        flags = data[at[rows] + 1]
        rows, flags = rows[flags < 2], flags[flags < 2]
        self.kind[rows] = _BOOL
        self.whole[rows] = flags

        rows = np.flatnonzero((tag == _INT) & (length > 1) & (length < 12))
        if len(rows):
            rows = self._integers(rows, data, at, length)
            self.number[rows] = self.whole[rows]

        self._strings(encoded, tag, data, at, length)
        texts: list[str] = []
        for row in np.flatnonzero(self.kind == _OTHER).tolist():
            self._other(row, encoded[row].as_py(), texts)
        if texts:
            self.strings = pa.concat_arrays([self.strings, pa.array(texts, pa.string())])

    def _integers(self, rows: Array, data: Array, at: Array, length: Array) -> Array:
        """Read varints; return those that end where their value ends."""
        value, right = np.zeros(len(rows), np.uint64), np.ones(len(rows), np.bool_)
        for place in range(int(length[rows].max()) - 1):
            inside = np.flatnonzero(length[rows] > place + 1)
            byte = data[at[rows[inside]] + 1 + place]
            last = length[rows[inside]] == place + 2
            right[inside] &= (byte < 0x80) == last
            if place == 9:
                right[inside] &= byte < 2
            value[inside] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * place)
        rows = rows[right]
        self.kind[rows] = _INT
        self.whole[rows] = value[right].view(np.int64)
        return rows

    def _strings(self, encoded: pa.Array, tag: Array, data: Array, at: Array, length: Array) -> None:
        """Take out the strings whose length is where every encoder writes it, in one to three bytes."""
        skip = np.zeros(len(encoded), np.int32)
        rows = np.flatnonzero((tag == _STRING) & (length > 1))
        size = data[at[rows] + 1].astype(np.int64)
        right = (size < 0x80) & (size + 2 == length[rows])
        skip[rows[right]] = 2
        for more in (2, 3):
            rows = rows[(size >= 0x80) & (length[rows] > more)]
            if not len(rows):
                break
            written = _gather(data, at[rows] + 1, more).astype(np.int64)
            size = written[:, -1]
            right = (size < 0x80) & ((written & 0x7F) @ (1 << 7 * np.arange(more)) + 1 + more == length[rows])
            skip[rows[right]] = 1 + more
        rows = np.flatnonzero(skip)
        # Each value as two: what comes before the text, and the text. One copy of the texts is all that is made.
        halves = np.empty(2 * len(encoded) + 1, np.int32)
        halves[0::2] = _offsets(encoded)
        halves[1::2] = at + skip
        both = pa.BinaryArray.from_buffers(
            pa.binary(), len(halves) - 1, [None, pa.py_buffer(halves.tobytes()), encoded.buffers()[2]]
        )
        try:
            self.strings = _cut(both.take(pa.array(2 * rows + 1)).cast(pa.string()), self.values)
        except pa.ArrowInvalid as error:
            raise Malformed("a string is not UTF-8") from error
        self.string = np.full(len(encoded), -1)
        self.string[rows] = np.arange(len(rows))
        self.kind[rows] = _STRING

    def _other(self, row: int, encoded: bytes, texts: list[str]) -> None:
        """Read one value of a rare shape; a string is to become one of ``strings``."""
        value = _message(AnyValue, encoded)
        kind = value.WhichOneof("value")
        if kind == "int_value":
            self.kind[row], self.whole[row], self.number[row] = _INT, value.int_value, value.int_value
        elif kind == "double_value":
            self.kind[row], self.number[row] = _DOUBLE, value.double_value
        elif kind == "bool_value":
            self.kind[row], self.whole[row] = _BOOL, value.bool_value
        elif kind == "string_value":
            self.kind[row], self.string[row] = _STRING, len(self.strings) + len(texts)
            texts.append(self.values.text(value.string_value))
        elif kind is None:
            self.kind[row] = _NOTHING
        else:
            self.other[row] = self.values.value(value)

    def columns(self) -> dict[str, pa.Array | None]:
        """Return the columns that the attributes have, and ``attributes``, JSON of those that have none."""
        self._numbered()
        places = [JOB_PID if key == c.PROCESS_PID else SPAN_PLACES.get(key) for key in self.keys]
        made: dict[str, pa.Array | None] = {}
        rest = np.ones(len(self.key), np.bool_)
        for kind in dict.fromkeys(place.kind for place in places if place is not None):
            chosen = [place if place is not None and place.kind == kind else None for place in places]
            made |= self._columns(chosen, kind, rest)
        made["attributes"] = self._json(np.flatnonzero(rest))
        return made

    def _numbered(self) -> None:
        """Make ids that are integers the strings of their digits."""
        ids = [number for number, key in enumerate(self.keys) if key in IDS]
        rows = np.flatnonzero(np.isin(self.key, ids) & (self.kind == _INT))
        if len(rows):
            self.kind[rows], self.string[rows] = _STRING, len(self.strings) + np.arange(len(rows))
            self.strings = pa.concat_arrays([self.strings, pa.array(self.whole[rows]).cast(pa.string())])

    def _columns(self, places: list[Place | None], kind: str, rest: Mask) -> dict[str, pa.Array]:
        """Return all columns of one kind, and strike what is in them off the rest; ``places`` are those of the keys.

        The columns are one array, cut into slices: a call for each would cost more than its values.
        """
        names = list(dict.fromkeys(place.column for place in places if place is not None))
        number = {name: at for at, name in enumerate(names)}
        of_key = np.array([-1 if place is None else number[place.column] for place in places])
        column = of_key[self.key]
        rows = np.flatnonzero((column >= 0) & _TAKES[kind][self.kind])
        if kind == "i":  # a job's span says whose work it was; on another its process id is an attribute
            pid = [place is JOB_PID for place in places]
            if any(pid):
                rows = rows[self.consumer[self.span[rows]] | ~np.array(pid)[self.key[rows]]]
        source = self.string if kind == "s" else self.number if kind == "d" else self.whole
        found = source[rows]
        if kind in _MEASURED:
            low, high = (
                np.array([0 if place is None else getattr(place, end) for place in places], found.dtype)
                for end in ("low", "high")
            )
            keys = self.key[rows]
            inside = (found >= low[keys]) & (found <= high[keys])
            if not inside.all():
                self.values.truncated[OUT_OF_RANGE] += int((~inside).sum())
                rows, found = rows[inside], found[inside]
        if not len(rows):
            return {}
        rest[rows] = False
        # Of two in one span the later counts.
        at = column[rows] * self.n + self.span[rows]
        filled: Array = np.zeros(len(names) * self.n, _DTYPES[kind])
        absent = np.ones(len(filled), np.bool_)
        filled[at], absent[at] = found, False
        whole = pa.array(filled, mask=absent)
        if kind == "s":
            whole = self.strings.take(whole)
        given = np.bincount(column[rows], minlength=len(names)).tolist()
        return {name: whole.slice(n * self.n, self.n) for n, name in enumerate(names) if given[n]}

    def _json(self, rows: Array) -> pa.Array | None:
        """Return the attributes of these rows as one JSON object a span, as ``dump`` writes it."""
        if not len(rows):
            return None
        keys = self.keys
        if any(len(key) > MAX_STRING for key in keys):
            cut = {number for number, key in enumerate(keys) if len(key) > MAX_STRING}
            self.values.truncated[LONG_STRING] += sum(number in cut for number in self.key[rows].tolist())
            keys = [key[:MAX_STRING] for key in keys]
        names = sorted(set(keys))
        rank = {name: number for number, name in enumerate(names)}
        name = np.array([rank[key] for key in keys])[self.key[rows]]
        # By span and name; of one name twice in a span the later counts.
        by = self.span[rows] * len(names) + name
        order = np.argsort(by, kind="stable")
        order = order[np.append(np.diff(by[order]) != 0, True)]
        rows, name = rows[order], name[order]

        heads = pa.array([dump(name) + ":" for name in names])
        strings, values = self._plain(rows)
        encoded = np.ones(len(rows), np.bool_)
        encoded[strings] = False
        others = np.flatnonzero(encoded)
        members = [
            pc.binary_join_element_wise(heads.take(pa.array(name[strings])), values, "", '"'),
            pc.binary_join_element_wise(heads.take(pa.array(name[others])), self._encoded(rows[others]), ""),
        ]
        place = np.empty(len(rows), np.int64)
        place[np.concatenate([strings, others])] = np.arange(len(rows))
        ends = np.searchsorted(self.span[rows], np.arange(self.n + 1)).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(ends), pa.concat_arrays(members).take(pa.array(place)))
        objects = pc.binary_join_element_wise("{", pc.binary_join(lists, ","), "}", "")
        some = ends[1:] > ends[:-1]
        return objects if some.all() else pc.if_else(pa.array(some), objects, None)

    def _plain(self, rows: Array) -> tuple[Array, pa.Array]:
        """Return the places of strings that JSON writes as they are, and these strings."""
        places = np.flatnonzero(self.kind[rows] == _STRING)
        values = self.strings.take(pa.array(self.string[rows[places]]))
        offsets, data = _offsets(values), _data(values)
        marked = np.flatnonzero(_ESCAPED[data[: offsets[-1]]])
        if not len(marked):
            return places, values
        plain = np.ones(len(places), np.bool_)
        plain[np.searchsorted(offsets, marked, "right") - 1] = False
        return places[plain], values.filter(pa.array(plain))

    def _encoded(self, rows: Array) -> pa.Array:
        """Return values as JSON."""
        kind = self.kind[rows]
        found = np.empty(len(rows), object)
        found[kind == _INT] = self.whole[rows[kind == _INT]].tolist()
        found[kind == _BOOL] = self.whole[rows[kind == _BOOL]].astype(np.bool_).tolist()
        numbers = self.number[rows[kind == _DOUBLE]].tolist()
        found[kind == _DOUBLE] = [number if math.isfinite(number) else str(number) for number in numbers]
        # None of these has a comma in it.
        texts = orjson.dumps(found.tolist())[1:-1].split(b",") if len(rows) else []
        for place in np.flatnonzero(kind == _STRING).tolist():
            texts[place] = orjson.dumps(self.strings[int(self.string[rows[place]])].as_py())
        for place in np.flatnonzero(kind == _OTHER).tolist():
            texts[place] = dump(self.other[int(rows[place])]).encode()
        return pa.array(texts, pa.binary()).view(pa.string())


def _offsets(column: pa.Array) -> Array:
    """Return where each value of a binary, string or list column begins, and where the last ends."""
    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return np.zeros(1, np.int32)
    return np.frombuffer(buffer, np.int32)[column.offset : column.offset + len(column) + 1]


def _lengths(column: pa.Array) -> Array:
    offsets = _offsets(column)
    found: Array = offsets[1:] - offsets[:-1]
    return found


def _data(column: pa.Array) -> Array:
    buffer = column.buffers()[2]
    return np.zeros(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


def _ints(column: pa.Array) -> Array:
    """Return an integer column without nulls as numpy array, without a copy."""
    found: Array = column.to_numpy(zero_copy_only=True) if len(column) else np.zeros(0, np.int64)
    return found


def _gather(data: Array, at: Array, width: int) -> Array:
    """Return ``width`` bytes from each place, as rows."""
    if not len(at):
        return np.zeros((0, width), np.uint8)
    found: Array = data[at.astype(np.int64)[:, None] + np.arange(width)]
    return found


def _fixed(column: pa.Array, rows: Array, width: int) -> Array:
    return _gather(_data(column), _offsets(column)[:-1][rows], width)


_HEX = np.frombuffer(bytes.fromhex("".join(f"{byte:02x}".encode().hex() for byte in range(256))), np.uint16)


def _hex(column: pa.Array, width: int) -> pa.Array | None:
    """Return ids of ``width`` bytes in hex; an id that is absent or all zero is null."""
    n = len(column)
    rows = np.flatnonzero(_lengths(column) == width)
    ids = _fixed(column, rows, width)
    given = ids.any(axis=1)
    ids, rows = ids[given], rows[given]
    if not len(rows):
        return None
    there = np.zeros(n, np.bool_)
    there[rows] = True
    offsets = np.concatenate([[0], np.cumsum(np.where(there, 2 * width, 0))]).astype(np.int32)
    valid = None if len(rows) == n else pa.py_buffer(np.packbits(there, bitorder="little").tobytes())
    text = pa.py_buffer(_HEX[ids].tobytes())
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets.tobytes()), text, valid)


def _cut(strings: pa.Array, values: Values) -> pa.Array:
    """Return strings with those that are too long cut, and counted."""
    if not (_lengths(strings) > MAX_STRING).any():  # bytes: no string has more characters
        return strings
    long = pc.greater(pc.utf8_length(strings), MAX_STRING)
    values.truncated[LONG_STRING] += pc.sum(long).as_py()
    return pc.if_else(long, pc.utf8_slice_codeunits(strings, 0, MAX_STRING), strings)
