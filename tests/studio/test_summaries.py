"""The table of bulks holds, at any moment, what a query over all spans answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkscope_studio.ingest.writer import Ingest
from bulkscope_studio.services import reports
from bulkscope_studio.services.bulks import list_bulks
from bulkscope_studio.storage import retention, summaries
from bulkscope_studio.storage.store import Store
from tests.chance import draws
from tests.studio.by_chance import PHASES, messes
from tests.studio.explaining import Job, ns, table, written

COLUMNS = ("id", "start_ns", "end_ns", "jobs", "done", "failed", "models")
# By hand, as the rules are written: `bulk_summary.sql` is not asked what is right.
RULE = """
WITH attempts AS (
    SELECT bulk_id, coalesce(job_id, span_id) AS job, coalesce(attempt, 1) AS attempt, start_ns, true AS ended,
           coalesce(outcome, 'ok') = 'retry' AS again,
           status IS DISTINCT FROM 'ERROR' AND failure_domain IS NULL AND coalesce(outcome, 'ok') = 'ok' AS good
    FROM spans WHERE kind = 'CONSUMER'
    UNION ALL
    SELECT min(bulk_id), min(job_id), max(CAST(attributes ->> '$."bulk.job.attempt"' AS INTEGER)), min(time_ns), false,
           false, false
    FROM logs WHERE job_id IS NOT NULL AND span_id NOT IN (SELECT span_id FROM spans WHERE kind = 'CONSUMER')
    GROUP BY span_id
), jobs AS (
    SELECT bulk_id, first(ended ORDER BY attempt DESC, start_ns DESC, ended DESC, again DESC, good DESC) AS ended,
           first(again ORDER BY attempt DESC, start_ns DESC, ended DESC, again DESC, good DESC) AS again,
           first(good ORDER BY attempt DESC, start_ns DESC, ended DESC, again DESC, good DESC) AS good
    FROM attempts GROUP BY bulk_id, job
)
SELECT s.bulk_id AS id, min(start_ns) AS start_ns, max(end_ns) AS end_ns,
       (SELECT count(DISTINCT job) FROM (
            SELECT bulk_id, job FROM attempts
            UNION ALL SELECT bulk_id, job_id FROM spans WHERE kind = 'PRODUCER') j WHERE j.bulk_id = s.bulk_id) AS jobs,
       (SELECT count(*) FROM jobs j WHERE j.bulk_id = s.bulk_id AND good) AS done,
       (SELECT count(*) FROM jobs j WHERE j.bulk_id = s.bulk_id AND ended AND NOT again AND NOT good) AS failed,
       coalesce(list_sort(list(DISTINCT model) FILTER (kind IN ('INTERNAL', 'CLIENT') AND model IS NOT NULL)), [])
           AS models
