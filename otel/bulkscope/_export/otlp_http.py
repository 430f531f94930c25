"""OTLP over HTTP on the standard library: one kept connection; what is tried again is the caller's to say.

``requests`` under the official exporter takes 0.12 s to import and 0.3 ms a request. What this client does not
do is left to the official exporter (see ``_defaults``): proxies, and credential providers in code.

Settings are OpenTelemetry's ``OTEL_EXPORTER_OTLP_[TRACES_|METRICS_|LOGS_]``: ``ENDPOINT``, ``HEADERS``,
``TIMEOUT`` (seconds, as in every Python exporter), ``COMPRESSION`` (none, gzip, deflate), ``CERTIFICATE``,
``CLIENT_CERTIFICATE``, ``CLIENT_KEY``.
"""

from __future__ import annotations

import gzip
import http.client
import logging
import os
import re
import ssl
import time
import zlib
from base64 import b64encode
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

logger = logging.getLogger("bulkscope")

# What the OTLP specification calls retryable; anything else is final.
_RETRYABLE = frozenset((429, 502, 503, 504))
_DEFAULT_SECONDS = 10.0
_MOST_SECONDS = 86_400.0
# An answer is a status and a short message; a longer one is not OTLP, and its connection is given up.
_LONGEST_ANSWER = 1 << 16


class RefusedError(Exception):
    """The end point answered, and will not take this request; ``status`` is what it answered."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status} {reason}".strip())
        self.status = status


class BusyError(Exception):
    """The end point answered that it may take this request later: not before ``retry_after`` seconds, 0 or more."""

    def __init__(self, status: int, reason: str, retry_after: float) -> None:
        super().__init__(f"HTTP {status} {reason}".strip())
        self.retry_after = retry_after


def retry_after(text: str) -> float:
    """Return the seconds of a ``Retry-After`` header, a number or a date; 0 for what is neither, or is past."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError, TypeError, IndexError):
            return 0.0
    return min(seconds, _MOST_SECONDS) if seconds > 0 else 0.0  # which nan is not


# A host and a port, and nothing else: what is not of this form is not said.
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(:\d{1,5})?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def printable(url: str) -> str:
    """Return an end point as it may stand in a log: scheme, host and port.

    Passwords stand before the host, tokens in the path and the query; where a URL is not well formed, anywhere.
    """
    text = url.strip()
    scheme = found[0] if (found := _SCHEME.match(text)) else ""
    authority, *rest = re.split(r"[/?#\\]", text[len(scheme) :], maxsplit=1)
    address = authority.rpartition("@")[2]
    # A password with a slash in it looks like a host with a path that has the @.
    if "@" in "".join(rest) or not _ADDRESS.fullmatch(address):
        return f"{scheme}(an address that is not shown)"
    return scheme + address


def _setting(signal: str, name: str, default: str = "") -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
        if value := os.environ.get(variable, "").strip():
            return value
    return default


