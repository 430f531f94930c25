"""The end point: whether it is there, speaks OTLP as it is sent, takes a test span, and what its clock says.

What is sent goes the way that the service's telemetry would: by our client, or by OpenTelemetry's own exporter where
that is what ``OTEL_*_EXPORTER`` names. The test span is a service's of its own, ``bulkscope-doctor``, and has no bulk;
of metrics and logs an empty request is sent, which stores nothing.
"""

from __future__ import annotations

import http.client
import logging
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from bulkscope._doctor import wire
from bulkscope._doctor.findings import FAULT, OK, WARNING, Finding
from bulkscope._export import otlp
from bulkscope._export.exporters import rejected
from bulkscope._export.otlp_http import Client, _tls, endpoint, printable

SUBJECT = "end point"
SERVICE, SPAN = "bulkscope-doctor", "bulkscope doctor: a test"
# A Date header has whole seconds: what it says is half a second off at most, and the way there and back besides.
_CLOCKS_S = 2.0
_LONGEST_REASON = 200
# What exporters speak whose names say it; ``otlp`` does not.
_PROTOCOLS = {"otlp_proto_http": "http/protobuf", "otlp_proto_grpc": "grpc"}
_OFFICIAL = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}
_SWITCH_TO_GRPC = "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or name the port for OTLP over HTTP (4318 by default)"
_SWITCH_TO_HTTP = "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or name the port for OTLP over gRPC (4317 by default)"
_STATUSES = {
    400: "it does not take it as OTLP: see that this is the port for OTLP over HTTP (4318 by default)",
    401: "it wants to know who sends: set OTEL_EXPORTER_OTLP_HEADERS, for example to authorization=Bearer%20TOKEN",
    403: "it does not let this sender in: see OTEL_EXPORTER_OTLP_HEADERS, and the host's name in the address",
    404: "it has nothing under this path: OTEL_EXPORTER_OTLP_ENDPOINT is the address without /v1/traces; see that this "
    "is the port for OTLP, which the studio's pages are not",
    405: "it takes no telemetry under this path: see that this is the port for OTLP, which the studio's pages are not",
    413: "it takes smaller requests only: raise its limit for bodies",
    415: "it does not take OTLP as protobuf: see that this is the port for OTLP over HTTP (4318 by default)",
}
_WANTS_TLS = ("it speaks TLS, and is asked without", "write https:// in OTEL_EXPORTER_OTLP_ENDPOINT")
_BUSY = "it is there and cannot take more now: see its log; what is sent meanwhile is kept, and tried again"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an end point answered to a request, and ``mean``, the time half-way of it (``time.time``)."""

    status: int
    kind: str
    date: str | None
    body: bytes
    mean: float


class _Asking(Client):
    """Our client, that gives the whole answer."""

    @property
    def address(self) -> wire.Address:
        """Where to."""
        return wire.Address(self._host, self._port, self._tls)

    def ask(self, body: bytes) -> Answer:
        """Send a request. Raises ``OSError`` or ``HTTPException`` where there is no answer that is HTTP."""
        seconds = min(wire.SECONDS, self._seconds)
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=self._tls)
        try:
            began = time.time()
            connection.request("POST", self._path, self._compress(body), self._headers)
            response = connection.getresponse()
            mean = (began + time.time()) / 2
            kind = response.headers.get("Content-Type", "")
            return Answer(response.status, kind, response.headers.get("Date"), response.read(1 << 16), mean)
        finally:
            connection.close()


def _exporters(signal: str) -> list[str]:
    names = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")
    return [name.strip() for name in names if name.strip() not in ("", "none")]


def _protocol(signal: str) -> str:
    """Return the protocol that ``otlp`` stands for."""
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := os.environ.get(variable, "").strip():
            return value
    return "grpc"


def trial() -> ReadableSpan:
    """Return a span that has ended, of a service of its own and without a bulk."""
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource({"service.name": SERVICE}), shutdown_on_exit=False)
    span: Any = provider.get_tracer("bulkscope.doctor").start_span(SPAN)
    span.end()
    return span  # type: ignore[no-any-return]


def _failed(state: str, shown: str, error: Exception, address: wire.Address | None, protocol: str) -> Finding:
    """Return why an end point could not be asked: of the connection, or by what it speaks."""
    container = "; in a container 127.0.0.1 is the container itself" if os.path.exists("/.dockerenv") else ""
    there = (
        "start what receives (bulkscope studio, or a Collector), or set OTEL_EXPORTER_OTLP_ENDPOINT to where it "
        f"is{container}"
    )
    if isinstance(error, ssl.SSLCertVerificationError):
        what, todo = f"its certificate is not trusted ({error.verify_message})", (
            "set OTEL_EXPORTER_OTLP_CERTIFICATE to the file of the authority that signed it"
        )  # fmt: skip
    elif isinstance(error, ssl.SSLError):
        what, todo = f"it does not speak TLS as it is asked ({error.reason or error})", (
            "write http:// where it has no TLS; else see OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
        )  # fmt: skip
    elif isinstance(error, socket.gaierror):
        what, todo = "its name is not known", "see the host's name in OTEL_EXPORTER_OTLP_ENDPOINT, and DNS"
    elif isinstance(error, ConnectionRefusedError):
        what, todo = "nothing listens there", there
    elif isinstance(error, TimeoutError):
        what, todo = f"no answer within {wire.SECONDS:.0f} s", f"see that no firewall stands between, or {there}"
    else:
        what, todo = f"no answer that is OTLP ({type(error).__name__})", there
    if address is not None and not isinstance(error, ConnectionRefusedError | socket.gaierror | ssl.SSLError):
        what, todo = _by_what_is_spoken(address, protocol) or (what, todo)
    return Finding(SUBJECT, state, f"{shown}: {what}", todo)


def _by_what_is_spoken(address: wire.Address, protocol: str) -> tuple[str, str] | None:
    try:
        spoken = wire.spoken(address)
    except OSError:
        return None
    if wire.TLS in spoken and address.tls is None:
        return _WANTS_TLS
    if protocol == "http/protobuf" and spoken == {wire.HTTP2}:
        return "a gRPC port (HTTP/2 only), to which OTLP over HTTP is sent", _SWITCH_TO_GRPC
    if protocol == "grpc" and spoken == {wire.HTTP1}:
        return "a port for HTTP/1.1, to which OTLP over gRPC is sent", _SWITCH_TO_HTTP
    if not spoken:
        return "something listens there that speaks neither HTTP nor gRPC", (
            "see the port in OTEL_EXPORTER_OTLP_ENDPOINT: OTLP over HTTP is 4318 by default, over gRPC 4317"
        )  # fmt: skip
    return None


def _judged(state: str, signal: str, shown: str, answer: Answer) -> Finding:
    """Return what an answer over HTTP says."""
    if 200 <= answer.status < 300:
        lost, reason = rejected(answer.body)
        if lost:
            what = f"{shown}: it rejected the test ({reason[:_LONGEST_REASON]})"
            return Finding(SUBJECT, state, what, "see what it says, and its log")
        if not answer.kind.lower().startswith("application/x-protobuf"):
            what = f"{shown}: it answered {answer.status}, but not in OTLP ({answer.kind or 'no content type'})"
            return Finding(SUBJECT, WARNING, what, "see that this is the port for OTLP over HTTP (4318 by default)")
        taken = "accepted a test span" if signal == "traces" else f"takes {signal}"
        return Finding(SUBJECT, OK, f"{shown}: speaks OTLP over HTTP, {taken}")
    what = f"{shown}: answered HTTP {answer.status} to {signal}"
    if answer.status in (429, 502, 503, 504):
        return Finding(SUBJECT, WARNING, what, _BUSY)
    if 300 <= answer.status < 400:
        return Finding(SUBJECT, state, what, "it sends elsewhere, which no exporter follows: name that address")
    return Finding(SUBJECT, state, what, _STATUSES.get(answer.status, "see its log for why"))


def clock(answer: Answer) -> list[Finding]:
    """Return how the end point's clock stands to ours; nothing where it does not say its time."""
    try:
        theirs = parsedate_to_datetime(answer.date or "").timestamp() + 0.5
    except (ValueError, TypeError, IndexError, OverflowError):
        return [Finding(SUBJECT, OK, "its clock is not known: it sends no Date")]
    ahead = theirs - answer.mean
    if abs(ahead) <= _CLOCKS_S:
        return [Finding(SUBJECT, OK, f"its clock agrees with ours to {_CLOCKS_S:.0f} s")]
    what = f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    todo = "set both by NTP: waits between two machines are off by as much, and recent data may not be shown"
    return [Finding(SUBJECT, WARNING, what, todo)]


