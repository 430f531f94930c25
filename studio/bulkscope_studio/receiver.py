"""OTLP over HTTP: protobuf and JSON, gzip, answered when the data is in the file."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from bulkscope_studio import decode
from bulkscope_studio.decode import Decoded
from bulkscope_studio.ingest import Busy, Ingest, Unwritable

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_BODY = 64 * 1024 * 1024
# A sender waits for 10 s by default; what is committed later and comes again is known to be there.
COMMIT_SECONDS = 30.0
RETRY_AFTER_S = 1
PROTOBUF, JSON = "application/x-protobuf", "application/json"

# path: signal, request, response, decoder, name of the count in the partial success
SIGNALS: dict[str, tuple[str, type[Message], type[Message], Callable[[Any], Decoded], str]] = {
    "/v1/traces": ("traces", ExportTraceServiceRequest, ExportTraceServiceResponse, decode.traces, "rejected_spans"),
    "/v1/logs": ("logs", ExportLogsServiceRequest, ExportLogsServiceResponse, decode.logs, "rejected_log_records"),
    "/v1/metrics": (
        "metrics",
        ExportMetricsServiceRequest,
        ExportMetricsServiceResponse,
        decode.metrics,
        "rejected_data_points",
    ),
}  # fmt: skip

_IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}


class Refusal(Exception):
    """A request that cannot be taken: HTTP status, and what to do about it."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after


def again(error: Exception) -> Refusal:
    """Return what tells a sender to keep its data and try again: the fault is not its own."""
    said = "the commit takes long" if isinstance(error, TimeoutError) else str(error)
    return Refusal(503, f"{said}; try again", retry_after=RETRY_AFTER_S)


def response(kind: type[Message], decoded: Decoded, count_name: str) -> Message:
    """Return the OTLP answer; its partial success names what was refused."""
    answer = kind()
    if decoded.refused:
        partial = answer.partial_success  # type: ignore[attr-defined]
        setattr(partial, count_name, sum(decoded.refused.values()))
        partial.error_message = decoded.message()
    return answer


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body unpacked; raises ``Refusal`` when it is broken or larger than ``limit`` bytes."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refusal(415, f"Content-Encoding {encoding!r} is not supported; send gzip, deflate or none")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refusal(400, f"the body is not valid {encoding}: {error}") from error
    if len(plain) > limit:
        raise Refusal(413, f"the body is larger than {limit} bytes unpacked; send smaller batches")
    if not unpacker.eof:
        raise Refusal(400, f"the body is not valid {encoding}: it ends early")
    return plain


def parse(body: bytes, content_type: str, kind: type[Message]) -> Message:
    """Return the request message; raises ``Refusal``."""
    if content_type == PROTOBUF:
        try:
            return kind.FromString(body)
        except DecodeError as error:
            raise Refusal(400, f"the body is not a protobuf {kind.DESCRIPTOR.name}: {error}") from error
    if content_type == JSON:
        try:
            document = orjson.loads(body)
            _ids_to_base64(document)
            return json_format.ParseDict(document, kind(), ignore_unknown_fields=True)
        except (orjson.JSONDecodeError, json_format.ParseError, RecursionError) as error:
            raise Refusal(400, f"the body is not a JSON {kind.DESCRIPTOR.name}: {error}") from error
    raise Refusal(415, f"Content-Type {content_type!r} is not OTLP; send {PROTOBUF} or {JSON}")


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

    def __init__(self, ingest: Ingest, max_body: int = MAX_BODY) -> None:
        self._ingest, self._max_body = ingest, max_body
        # One decoder thread: two would only take turns on the interpreter lock, with twice the memory.
        self._decoders = ThreadPoolExecutor(1, "bulkscope-decode")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
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
                self._ingest.refuse(signal, "http", refusal.message.partition(":")[0])
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
            raise Refusal(415, f"Content-Type {content_type!r} is not OTLP; send {PROTOBUF} or {JSON}")
        body = await self._body(receive)
        loop = asyncio.get_running_loop()
        answer, stored = await loop.run_in_executor(
            self._decoders,
            self._decode,
            scope["path"],
            body,
            headers.get("content-encoding", "").lower(),
            content_type,
        )
        try:
            # Shielded: who is no longer waited for is stored all the same.
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(stored)), COMMIT_SECONDS)
        except Unwritable as error:
            raise Refusal(500, f"the store could not take the data: {error}") from error
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise again(error) from error
        if content_type == JSON:
            return json_format.MessageToJson(answer, indent=None).encode()
        return bytes(answer.SerializeToString())

    async def _body(self, receive: Receive) -> bytes:
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the sender went away before the body was complete")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body:
                raise Refusal(413, f"the body is larger than {self._max_body} bytes; send smaller batches")
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)

    def _decode(self, path: str, body: bytes, encoding: str, content_type: str) -> tuple[Message, Any]:
        signal, request_kind, response_kind, decoder, count_name = SIGNALS[path]
        decoded = decoder(parse(unpack(body, encoding, self._max_body), content_type, request_kind))
        try:
            stored = self._ingest.submit(decoded, signal, "http")
        except Busy as busy:
            raise again(busy) from None
        return response(response_kind, decoded, count_name), stored


def _status_message(refusal: Refusal, content_type: str) -> bytes:
    """Return a ``google.rpc.Status`` in the request's encoding, as the OTLP specification asks."""
    if content_type == JSON:
        return orjson.dumps({"code": 3, "message": refusal.message})
    from google.rpc.status_pb2 import Status

    return bytes(Status(code=3, message=refusal.message).SerializeToString())
