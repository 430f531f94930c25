"""OTLP over HTTP: what is taken, what is refused and said, and that nothing else is lost by it."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from bulkscope_studio.ingest import envelope, otlp_decode
from bulkscope_studio.ingest import otlp_http as otlp_receiver
from tests import chance
from tests.studio.otlp import JSON, PROTOBUF, Receiver, gauge, logs, receiver, traces

FUTURE = 16725225600 * 10**9  # the year 2500
LATE = "timestamp is more than a day in the future"


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[Receiver]:
    async with receiver(tmp_path) as running:
        yield running


def spoilt(request: ExportMetricsServiceRequest) -> Any:
    return request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]


BODY = traces({}).SerializeToString()
BOMB = gzip.compress(b"\0" * (8 << 20))

WHOLE_REQUESTS = {
    "malformed protobuf": (b"\xff\xff\xff", PROTOBUF, 400, "not a protobuf"),
    "truncated protobuf": (BODY[:-3], PROTOBUF, 400, "not a protobuf"),
    "malformed JSON": (b'{"resourceSpans": [', JSON, 400, "not a JSON"),
    "JSON of another shape": (b'{"resourceSpans": 3}', JSON, 400, "not a JSON"),
    "JSON that is no object": (b"[1]", JSON, 400, "not a JSON"),
    "JSON nested deeply": (b"[" * 5000 + b"]" * 5000, JSON, 400, "not a JSON"),
    "JSON that is not UTF-8": (b'{"a": "\xff"}', JSON, 400, "not a JSON"),
    "a wrong content type": (BODY, {"content-type": "text/plain"}, 415, "application/x-protobuf"),
    "no content type": (BODY, {}, 415, "application/x-protobuf"),
    "an unknown encoding": (BODY, PROTOBUF | {"content-encoding": "br"}, 415, "gzip"),
    "broken gzip": (b"no gzip", PROTOBUF | {"content-encoding": "gzip"}, 400, "not valid gzip"),
    "gzip that ends early": (gzip.compress(BODY)[:-9], PROTOBUF | {"content-encoding": "gzip"}, 400, "not valid gzip"),
    "a gzip bomb": (BOMB, PROTOBUF | {"content-encoding": "gzip"}, 413, "larger than 1048576 bytes unpacked"),
    "gzip with something behind it": (
        gzip.compress(BODY) + b"more",
        PROTOBUF | {"content-encoding": "gzip"},
        400,
        "something else follows",
    ),
    "gzip whose second member ends early": (
        gzip.compress(BODY) + gzip.compress(BODY)[:-1],
        PROTOBUF | {"content-encoding": "gzip"},
        400,
        "ends early",
    ),
    "members beyond the limit": (
        gzip.compress(b"\0" * (1 << 20)) + gzip.compress(b"\0"),
        PROTOBUF | {"content-encoding": "gzip"},
        413,
        "larger than 1048576 bytes unpacked",
    ),
    "more members than anybody sends": (
        gzip.compress(b"") * 10_001,
        PROTOBUF | {"content-encoding": "gzip"},
        400,
        "more than 10,000 members",
    ),
    **{
        f"JSON that is {text}": (text.encode(), JSON, 400, "not a JSON ExportTraceServiceRequest")
        for text in ("1", "null", "true", "[]", '"x"', "1e999", '{"resourceSpans": {"a": 1}}')
    },
    "a large body": (b"\0" * (1 << 21), PROTOBUF, 413, "larger than 1048576 bytes"),
}


@pytest.mark.parametrize("name", WHOLE_REQUESTS)
async def test_a_request_that_cannot_be_read_is_refused_and_counted(name: str, studio: Receiver) -> None:
    body, headers, status, said = WHOLE_REQUESTS[name]
    answer = await studio.http.post("/v1/traces", content=body, headers=headers)
    assert answer.status_code == status
    message = answer.json()["message"] if headers == JSON else Status.FromString(answer.content).message
    assert said in message
    ((signal, reason),) = await studio.refused()
    assert signal == "traces"
    assert reason
    assert studio.ingest.status()["refused"] == {"traces": 1}
    # And the next one is as welcome as ever.
    assert (await studio.http.post("/v1/traces", content=BODY, headers=PROTOBUF)).status_code == 200
    assert studio.count("spans") == 1


async def test_gzip_of_two_members_is_one_body(studio: Receiver) -> None:
    both = [gzip.compress(traces({"n": n}, {"n": n}).SerializeToString()) for n in (1, 2)]
    answer = await studio.http.post(
        "/v1/traces", content=b"".join(both), headers=PROTOBUF | {"content-encoding": "gzip"}
    )
    assert (answer.status_code, answer.content) == (200, b"")
    found = studio.rows("SELECT attributes FROM spans ORDER BY 1")
    assert [row["attributes"] for row in found] == ['{"n":1}', '{"n":1}', '{"n":2}', '{"n":2}']


async def test_large_json_is_told_to_come_as_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_receiver, "MAX_JSON", 1000)
    async with receiver(tmp_path) as studio:
        answer = await studio.http.post("/v1/traces", content=b"{" + b" " * 1000 + b"}", headers=JSON)
        assert answer.status_code == 413
        assert "or protobuf" in answer.json()["message"]


async def test_a_request_of_several_parts_is_stored_whole(studio: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MAX_WHOLE", 0)
    monkeypatch.setattr(envelope, "MAX_RECORDS", 10)
    monkeypatch.setattr(otlp_decode, "MAX_PART_ROWS", 30)
    request = traces(*({"n": n} for n in range(200)))
    request.MergeFrom(traces({}, {}, span_id=b""))
    answer = await studio.http.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    said = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (said.rejected_spans, said.error_message) == (2, "2 refused: span id is not 8 bytes, or all zero")
    assert studio.count("spans") == 200
    counts = studio.ingest.status()
    assert (counts["accepted"], counts["refused"]) == ({"traces": 200}, {"traces": 2})


async def test_of_requests_that_wait_together_each_hears_of_its_own(
    studio: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first keeps the writer; the others come meanwhile and are one round, which cannot be decoded as one."""
    free, decoded = threading.Event(), []
    kept = studio.ingest.call(free.wait)
    original = otlp_decode.parts

    def parts(signal: str, *bodies: bytes) -> Any:
        decoded.append(len(bodies))
        return original(signal, *bodies)

    monkeypatch.setattr(otlp_decode, "parts", parts)
    partly = traces({"n": 3})
    partly.MergeFrom(traces({}, span_id=b""))
    # A body that is cut would be a request if it could take bytes of the next.
    bodies = [traces({"n": 1}), traces({"n": 2}), BODY[:-3], partly, traces({"n": 4})]
    first, *others = (
        asyncio.create_task(
            studio.http.post(
                "/v1/traces", content=one if isinstance(one, bytes) else one.SerializeToString(), headers=PROTOBUF
            )
        )
        for one in bodies
    )
    await asyncio.sleep(0.2)
    others.append(
        asyncio.create_task(studio.http.post("/v1/logs", content=logs("x").SerializeToString(), headers=PROTOBUF))
    )
    others += [
        asyncio.create_task(studio.http.post("/v1/traces", content=body, headers=PROTOBUF))
        for body in (traces({"n": 5}).SerializeToString(), partly.SerializeToString())
    ]
    await asyncio.sleep(0.2)
    free.set()
    answers = [await one for one in (first, *others)]
    kept.result(30)
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 200, 200, 200, 200]
    said = [
        ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans
        for answer in answers
        if answer.status_code == 200
    ]
    assert said == [0, 0, 1, 0, 0, 0, 1]
    assert max(decoded) > 1, "some were decoded as one"
    found = [row["attributes"] for row in studio.rows("SELECT attributes FROM spans ORDER BY 1")]
    assert found == [f'{{"n":{n}}}' for n in range(1, 6)]
    counts = studio.ingest.status()
    assert counts["accepted"] == {"traces": 5, "logs": 1}
    assert counts["refused"]["traces"] == 3
    assert counts["repeated"]["traces"] == 1


