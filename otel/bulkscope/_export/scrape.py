"""``OTEL_METRICS_EXPORTER=bulkscope_scrape``: a ``/metrics`` page of its own for each process of a service.

OpenTelemetry's ``prometheus`` exporter serves one port, which the second worker of a service finds taken. Here each
process takes the first free port from ``OTEL_EXPORTER_PROMETHEUS_PORT`` on (default 9464, at most 100 of them), on
``OTEL_EXPORTER_PROMETHEUS_HOST`` (default 127.0.0.1). Where ``BULKSCOPE_SCRAPE_TARGETS`` names a folder, each
process leaves a file there that says where it is, as Prometheus' file-based discovery reads it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, start_http_server

from bulkscope import _lifecycle
from bulkscope._safe import guarded

logger = logging.getLogger("bulkscope")

_PORTS = 100
# A child that is forked for one job is gone before anybody asks: it needs no port.
_CHILD_SECONDS = 1.0


class ScrapeReader(PrometheusMetricReader):
    """A metric reader that serves its own page; made by the SDK, once a process.

    Of a registry of its own: a page that the application serves, from the default one, stays as it is.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        super().__init__(registry=registry)
        self._page = _Page(registry)
        self._page.start()


class _Page:
    """The page of this process. A fault of it is reported, and the process goes on without."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._server: Any = None
        self._file: Path | None = None
        _lifecycle.at_end(self._forget)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @guarded
    def start(self) -> None:
        host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST", "").strip() or "127.0.0.1"
        first = _port()
        for port in range(first, first + _PORTS):
            try:
                self._server = start_http_server(port, host, self._registry)[0]
            except OSError:
                continue
            # Listening on every address is none that could be asked.
            reached = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
            self._announce(f"{reached}:{port}")
            return
        logger.warning("no port of %s from %d to %d is free: there is no /metrics page", host, first, port)

    def _announce(self, address: str) -> None:
        name = os.environ.get("BULKSCOPE_SCRAPE_TARGETS", "").strip()
        if not name:
            return
        folder, host = Path(name), socket.gethostname()
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder, host)
        service = _service()
        target = {"targets": [address], "labels": {"service_name": service} if service else {}}
        file = folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', service) or 'service'}@{host}@{os.getpid()}.json"
        # Written beside and renamed: Prometheus may read at any moment. It looks for names that end in .json.
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps([target]))
        beside.replace(file)
        self._file = file

    def _forget(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None

    @guarded
    def _after_fork(self) -> None:
        # The parent's page and the parent's file. Its socket is closed here, or the port would outlive the parent.
        if self._server is not None:
            self._server.socket.close()
        self._server = self._file = None
        timer = threading.Timer(_CHILD_SECONDS, self.start)
        timer.daemon = True
        timer.start()


def _port() -> int:
    text = os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT", "").strip() or "9464"
    if not text.isdecimal() or not 0 < int(text) <= 65_535 - _PORTS:
        logger.warning("OTEL_EXPORTER_PROMETHEUS_PORT is %r; set it to a port. Using 9464.", text)
        return 9464
    return int(text)


def _service() -> str:
    if name := os.environ.get("OTEL_SERVICE_NAME", "").strip():
        return name
    for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name":
            return value.strip()
    return ""


def _tidy(folder: Path, host: str) -> None:
    """Remove what processes of this host have left that were killed."""
    for file in folder.glob(f"*@{host}@*.json"):
        pid = file.stem.rpartition("@")[2]
        if pid.isdecimal():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                with suppress(OSError):
                    file.unlink()
            except OSError:
                continue  # somebody else's, and alive
