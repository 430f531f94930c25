"""The sample keeps the rules that a recorded store keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkscope_studio.storage.store import Store
from tests.studio.sample import fill


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s.duckdb")


def test_same_arguments_same_rows(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "t.duckdb")
    for each in (store, other):
        fill(each.connection(), jobs=8)
    for name in ("spans", "logs", "points", "resources"):
        rows = [each.query(f"SELECT * FROM {name} ORDER BY ALL").to_pylist() for each in (store, other)]
        assert rows[0]
        assert rows[0] == rows[1]


def test_a_worker_does_one_job_at_a_time_and_waits_fit(store: Store) -> None:
    fill(store.connection())
    overlaps = store.query(
        "SELECT count(*) AS n FROM spans a JOIN spans b ON a.kind = 'CONSUMER' AND b.kind = 'CONSUMER' "
        "AND a.pid = b.pid AND a.span_id <> b.span_id AND a.start_ns < b.end_ns AND b.start_ns < a.end_ns"
    ).to_pylist()
    assert overlaps == [{"n": 0}]
    off = store.query(
        "SELECT max(abs((c.start_ns - p.start_ns) / 1e9 - c.wait)) AS off FROM spans c JOIN spans p "
        "ON c.parent_span_id = p.span_id WHERE c.kind = 'CONSUMER' AND c.attempt = 1"
    ).to_pylist()[0]["off"]
    assert off == pytest.approx(0, abs=1e-6)


def test_every_span_has_its_parent(store: Store) -> None:
    fill(store.connection(), jobs=8)
    orphans = store.query(
        "SELECT name FROM spans s WHERE parent_span_id IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM spans p WHERE p.span_id = s.parent_span_id AND p.trace_id = s.trace_id)"
    )
    assert orphans.num_rows == 0


def test_counts(store: Store) -> None:
    ids = fill(store.connection(), bulks=3, jobs=7, faults=False)
    counted = store.query("SELECT kind, count(*) AS n FROM spans GROUP BY kind").to_pylist()
    assert {row["kind"]: row["n"] for row in counted} == {
        "SERVER": 3, "PRODUCER": 21, "CONSUMER": 21, "INTERNAL": 21,
    }  # fmt: skip
    assert ids == ["sample-001", "sample-002", "sample-003"]
