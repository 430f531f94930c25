"""Old data goes, by age and by size; the newest stays, and what went is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkscope_studio import retention
from bulkscope_studio.store import Store
from tests.studio.sample import fill

DAY_NS = 86_400 * 10**9
TIMES = {"spans": ("start_ns", "end_ns"), "logs": ("time_ns",), "points": ("time_ns",)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "s.duckdb")
    yield opened
    opened.close()


def count(store: Store, table: str, where: str = "true") -> int:
    return int(store.query(f"SELECT count(*) AS n FROM {table} WHERE {where}").to_pylist()[0]["n"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604800), ("12h", 43200), ("30m", 1800), ("1.5w", 907200), ("9s", 9)]
)
def test_durations(text: str, seconds: float) -> None:
    assert retention.duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1GiB", 2**30), ("100", 100)])
def test_sizes(text: str, size: int) -> None:
    assert retention.size(text) == size


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "0d", "7 days", "1y", "nan"])
def test_a_duration_that_is_none_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 7d"):
        retention.duration(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "2PB", "two"])
def test_a_size_that_is_none_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 2GB"):
        retention.size(text)


@pytest.mark.parametrize("text", ["10001d", "1000000000d", "9" * 400 + "s"])
def test_a_duration_beyond_the_clock_of_the_store(text: str) -> None:
    with pytest.raises(ValueError, match="is too long: 10000d"):
        retention.duration(text)


@pytest.mark.parametrize("text", ["9300000TB", "9" * 400])
def test_a_size_beyond_any_disk(text: str) -> None:
    with pytest.raises(ValueError, match="is too large; write for example 2GB"):
        retention.size(text)


def test_what_is_too_old_goes_and_is_counted(store: Store) -> None:
    now = time.time_ns()
    fill(store.connection(), 1, 6, start_ns=now - 10 * DAY_NS)
    old = {table: count(store, table) for table in TIMES}
    for table, columns in TIMES.items():
        later = ", ".join(f"{column} + {9 * DAY_NS} AS {column}" for column in columns)
        store.connection().execute(f"INSERT INTO {table} SELECT * REPLACE ({later}) FROM {table}")
    assert retention.apply(store, 7 * 86400, 10**12) == sum(old.values())
    assert {table: count(store, table) for table in old} == old
    gone = store.query("SELECT signal, outcome, reason, records FROM ingest").to_pylist()
    assert {row["signal"]: row["records"] for row in gone} == old
    assert {(row["outcome"], row["reason"]) for row in gone} == {("expired", "older than the retention")}


def test_nothing_to_delete_leaves_no_trace(store: Store) -> None:
    fill(store.connection(), 1, 6, start_ns=time.time_ns())
    assert retention.apply(store, 7 * 86400, 10**12) == 0
    assert count(store, "ingest") == 0


def test_over_the_size_the_oldest_goes_and_the_newest_stays(store: Store) -> None:
    now = time.time_ns()
    connection = store.connection()
    # A day of points, some MB of them, of random content so that they cannot be compressed away.
    connection.execute(
        "INSERT INTO points (time_ns, name, type, attributes, value)"
        " SELECT $now - i * 144000000, 'm', 'gauge', hash(i)::VARCHAR, random() FROM range(600000) r(i)",
        {"now": now},
    )
    connection.execute("CHECKPOINT")
    before = retention.used_bytes(store)
    kept = retention.Retention(store, 30 * 86400, before // 2)
    # Space comes back by whole row groups of 122,880 rows, of which there are five here: it takes a second cut.
    assert kept.apply() > 0
    assert kept.apply() > 0
    assert retention.used_bytes(store) <= before // 2
    assert kept.apply() == 0
    left = count(store, "points")
    assert 0 < left < 600_000
    assert count(store, "points", f"time_ns = {now}") == 1
    reasons = store.query("SELECT DISTINCT reason FROM ingest").to_pylist()
    assert reasons == [{"reason": "over the maximum size"}]


def test_an_empty_store_larger_than_the_limit_is_left_alone(store: Store) -> None:
    assert retention.apply(store, 86400, 1) == 0
