"""Jobs and attempts are counted once: every answer on one store has the same number, and it is the right one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from bulkscope_studio.rendering import report as rendering
from bulkscope_studio.services import bulks, capacities, explanations, listing, overtime, records, reports
from bulkscope_studio.services.capacities import Question
from bulkscope_studio.storage import sql, storefile, summaries, views
from bulkscope_studio.storage.store import Store
from tests import rows
from tests.rows import BEGIN_NS, SECOND, add
from tests.studio.explaining import Job, ns, stored, written

NOW = 1e6
# Something is heard long after: what is silent is lost, and time does not stand still.
LATER = Job("later", 9e5, 9e5, 9e5 + 1, bulk="after")
BAD = {"outcome": "internal_error", "status": "ERROR", "failure_domain": "code", "error_type": "ValueError"}
AGAIN = {"outcome": "retry", "status": "UNSET", "failure_domain": "infra", "error_type": "ConnectionError"}


def counts(store: Store) -> dict[str, tuple[int, int, int]]:
    """Return how many jobs were sent, done and failed, by who says so."""
    shown = listing.one(store, listing.Verdicts(store), "bulk")
    drawn = overtime.overtime(store, "bulk", bins=10, now_ns=ns(NOW))["jobs"]
    report = reports.bulk_report(store, "bulk")
    explained = explanations.bulk_explanation(store, "bulk", now_ns=ns(NOW))
    polled = capacities.bulk_progress(store, "bulk")
    assert shown is not None
    done, failed = (drawn[name][-1] for name in ("done", "failed"))
    assert polled == {"sent": shown["sent_jobs"], "ended": done + failed}
    found = {
        "list": (shown["sent_jobs"], shown["done_jobs"], shown["failed_jobs"]),
        "over time": (shown["sent_jobs"], done, failed),
    }
    for name, row in (("report", report["progress"]), ("explain", explained["progress"])):
        found[name] = (row["sent"], row["done"], row["failed"])
    return found


@pytest.mark.parametrize(
    ("jobs", "requests", "right"),
    [
        # An attempt that will be tried again has done nothing yet.
        ([Job("a", 0.0, 1.0, 2.0), Job("b", 0.0, 2.0, 3.0, columns=AGAIN)], [], (2, 1, 0)),
        # Five jobs, of which one enqueues itself again: its second message makes no sixth job.
        (
            [*(Job(f"j{n}", 0.0, n + 1.0, n + 2.0) for n in range(4)), Job("self", 0.0, 5.0, 6.0, columns=AGAIN),
             Job("self", 6.0), Job("self", None, 7.0, 8.0, attempt=2)],
            [{"start_ns": ns(0.0), "end_ns": ns(0.1), "bulk_size": 5}], (5, 5, 0),
        ),
        # The broker gave the job of a worker that hung to another; the first was killed at last.
        ([Job("j", 0.0, 1.0, 100.0, 1, columns=BAD), Job("j", None, 20.0, 40.0, 2)], [], (1, 1, 0)),
        # It was done, and begun once more under the same number: it is not done until that ends.
        ([Job("j", 0.0, 1.0, 2.0), Job("j", None, 20.0, None, 2)], [], (1, 0, 0)),
        # The request announced more than was seen of.
        ([Job("j", 0.0, 1.0, 2.0)], [{"start_ns": ns(0.0), "end_ns": ns(0.1), "bulk_size": 3}], (3, 1, 0)),
        # Nothing but a worker's word that it began.
        ([Job("a", 0.0, 1.0, 2.0), Job("b", None, 2.0)], [], (2, 1, 0)),
    ],
)  # fmt: skip
def test_every_answer_counts_the_same_jobs(
    jobs: list[Job], requests: list[dict[str, Any]], right: tuple[int, int, int]
) -> None:
    with stored(written([*jobs, LATER], requests)) as store:
        assert counts(store) == dict.fromkeys(("list", "over time", "report", "explain"), right)


def test_every_answer_counts_the_same_failed_attempts() -> None:
    """One that will be tried again is none of them, whatever its status."""
    retried = [AGAIN, AGAIN | {"status": "ERROR"}]
    jobs = [Job(f"g{n}", 0.0, float(n), n + 1.0) for n in range(20)]
    jobs += [Job(f"b{n}", 0.0, 20.0 + n, 21.0 + n, columns=BAD) for n in range(5)]
    # Others than ours say so by the outcome alone.
    jobs += [Job(f"o{n}", 0.0, 25.0 + n, 26.0 + n, columns={"outcome": "internal_error"}) for n in range(2)]
    for n, columns in enumerate(retried):
        jobs += [Job(f"r{n}", 0.0, 30.0 + n, 31.0 + n, columns=columns), Job(f"r{n}", None, 40 + n, 41 + n, attempt=2)]
    with stored(written(jobs)) as store:
        drawn = overtime.overtime(store, "bulk", bins=10)
        grouped = records.failures(store, "bulk")
        report = reports.bulk_report(store, "bulk")
        explained = explanations.bulk_explanation(store, "bulk", now_ns=ns(100))
        capacity = capacities.system_capacity(store, Question(["bulk"]))
    tried_again = sum(row["retried_attempts"] for row in grouped["failures"])
    assert sum(sum(lane["failed"].values()) for lane in drawn["lanes"]) == grouped["attempts"] - tried_again == 7
    (failure,) = (each for each in explained["findings"] if each["code"] == "internal_failure")
    line = next(each for each in failure["evidence"] if each["name"] == "failed_jobs")
    assert line["value"] == pytest.approx(7 / 31)
    assert "7 of 31 attempts failed" in json.dumps(capacity)
    assert (report["total"]["jobs"]["failed"], report["total"]["jobs"]["retries"]) == (7, 2)


def test_jobs_per_second_are_jobs_that_were_done() -> None:
    """A failed job has no inference, so it is in no model's column: the total is of the same jobs as the columns."""
    jobs = [Job(f"g{n}", 0.0, float(n), n + 1.0) for n in range(7)] + [
        Job("b", 0.0, 7.0, 8.0, columns=BAD, inference=None)
    ]
    with stored(written(jobs)) as store:
        report = reports.bulk_report(store, "bulk")
    assert report is not None
    assert report["total"]["jobs"]["rate_per_s"] == pytest.approx(7 / 8)
    assert [each["jobs"]["done"] for each in report["models"]] == [7]


