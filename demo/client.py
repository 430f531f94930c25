"""Talking to the API as its users do."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

_TIMEOUT_S = 30.0
# Everything is on this machine: a proxy from the environment must not come between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def post(url: str, body: object) -> dict[str, Any]:
    """Send JSON and return the answer; raises urllib.error.HTTPError for 4xx and 5xx."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
        return dict(json.load(answer))


def get(url: str) -> dict[str, Any]:
    """Return the JSON at ``url``; raises urllib.error.HTTPError for 4xx and 5xx."""
    with _OPENER.open(url, timeout=_TIMEOUT_S) as answer:
        return dict(json.load(answer))


def answers(url: str) -> bool:
    """Tell whether ``url`` answers with a success."""
    try:
        with _OPENER.open(url, timeout=2) as answer:
            return bool(answer.status < 400)
    except (OSError, ValueError):
        return False
