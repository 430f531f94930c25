"""The fast decoder of spans gives what decoding one span after the other gives, for whatever protobuf can read."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bulkscope import conventions as c
from bulkscope_studio.ingest import envelope, otlp_decode
from tests import chance, decoding
from tests.chance import draws
from tests.studio import straightforward
from tests.studio.fuzz import generator
from tests.studio.otlp import traces


def same(body: bytes) -> bool:
    """Assert that both decoders agree; return whether they took the request."""
    try:
        wanted = straightforward.traces(body)
    except DecodeError:
        # What is damaged where nothing is read (behind the 1,000th attribute, say) is not looked at by the fast one.
        with suppress(otlp_decode.Malformed):
            decoding.traces(body)
        return False
    found = decoding.traces(body)
    assert (found.refused, found.truncated) == (wanted.refused, wanted.truncated)
    assert found.accepted == wanted.accepted
    assert found.tables.keys() == wanted.tables.keys()
    for name, table in wanted.tables.items():
        assert found.tables[name].schema == table.schema
        for column in table.column_names:
            assert found.tables[name][column].to_pylist() == table[column].to_pylist(), column
    return True


@draws(100)
@given(st.randoms(use_true_random=False))
def test_requests_with_odd_values(rng: Random) -> None:
    assert same(generator.request("traces", rng).SerializeToString())


@pytest.mark.chance
def test_requests_of_chance_and_damaged_ones() -> None:
    rng, taken = chance.rng(5), 0
    for _ in range(600 * chance.TIMES):
        message = generator.request("traces", rng)
        if rng.random() < 0.4:
            message = generator.rearranged(message, rng)
        body = message.SerializeToString()
        taken += same(generator.damaged(body, rng) if rng.random() < 0.5 else body)
    assert taken > 200


def field(number: int, content: bytes) -> bytes:
    """Return a field with a length, whose number and length may take several bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes(made) + bytes([value])


KEY = field(1, b"k")
# Encodings of one attribute that no encoder makes and protobuf can read.
PAIRS = {
    "value first": field(2, b"\x18\x05") + KEY,
    "no value": KEY,
    "an empty value": KEY + field(2, b""),
    "two kinds, the last counts": KEY + field(2, b"\x18\x05\x10\x01"),
    "two values that become one": KEY + field(2, b"\x18\x05") + field(2, b"\x10\x01"),
    "two arrays that become one": KEY + field(2, field(5, field(1, b"\x18\x01"))) + field(2, field(5, field(1, b""))),
    "two keys": field(1, b"first") + KEY + field(2, b"\x18\x05"),
    "a long form of a length": KEY + b"\x12\x85\x00" + b"\x0a\x81\x80\x00s",
    "a long form of an integer": KEY + field(2, b"\x18\x85\x80\x80\x00"),
    "an integer of ten bytes": KEY + field(2, b"\x18" + b"\xff" * 9 + b"\x01"),
    "a bool of many": KEY + field(2, b"\x10\x05"),
    "an unknown field in a value": KEY + field(2, b"\x18\x05" + field(90, b"x")),
    "an unknown field beside it": KEY + field(2, b"\x18\x05") + field(90, b"x") + b"\xf8\x07\x01",
    "a string of 128 bytes": KEY + field(2, field(1, b"s" * 128)),
    "a string of 16,384 bytes": KEY + field(2, field(1, b"s" * 16_384)),
    "a string of 2 MiB": KEY + field(2, field(1, b"s" * 2**21)),
    "a wire type that a value never has": KEY + field(2, b"\x0d\x01\x02\x03\x04"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_an_attribute_written_oddly(name: str) -> None:
    assert same(with_field(field(9, PAIRS[name])))


@pytest.mark.parametrize(
    "more",
    [
        field(15, b"\x18\x02") + field(15, field(2, b"said")),  # a status in two parts
        field(5, b"first") + field(5, b"second"),
        b"\x30\x85\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # a kind beyond 32 bits
        b"\x50\xff\xff\xff\xff\x0f\x60\x01",
        field(99, b"of the future"),
    ],
)
def test_a_span_written_oddly(more: bytes) -> None:
    assert same(with_field(more))


def with_field(more: bytes) -> bytes:
    """Return a request of one good span with some bytes behind it."""
    good = traces({c.BULK_ID: "b"}).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    return field(1, field(2, field(2, good + more)))


def test_groups_that_come_in_parts() -> None:
    first, second = traces({}), traces({})
    spans = [one.resource_spans[0].scope_spans[0].spans[0].SerializeToString() for one in (first, second)]
    resource = [field(1, field(1, field(1, b"service.name") + field(2, field(1, text)))) for text in (b"a", b"b")]
    scope = [field(1, field(1, b"first")), field(1, field(1, b"last"))]
    group = resource[0] + field(2, field(2, spans[0]) + scope[0] + scope[1] + field(2, spans[1])) + resource[1]
    unknown = b"\x9b\x06\x08\x01\x12\x01x\x1b\x1d1234\x1c\x9c\x06"  # a group with a group in it
    body = (
        field(1, unknown + group)
        + unknown
        + field(1, resource[1])
        + field(1, b"")
        + b"\x10\x01"
        + b"\x1d\x01\x02\x03\x04"
    )
    assert same(body)
    assert decoding.traces(body).tables["spans"]["scope"].to_pylist() == ["last", "last"]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff\xff", b"\x0a", b"\x0a\x05\x12", b"\x0b\x08", b"\x02\x00", b"\x0a\x02\x12\x05", b"\x09\x01",
        b"\x0a" + b"\xff" * 11, with_field(b"\x2a\x02\xff\xfe"), with_field(b"\x2a\x10ab"),
        with_field(field(9, KEY + field(2, field(1, b"\xff")))), with_field(field(11, b"\x12\x01\xff")),
    ],
    ids=lambda body: f"{len(body)} bytes from {body[:2].hex()}",
)  # fmt: skip
def test_bytes_that_are_no_request(body: bytes) -> None:
    with pytest.raises(DecodeError):
        ExportTraceServiceRequest.FromString(body)
    with pytest.raises(otlp_decode.Malformed):
        decoding.traces(body)