async def test_what_cannot_be_stored_takes_no_other_of_its_round_with_it(
    studio: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = studio.ingest._transaction

    def transaction(connection: Any, batches: list[Any]) -> Any:
        if any("poison" in batch["spans"]["name"].to_pylist() for batch in batches if "spans" in batch):
            raise duckdb.ConversionException("no such number")
        return original(connection, batches)

    monkeypatch.setattr(studio.ingest, "_transaction", transaction)
    names = ["a", "poison", "b", "c"]
    answers = await asyncio.gather(
        *(
            studio.http.post("/v1/traces", content=traces({}, name=name).SerializeToString(), headers=PROTOBUF)
            for name in names
        )
    )
    assert [answer.status_code for answer in answers] == [500 if name == "poison" else 200 for name in names]
    assert studio.count("spans") == 3


async def test_other_paths_and_methods_are_told_what_to_do(studio: Receiver) -> None:
    assert (await studio.http.post("/v1/profiles", content=b"", headers=PROTOBUF)).status_code == 404
    assert (await studio.http.get("/v1/traces", headers=PROTOBUF)).status_code == 405


RECORDS: dict[str, tuple[str, Any, str]] = {
    "a short trace id": ("traces", traces({}, trace_id=b"\1" * 15), "trace id is not 16 bytes, or all zero"),
    "a long trace id": ("traces", traces({}, trace_id=b"\1" * 17), "trace id is not 16 bytes, or all zero"),
    "no trace id": ("traces", traces({}, trace_id=b""), "trace id is not 16 bytes, or all zero"),
    "a zero trace id": ("traces", traces({}, trace_id=bytes(16)), "trace id is not 16 bytes, or all zero"),
    "a short span id": ("traces", traces({}, span_id=b"\1"), "span id is not 8 bytes, or all zero"),
    "a long parent": ("traces", traces({}, parent_span_id=b"\1" * 9), "parent span id is not 8 bytes"),
    "a start of 0": ("traces", traces({}, start_time_unix_nano=0), "timestamp is 0"),
    "an end of 0": ("traces", traces({}, end_time_unix_nano=0), "timestamp is 0"),
    "an end before the start": ("traces", traces({}, end_time_unix_nano=10**18), "span ends before it starts"),
    "the year 2500": ("traces", traces({}, end_time_unix_nano=FUTURE), LATE),
    "the end of time": ("traces", traces({}, end_time_unix_nano=2**64 - 1), LATE),
    "a log's trace id": ("logs", logs("x", trace_id=b"\1"), "trace id is not 16 bytes"),
    "a log's span id": ("logs", logs("x", span_id=b"\1"), "span id is not 8 bytes"),
    "a log without a time": ("logs", logs("x", time_unix_nano=0), "timestamp is 0"),
    "NaN": ("metrics", gauge(float("nan")), "value is NaN or infinite"),
    "infinity": ("metrics", gauge(float("-inf")), "value is NaN or infinite"),
    "a point of the year 2500": ("metrics", gauge(1, time_unix_nano=FUTURE), LATE),
    "a point without a time": ("metrics", gauge(1, time_unix_nano=0), "timestamp is 0"),
}  # fmt: skip
GOOD = {"traces": lambda: traces({}), "logs": lambda: logs("good"), "metrics": lambda: gauge(1)}
TABLE = {"traces": "spans", "logs": "logs", "metrics": "points"}
COUNT = {"traces": "rejectedSpans", "logs": "rejectedLogRecords", "metrics": "rejectedDataPoints"}


@pytest.mark.parametrize("name", RECORDS)
async def test_a_bad_record_is_refused_alone_in_a_partial_success(name: str, studio: Receiver) -> None:
    signal, bad, reason = RECORDS[name]
    both = type(bad)()
    both.CopyFrom(GOOD[signal]())
    both.MergeFrom(bad)
    body = json.dumps(with_hex_ids(json_format.MessageToDict(both)))
    answer = await studio.http.post(f"/v1/{signal}", content=body, headers=JSON)
    assert answer.status_code == 200
    assert answer.json() == {"partialSuccess": {COUNT[signal]: "1", "errorMessage": f"1 refused: {reason}"}}
    assert await studio.refused() == [(signal, reason)]
    assert studio.count(TABLE[signal]) == 1
    assert studio.ingest.status()["refused"] == {signal: 1}


def with_hex_ids(node: Any) -> Any:
    """OTLP's JSON has ids in hex where protobuf's own has base64."""
    import base64

    if isinstance(node, list):
        return [with_hex_ids(item) for item in node]
    if not isinstance(node, dict):
        return node
    ids = ("traceId", "spanId", "parentSpanId")
    return {k: base64.b64decode(v).hex() if k in ids else with_hex_ids(v) for k, v in node.items()}


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
async def test_json_and_protobuf_of_the_same_data_give_the_same_rows(encoding: str, tmp_path: Path) -> None:
    pack = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    headers = {"content-encoding": encoding} if encoding else {}
    sent = {
        "traces": traces(
            {"bulk.id": "b", "gen_ai.usage.input_tokens": 2**40, "other": 1.5, "flag": True}, parent_span_id=b"\1" * 8
        ),
        "logs": logs("one", "two", trace_id=b"\1" * 16, span_id=b"\2" * 8),
        "metrics": gauge(1.5, -2),
    }
    seen = []
    for kind in (PROTOBUF, JSON):
        (tmp_path / kind["content-type"].partition("/")[2]).mkdir()
        async with receiver(tmp_path / kind["content-type"].partition("/")[2]) as studio:
            for signal, request in sent.items():
                if kind is JSON:
                    body = json.dumps(with_hex_ids(json_format.MessageToDict(request))).encode()
                else:
                    body = request.SerializeToString()
                answer = await studio.http.post(f"/v1/{signal}", content=pack(body), headers=kind | headers)
                assert (answer.status_code, answer.content) == (200, b"{}" if kind is JSON else b"")
            seen.append([studio.rows(f"SELECT * FROM {table} ORDER BY ALL") for table in TABLE.values()])
    assert seen[0] == seen[1]
    assert [len(rows) for rows in seen[0]] == [1, 2, 2]
    (span,) = seen[0][0]
    assert (span["bulk_id"], span["input_tokens"], span["parent_span_id"]) == ("b", 2**40, "01" * 8)
    assert json.loads(span["attributes"]) == {"other": 1.5, "flag": True}


async def test_json_as_other_languages_write_it(studio: Receiver) -> None:
    """Numbers for 64-bit integers, names of enumerations, fields of a newer version."""
    span = {
        "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174", "name": "x",
        "kind": "SPAN_KIND_CONSUMER",
        "startTimeUnixNano": 1780000000000000000, "endTimeUnixNano": "1780000000000000001",
        "status": {"code": "STATUS_CODE_ERROR"}, "fieldOfTheFuture": {"a": [1]},
        "attributes": [{"key": "bulk.job.id", "value": {"stringValue": "j"}}],
    }  # fmt: skip
    body = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [span]}]}]}
    answer = await studio.http.post(
        "/v1/traces", json=body, headers={"content-type": "application/json; charset=utf-8"}
    )
    assert (answer.status_code, answer.json()) == (200, {})
    (row,) = studio.rows("SELECT trace_id, kind, status, start_ns, job_id FROM spans")
    assert row == {
        "trace_id": "5b8efff798038103d269b633813fc60c", "kind": "CONSUMER", "status": "ERROR",
        "start_ns": 1780000000000000000, "job_id": "j",
    }  # fmt: skip


