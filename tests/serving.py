"""A real HTTP server in a thread, for the end points that tests and benchmarks stand in for."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Keeps connections, as any real end point does, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def content(self) -> bytes:
        """Return the request's body as it came."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, status: int, content: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer, OTLP's protobuf unless ``headers`` say otherwise."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/x-protobuf", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: Any) -> None:
        """Say nothing of clients that went away: some are killed on purpose."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*arguments)


def start(
    handler: type[BaseHTTPRequestHandler],
    tls: ssl.SSLContext | None = None,
    address: tuple[str, int] = ("127.0.0.1", 0),
) -> tuple[ThreadingHTTPServer, str]:
    """Serve ``handler``, on a free port of the loopback address unless told otherwise; returns server and base URL."""
    server = _Server(address, handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server, f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """As ``start``, until the block ends; yields the base URL."""
    server, url = start(handler, tls)
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()
