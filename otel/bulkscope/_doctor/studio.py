"""What the studio says it received, and what was refused or dropped lately, where it can be asked."""

from __future__ import annotations

import http.client
import json
import os
from base64 import b64encode
from typing import Any
from urllib.parse import unquote, urlsplit

from bulkscope._doctor import wire
from bulkscope._doctor.findings import OK, WARNING, Finding
from bulkscope._export.otlp_http import endpoint, printable

SUBJECT = "studio"
PORT = 8080  # the studio's default
_MOST = 1 << 20


def _default() -> str:
    """Return where a studio would be that receives at our end point, by the default port of its pages."""
    host = urlsplit(endpoint("traces")).hostname or "127.0.0.1"
    return f"http://[{host}]:{PORT}" if ":" in host else f"http://{host}:{PORT}"


def _ask(url: str) -> dict[str, Any]:
    """Return what the studio answers. Raises ``OSError``, ``ValueError`` or ``HTTPException``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write it as http://HOST:PORT")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + b64encode(login.encode()).decode()
    connection = kind(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), timeout=wire.SECONDS)
    try:
        connection.request("GET", "/api/drops", headers=headers)
        response = connection.getresponse()
        body = response.read(_MOST)
    finally:
        connection.close()
    if response.status == 401:
        raise ValueError("it asks for its password: --studio http://any:PASSWORD@HOST:PORT")
    found = json.loads(body) if response.status == 200 else None
    if not isinstance(found, dict) or not isinstance(found.get("drops"), list) or "otlp_http" not in found:
        raise ValueError("what listens there is no studio of this version")
    return found


def findings(url: str) -> list[Finding]:
    """Return what the studio at ``url`` says; without one, what one at the end point's host says, if it answers."""
    asked, shown = url or _default(), printable(url or _default())
    try:
        found = _ask(asked)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if url:
            why = error if isinstance(error, ValueError) else type(error).__name__
            return [Finding(SUBJECT, WARNING, f"{shown} could not be asked ({why})", "see the address of its pages")]
        return [
            Finding(SUBJECT, OK, f"none answers at {shown}, so what was dropped is not known; --studio names another")
        ]
    return [*_is_ours(shown, found), *_drops(shown, found)]


def _is_ours(shown: str, found: dict[str, Any]) -> list[Finding]:
    try:
        ports = {urlsplit(str(found[name])).port for name in ("otlp_http", "otlp_grpc")}
        ours = urlsplit(endpoint("traces")).port
    except (ValueError, KeyError):
        return []
    if ours in ports or os.environ.get("OTEL_TRACES_EXPORTER") in ("", "none"):
        return []
    what = f"{shown} receives at {printable(str(found['otlp_http']))}, and telemetry is sent to port {ours}"
    todo = f"if that studio is to show it: OTEL_EXPORTER_OTLP_ENDPOINT={printable(str(found['otlp_http']))}"
    return [Finding(SUBJECT, WARNING, what, todo)]


def _drops(shown: str, found: dict[str, Any]) -> list[Finding]:
    lines = []
    if found.get("trouble"):
        lines.append(Finding(SUBJECT, WARNING, f"{shown} cannot store: {found['trouble']}", "see its log"))
    rows = [row for row in found["drops"] if isinstance(row, dict)]
    if not rows:
        lines.append(Finding(SUBJECT, OK, f"{shown}: nothing was refused or dropped in the last hour"))
    for row in rows[:5]:
        what = f"{shown}: in the last hour {row.get('records')} records of {row.get('signal')}, {row.get('reason')}"
        lines.append(
            Finding(
                SUBJECT, WARNING, what, "refused: by the studio, its log says why; dropped: by a service, see its log"
            )
        )
    return lines