async def test_partial_success_in_protobuf(studio: Receiver) -> None:
    request = traces({}, {}, {}, span_id=b"")
    answer = await studio.http.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    said = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (said.rejected_spans, said.error_message) == (3, "3 refused: span id is not 8 bytes, or all zero")


async def test_what_is_too_large_is_cut_and_counted(tmp_path: Path) -> None:
    async with receiver(tmp_path, max_body=64 << 20) as studio:
        request = traces({"text": "x" * (1 << 20), **{f"k{n}": n for n in range(20_000)}})
        answer = await studio.http.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
        assert answer.status_code == 200
        (row,) = studio.rows("SELECT attributes FROM spans")
        kept = json.loads(row["attributes"])
        assert (len(kept), len(kept["text"])) == (1000, 64 * 1024)
        cut = {(row["outcome"], row["reason"], row["records"]) for row in studio.rows("SELECT * FROM ingest")}
        assert cut == {("truncated", "string longer than 64 KiB", 1), ("truncated", "more than 1,000 attributes", 1)}
        assert studio.ingest.status()["truncated"] == {"traces": 2}


async def test_a_million_attributes(tmp_path: Path) -> None:
    async with receiver(tmp_path, max_body=64 << 20) as studio:
        request = traces(dict.fromkeys((f"k{n}" for n in range(1_000_000)), 1), {})
        answer = await studio.http.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
        assert answer.status_code == 200
        assert studio.count("spans") == 2


