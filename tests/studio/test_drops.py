"""What the studio says did not arrive lately."""

from __future__ import annotations

from pathlib import Path

from bulkscope_studio.services.drops import LATELY_S, lately
from bulkscope_studio.storage.store import Store

NOW_NS = 1_800_000_000 * 10**9
HOUR_NS = LATELY_S * 10**9


def test_what_was_refused_or_dropped_in_the_last_hour(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.duckdb")
    with store.writing() as connection:
        connection.executemany(
            "INSERT INTO ingest VALUES (?, ?, 'http', ?, ?, ?)",
            [
                (NOW_NS - HOUR_NS - 1, "traces", "refused", "before", 1),
                (NOW_NS - HOUR_NS, "traces", "refused", "broken", 2),
                (NOW_NS - 1, "traces", "refused", "broken", 3),
                (NOW_NS - 1, "logs", "truncated", "long", 4),
                (NOW_NS + 1, "logs", "refused", "after", 5),
            ],
        )
        # A service's count: 7 before the hour, 10 in it.
        connection.executemany(
            "INSERT INTO points (time_ns, name, type, service_instance_id, attributes, value) "
            "VALUES (?, 'bulk.telemetry.dropped', 'sum', 'i', ?, ?)",
            [
                (NOW_NS - HOUR_NS - 1, '{"error.type": "queue_full", "signal": "logs"}', 7),
                (NOW_NS - 5, '{"error.type": "queue_full", "signal": "logs"}', 10),
            ],
        )
    assert lately(store, NOW_NS) == [
        {"signal": "logs", "reason": "dropped: queue_full", "records": 3},
        {"signal": "traces", "reason": "refused: broken", "records": 5},
    ]
    store.close()
