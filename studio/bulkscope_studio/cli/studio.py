"""``bulkscope studio``: options in, the running studio, exit code out."""

from __future__ import annotations

import argparse
from pathlib import Path

from bulkscope_studio.rendering.output import say
from bulkscope_studio.server import process
from bulkscope_studio.sources import resolve


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bulkscope studio",
        description="Receive OpenTelemetry data, keep it in one file and show it on a web page.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--db", type=Path, default=resolve.place(None), help="the file to keep the data in")
    parser.add_argument(
        "--host", default=process.HOST, metavar="ADDRESS",
        help="address to listen on; any but this machine's own loopback wants a password, in "
        + process.PASSWORD_VARIABLE,
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8080, help="port of the web page; 0 takes a free one")
    parser.add_argument("--otlp-http-port", type=int, default=4318, help="port for OTLP over HTTP; 0 takes a free one")
    parser.add_argument("--otlp-grpc-port", type=int, default=4317, help="port for OTLP over gRPC; 0 takes a free one")
    parser.add_argument("--retention", default="7d", help="how long data is kept")
    parser.add_argument("--max-size", default="2GB", help="how much data is kept")
    parser.add_argument("--no-host", action="store_true", help="do not sample this host's CPU and memory")
    return parser


def command(argv: list[str]) -> int:
    """Run the studio until it is told to end; 1 when a server fails, 2 when it cannot start."""
    options = _parser().parse_args(argv)
    settings = process.Settings(
        options.db, options.host, options.port, options.otlp_http_port, options.otlp_grpc_port, options.retention,
        options.max_size, not options.no_host,
    )  # fmt: skip
    try:
        if process.run(settings):
            return 0
    except process.CannotStart as error:
        say(f"bulkscope studio: {error}", error=True)
        return 2
    say("bulkscope studio: a server could not be started, or ended by itself; the log above says why", error=True)
    return 1