@pytest.mark.chance
async def test_random_damage_never_ends_in_a_server_error(studio: Receiver) -> None:
    rng = chance.rng(11)
    whole = {
        "traces": traces({"bulk.id": "b", "http.response.status_code": 200}, {"bulk.job.attempt": 1}),
        "logs": logs("one", "two"),
        "metrics": gauge(1, 2),
    }
    statuses = set()
    for _ in range(600 * chance.TIMES):
        signal = rng.choice(list(whole))
        as_json = rng.random() < 0.3
        message = whole[signal]
        body = bytearray(
            json.dumps(with_hex_ids(json_format.MessageToDict(message))).encode()
            if as_json
            else message.SerializeToString()
        )
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(body))
            rng.choice((
                lambda b, p: b.__setitem__(p, rng.randrange(256)), lambda b, p: b.__delitem__(slice(p, p + 3)),
                lambda b, p: b.__setitem__(slice(p, p), rng.randbytes(4)),
            ))(body, place)  # fmt: skip
            if not body:
                break
        while True:  # refusals are not waited for: a slow writer may have to catch up
            answer = await studio.http.post(f"/v1/{signal}", content=bytes(body), headers=JSON if as_json else PROTOBUF)
            if answer.status_code != 503:
                break
        statuses.add(answer.status_code)
    assert statuses == {200, 400}
    before = studio.count("spans")
    await studio.http.post("/v1/traces", content=traces({}, {}).SerializeToString(), headers=PROTOBUF)
    assert studio.count("spans") == before + 2