def test_a_large_request_is_decoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MAX_WHOLE", 1000)
    monkeypatch.setattr(envelope, "MAX_RECORDS", 50)
    monkeypatch.setattr(otlp_decode, "MAX_PART_ROWS", 120)
    request = traces(*({"n": n} for n in range(500)))
    request.MergeFrom(traces(*({"n": n} for n in range(500, 700)), resource={"service.name": "other"}))
    body = request.SerializeToString()
    parts = list(otlp_decode.parts("traces", body))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(part.accepted < 120 + 50 for part in parts)
    assert len(parts) >= 5
    whole = otlp_decode.Decoded.together(parts)
    assert whole.tables["spans"]["attributes"].to_pylist() == [f'{{"n":{n}}}' for n in range(700)]
    assert whole.tables["spans"]["service_name"].to_pylist() == ["tests"] * 500 + ["other"] * 200
    assert whole.nbytes >= 0.5 * sum(table.nbytes for table in whole.tables.values())
    monkeypatch.setattr(envelope, "MAX_REQUEST", 600)
    with pytest.raises(otlp_decode.Malformed, match="more than 600 records"):
        list(otlp_decode.parts("traces", body))


RANGES: list[tuple[str, Any, bool]] = [
    (c.GEN_AI_INPUT_TOKENS, 2**40, True), (c.GEN_AI_INPUT_TOKENS, 2**62, False), (c.GEN_AI_INPUT_TOKENS, -1, False),
    (c.CPU_TIME, 1.7e308, False), (c.CPU_TIME, -0.1, False), (c.CPU_TIME, 999_999_999.0, True),
    (c.TIME_IN_QUEUE, -5.0, True), (c.TIME_IN_QUEUE, -(10**10), False), (c.BULK_ENQUEUE_DURATION, 2**53 + 1, False),
    (c.MEMORY_PEAK, 2**53, True), (c.MEMORY_PEAK, 2**53 + 1, False), (c.MEMORY_GROWTH, -(2**20), True),
    (c.JOB_ATTEMPT, 2**20 + 1, False), (c.JOB_ATTEMPT, 2**40, False), (c.HTTP_RESPONSE_STATUS_CODE, -5, False),
    (c.BULK_SIZE, 2**62, False), (c.TOKENS_PER_SECOND, float("inf"), False), (c.CPU_UTILIZATION, float("nan"), False),
]  # fmt: skip


@pytest.mark.parametrize(("key", "number", "good"), RANGES)
def test_a_number_that_nothing_can_have_measured_is_absent(key: str, number: Any, good: bool) -> None:
    body = traces({key: number}, {key: 1}).SerializeToString()
    assert same(body)
    decoded = decoding.traces(body)
    column = decoded.tables["spans"][otlp_decode.SPAN_ATTRIBUTES[key]].to_pylist()
    assert column == [number if good else None, 1]
    rest = decoded.tables["spans"]["attributes"].to_pylist()
    assert rest[0] == (None if good else otlp_decode.dump({key: str(number) if "n" in str(number) else number}))
    assert decoded.truncated == ({} if good else {"number out of range": 1})


def test_events_and_links_are_bounded_and_counted() -> None:
    request = traces({})
    span = request.resource_spans[0].scope_spans[0].spans[0]
    for _ in range(129):
        span.events.add(name="e")
    for _ in range(1001):
        span.links.add(trace_id=b"\1" * 16, span_id=b"\2" * 8)
    span.links[0].trace_id = b"\0" * (1 << 20)
    span.links[1].span_id = b"\0"
    body = request.SerializeToString()
    assert same(body)
    decoded = decoding.traces(body)
    assert decoded.truncated == {
        "more than 128 events": 1, "more than 1,000 links": 1,
        "link without a trace id of 16 bytes and a span id of 8": 2,
    }  # fmt: skip
    assert len(decoded.tables["spans"]["links"][0].as_py()) < 100 * 1000