def test_a_bulk_whose_last_jobs_are_lost_does_not_wait_for_them() -> None:
    lost = [Job("x", 0.0, 5.0, None, 2, seen=6.0), Job("y", 0.0, 5.0, None, 3, seen=6.0)]
    with stored(written([Job("a", 0.0, 1.0, 2.0), *lost, LATER])) as store:
        report = reports.bulk_report(store, "bulk")
    assert report is not None
    assert (report["progress"]["lost"], report["progress"]["running"], report["complete"]) == (2, 0, False)
    assert "lost 2" in rendering.state(report)


def test_a_file_of_an_older_version_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    with stored(written([Job("a", 0.0, 1.0, 2.0), Job("b", 0.0, 2.0, 3.0, columns=BAD), LATER]), path) as store:
        right = counts(store)
        workers = {row["worker"] for row in store.query("SELECT worker FROM rules.ended_attempts").to_pylist()}
    with duckdb.connect(str(path)) as old:
        for table in ("spans", "logs", "points"):
            old.execute(f"ALTER TABLE {table} DROP COLUMN worker")
        old.execute("ALTER TABLE spans DROP COLUMN cpu_wait")
    reader = Store(path, read_only=True)
    assert counts(reader) == right
    found = reader.query("SELECT worker FROM rules.ended_attempts").to_pylist()
    assert {row["worker"] for row in found} == workers
    assert reader.query(f"SELECT count(*) AS n FROM ({sql.load('report_inferences')})", {
        "bulk": "bulk", **summaries.EVER}).to_pylist() == [{"n": 2}]  # fmt: skip
    reader.close()


def test_no_rule_is_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    Store(path).close()
    with duckdb.connect(str(path)) as file:
        assert file.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall() == []


