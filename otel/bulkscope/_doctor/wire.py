"""What listens at an address: whether it can be reached, and which protocol it speaks.

HTTP/1.1 sent to a gRPC port is closed without an answer, or answered by bytes that are no HTTP; a client then says
"connection reset". So both are asked: a gRPC server answers HTTP/2's preface with a SETTINGS frame (RFC 9113, 3.4).
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

SECONDS = 5.0
# The client's preface, and an empty SETTINGS frame: length 0, type 4, no flags, stream 0.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS, _GOAWAY = 4, 7
_FRAME_HEAD = 9
# Record types of TLS: alert and handshake, followed by the major version 3.
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")

HTTP1, HTTP2, TLS, SILENT, OTHER = "HTTP/1.1", "HTTP/2", "TLS", "nothing", "something else"


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of an end point, and the TLS that it is asked by, if any."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def connect(self, alpn: list[str] | None = None) -> socket.socket:
        """Return a connection. Raises ``OSError``, of which ``ssl.SSLError`` is one."""
        plain = socket.create_connection((self.host, self.port), SECONDS)
        if self.tls is None:
            return plain
        try:
            if alpn:
                self.tls.set_alpn_protocols(alpn)
            return self.tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def answer_to(address: Address, request: bytes, alpn: list[str] | None = None) -> bytes:
    """Return the first bytes that are answered to ``request``; none where nothing is. Raises ``OSError`` as connect."""
    with address.connect(alpn) as connection:
        connection.settimeout(SECONDS)
        found = b""
        try:
            connection.sendall(request)
            while len(found) < _FRAME_HEAD and (part := connection.recv(64)):
                found += part
        except OSError:  # reset, or silent: what came until then counts
            pass
        return found


def kind(answer: bytes) -> str:
    """Return what an answer's first bytes are of."""
    if not answer:
        return SILENT
    if answer.startswith(b"HTTP/1."):
        return HTTP1
    if answer.startswith(_TLS_RECORDS):
        return TLS
    return HTTP2 if len(answer) >= _FRAME_HEAD and answer[3] in (_SETTINGS, _GOAWAY) else OTHER


def spoken(address: Address) -> set[str]:
    """Return which of HTTP/1.1, HTTP/2 and TLS are spoken at an address. Raises ``OSError`` where nobody listens."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    asked = f"GET / HTTP/1.1\r\nHost: {host}:{address.port}\r\nConnection: close\r\n\r\n".encode()
    found = {kind(answer_to(address, asked, ["http/1.1"])), kind(answer_to(address, _PREFACE, ["h2"]))}
    found -= {SILENT, OTHER}
    return found or ({TLS} if speaks_tls(address) else found)


def speaks_tls(address: Address) -> bool:
    """Tell whether an address that is asked without TLS speaks it, whoever has signed its certificate.

    Nothing is sent over it. Servers answer plain requests there by an alert, by 400, or not at all.
    """
    if address.tls is not None:
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        Address(address.host, address.port, context).connect().close()
    except OSError:
        return False
    return True