@contextmanager
def _said(*names: str) -> Iterator[list[str]]:
    """Collect what loggers say inside the block, and keep it off the terminal."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler, loggers = Keep(), [logging.getLogger(name) for name in names]
    before = [(each.propagate, each.level) for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.propagate = False
        each.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        for each, (propagate, level) in zip(loggers, before, strict=True):
            each.removeHandler(handler)
            each.propagate, each.level = propagate, level


def _ours(signal: str, state: str) -> list[Finding]:
    """Ask as the exporter ``bulkscope`` does."""
    with _said("bulkscope") as said:
        try:
            client = _Asking(signal)
        except (ValueError, OSError) as error:  # of certificates: their files
            return [Finding(SUBJECT, state, str(error), "see OTEL_EXPORTER_OTLP_ENDPOINT and the variables beside it")]
    warned = [Finding(SUBJECT, WARNING, text, "set it as it says, or unset it") for text in said]
    span = trial()
    body = b""
    if signal == "traces":
        body = otlp.request([(span.resource, span.instrumentation_scope, otlp.span_field(span))])
    try:
        answer = client.ask(body)
    except (OSError, http.client.HTTPException) as error:
        return [*warned, _failed(state, client.shown, error, client.address, "http/protobuf")]
    if answer.status == 400 and wire.speaks_tls(client.address):  # as Go's servers say that they want TLS
        return [*warned, Finding(SUBJECT, state, f"{client.shown}: {_WANTS_TLS[0]}", _WANTS_TLS[1])]
    return [*warned, _judged(state, signal, client.shown, answer), *(clock(answer) if signal == "traces" else [])]


def _address(signal: str, url: str, protocol: str) -> wire.Address | None:
    """Return where OpenTelemetry's exporter sends ``url`` to; None where it is no address. gRPC's may lack a scheme."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 4317 if protocol == "grpc" else 80)
    except ValueError:
        return None
    tls = _tls(signal) if parts.scheme == "https" else None
    return wire.Address(parts.hostname, port, tls) if parts.hostname else None


