"""One HTTP request to an ASGI application: its SERVER span, its duration metric, its ``Bulk``.

Lean on purpose: attributes known only at the end go in with one call, headers are looked at once and
nothing is built that is not asked for. Functions here may raise; the caller keeps that from the app.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

from opentelemetry import _logs, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util import http as http_util

from bulkscope import _instruments, conventions
from bulkscope._export import pipeline
from bulkscope._jobs import bulks, current
from bulkscope._safe import report

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

# Where the request stands in its ASGI scope; nested applications and copied scopes share the object.
SCOPE_KEY = "bulkscope.request"

_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))
# Messages that carry a body, or the rest of one; without `more_body` nothing follows.
_LAST = frozenset(("http.response.body", "http.response.zerocopysend", "http.response.pathsend"))
_DEFAULT_PORTS = {"http": 80, "https": 443}
_QUERY_KEYS = tuple(quote(key).encode() for key in bulks.KEYS)
_ID_HEADERS = tuple(name.encode() for name in bulks.header_names(bulks.KEYS))


class _HeadersGetter(Getter[Headers]):
    def get(self, carrier: Headers, key: str) -> list[str] | None:
        wanted = key.lower().encode("latin-1")
        values = [value.decode("latin-1") for name, value in carrier if name == wanted]
        # A list header may be sent in several lines; the baggage propagator reads only the first.
        return [",".join(values)] if len(values) > 1 and wanted == b"baggage" else values or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_GETTER = _HeadersGetter()


@dataclass(frozen=True, slots=True)
class Settings:
    """Where telemetry goes, and what the environment asks for under the names that the contrib instrumentation reads.

    ``old_names`` (``OTEL_SEMCONV_STABILITY_OPT_IN=http/dup``) adds the names of before the stable
    conventions to the span; the metric has the stable name only.
    """

    excluded: http_util.ExcludeList | None
    request_headers: list[str]
    response_headers: list[str]
    sanitized: list[str]
    old_names: bool
    access_events: bool
    propagated: frozenset[bytes]
    tracer: trace.Tracer
    logger: _logs.Logger

    @classmethod
    def read(cls, framework: str) -> Settings:
        """Read the environment; ``framework`` is the part of the variables' names, e.g. ``FASTAPI``."""
        listed = (
            os.environ.get(f"OTEL_PYTHON_{framework}_EXCLUDED_URLS", os.environ.get("OTEL_PYTHON_EXCLUDED_URLS")) or ""
        ).strip()
        opt_in = [part.strip() for part in os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")]
        return cls(
            excluded=http_util.get_excluded_urls(framework) if listed else None,
            request_headers=http_util.get_custom_headers(
                http_util.OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST
            ),
            response_headers=http_util.get_custom_headers(
                http_util.OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE
            ),
            sanitized=http_util.get_custom_headers(http_util.OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS),
            old_names="http/dup" in opt_in,
            access_events=os.environ.get("BULKSCOPE_ACCESS_EVENTS", "1").strip().lower() not in ("0", "false"),
            propagated=frozenset(name.lower().encode() for name in propagate.get_global_textmap().fields),
            tracer=_instruments.tracer(),
            logger=_instruments.logger(),
        )


class ServerRequest:
    """A request being served; ``prefix`` is the path of the mounts passed so far, as a template."""

    __slots__ = (
        "answered_ns", "bulk", "context", "extra", "known", "method", "path", "prefix", "route", "scheme", "seconds",
        "settings", "span", "started", "status", "token",
    )  # fmt: skip

    def __init__(self, scope: Scope, prefix: str, settings: Settings) -> None:
        """Start the span and make it and a new ``Bulk`` current."""
        self.started = time.perf_counter()
        self.settings = settings
        self.prefix = prefix
        self.route: str | None = None
        self.status: int | None = None
        self.answered_ns: int | None = None  # when the last byte of the answer was handed over, since the epoch
        self.seconds: float | None = None  # from the start to that byte
        self.known: dict[str, Any] | None = None  # how it ended, once it has been counted
        self.extra: dict[str, Any] = {}
        method = scope["method"]
        self.method: str = method if method in _METHODS else "_OTHER"
        self.scheme: str = scope.get("scheme", "http")
        self.path: str = scope["path"]
        headers: Headers = scope["headers"]
        first = dict(headers)
        # A server may start a pipelined request from the context of the one before it, so that a
        # request without a remote parent begins from an empty context and not from the current one.
        parent = Context()
        if not self.settings.propagated.isdisjoint(first):
            parent = propagate.extract(headers, parent, _GETTER)
        self.bulk = bulk = bulks.Bulk()
        bulk.learn(bulks.from_baggage(parent), "baggage")
        bulk.learn(_id_in_query(scope.get("query_string") or b""), "query")
        for name in _ID_HEADERS:
            if name in first:
                bulk.learn(bulks.clean(first[name].decode("latin-1")), "header")
        context = bulks.bind(bulk, parent)
        self.span = settings.tracer.start_span(
            "HTTP" if self.method == "_OTHER" else self.method,
            context,
            SpanKind.SERVER,
            self._attributes(scope, first),
        )
        self.context = trace.set_span_in_context(self.span, context)
        self.token = current.enter(self.context)

    def _attributes(self, scope: Scope, headers: dict[bytes, bytes]) -> dict[str, Any]:
        # No url.query: it may carry a prompt or a secret.
        attributes: dict[str, Any] = {
            conventions.HTTP_REQUEST_METHOD: self.method,
            conventions.URL_PATH: self.path,
            conventions.URL_SCHEME: self.scheme,
        }
        if self.method == "_OTHER":
            attributes["http.request.method_original"] = scope["method"]
        if version := scope.get("http_version"):
            attributes["network.protocol.version"] = version
        address, port = _authority(headers.get(b"host"), self.scheme) or scope.get("server") or (None, None)
        if address:
            attributes["server.address"] = address
            if port is not None:
                attributes["server.port"] = port
        if client := scope.get("client"):
            attributes["client.address"] = client[0]
        if agent := headers.get(b"user-agent"):
            attributes["user_agent.original"] = agent.decode("latin-1")
        if self.settings.request_headers:
            attributes |= self._captured(
                scope["headers"], self.settings.request_headers, http_util.normalise_request_header_name
            )
        if self.settings.old_names:
            attributes |= _old_names(attributes)
        return attributes

    def _captured(self, headers: Headers, wanted: list[str], name: Callable[[str], str]) -> dict[str, Any]:
        values: dict[str, str | list[str]] = {}
        for key, value in headers:
            values[key.decode("latin-1")] = value.decode("latin-1")
        return dict(http_util.get_custom_header_attributes(values, wanted, self.settings.sanitized, name))

    def watch(self, send: Send) -> Send:
        """Return ``send`` with the response's status, and the moment of its last byte, noted on the way."""

        def watched(message: Message) -> Awaitable[None]:
            kind = message["type"]
            if kind == "http.response.start":
                try:
                    self.status = message["status"]
                    if self.settings.response_headers:
                        self.extra |= self._captured(
                            message.get("headers", ()),
                            self.settings.response_headers,
                            http_util.normalise_response_header_name,
                        )
                except Exception:
                    report("http response start")
            elif kind in _LAST and not message.get("more_body", False):
                return self._last(send, message)
            return send(message)

        return watched

    async def _last(self, send: Send, message: Message) -> None:
        """Send the last of the answer: here its time ends, whatever the application does afterwards."""
        await send(message)
        if self.answered_ns is None:
            self.answered_ns = time.time_ns()
            self.seconds = time.perf_counter() - self.started
            # Of a failure the exception is still to come, which says more than the status: frameworks send the answer
            # and let it pass on.
            if self.status is not None and self.status < 500:
                try:
                    self._count(None)
                except Exception:
                    report("the last byte of an http response")

    def learn(self, bulk_id: str | None, source: str) -> None:
        """Take an id found on the way; into baggage too, which other instrumentations inject from.

        The context is attached for good: it ends with the task of the request, or when ``end`` restores
        what was current before the request.
        """
        if self.bulk.learn(bulk_id, source):
            current.enter(bulks.bind(self.bulk))

    def end(self, error: BaseException | None) -> None:
        """End the span. ``error`` is what the application raised, if it did.

        The span ends with the last byte of the answer, but leaves only now: background tasks run in between, and the
        jobs that they send, and the bulk's id that these have, are the request's.
        """
        try:
            self._finish(error)
        except Exception:
            report("the end of an http request")
        try:
            self.span.end(self.answered_ns)
        except Exception:
            report("the end of an http span")
        current.leave(self.token)

    def _count(self, error: BaseException | None) -> dict[str, Any]:
        """Record how long the answer took and how it ended; return what of that the span has as well."""
        outcome, error_type = _outcome(self.status, error, self.bulk.overload)
        known: dict[str, Any] = {conventions.BULK_OUTCOME: outcome}
        if self.status is not None:
            known[conventions.HTTP_RESPONSE_STATUS_CODE] = self.status
        if self.route is not None:
            known[conventions.HTTP_ROUTE] = self.route
        if error_type is not None:
            known[conventions.ERROR_TYPE] = error_type
        _instruments.record(
            conventions.M_HTTP_SERVER_DURATION,
            time.perf_counter() - self.started if self.seconds is None else self.seconds,
            known | {conventions.HTTP_REQUEST_METHOD: self.method, conventions.URL_SCHEME: self.scheme},
        )
        self.known = known
        return known

    def _finish(self, error: BaseException | None) -> None:
        known = self.known or self._count(error)
        if self.span.is_recording():
            self._describe(known, error)
        if self.settings.access_events and not self.bulk.logged:
            self._log()

    def _describe(self, known: dict[str, Any], error: BaseException | None) -> None:
        if self.route is not None:
            self.span.update_name(f"{'HTTP' if self.method == '_OTHER' else self.method} {self.route}")
        bulk = self.bulk
        attributes = dict(known)
        if bulk.id is not None and bulk.source is not None:
            attributes[conventions.BULK_ID] = bulk.id
            attributes[conventions.BULK_ID_SOURCE] = bulk.source
        if bulk.size:
            attributes[conventions.BULK_SIZE] = bulk.size
            attributes[conventions.BULK_ENQUEUE_DURATION] = bulk.enqueue_seconds
        if self.settings.old_names and self.status is not None:
            attributes["http.status_code"] = self.status
        pipeline.set_attributes(self.span, attributes)
        if self.extra:
            self.span.set_attributes(self.extra)
        if conventions.ERROR_TYPE in known:
            self.span.set_status(StatusCode.ERROR)
        if error is not None:
            # What a background task raised too, although the answer was well. Without the message: it may quote the
            # request's body.
            kind = _type_name(error)
            frames = "".join(traceback.format_tb(error.__traceback__))
            self.span.add_event("exception", {"exception.type": kind, "exception.stacktrace": frames + kind})

    def _log(self) -> None:
        attributes: dict[str, Any] = {conventions.HTTP_REQUEST_METHOD: self.method}
        if self.route is not None:
            attributes[conventions.HTTP_ROUTE] = self.route
        if self.status is not None:
            attributes[conventions.HTTP_RESPONSE_STATUS_CODE] = self.status
        if self.bulk.id is not None:
            attributes[conventions.BULK_ID] = self.bulk.id
        now = time.time_ns()
        self.settings.logger.emit(
            _logs.LogRecord(
                timestamp=now,
                observed_timestamp=now,
                context=self.context,
                severity_number=_logs.SeverityNumber.INFO,
                severity_text="INFO",
                body=f"{self.method} {self.route or self.path} {'-' if self.status is None else self.status}",
                attributes=attributes,
                event_name=conventions.EVENT_REQUEST,
            )
        )


def _outcome(status: int | None, error: BaseException | None, overload: bool) -> tuple[str, str | None]:
    """Return ``bulk.outcome`` and ``error.type`` (None where the server is not at fault)."""
    error_type = None
    if error is not None:
        error_type = _type_name(error)
    elif status is None:
        error_type = "incomplete_response"
    elif status >= 500:
        error_type = str(status)
    if error_type is None and status is not None and status < 400:
        return "ok", None
    if status in (429, 503) or overload:
        return "overload", error_type
    return ("client_error" if error_type is None else "internal_error"), error_type


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _id_in_query(query: bytes) -> str | None:
    # A cheap look first: most query strings name no bulk.
    if not query or not any(key in query for key in _QUERY_KEYS):
        return None
    fields = parse_qs(query.decode("latin-1"))
    return bulks.find({key: values[0] for key, values in fields.items()})


def _authority(host: bytes | None, scheme: str) -> tuple[str, int | None] | None:
    """Split a Host header into address and port (the scheme's own when it names none)."""
    if not host:
        return None
    name, colon, port = host.decode("latin-1").rpartition(":")
    if not colon or port.endswith("]"):
        return (name + colon + port).strip("[]"), _DEFAULT_PORTS.get(scheme)
    number = int(port) if port.isdecimal() and len(port) <= 5 else 0
    return name.strip("[]"), number if 0 < number <= 65_535 else None


_OLD_NAMES = {
    conventions.HTTP_REQUEST_METHOD: "http.method",
    conventions.URL_PATH: "http.target",
    conventions.URL_SCHEME: "http.scheme",
    "network.protocol.version": "http.flavor",
    "server.address": "http.host",
    "server.port": "net.host.port",
    "client.address": "net.peer.ip",
    "user_agent.original": "http.user_agent",
}


def _old_names(attributes: dict[str, Any]) -> dict[str, Any]:
    return {old: attributes[new] for new, old in _OLD_NAMES.items() if new in attributes}
