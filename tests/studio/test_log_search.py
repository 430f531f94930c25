"""A text is searched in the newest logs first, a part at a time, and all parts together are all logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkscope_studio.server.pages import logs
from bulkscope_studio.server.pages.data import Data
from bulkscope_studio.services.endings import Ends
from bulkscope_studio.storage.store import Store
from tests import chance, rows
from tests.rows import BEGIN_NS

HOUR = 3600 * 10**9
LONG_AGO = [0, 1]  # senders that gave no time


def spread(seed: int) -> list[int]:
    """Return times of logs: steady ones, bursts, several of one moment, and some of long ago."""
    rolled = chance.rng(seed)
    times = [BEGIN_NS + rolled.randrange(HOUR) for _ in range(300)]
    burst = BEGIN_NS + rolled.randrange(HOUR)
    times += [burst + rolled.randrange(1000) for _ in range(200)] + [burst] * 50
    return times + (LONG_AGO if seed % 2 else [])


@pytest.mark.chance
@pytest.mark.parametrize("seed", range(6 * chance.TIMES))
async def test_parts_are_all_logs_in_their_order(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = (40, 100, 10_000)[seed % 3]
    monkeypatch.setattr(logs, "SEARCHED", most)
    times = spread(seed)
    made = [{"time_ns": at, "body": f"{'Needle' if n % 3 else 'hay'} {n}"} for n, at in enumerate(times)]
    store = Store(tmp_path / "s.duckdb")
    connection = store.connection()
    rows.insert(connection, {"logs": rows.table("logs", made)})
    connection.close()
    data = Data(store, dict, Ends(store))
    wanted = sorted((at for n, at in enumerate(times) if n % 3), reverse=True)
    found: list[int] = []
    before, parts, left = logs.NEWEST_NS, 0, len(times)
    while True:
        offset, page = 0, []
        while True:
            page, reach = await logs.search(
                data, before, text="needle", severity=None, bulk_id=None, service=None, offset=offset
            )
            found += [row["time_ns"] for row in page[: logs.PAGE]]
            if len(page) <= logs.PAGE:
                break
            offset += logs.PAGE
        looked = sum(reach["from_ns"] <= at < before for at in times)
        bins = {at // ((max(times) - min(times)) // 1000 + 1) for at in times if reach["from_ns"] <= at < before}
        assert looked <= most or len(bins) == 1
        left -= looked
        assert reach["older"] == left
        parts += 1
        if not reach["older"]:
            break
        before = reach["from_ns"]
    store.close()
    assert found == wanted
    assert parts == 1 if most > len(times) else seed % 2 or parts > 3


async def test_without_a_text_all_logs_are_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SEARCHED", 1)
    store = Store(tmp_path / "s.duckdb")
    data = Data(store, dict, Ends(store))
    nothing = {"severity": None, "bulk_id": None, "service": None, "offset": 0}
    assert await logs.search(data, text="x", **nothing) == ([], {"from_ns": 0, "older": 0})
    connection = store.connection()
    rows.insert(
        connection, {"logs": rows.table("logs", [{"time_ns": BEGIN_NS + n * HOUR, "body": "x"} for n in range(9)])}
    )
    connection.close()
    found, reach = await logs.search(data, **nothing)
    store.close()
    assert (len(found), reach["older"]) == (9, 0)


async def test_heartbeats_are_shown_only_if_they_are_wanted(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    made = [
        {"time_ns": BEGIN_NS + n, "body": event or "line", "event_name": event}
        for n, event in enumerate((None, "bulk.job.started", "bulk.job.heartbeat", "other"))
    ]
    connection = store.connection()
    rows.insert(connection, {"logs": rows.table("logs", made)})
    connection.close()
    data = Data(store, dict, Ends(store))
    nothing = {"severity": None, "bulk_id": None, "service": None, "offset": 0}
    for text in (None, "e"):
        hidden, _ = await logs.search(data, text=text, **nothing)
        shown, _ = await logs.search(data, text=text, heartbeats=True, **nothing)
        assert [row["body"] for row in hidden] == ["other", "bulk.job.started", "line"]
        assert [row["body"] for row in shown] == ["other", "bulk.job.heartbeat", "bulk.job.started", "line"]
    store.close()
