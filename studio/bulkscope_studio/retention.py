"""Old telemetry goes, by age and by size; what went is counted."""

from __future__ import annotations

import re
import time

from bulkscope_studio.store import Store

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
# 27 years and 9 EB: counted back from now in ns, and in bytes, both stay in 64 bits.
_LONGEST, _LARGEST = 10_000 * 86_400, 2**63 - 1
_TABLES = {"spans": "start_ns", "logs": "time_ns", "points": "time_ns", "ingest": "time_ns"}


def duration(text: str) -> float:
    """Return ``7d``, ``12h``, ``30m`` in seconds. Raises ``ValueError`` that says what is expected."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is not a duration; write for example 7d, 12h or 30m")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"{text[:20]!r} is too long: 10000d is the most, as in 30m, 12h or 7d")
    return seconds


def size(text: str) -> int:
    """Return ``2GB``, ``500MB``, ``1GiB`` in bytes. Raises ``ValueError`` that says what is expected."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not found or found[2].upper() not in _BYTES or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is not a size; write for example 2GB or 500MB")
    most = float(found[1]) * _BYTES[found[2].upper()]
    if most > _LARGEST:
        raise ValueError(f"{text[:20]!r} is too large; write for example 2GB or 500MB")
    return int(most)


def used_bytes(store: Store) -> int:
    """Return the bytes of the file that hold data, its log of uncommitted blocks included."""
    row = store.query("SELECT used_blocks * block_size AS used FROM pragma_database_size()").to_pylist()[0]
    wal = store.path.with_name(store.path.name + ".wal")
    return int(row["used"]) + (wal.stat().st_size if wal.exists() else 0)


def apply(store: Store, keep_seconds: float, max_bytes: int) -> int:
    """Delete what is older than ``keep_seconds``, then the oldest until ``max_bytes`` hold the rest.

    Returns how many records went; each deletion leaves a row in ``ingest`` with the outcome ``expired``.
    """
    now = time.time_ns()
    gone = _delete(store, now - int(keep_seconds * 1e9), "older than the retention")
    for _ in range(20):
        if used_bytes(store) <= max_bytes:
            break
        limits = store.query(
            "SELECT min(t) AS first, max(t) AS last FROM (SELECT start_ns AS t FROM spans"
            " UNION ALL SELECT time_ns FROM logs UNION ALL SELECT time_ns FROM points)"
        ).to_pylist()[0]
        if limits["first"] is None:
            break
        # A quarter of the time span at once: DuckDB gives space back by whole row groups of 122,880 rows.
        cut = limits["first"] + max(1, (limits["last"] - limits["first"]) // 4)
        gone += _delete(store, cut, "over the maximum size")
    return gone


def _delete(store: Store, before_ns: int, reason: str) -> int:
    connection = store.connection()
    total = 0
    try:
        for table, column in _TABLES.items():
            if table == "ingest" and "size" in reason:
                continue
            row = connection.execute(f"DELETE FROM {table} WHERE {column} < $before", {"before": before_ns}).fetchone()
            count = int(row[0]) if row else 0
            if count and table != "ingest":
                connection.execute(
                    "INSERT INTO ingest VALUES ($now, $signal, 'studio', 'expired', $reason, $count)",
                    {"now": time.time_ns(), "signal": table, "reason": reason, "count": count},
                )
            total += count
        if total:
            connection.execute("CHECKPOINT")
    finally:
        connection.close()
    return total
