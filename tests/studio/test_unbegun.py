"""Jobs that nobody begins: called off, not taken by the broker, sent twice; and bulks that jobs of others send.

What is right is written down job by job. The list of bulks, the report, the explanation and a comparison must agree.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkscope_studio.rendering import report as words
from bulkscope_studio.services import capacities, comparisons, explanations, reports
from bulkscope_studio.services.bulks import list_bulks
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store
from tests import rows
from tests.rows import ns, span

BULK = "bulk"
BEGAN, ENDED = 5.0, 6.0


class Records:
    """Spans of one bulk, times in s; each has ids of its own."""

    def __init__(self) -> None:
        self.rows: list[rows.Row] = []

    def _add(self, kind: str, at: float, job: str | None, end: float | None = None, **columns: Any) -> None:
        number = len(self.rows) + 1
        given = {
            "trace_id": f"{number:032x}", "span_id": f"{number:016x}", "bulk_id": BULK, "job_id": job, "queue": "q"
        } | columns  # fmt: skip
        self.rows.append(span(kind, ns(at), ns(at + 0.001 if end is None else end), **given))

    def sent(self, job: str | None, at: float = 0.0, **columns: Any) -> None:
        self._add("PRODUCER", at, job, **{"attempt": 1} | columns)

    def failed_to_send(self, job: str | None, at: float = 0.0, why: str = "ConnectionError") -> None:
        self.sent(job, at, status="ERROR", outcome="not_sent", error_type=why)

    def refused(self, job: str, at: float = 0.0, **columns: Any) -> None:
        self.sent(job, at, outcome="duplicate", error_type="duplicate", **columns)

    def done(self, job: str, start: float = BEGAN, end: float = ENDED, **columns: Any) -> None:
        worker = {"host_name": "h", "pid": 1, "service_instance_id": "i1"}
        given = {"outcome": "ok", "attempt": 1, "wait": start} | worker | columns
        self._add("CONSUMER", start, job, end, **given)

    def cancelled(self, job: str, at: float = 2.0, why: str = "revoked") -> None:
        self._add("CLIENT", at, job, outcome="cancelled", error_type=why)

    def request(self, size: int) -> None:
        self._add("SERVER", 0.0, None, 0.1, http_method="POST", outcome="ok", bulk_size=size)


@pytest.fixture
def records() -> Records:
    return Records()


class Stores:
    def __init__(self, folder: Path) -> None:
        self._folder, self.open = folder, list[Store]()

    def __call__(self, records: Records) -> Store:
        store = Store(self._folder / f"{len(self.open)}.duckdb")
        connection = store.connection()
        rows.add(connection, "spans", records.rows)
        connection.close()
        self.open.append(store)
        return store


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stores]:
    stores = Stores(tmp_path)
    yield stores
    for store in stores.open:
        store.close()


COUNTS = ("done", "failed", "cancelled", "not_sent", "duplicate")


def everywhere(store: Store, sent: int, waiting: int = 0, **wanted: int) -> dict[str, Any]:
    """Hold the counts of the bulk in all places against ``wanted``, those left out being 0; return its report."""
    full = dict.fromkeys(COUNTS, 0) | wanted
    (listed,) = list_bulks(store)
    assert {name: listed[name] for name in full} == full
    assert listed["jobs"] == sent
    report = reports.bulk_report(store, BULK)
    progress = {name: number for name, number in report["progress"].items() if number}
    assert progress == {name: n for name, n in ({"sent": sent, "waiting": waiting} | full).items() if n}
    explained = explanations.bulk_explanation(store, BULK)
    assert {name: n for name, n in explained["progress"].items() if n} == progress
    assert report["complete"] is (waiting == 0)
    assert (explained["state"] == "complete") is report["complete"]
    ended = full["done"] + full["failed"] + full["cancelled"]
    assert capacities.bulk_progress(store, BULK) == {"sent": sent, "ended": ended}
    return report


def test_what_is_called_off_waits_no_more(records: Records, stored: Stores) -> None:
    for job in ("a", "b", "c", "d"):
        records.sent(job)
    records.done("a")
    records.cancelled("b")
    records.cancelled("c", why="expired")
    records.cancelled("d", why="expired")
    records.request(4)
    store = stored(records)
    report = everywhere(store, sent=4, done=1, cancelled=3)
    assert report["cancelled"] == {"expired": 2, "revoked": 1}
    assert "3 jobs were cancelled (2 expired, 1 revoked)" in report["notes"]
    # Nobody stood idle beside jobs that nobody was to do.
    assert explanations.bulk_explanation(store, BULK)["verdict"]["code"] not in ("internal_failure", "data_unfit")


def test_a_bulk_of_which_no_job_was_begun_is_complete(records: Records, stored: Stores) -> None:
    records.sent("a")
    records.cancelled("a", why="unregistered")
    records.failed_to_send("b")
    store = stored(records)
    everywhere(store, sent=1, cancelled=1, not_sent=1)
    verdict = explanations.bulk_explanation(store, BULK)["verdict"]
    assert verdict["code"] == "headroom"
    assert verdict["text"] == (
        "No job was begun: 1 job was cancelled (1 unregistered); 1 job was not sent (1 ConnectionError)."
    )


def test_one_that_is_done_all_the_same_is_done(records: Records, stored: Stores) -> None:
    records.sent("a")
    records.cancelled("a")
    records.done("a")
    everywhere(stored(records), sent=1, done=1)


def test_one_that_is_put_back_waits_again(records: Records, stored: Stores) -> None:
    records.sent("a")
    records.cancelled("a", at=2.0)
    records.sent("a", at=10.0, attempt=2)
    everywhere(stored(records), sent=1, waiting=1)


def test_one_that_was_to_be_tried_again_may_be_called_off(records: Records, stored: Stores) -> None:
    records.sent("a")
    records.done("a", outcome="retry", failure_domain="code")
    records.sent("a", at=5.9, attempt=2)
    records.cancelled("a", at=8.0)
    everywhere(stored(records), sent=1, cancelled=1)


def test_one_that_failed_stays_failed(records: Records, stored: Stores) -> None:
    records.sent("a")
    records.done("a", outcome="internal_error", status="ERROR", failure_domain="code")
    records.cancelled("a", at=8.0, why="removed")
    everywhere(stored(records), sent=1, failed=1)


def test_what_the_broker_does_not_take_is_not_sent(records: Records, stored: Stores) -> None:
    records.failed_to_send("a")
    records.failed_to_send(None, why="TimeoutError")
    records.sent("b")
    records.done("b")
    records.request(1)
    report = everywhere(stored(records), sent=1, done=1, not_sent=2)
    assert report["not_sent"] == {"ConnectionError": 1, "TimeoutError": 1}


def test_what_was_sent_after_all_was_sent(records: Records, stored: Stores) -> None:
    """By a second try; or at the first, the broker's answer alone having been lost."""
    records.failed_to_send("again")
    records.sent("again", at=1.0)
    records.done("again")
    records.failed_to_send("answer")
    records.done("answer")
    everywhere(stored(records), sent=2, done=2)