FROM spans s WHERE s.bulk_id IS NOT NULL GROUP BY s.bulk_id ORDER BY min(start_ns) DESC, s.bulk_id
"""


def by_rule(store: Store) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = store.query(RULE).to_pylist()
    return rows


def listed(store: Store) -> list[dict[str, Any]]:
    return [{name: row[name] for name in COLUMNS} for row in list_bulks(store)]


def whole(store: Store) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = summaries.query(store, "FROM listed ORDER BY bulk_id").to_pylist()
    return rows


def covers(store: Store) -> bool:
    with store.writing() as connection:
        return bool(connection.execute(summaries._COVERS).fetchall()[0][0])


def afresh(store: Store) -> list[dict[str, Any]]:
    """Return all columns as a store answers that has no table of bulks."""
    with store.writing() as connection:
        connection.execute("BEGIN")
        connection.execute("DELETE FROM bulks")
        connection.execute("DELETE FROM bulk_changes")
        connection.execute("COMMIT")
    return whole(store)


@dataclass
class Life:
    """A store and its writer, which may be closed, killed and opened again."""

    path: Path
    made: int = 0
    store: Store = field(init=False)
    ingest: Ingest = field(init=False)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.store = Store(self.path)
        with self.store.writing() as connection:
            summaries.ensure(connection)
        self.ingest = Ingest(self.store)

    def close(self) -> None:
        assert self.ingest.close()
        self.store.close()

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        self.ingest.submit_tables(dict(tables)).result(30)

    def write(self, jobs: list[Job]) -> None:
        # Ids anew: those of one draw are those of the next, which would be the same spans sent again.
        self.made += 1
        tables = written(jobs)
        for name in {"spans", "logs"} & tables.keys():
            ids = [one and f"{one}-{self.made}" for one in tables[name]["span_id"].to_pylist()]
            at = tables[name].column_names.index("span_id")
            tables[name] = tables[name].set_column(at, "span_id", pa.array(ids, pa.string()))
        self.add(tables)

    def refresh(self, limit: int) -> int:
        def work() -> int:
            with self.store.writing() as connection:
                return summaries.refresh(connection, limit, rest_s=-1.0)

        return self.ingest.call(work).result(30)

    def expire(self, at: float) -> None:
        """Delete what began before ``at`` seconds."""

        def work() -> None:
            retention._expire(self.store, ns(at), "of a test")

        self.ingest.call(work).result(30)

    def delete(self, bulk: str) -> None:
        """Delete a bulk, as its user may."""
        kept = retention.Retention(self.store, 10_000 * 86_400, 10**12)
        self.ingest.call(lambda: kept.delete_bulk(bulk), deletes=True).result(30)

    def kill(self) -> None:
        """Go on with what a killed process leaves: the file and its log as they are on the disk."""
        left = {path.name: path.read_bytes() for path in self.path.parent.glob(self.path.name + "*") if path.is_file()}
        self.close()
        for path in self.path.parent.glob(self.path.name + "*"):
            if path.is_file():
                path.unlink()
        for name, content in left.items():
            (self.path.parent / name).write_bytes(content)
        self.open()


@contextmanager
def life() -> Iterator[Life]:
    with tempfile.TemporaryDirectory() as folder:
        one = Life(Path(folder) / "s.duckdb")
        try:
            yield one
        finally:
            one.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), messes()),
        st.tuples(st.just("refresh"), st.sampled_from([1, 5, 10**6])),
        st.tuples(st.just("expire"), st.integers(0, 220)),
        st.tuples(st.just("delete"), st.sampled_from(["bulk", "other"])),
        st.tuples(st.sampled_from(["reopen", "kill"]), st.none()),
    ),
    min_size=1,
    max_size=8,
)


@draws(25, phases=PHASES)
@given(messes(), STEPS)
def test_after_whatever_happens_the_list_is_that_of_all_spans(first: list[Job], steps: list[tuple[str, Any]]) -> None:
    with life() as one:
        one.write(first)
        for step, what in steps:
            if step == "write":
                one.write(what)
            elif step == "refresh":
                one.refresh(what)
            elif step == "expire":
                one.expire(what)
            elif step == "delete":
                one.delete(what)
                assert what not in {row["id"] for row in listed(one.store)}
            elif step == "kill":
                one.kill()
            else:
                one.close()
                one.open()
            assert covers(one.store)
            assert listed(one.store) == by_rule(one.store)
            for row in by_rule(one.store):
                known = summaries.extent(one.store, row["id"])
                assert known is not None
                assert known.first_ns <= row["start_ns"] <= row["end_ns"] <= known.last_ns
        held = whole(one.store)
        while one.refresh(1):
            assert whole(one.store) == held
        assert one.store.query("FROM bulk_changes").num_rows == 0
        assert afresh(one.store) == held


SAMPLE = [Job("a", 0.0, 1.0, 2.0), Job("b", 0.0, 2.0, 3.0), Job("c", 0.5, 4.0, 6.0, bulk="other")]


def test_a_file_that_was_written_without_the_table_is_read_and_summed_up_once_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    one = Life(path)
    one.write(SAMPLE)
    right = whole(one.store)
    one.close()
    with duckdb.connect(str(path)) as old:
        old.execute("DROP TABLE bulks")
        old.execute("DROP TABLE bulk_changes")
    reader = Store(path, read_only=True)
    assert whole(reader) == right
    assert summaries.newest(reader) == "other"
    assert (known := summaries.extent(reader, "bulk")) is not None
    assert known.first_ns == right[0]["start_ns"]
    assert summaries.extent(reader, "none") is None
    reader.close()
    one.open()
    assert covers(one.store)
    assert one.store.query("FROM bulks").num_rows == 0
    assert one.refresh(10**6) > 0
    assert whole(one.store) == right
    one.close()


def test_rows_that_other_rules_have_made_are_made_anew(tmp_path: Path) -> None:
    one = Life(tmp_path / "s.duckdb")
    one.write(SAMPLE)
    one.refresh(10**6)
    right = whole(one.store)
    one.close()
    with duckdb.connect(str(one.path)) as other:
        other.execute("UPDATE bulks SET done = 99, models = ['of other rules']")
        other.execute("UPDATE bulk_rules SET mark = 'another'")
    reader = Store(one.path, read_only=True)
    assert whole(reader) == right
    reader.close()
    one.open()
    assert whole(one.store) == right
    assert one.refresh(10**6) > 0
    assert whole(one.store) == right
    assert one.store.query("SELECT done FROM bulks WHERE bulk_id = 'bulk'")["done"].to_pylist() == [2]
    one.close()
    one.open()
    assert one.store.query("FROM bulk_changes").num_rows == 0, "by the same rules nothing is made anew"
    one.close()


def test_what_nobody_has_noted_is_counted_too(tmp_path: Path) -> None:
    """An older studio has written to the file in between."""
    one = Life(tmp_path / "s.duckdb")
    one.write(SAMPLE)
    one.refresh(10**6)
    one.close()
    with duckdb.connect(str(one.path)) as old:
        old.register("incoming", table("spans", [
            {"trace_id": "t", "span_id": "late", "name": "n", "kind": "CONSUMER", "start_ns": ns(7), "end_ns": ns(8),
             "status": "UNSET", "bulk_id": "bulk", "job_id": "d"},
        ]))  # fmt: skip
        old.execute("INSERT INTO spans BY NAME SELECT * FROM incoming")
    reader = Store(one.path, read_only=True)
    assert [(row["id"], row["jobs"], row["done"]) for row in list_bulks(reader)] == [
        ("other", 1, 1),
        ("bulk", 3, 3),
    ]
    reader.close()
    one.open()
    assert covers(one.store)
    assert listed(one.store) == by_rule(one.store)
    one.close()


def test_a_bulk_at_work_is_not_summed_up_again_and_again(tmp_path: Path) -> None:
    one = Life(tmp_path / "s.duckdb")
    one.write(SAMPLE)
    with one.store.writing() as connection:
        assert summaries.refresh(connection) == 0
        assert not summaries.waits(one.store)
        assert summaries.refresh(connection, rest_s=-1.0) > 0
    one.close()


def test_many_notes_of_a_bulk_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "MOST_CHANGES", 6)
    one = Life(tmp_path / "s.duckdb")
    for _ in range(5):
        one.write(SAMPLE)
    right = whole(one.store)
    with one.store.writing() as connection:
        assert summaries.refresh(connection) == 0
    # The spans of two bulks; log records of theirs are in the same rows.
    assert one.store.query("FROM bulk_changes").num_rows == 2
    assert covers(one.store)
    assert whole(one.store) == right
    one.close()


def test_the_attempt_that_began_last_decides_in_the_list_and_on_the_page_as_in_the_report(tmp_path: Path) -> None:
    """The first worker hung, the broker gave the job to another, and the first was killed at last."""
    late = Job(
        "j", 0.0, 1.0, 100.0, 1, columns={"outcome": "internal_error", "status": "ERROR", "failure_domain": "infra"}
    )
    one = Life(tmp_path / "s.duckdb")
    one.write([late, Job("j", 0.0, 20.0, 40.0, 2)])
    (row,) = whole(one.store)
    report = reports.bulk_report(one.store, "bulk")
    assert report is not None
    assert (row["done"], row["failed"], row["sent"]) == (1, 0, 1)
    assert (report["progress"]["done"], report["progress"]["failed"], report["progress"]["sent"]) == (1, 0, 1)
    one.close()


def test_failed_jobs_are_told_by_domain(tmp_path: Path) -> None:
    bad = {"outcome": "internal_error", "status": "ERROR"}
    one = Life(tmp_path / "s.duckdb")
    one.write([
        Job("a", 0.0, 1.0, 2.0, columns=bad | {"failure_domain": "model"}),
        Job("b", 0.0, 2.0, 3.0, columns=bad),
        Job("c", 0.0, 3.0, 4.0, columns=bad | {"failure_domain": "model"}),
        Job("d", 0.0, 4.0, 5.0, columns={"outcome": "retry"}),
    ])  # fmt: skip
    (row,) = whole(one.store)
    assert (row["domains"], row["done"], row["failed"], row["jobs"]) == ("model 2, unknown 1", 0, 3, 4)
    one.close()