def endpoint(signal: str) -> str:
    """Return the URL that ``signal`` (traces, metrics, logs) is sent to."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    return own or _setting(signal, "ENDPOINT", "http://localhost:4318").removesuffix("/") + f"/v1/{signal}"


def _seconds(signal: str) -> float:
    text = _setting(signal, "TIMEOUT")
    try:
        seconds = float(text) if text else _DEFAULT_SECONDS
    except ValueError:
        seconds = -1.0
    if seconds >= 0:  # which nan is not
        return min(seconds, _MOST_SECONDS)
    logger.warning("OTEL_EXPORTER_OTLP_TIMEOUT is %r; set it to a number of seconds. Using 10.", text)
    return _DEFAULT_SECONDS


def _compress(signal: str) -> tuple[str, Callable[[bytes], bytes]]:
    kind = _setting(signal, "COMPRESSION", "none").lower()
    if kind == "gzip":
        return kind, gzip.compress
    if kind == "deflate":
        return kind, zlib.compress
    if kind != "none":
        logger.warning("OTEL_EXPORTER_OTLP_COMPRESSION is %r; set it to none, gzip or deflate. Using none.", kind)
    return "", bytes


def _tls(signal: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=_setting(signal, "CERTIFICATE") or None)
    if certificate := _setting(signal, "CLIENT_CERTIFICATE"):
        context.load_cert_chain(certificate, _setting(signal, "CLIENT_KEY") or None)
    return context


# As OpenTelemetry's own parser, which writes what it cannot read into the log, passwords and all.
_HEADER = re.compile(r"[ \t]*([!#-'*+.0-9A-Z^-z|~-]+)[ \t]*=[ \t]*([ !#-+\--:<-\[\]-~]*)")


def headers(text: str) -> dict[str, str]:
    """Return the headers of ``NAME=VALUE,NAME=VALUE``, names in lower case; one that is malformed is left out and said.

    Values may be percent-encoded, and without a space they are taken to be.
    """
    found = {}
    for number, pair in enumerate(re.split(r"[ \t]*,[ \t]*", text), 1):
        match = _HEADER.fullmatch(pair.strip())
        if match is not None:
            name, value = match[1], match[2].strip()
            if " " not in value:
                name, value = unquote(name), unquote(value).strip()
            found[name.strip().lower()] = value
        elif pair:
            logger.warning(
                "header %d of OTEL_EXPORTER_OTLP_HEADERS is left out: write it as NAME=VALUE, percent-encoded, "
                "with a comma between two headers",
                number,
            )
    return found


class Client:
    """Posts requests of one signal, one after the other.

    Raises ``ValueError`` where the end point is no URL of ``http`` or ``https``.
    """

    def __init__(self, signal: str) -> None:
        url = endpoint(signal)
        self.shown = printable(url)
        try:
            parts = urlsplit(url)
            # Said, or an address of IPv6 would lose its last part to the port.
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        except (ValueError, KeyError):  # whose texts quote the address, or parts of it
            port = 0
        if not port or not parts.hostname:
            raise ValueError(
                f"telemetry cannot be sent to {self.shown}: write it as http://HOST:PORT, and percent-encode a login"
            )
        self._host, self._port = parts.hostname, port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = _tls(signal) if parts.scheme == "https" else None
        self._seconds = _seconds(signal)
        encoding, self._compress = _compress(signal)
        self._headers = {"Content-Type": "application/x-protobuf", "User-Agent": "OTel-OTLP-Exporter-Python bulkscope"}
        if encoding:
            self._headers["Content-Encoding"] = encoding
        if parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + b64encode(login.encode()).decode()
        # Lower-case names come from there; a header given by the user replaces ours whatever its case.
        for name, value in headers(_setting(signal, "HEADERS")).items():
            self._headers = {key: kept for key, kept in self._headers.items() if key.lower() != name} | {name: value}
        for name, value in self._headers.items():
            if not (name + value).isprintable() or not (name + value).isascii():
                raise ValueError(f"the header {name} of OTEL_EXPORTER_OTLP_HEADERS holds what no HTTP header may")
        if not self._path.isascii() or not self._path.isprintable() or " " in self._path:
            raise ValueError(f"telemetry cannot be sent to {self.shown}: percent-encode its path")
        self.renew()

    def renew(self) -> None:
        """Start without a connection. A forked child does, whose parent goes on with the inherited one."""
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Give the connection up."""
        self._drop()

    def post(self, body: bytes) -> bytes:
        """Send a request and return the answer's body.

        Raises ``BusyError`` for an answer that allows another attempt and ``RefusedError`` for one that is final;
        ``OSError`` or ``http.client.HTTPException`` when there was none within the time-out.
        """
        content = self._compress(body)
        deadline = time.monotonic() + self._seconds
        kept = self._connection is not None
        try:
            try:
                status, reason, wait, answer = self._exchange(content, deadline)
            except (ConnectionError, http.client.BadStatusLine):
                # A server closes connections that were quiet for a while; that is no failed attempt.
                if not kept:
                    raise
                self._drop()
                status, reason, wait, answer = self._exchange(content, deadline)
        except BaseException:
            self._drop()
            raise
        if 200 <= status < 300:
            return answer
        raise BusyError(status, reason, wait) if status in _RETRYABLE else RefusedError(status, reason)

    def _exchange(self, content: bytes, deadline: float) -> tuple[int, str, float, bytes]:
        seconds = max(0.001, deadline - time.monotonic())
        connection = self._connection
        if connection is None:
            if self._tls is None:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=seconds)
            else:
                connection = http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=self._tls)
            self._connection = connection
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        connection.request("POST", self._path, content, self._headers)
        response = connection.getresponse()
        answer = b""
        # Part by part: the socket's own time-out starts anew with each, and an answer that drips would never end.
        while response.length != 0 and len(answer) < _LONGEST_ANSWER and time.monotonic() < deadline:
            part = response.read1(_LONGEST_ANSWER)
            if not part:
                break
            answer += part
        if response.length == 0 or response.isclosed():
            response.close()
        else:
            self._drop()
        return response.status, response.reason, retry_after(response.headers.get("Retry-After", "0")), answer

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