async def test_senders_at_once_lose_nothing(studio: Receiver) -> None:
    async def send(number: int) -> None:
        for n in range(20):
            body = traces({"bulk.id": f"b{number}", "n": n}, {"bulk.id": f"b{number}", "n": -n - 1}).SerializeToString()
            while True:
                answer = await studio.http.post("/v1/traces", content=body, headers=PROTOBUF)
                if answer.status_code != 503:
                    break
                assert answer.headers["retry-after"] == "1"
            assert answer.status_code == 200

    await asyncio.gather(*(send(number) for number in range(30)))
    assert studio.rows(
        "SELECT count(DISTINCT bulk_id) AS b, count(DISTINCT (bulk_id, attributes)) AS n FROM spans"
    ) == [{"b": 30, "n": 30 * 40}]


async def test_reasons_that_are_kept_never_hold_what_a_sender_wrote(studio: Receiver) -> None:
    """A sender that writes something else each time would fill the store with reasons."""
    for n in range(50):
        for headers, body in (
            ({"content-type": f"text/x{n}"}, BODY),
            ({"content-type": f"a:b{n}"}, BODY),
            (PROTOBUF | {"content-encoding": f"x{n}:y"}, BODY),
            (PROTOBUF | {"content-encoding": "gzip"}, b"%d no gzip" % n),
            (PROTOBUF | {"content-encoding": "deflate"}, zlib.compress(BODY)[: 5 + n % 3]),
            (PROTOBUF, b"\xff" * (n + 1)),
            (JSON, b"[%d" % n),
            (JSON, b'{"resourceSpans": "%d: x"}' % n),
        ):
            answer = await studio.http.post("/v1/traces", content=body, headers=headers)
            assert answer.status_code in (400, 415)
        await studio.http.post(f"/v1/x{n}", content=BODY, headers=PROTOBUF)
        await studio.http.request(f"M{n}", "/v1/traces", content=BODY, headers=PROTOBUF)
    assert {reason for _, reason in await studio.refused()} == {
        "Content-Type is not OTLP", "Content-Encoding is not supported", "the body is not valid gzip",
        "the body is not valid deflate", "the body is not a protobuf ExportTraceServiceRequest",
        "the body is not a JSON ExportTraceServiceRequest", "OTLP is sent with POST",
        "no such path; OTLP goes to /v1/traces, /v1/logs and /v1/metrics",
    }  # fmt: skip
    # And the sender learns what it was.
    said = await studio.http.post("/v1/traces", content=BODY, headers={"content-type": "text/x7"})
    assert "text/x7" in Status.FromString(said.content).message
