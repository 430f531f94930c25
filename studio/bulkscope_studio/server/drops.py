"""What did not arrive lately: ``GET /api/drops``, which ``bulkscope doctor`` reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bulkscope_studio.storage import sql
from bulkscope_studio.storage.store import Store

if TYPE_CHECKING:
    from fastapi import FastAPI

LATELY_S = 3600


def lately(store: Store, now_ns: int | None = None) -> list[dict[str, Any]]:
    """Return signal, reason and records of what was refused here, or dropped by its sender, in the last hour."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    window = {"first": now_ns - LATELY_S * 10**9, "last": now_ns}
    rows: list[dict[str, Any]] = store.query(sql.load("explain_drops"), window).to_pylist()
    return rows


def install(app: FastAPI, store: Store, status: Callable[[], Mapping[str, object]]) -> None:
    """Add the route; ``status`` gives the receiver's addresses and its trouble."""

    def drops() -> dict[str, Any]:
        now = status()
        return {name: now[name] for name in ("otlp_http", "otlp_grpc", "trouble")} | {
            "seconds": LATELY_S,
            "drops": lately(store),
        }

    app.add_api_route("/api/drops", drops)
