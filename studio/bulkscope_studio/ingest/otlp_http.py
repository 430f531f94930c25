"""OTLP over HTTP: protobuf and JSON, gzip, answered when the data is in the file."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message

from bulkscope_studio.ingest.connections import Bodies, Full
from bulkscope_studio.ingest.intake import SIGNALS, Body, Intake, Refusal, again

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_BODY = 64 * 1024 * 1024
# As Python's objects JSON takes up to thirty times its bytes; protobuf is decoded in parts.
MAX_JSON = 8 * 1024 * 1024
PROTOBUF, JSON = "application/x-protobuf", "application/json"

_IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}


def unpack(body: bytes, encoding: str, limit: int) -> bytes | bytearray:
    """Return the body unpacked; raises ``Refusal`` when it is broken or larger than ``limit`` bytes."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refusal(
            415, f"Content-Encoding {encoding!r} is not supported; send gzip, deflate or none",
            reason="Content-Encoding is not supported",
        )  # fmt: skip
    # A gzip body may have several members, one after the other; they are one text. Slices of the body, for what
    # comes after a member is copied: members of 20 bytes would cost the square of their number.
    plain, unpacker, view, at, members = bytearray(), zlib.decompressobj(zlib.MAX_WBITS | 32), memoryview(body), 0, 1
    while True:
        packed = unpacker.unconsumed_tail or view[at : at + _SLICE]
        at += 0 if unpacker.unconsumed_tail else len(packed)
        try:
            piece = unpacker.decompress(packed, min(limit + 1 - len(plain), _UNPACKED))
        except zlib.error as error:
            raise Refusal(400, f"the body is not valid {encoding}: {error}") from error
        plain += piece
        if len(plain) > limit:
            raise Refusal(413, f"the body is larger than {limit} bytes unpacked; send smaller batches")
        if unpacker.eof:
            at -= len(unpacker.unused_data)
            if at == len(body):
                return plain  # as it is: a copy of 64 MiB would be the peak of a large request
            if encoding == "deflate" or body[at : at + 2] != _GZIP:
                raise Refusal(400, f"the body is not valid {encoding}: something else follows it")
            members += 1
            if members > _MEMBERS:
                raise Refusal(400, f"the body is not valid {encoding}: it has more than {_MEMBERS:,} members")
            unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif not packed and not piece:
            raise Refusal(400, f"the body is not valid {encoding}: it ends early")


# What is unpacked at once, and at most to how much.
_SLICE, _UNPACKED = 16 * 1024, 1024 * 1024
_MEMBERS = 10_000
_GZIP = b"\x1f\x8b"


def parse(body: bytes | bytearray, content_type: str, kind: type[Message]) -> bytes | bytearray:
    """Return the request as protobuf, as it came or made of JSON; raises ``Refusal``."""
    name = kind.DESCRIPTOR.name
    if content_type == PROTOBUF:
        return body
    if content_type == JSON:
        if len(body) > MAX_JSON:
            raise Refusal(413, f"JSON is larger than {MAX_JSON} bytes; send smaller batches, or protobuf")
        try:
            document = orjson.loads(body)
            if not isinstance(document, dict):
                raise json_format.ParseError("it is no object")
            _ids_to_base64(document)
            return bytes(json_format.ParseDict(document, kind(), ignore_unknown_fields=True).SerializeToString())
        except Exception as error:  # json_format raises what its parts raise, from KeyError to OverflowError
            raise Refusal(400, f"the body is not a JSON {name}: {error}") from error
    raise _not_otlp(content_type)


def _not_otlp(content_type: str) -> Refusal:
    said = f"Content-Type {content_type!r} is not OTLP; send {PROTOBUF} or {JSON}"
    return Refusal(415, said, reason="Content-Type is not OTLP")


def _ids_to_base64(node: object) -> None:
    """OTLP's JSON writes ids in hex, where protobuf's JSON mapping wants base64. Bad hex becomes an empty id."""
    if isinstance(node, list):
        for item in node:
            _ids_to_base64(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _IDS and isinstance(value, str):
                try:
                    node[key] = base64.b64encode(bytes.fromhex(value)).decode()
                except ValueError:
                    # One byte: of no valid length, so the record is refused with that reason.
                    node[key] = "AA=="
            elif isinstance(value, dict | list):
                _ids_to_base64(value)


class OtlpHttp:
    """The ASGI application of the OTLP end point."""

    def __init__(self, intake: Intake, max_body: int = MAX_BODY) -> None:
        self._intake, self._max_body, self._bodies = intake, max_body, Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        answer_type = JSON if content_type == JSON else PROTOBUF
        signal = SIGNALS.get(scope["path"], ("unknown",))[0]
        extra: list[tuple[bytes, bytes]] = []
        try:
            status, body = 200, await self._take(scope, receive, headers, content_type)
        except Refusal as refusal:
            if refusal.status != 503:
                self._intake.ingest.refuse(signal, "http", refusal.reason)
            status, body = refusal.status, _status_message(refusal, answer_type)
            if refusal.retry_after is not None:
                extra.append((b"retry-after", str(refusal.retry_after).encode()))
        start = [(b"content-type", answer_type.encode()), (b"content-length", str(len(body)).encode()), *extra]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})

    async def _take(self, scope: Scope, receive: Receive, headers: dict[str, str], content_type: str) -> bytes:
        if scope["path"] not in SIGNALS:
            raise Refusal(404, "no such path; OTLP goes to /v1/traces, /v1/logs and /v1/metrics")
        if scope["method"] != "POST":
            raise Refusal(405, "OTLP is sent with POST")
        if content_type not in (PROTOBUF, JSON):
            raise _not_otlp(content_type)
        encoding, kind = headers.get("content-encoding", "").lower(), SIGNALS[scope["path"]][1]
        with self._bodies.body() as reach:
            body = await self._body(receive, reach)

            def read() -> Body:
                return parse(unpack(body, encoding, self._max_body), content_type, kind)

            answer = await self._intake.take(scope["path"], "http", read)
        if content_type == JSON:
            return json_format.MessageToJson(answer, indent=None).encode()
        return bytes(answer.SerializeToString())

    async def _body(self, receive: Receive, reach: Callable[[int], None]) -> bytes:
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the sender went away before the body was complete")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body:
                raise Refusal(413, f"the body is larger than {self._max_body} bytes; send smaller batches")
            try:
                reach(size)
            except Full as full:
                raise again(full) from None
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)


def _status_message(refusal: Refusal, content_type: str) -> bytes:
    """Return a ``google.rpc.Status`` in the request's encoding, as the OTLP specification asks."""
    if content_type == JSON:
        return orjson.dumps({"code": 3, "message": refusal.message})
    from google.rpc.status_pb2 import Status

    return bytes(Status(code=3, message=refusal.message).SerializeToString())
