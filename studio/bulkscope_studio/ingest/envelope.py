"""The outer levels of an OTLP request, read from its bytes: resource, scope, and the bytes of each record.

The three signals have them alike: field 1 of a request is a group of one resource (1) with scopes (2), and a
scope (1) has records (2). They are read without a message of the whole request, which takes ten times the
bytes of small records: 18 MiB of spans of 47 bytes lifted the peak by 700 MiB. What reads small requests whole
(``spans``) gets large ones cut into small ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

# Records decoded at once: more make no record cheaper, and these need some 30 MiB at most.
MAX_RECORDS = 8192
MAX_BYTES = 4 * 1024 * 1024
# More than 64 MiB of the smallest spans that can be kept; 33 million empty ones, in 64 KiB of gzip, took minutes.
MAX_REQUEST = 2_000_000


# Bytes of requests for traces that are not cut, and read in native code: half a million records at most, in 60 MiB.
MAX_WHOLE = 1024 * 1024


class Malformed(ValueError):
    """Bytes that are not the protobuf message which they claim to be."""


@dataclass(slots=True)
class Group:
    """Encoded records of one scope of one resource; ``resource`` and ``scope`` are encoded messages too."""

    resource: bytes
    scope: bytes = b""
    records: list[bytes] = field(default_factory=list)


def batches(body: bytes | bytearray) -> Iterator[list[Group]]:
    """Yield the records of an encoded request, about ``MAX_RECORDS`` or ``MAX_BYTES`` at a time.

    A resource without records is a group without records. Raises ``Malformed`` where the bytes are no message;
    what is inside a record is not looked at.
    """
    batch: list[Group] = []
    count = size = total = 0
    for number, start, stop in _fields(body, 0, len(body)):
        if number != 1:
            continue
        resources, scopes = [], []
        for inner, a, b in _fields(body, start, stop):
            if inner == 1:
                resources.append(bytes(body[a:b]))
            elif inner == 2:
                scopes.append((a, b))
        # A message that comes in several parts is what their bytes make when they are joined.
        resource = b"".join(resources)
        size += len(resource)
        for begin, end in scopes or [(0, 0)]:
            group = Group(resource)
            batch.append(group)
            count += 1
            for inner, a, b in _fields(body, begin, end):
                if inner == 2:
                    group.records.append(bytes(body[a:b]))
                    count += 1
                    size += b - a
                elif inner == 1:
                    group.scope += bytes(body[a:b])
                if count >= MAX_RECORDS or size >= MAX_BYTES:
                    total = _more(total, count)
                    yield batch
                    group = Group(resource, group.scope)
                    batch, count, size = [group], 0, 0
        if count >= MAX_RECORDS or size >= MAX_BYTES:
            total = _more(total, count)
            yield batch
            batch, count, size = [], 0, 0
    if batch:
        yield batch


def requests(*bodies: bytes | bytearray) -> Iterator[list[bytes]]:
    """Yield encoded requests, some with ``MAX_WHOLE`` bytes together; a larger one is cut into several.

    Raises ``Malformed`` where one that is to be cut is no message.
    """
    some: list[bytes] = []
    size = 0
    for body in bodies:
        if size + len(body) > MAX_WHOLE and some:
            yield some
            some, size = [], 0
        if len(body) > MAX_WHOLE:
            for groups in batches(body):
                yield [b"".join(map(_request, groups))]
        else:
            some.append(bytes(body))
            size += len(body)
    if some:
        yield some


def _request(group: Group) -> bytes:
    records = b"".join(_field(2, record) for record in group.records)
    return _field(1, _field(1, group.resource) + _field(2, _field(1, group.scope) + records))


def _field(number: int, value: bytes) -> bytes:
    head, length = bytearray((number << 3 | 2,)), len(value)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + value


def _more(total: int, count: int) -> int:
    if total + count > MAX_REQUEST:
        raise Malformed(f"it has more than {MAX_REQUEST:,} records; send smaller batches")
    return total + count


def _fields(body: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, stop) of the fields with a length between two places; others are passed over."""
    try:
        while at < end:
            tag = body[at]
            at += 1
            if tag & 0x80:
                tag, at = _varint(body, at - 1)
            wire = tag & 7
            if tag < 8 or tag >= 1 << 32:
                raise Malformed("a field has no valid number")
            if wire == 2:
                length = body[at]
                at += 1
                if length & 0x80:
                    more = body[at]
                    if more & 0x80:
                        length, at = _varint(body, at - 1)
                    else:  # most spans: without a call
                        length += (more << 7) - 0x80
                        at += 1
                start, at = at, at + length
                if at > end:
                    raise Malformed("a field is longer than what it is in")
                yield tag >> 3, start, at
            elif wire == 0:
                _, at = _varint(body, at)
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            elif wire == 3:
                at = _after_group(body, at, tag >> 3)
            else:
                raise Malformed("a field has no valid type")
    except IndexError:
        raise Malformed("it ends early") from None
    if at != end:
        raise Malformed("a field is longer than what it is in")


def _after_group(body: bytes | bytearray, at: int, number: int) -> int:
    """Return where an unknown group ends: what came before fields with a length, and still is valid protobuf."""
    opened = [number]
    while opened:
        tag, at = _varint(body, at)
        wire, number = tag & 7, tag >> 3
        if wire == 0:
            _, at = _varint(body, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            length, at = _varint(body, at)
            at += length
        elif wire == 3 and len(opened) < 100:
            opened.append(number)
        elif wire != 4 or number != opened.pop():
            raise Malformed("a group does not end")
    return at


def _varint(body: bytes | bytearray, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
        if shift >= 70:
            raise Malformed("a number is longer than ten bytes")
