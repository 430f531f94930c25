"""Old data goes, by age and by size; the newest stays, and what went is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkscope_studio.storage import retention
from bulkscope_studio.storage.store import Store
from bulkscope_studio.text import parse
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
    assert parse.duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1GiB", 2**30), ("100", 100)])
def test_sizes(text: str, size: int) -> None:
    assert parse.size(text) == size


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "0d", "7 days", "1y", "nan"])
def test_a_duration_that_is_none_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 7d"):
        parse.duration(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "2PB", "two"])
def test_a_size_that_is_none_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 2GB"):
        parse.size(text)


@pytest.mark.parametrize("text", ["10001d", "1000000000d", "9" * 400 + "s"])
def test_a_duration_beyond_the_clock_of_the_store(text: str) -> None:
    with pytest.raises(ValueError, match="is too long: 10000d"):
        parse.duration(text)


@pytest.mark.parametrize("text", ["9300000TB", "9" * 400])
def test_a_size_beyond_any_disk(text: str) -> None:
    with pytest.raises(ValueError, match="is too large; write for example 2GB"):
        parse.size(text)


def test_what_is_too_old_goes_and_is_counted(store: Store) -> None:
    now = time.time_ns()
    fill(store.connection(), 1, 6, start_ns=now - 10 * DAY_NS)
    old = {table: count(store, table) for table in TIMES}
    for table, columns in TIMES.items():
        later = ", ".join(f"{column} + {9 * DAY_NS} AS {column}" for column in columns)
        store.connection().execute(f"INSERT INTO {table} SELECT * REPLACE ({later}) FROM {table}")
    assert retention.Retention(store, 7 * 86400, 10**12).apply() == sum(old.values())
    assert {table: count(store, table) for table in old} == old
    gone = store.query("SELECT signal, outcome, reason, records FROM ingest").to_pylist()
    assert {row["signal"]: row["records"] for row in gone} == old
    assert {(row["outcome"], row["reason"]) for row in gone} == {("expired", "older than the retention")}


def test_nothing_to_delete_leaves_no_trace(store: Store) -> None:
    fill(store.connection(), 1, 6, start_ns=time.time_ns())
    assert retention.Retention(store, 7 * 86400, 10**12).apply() == 0
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
    assert retention.Retention(store, 86400, 1).apply() == 0


HOUR_NS = 3600 * 10**9


def spans(store: Store, number: int, bulk: str, last_ns: int, over_ns: int) -> None:
    """Insert spans of a bulk, evenly over the time before ``last_ns``, whose content cannot be compressed away."""
    with store.writing() as connection:
        connection.execute(
            "INSERT INTO spans (trace_id, span_id, kind, start_ns, end_ns, bulk_id, resource_id, attributes)"
            " SELECT md5(i::VARCHAR), substr(md5($bulk || i), 17), 'CONSUMER', $last - $over + i * ($over // $n),"
            "        $last - $over + i * ($over // $n), $bulk, $bulk, hash(i)::VARCHAR || hash(-i)::VARCHAR"
            " FROM range($n) r(i)",
            {"bulk": bulk, "n": number, "last": last_ns, "over": over_ns},
        )
        connection.execute("INSERT INTO resources VALUES ($bulk, '{}')", {"bulk": bulk})
        connection.execute("CHECKPOINT")


def test_one_cut_is_made_while_others_read(store: Store) -> None:
    """Space that is not given back while somebody reads is no reason to delete more."""
    now = time.time_ns()
    spans(store, 240_000, "old", now - HOUR_NS, 60 * HOUR_NS)
    used = retention.used_bytes(store)
    kept = retention.Retention(store, 30 * 86400, int(used * 0.96))
    reader = store.connection()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM spans").fetchall()
    gone = [kept.apply() for _ in range(5)]
    reader.execute("COMMIT")
    # Down to nine tenths of what may be held: 1 - 0.9 * 0.96 of all rows.
    assert gone[0] == pytest.approx(0.136 * 240_000, rel=0.02)
    assert gone[1:] == [0, 0, 0, 0]
    assert count(store, "spans", f"start_ns > {now - 40 * HOUR_NS}") > 150_000, "the oldest went"


def test_the_bulk_that_runs_stays_until_the_store_is_twice_too_large(store: Store) -> None:
    now = time.time_ns()
    spans(store, 200_000, "runs", now, 50 * HOUR_NS)
    spans(store, 50_000, "over", now - HOUR_NS, HOUR_NS)
    used = retention.used_bytes(store)
    assert retention.Retention(store, 30 * 86400, int(used * 0.8)).apply() > 0
    assert count(store, "spans", "bulk_id = 'runs'") == 200_000
    assert count(store, "spans", "bulk_id = 'over'") < 50_000
    used = retention.used_bytes(store)
    assert retention.Retention(store, 30 * 86400, int(used * 0.45)).apply() > 0
    assert 0 < count(store, "spans", "bulk_id = 'runs'") < 200_000
    assert count(store, "spans", f"end_ns > {now - HOUR_NS}") > 0


def test_resources_go_with_the_last_of_their_records(store: Store) -> None:
    now = time.time_ns()
    spans(store, 10, "old", now - 40 * 24 * HOUR_NS, HOUR_NS)
    spans(store, 10, "new", now, HOUR_NS)
    assert retention.Retention(store, 30 * 86400, 10**12).apply() == 10
    assert [row["resource_id"] for row in store.query("SELECT resource_id FROM resources").to_pylist()] == ["new"]


def test_what_was_refused_is_under_the_size_too(store: Store) -> None:
    now = time.time_ns()
    with store.writing() as connection:
        connection.execute(
            "INSERT INTO ingest SELECT $now - 40000000000000 + i, 'traces', 'http', 'refused', hash(i)::VARCHAR, 1"
            " FROM range(300000) r(i)",
            {"now": now},
        )
        connection.execute("CHECKPOINT")
    spans(store, 10_000, "real", now - 2 * HOUR_NS, HOUR_NS)
    assert retention.Retention(store, 30 * 86400, retention.used_bytes(store) // 2).apply() > 100_000
    assert count(store, "spans") == 10_000, "they are younger"