def _theirs(signal: str, state: str, protocol: str) -> list[Finding]:
    """Ask as OpenTelemetry's own exporter does; by it, where the signal is traces."""
    variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    default = "http://localhost:4317" if protocol == "grpc" else ""
    base = os.environ.get(variable) or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or default
    url = base if protocol == "grpc" else endpoint(signal)
    shown = printable(url)
    if protocol not in _OFFICIAL:
        what = f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, which Python's exporters do not know"
        return [Finding(SUBJECT, state, what, "set it to http/protobuf or grpc")]
    try:
        address = _address(signal, url, protocol)
    except OSError:
        what = f"{shown}: a file of OTEL_EXPORTER_OTLP_CERTIFICATE, CLIENT_CERTIFICATE or CLIENT_KEY cannot be read"
        return [Finding(SUBJECT, state, what, "see its path, and who may read it")]
    try:
        exporters = import_module(_OFFICIAL[protocol])
    except ImportError as error:
        package = f"opentelemetry-exporter-otlp-proto-{'grpc' if protocol == 'grpc' else 'http'}"
        what = f"{shown}: OTLP over {protocol} needs {package}, which cannot be imported ({error})"
        return [
            Finding(SUBJECT, state, what, f"pip install {package}, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
        ]
    if signal != "traces":
        return [] if _proxied() else [_reached(state, shown, signal, address, protocol)]
    # What is said as it is made may quote a header, with the token in it.
    with _said("opentelemetry") as warned:
        try:
            exporter = exporters.OTLPSpanExporter(timeout=wire.SECONDS)
        except Exception as error:
            what = f"{shown}: OpenTelemetry's exporter cannot be made ({type(error).__name__})"
            return [Finding(SUBJECT, state, what, "see OTEL_EXPORTER_OTLP_ENDPOINT and the variables beside it")]
    with _said("opentelemetry") as said:
        try:
            taken = exporter.export([trial()]) is SpanExportResult.SUCCESS
            exporter.shutdown()
        except Exception as error:
            taken = False
            said.append(type(error).__name__)
    found = []
    if warned:
        what = f"{shown}: OpenTelemetry's exporter does not like a variable of OTEL_EXPORTER_OTLP_"
        found.append(
            Finding(SUBJECT, WARNING, what, "see the log of the service; headers are NAME=VALUE, percent-encoded")
        )
    if taken:
        over = "gRPC" if protocol == "grpc" else "HTTP"
        return [
            *found,
            Finding(SUBJECT, OK, f"{shown}: speaks OTLP over {over}, accepted a test span"),
            Finding(SUBJECT, OK, f"its clock is not known: over {over} OpenTelemetry's exporter does not read it"),
        ]
    if not _proxied() and (reached := _reached(state, shown, signal, address, protocol)).state != OK:
        return [*found, reached]
    # Their texts quote the address: not where there is more to it than host and port.
    why = f" ({'; '.join(said)})" if said and base.rstrip("/") == shown else ""
    return [*found, Finding(SUBJECT, state, f"{shown}: it did not take a test span{why}", "see its log for why")]


def _reached(state: str, shown: str, signal: str, address: wire.Address | None, protocol: str) -> Finding:
    if address is None:
        return Finding(SUBJECT, state, f"{shown}: no address", "write it as http://HOST:PORT")
    try:
        address.connect().close()
    except OSError as error:
        return _failed(state, shown, error, None, protocol)
    if (found := _by_what_is_spoken(address, protocol)) is not None:
        return Finding(SUBJECT, state, f"{shown}: {found[0]}", found[1])
    return Finding(SUBJECT, OK, f"{shown}: is there, for {signal}")


def _proxied() -> bool:
    """Tell whether the way may lead through a proxy, so that the address itself need not be reached from here."""
    return any(os.environ.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"))


_MISSING = {
    "traces": (FAULT, "no span is sent: no request, job or inference is recorded"),
    "metrics": (WARNING, "no metric is sent: queue depth, process CPU and memory, and the counts of drops are missing"),
    "logs": (
        WARNING,
        "no log record is sent: a job is seen when it ends, and one that is killed seems to wait for ever",
    ),
}


def _asked(signal: str) -> list[Finding]:
    """Return what is said of one signal's way out."""
    # Without traces there is nothing to show.
    state, missing = _MISSING[signal]
    names = _exporters(signal)
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    if not names:
        return [Finding(SUBJECT, state, f"{variable}={os.environ.get(variable, '')}: {missing}", f"unset {variable}")]
    if "bulkscope" in names:
        return _ours(signal, state)
    if (name := next((name for name in names if name.startswith("otlp")), None)) is not None:
        return _theirs(signal, state, _PROTOCOLS.get(name, _protocol(signal)))
    if signal == "metrics" and {"bulkscope_scrape", "prometheus"} & set(names):
        return [Finding(SUBJECT, OK, "metrics are not sent, but served for Prometheus to fetch")]
    what = f"{variable}={','.join(names)}: {signal} do not go to an end point of OTLP"
    return [Finding(SUBJECT, WARNING, what, f"unset {variable} where a studio or a Collector is to have them")]


def findings() -> list[Finding]:
    """Return what is said of the end point; of metrics and logs that go where traces go, only what is not well."""
    found = _asked("traces")
    place, dead = printable(endpoint("traces")), any(finding.state == FAULT for finding in found)
    for signal in ("metrics", "logs"):
        same = printable(endpoint(signal)) == place and bool(_exporters(signal))
        if not same:
            found += _asked(signal)
        elif not dead:
            found += [finding for finding in _asked(signal) if finding.state != OK]
    return list(dict.fromkeys(found))
