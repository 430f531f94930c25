"""What did not arrive lately, which ``bulkscope doctor`` asks for."""

from __future__ import annotations

import time
from typing import Any

from bulkscope_studio.storage import sql
from bulkscope_studio.storage.store import Store

LATELY_S = 3600


def lately(store: Store, now_ns: int | None = None) -> list[dict[str, Any]]:
    """Return signal, reason and records of what was refused here, or dropped by its sender, in the last hour."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    window = {"first": now_ns - LATELY_S * 10**9, "last": now_ns}
    rows: list[dict[str, Any]] = store.query(sql.load("explain_drops"), window).to_pylist()
    return rows