def test_of_a_run_that_an_older_version_kept_the_same_attempts_decide() -> None:
    jobs = [
        Job("j", 0.0, 1.0, 100.0, 1, columns=BAD), Job("j", None, 20.0, 40.0, 2), Job("k", 0.0, 1.0, 2.0),
        Job("k", None, 3.0, 4.0, attempt=2), Job(None, 0.0, 3.0, 4.0), Job(None, 0.0, 3.0, 5.0), Job("w", 0.0),
    ]  # fmt: skip
    with stored(written(jobs)) as store:
        table = store.query(sql.load("report_attempts"), {"bulk": "bulk", **summaries.EVER})
    kept = table.append_column("bulk_id", pa.array(["bulk"] * len(table)))
    assert views.decided(kept.drop_columns("decides"))["decides"].to_pylist() == table["decides"].to_pylist()


def test_a_span_that_is_stored_twice_is_one_attempt_that_decides(tmp_path: Path) -> None:
    """One that is sent again after millions of others is not known to have come."""
    store = Store(tmp_path / "s.duckdb")
    row = {
        "trace_id": "t", "span_id": "c", "kind": "CONSUMER", "status": "UNSET", "bulk_id": "b", "job_id": "j",
        "attempt": 1, "start_ns": BEGIN_NS, "end_ns": BEGIN_NS + SECOND, "outcome": "ok",
    }  # fmt: skip
    add(store.connection(), "spans", [row, row])
    (listed,) = bulks.list_bulks(store)
    found = reports.bulk_report(store, "b")["progress"]
    assert (listed["jobs"], listed["done"]) == (found["sent"], found["done"]) == (1, 1)
    store.close()


def test_the_attempt_that_decides_tells_the_domain_though_it_has_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.duckdb")
    row = {"trace_id": "t", "kind": "CONSUMER", "status": "ERROR", "bulk_id": "b", "job_id": "j"}
    add(store.connection(), "spans", [
        {**row, "span_id": f"c{n}", "attempt": n, "start_ns": BEGIN_NS + n * SECOND,
         "end_ns": BEGIN_NS + n * SECOND + 1, "outcome": outcome, "failure_domain": domain}
        for n, outcome, domain in ((1, "retry", "resource"), (2, None, None))
    ])  # fmt: skip
    shown = listing.one(store, listing.Verdicts(store), "b")
    assert shown is not None
    assert shown["failure_domains"] == "unknown 1"
    assert reports.bulk_report(store, "b")["total"]["jobs"]["failures_by_domain"] == {"unknown": 1}
    store.close()


def test_jobs_of_one_id_in_two_bulks_are_two_jobs() -> None:
    """Each was enqueued when its own bulk's sender says so, and one that nobody takes waits."""
    jobs = [
        Job("j", 0.0, 1.0, 2.0, bulk="one"), Job("k", 0.0, 2.0, 3.0, bulk="one"), Job("j", 4.0, 6.0, 7.0, bulk="two"),
        Job("k", 5.0, bulk="two"), Job("m", 5.0, bulk="two"), Job("m", None, 8.0, 9.0, bulk="two"),
    ]  # fmt: skip
    window = {"firsts": [BEGIN_NS], "lasts": [ns(10.0)]}
    with stored(written(jobs)) as store:
        found = store.query(sql.load("capacity_attempts"), window).to_pylist()
        apart = [
            store.query(sql.load("report_attempts"), {"bulk": bulk, **summaries.EVER}).to_pylist()
            for bulk in ("one", "two")
        ]
    rows = {(row["bulk_id"], row["job_id"]): row for row in found}
    assert {key: (row["enqueue_ns"], row["wait"], row["decides"]) for key, row in rows.items()} == {
        ("one", "j"): (ns(0.0), 1.0, True), ("one", "k"): (ns(0.0), 2.0, True), ("two", "j"): (ns(4.0), 2.0, True),
        ("two", "k"): (ns(5.0), None, True), ("two", "m"): (ns(5.0), 3.0, True),
    }  # fmt: skip
    for row in found:
        del row["bulk_id"]
    assert found == [{name: row[name] for name in found[0]} for of_one in apart for row in of_one]


@pytest.mark.parametrize("knows", ["sender", "worker"])
def test_a_job_whose_bulk_one_side_alone_knows_is_one_job(knows: str) -> None:
    (sent, done, inference), logs = (written([Job("j", 0.0, 1.0, 2.0)])[name].to_pylist() for name in ("spans", "logs"))
    for row in (sent,) if knows == "worker" else (done, inference, *logs):
        row["bulk_id"] = None
    tables = {"spans": rows.table("spans", [sent, done, inference]), "logs": rows.table("logs", logs)}
    with stored(tables) as store:
        found = store.query(sql.load("capacity_attempts"), {"firsts": [BEGIN_NS], "lasts": [ns(10.0)]}).to_pylist()
    assert [(row["job_id"], row["enqueue_ns"], row["wait"]) for row in found] == [("j", ns(0.0), 1.0)]


