"""OTLP requests decoded whole, as tables; the receiver takes them in parts."""

from __future__ import annotations

from google.protobuf.message import Message

from bulkscope_studio.ingest import otlp_decode
from bulkscope_studio.ingest.otlp_decode import Decoded


def traces(request: bytes | Message) -> Decoded:
    """Decode an ``ExportTraceServiceRequest``. Raises ``Malformed``."""
    return _whole("traces", request)


def logs(request: bytes | Message) -> Decoded:
    """Decode an ``ExportLogsServiceRequest``. Raises ``Malformed``."""
    return _whole("logs", request)


def metrics(request: bytes | Message) -> Decoded:
    """Decode an ``ExportMetricsServiceRequest``; a record is a data point. Raises ``Malformed``."""
    return _whole("metrics", request)


def _whole(signal: str, request: bytes | Message) -> Decoded:
    encoded = request if isinstance(request, bytes) else request.SerializeToString()
    return Decoded.together(otlp_decode.parts(signal, encoded))