def test_the_same_id_sent_twice_is_one_job(records: Records, stored: Stores) -> None:
    for at in (0.0, 0.1, 0.2):
        records.sent("a", at)
    records.done("a", 5.0, 6.0)
    records.done("a", 6.0, 7.0)
    records.request(3)
    everywhere(stored(records), sent=1, done=1, duplicate=2)


def test_a_span_that_is_stored_twice_is_no_duplicate(records: Records, stored: Stores) -> None:
    records.sent("a")
    records.refused("a")
    records.failed_to_send("b")
    records.rows += records.rows[-3:]
    records.done("a")
    everywhere(stored(records), sent=1, done=1, duplicate=1, not_sent=1)


def test_a_job_of_another_bulk_that_has_the_id_is_none_of_this(records: Records, stored: Stores) -> None:
    records.refused("a")
    records.sent("a", bulk_id="other")
    records.sent("b")
    records.done("b")
    store = stored(records)
    report = reports.bulk_report(store, BULK)
    assert {name: n for name, n in report["progress"].items() if n} == {"sent": 1, "done": 1, "duplicate": 1}
    assert report["complete"]


def _seconds_since_the_records() -> float:
    return time.time() - ns(0.0) / 1e9


def test_one_that_expires_while_nobody_looks_is_cancelled(records: Records, stored: Stores) -> None:
    records.sent("gone", expires=60.0)
    records.sent("later", expires=_seconds_since_the_records() + 3600)
    records.sent("never")
    records.sent("taken", expires=4.0)
    records.done("taken")
    records.sent("retried", expires=4.0)
    records.done("retried", outcome="retry", failure_domain="code")
    records.sent("retried", at=5.5, attempt=2, expires=4.0)
    report = everywhere(stored(records), sent=5, done=1, cancelled=2, waiting=2)
    assert report["cancelled"] == {"expired": 2}


def test_the_list_learns_that_a_job_has_expired_without_a_record(records: Records, stored: Stores) -> None:
    """Its row is summed up before, and nothing comes afterwards."""
    records.sent("a", expires=_seconds_since_the_records() + 3.0)
    store = stored(records)
    with store.connection() as connection:
        summaries.ensure(connection)
        summaries.refresh(connection)
        (kept,) = store.query("SELECT cancelled, expires_ns FROM bulks WHERE bulk_id IS NOT NULL").to_pylist()
        assert kept["cancelled"] == 0
        assert kept["expires_ns"] > time.time_ns() - 10**9, "the machine is so slow that it has expired already"
        time.sleep(max(0.0, (kept["expires_ns"] - time.time_ns()) / 1e9) + 0.1)
        everywhere(store, sent=1, cancelled=1)
        assert summaries.waits(store)
        assert summaries.refresh(connection) == 1
        assert not summaries.waits(store)
    everywhere(store, sent=1, cancelled=1)


def test_bulks_name_those_that_they_are_part_of(records: Records, stored: Stores) -> None:
    records.sent("a")
    records.done("a")
    for bulk in ("x", "y"):
        records.sent(f"{bulk}1", 5.5, bulk_id=bulk, parent_bulk_id=BULK)
        records.done(f"{bulk}1", 7.0, 8.0, bulk_id=bulk)
    store = stored(records)
    parent, child = (reports.bulk_report(store, bulk) for bulk in (BULK, "x"))
    assert (parent["part_of"], parent["nested"]) == ([], ["x", "y"])
    assert (child["part_of"], child["nested"]) == ([BULK], [])
    assert "- Part of bulk bulk" in words.markdown(child).splitlines()
    assert "- Nested bulks: x, y" in words.markdown(parent).splitlines()


def test_a_comparison_does_not_take_a_bulk_for_partial(records: Records, stored: Stores) -> None:
    for job in ("a", "b"):
        records.sent(job)
        records.sent(job)
        records.sent(job, bulk_id="other")
        records.done(job, bulk_id="other", span_id=f"{job:0>16}")
    records.done("a")
    records.cancelled("b")
    records.request(4)
    found = comparisons.compare(StoredSides(stored(records)), BULK, "other")
    assert [side["ended"] for side in (found["a"], found["b"])] == [2, 2]
    assert [side["sent"] for side in (found["a"], found["b"])] == [2, 2]
    assert not [warning for warning in found.get("warnings", []) if "partial" in str(warning)]