def test_a_span_id_is_of_its_trace_alone(tmp_path: Path) -> None:
    """Of two attempts with one span id in two traces one ended. Logs without a trace's id are of either."""

    def states(named: bool) -> list[tuple[str, bool]]:
        tables = {name: content.to_pylist() for name, content in written([Job("a", 0.0, 1.0, 2.0)]).items()}
        log = tables["logs"][0]
        tables["logs"].append(log | {"trace_id": "f" * 32 if named else None, "job_id": "b"})
        with stored({name: rows.table(name, content) for name, content in tables.items()}) as store:
            found = store.query(sql.load("report_attempts"), {"bulk": "bulk", **summaries.EVER}).to_pylist()
            gone = store.query(sql.load("lost"), {"bulk": "bulk", "silent_ns": 2**62, **summaries.EVER})
            (listed,) = bulks.list_bulks(store)
        assert gone["job_id"].to_pylist() == [row["job_id"] for row in found if row["end_ns"] is None]
        assert listed["jobs"] == len(found)
        return sorted((row["job_id"], row["end_ns"] is not None) for row in found)

    assert states(named=True) == [("a", True), ("b", False)]
    assert states(named=False) == [("a", True)]


def test_what_names_a_model_and_is_no_inference_counts_as_none_in_any_answer(tmp_path: Path) -> None:
    tables = {name: content.to_pylist() for name, content in written([Job("a", 0.0, 1.0, 2.0)]).items()}
    for row in tables["spans"]:
        row |= {"model": "m", "output_tokens": 7} if row["kind"] == "INTERNAL" else {"model": "x", "output_tokens": 50}
    with stored({name: rows.table(name, content) for name, content in tables.items()}) as store:
        shown = listing.one(store, listing.Verdicts(store), "bulk")
        (listed,) = bulks.list_bulks(store)
        total = reports.bulk_report(store, "bulk")
    assert shown is not None
    assert (shown["models"], shown["output_tokens"], listed["models"]) == (["m"], 7, ["m"])
    assert [each["name"] for each in total["models"]] == ["m"]
    assert total["total"]["inferences"]["output_tokens"] == 7


def test_windows_far_apart_are_read_as_one() -> None:
    """Nothing between them counts; what goes through both, and a job tried in each, is there once."""
    day = 86_400.0
    jobs = [
        Job("a", 0.0, 1.0, 2.0, bulk="early"), Job("between", day / 2, day / 2, day / 2 + 1, bulk="other"),
        Job("long", 1.0, 1.5, day + 5, worker=2, bulk="other"), Job("b", day, day + 1, day + 3, bulk="late"),
        Job("again", 0.0, 1.0, 2.0, worker=3, bulk="other", columns=AGAIN),
        Job("again", None, day + 1, day + 2, worker=3, bulk="other", attempt=2),
        Job("goes on", 1.0, 2.0, None, worker=4, bulk="other", seen=day + 2),
    ]  # fmt: skip
    with stored(written(jobs)) as store:
        windows = capacities.windows(store, Question(["early", "late"]))
        assert [len(group) for group in capacities._apart(windows)] == [1, 1]
        near = [{"firsts": [first], "lasts": [last]} for first, last in windows]
        found = views.together([store.query(sql.load("capacity_attempts"), given) for given in near]).to_pylist()
        answer = capacities.system_capacity(store, Question(["early", "late"]))
    assert [(row["job_id"], row["attempt"], row["decides"]) for row in found] == [
        ("a", 1, True), ("again", 1, False), ("long", 1, True), ("goes on", 1, True), ("b", 1, True),
        ("again", 2, True),
    ]  # fmt: skip
    assert [row["seen_ns"] for row in found if row["job_id"] == "goes on"] == [ns(day + 2)]
    assert answer["pools"]


@pytest.mark.parametrize("name", ["rules.duckdb", "RULES.db"])
def test_a_file_of_the_name_of_the_rules_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(storefile.Unfit, match="rename it"):
        Store(tmp_path / name)
