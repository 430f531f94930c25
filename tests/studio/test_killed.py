"""Workers that were killed, and whose parent process has told of it: the jobs have failed, and are lost no more."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from bulkscope import conventions as c
from bulkscope_studio.services import explanations, reports
from bulkscope_studio.sources import documents
from bulkscope_studio.storage import sql, summaries
from tests.studio.explaining import Job, Tables, alive, explain, insert, ns, silly, stored, sums, table, written

WORKER_LOST, TIME_LIMIT = (f"billiard.exceptions.{name}" for name in ("WorkerLostError", "TimeLimitExceeded"))


def killed(
    name: str, put: float, start: float, end: float, worker: int, error: str = WORKER_LOST, domain: str = "infra",
    again: bool = False, **rest: Any,
) -> Job:  # fmt: skip
    """An attempt of which the parent has told; ``again``: the job was handed out once more."""
    columns = {
        "error_type": error, "failure_domain": domain, "outcome": "retry" if again else "internal_error",
        "status": "UNSET" if again else "ERROR",
    }  # fmt: skip
    return Job(name, put, start, end, worker, columns=columns | rest.pop("columns", {}), killed=True, **rest)


def row(count: int, worker: int = 1, bulk: str = "bulk", first: int = 0) -> list[Job]:
    """Jobs put at once, of one second each, one after the other."""
    return [Job(f"{bulk}{n}", 0.0, float(n), n + 1.0, worker, bulk) for n in range(first, first + count)]


def item(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the line of evidence of an internal failure that has that name, or begins so."""
    (finding,) = (each for each in found["findings"] if each["code"] == "internal_failure")
    (line,) = (each for each in finding["evidence"] if each["name"] == name or each["text"].startswith(name))
    return dict(line)


def rows(query: str, jobs: list[Job], **given: Any) -> list[dict[str, Any]]:
    return asked(query, written(jobs), **given)


def asked(query: str, tables: Tables, **given: Any) -> list[dict[str, Any]]:
    with stored(tables) as store:
        found: list[dict[str, Any]] = store.query(sql.load(query), given).to_pylist()
        return found


LOST: dict[str, Any] = {"bulk": "bulk", "silent_ns": ns(1e4), **summaries.EVER}


def lost(jobs: list[Job]) -> list[bool]:
    """Return of each attempt that was lost whether the worker's parent told of it."""
    return [each["told"] for each in rows("lost", jobs, **LOST)]


def test_one_of_five_hundred_is_an_internal_failure() -> None:
    found = explain(written([*row(499), killed("x", 0.0, 5.0, 9.0, 2, seen=8.5)]))
    progress = found["progress"]
    assert (progress["done"], progress["failed"], progress["lost"], found["state"]) == (499, 1, 0, "complete")
    assert found["verdict"]["code"] == "internal_failure"
    assert "(job x)" in found["verdict"]["text"]
    assert item(found, "lost_workers")["value"] == 1
    assert item(found, "attempts that failed for another reason")["value"] == 0, "it counts once"
    assert not silly(found) + sums(found)


def test_two_killed_for_memory_are_of_memory() -> None:
    lost = [killed(name, 0.0, 5.0, 9.0, worker, domain="resource") for worker, name in ((2, "x"), (3, "y"))]
    found = explain(written([*row(499), *lost]))
    assert found["verdict"]["code"] == "memory_limited"
    (memory,) = (each for each in found["verdict"]["evidence"] if each["name"] == "workers_killed_for_memory")
    assert memory["value"] == 2
    assert item(found, "lost_workers")["value"] == 0
    assert not silly(found) + sums(found)


@pytest.mark.parametrize(("count", "holds"), [(1, False), (30, True)])
def test_a_hard_time_limit_is_an_ordinary_timeout(count: int, holds: bool) -> None:
    late = [killed(f"x{n}", 0.0, 5.0, 9.0, 10 + n, TIME_LIMIT, "timeout") for n in range(count)]
    found = explain(written([*row(499), *late]))
    assert (found["progress"]["failed"], found["progress"]["lost"]) == (count, 0)
    assert item(found, "lost_workers")["value"] == 0
    evidence = item(found, "attempts that failed by a time-out")
    assert evidence["holds"] is holds
    assert evidence["value"] == pytest.approx(count / (499 + count))


def test_a_job_done_again_is_done_and_its_loss_still_seen() -> None:
    found = explain(written([*row(50), killed("x", 0.0, 5.0, 9.0, 2, again=True), Job("x", 0.0, 9.1, 10.0, 3)]))
    assert (found["progress"]["done"], found["progress"]["failed"], found["state"]) == (51, 0, "complete")
    assert item(found, "lost_workers")["value"] == 1


@pytest.mark.parametrize(("worker", "host"), [(1, "h"), (2, "far")])
def test_one_that_was_lost_with_its_parent_is_lost_though_another_was_told_of(worker: int, host: str) -> None:
    """The next to have the job was killed a moment later, and its parent lives."""
    jobs = [
        *row(50, worker=4),
        Job("x", 0.0, 7.5, None, worker, seen=7.9, host=host),
        killed("x", 0.0, 8.0, 9.0, 2, again=True),
        Job("x", 0.0, 9.1, 10.0, 3),
    ]
    found = explain(written(jobs))
    assert (found["progress"]["done"], found["progress"]["lost"]) == (51, 0)
    assert item(found, "lost_workers")["value"] == 2
    assert lost(jobs) == [False, True]


def test_another_process_of_that_number_is_another() -> None:
    """The same pid began the job an hour before: of that nobody has told."""
    jobs = [Job("x", 0.0, 5.0, None, 2, seen=6.0), killed("x", 0.0, 3600.0, 3601.0, 2)]
    tables = written(jobs)
    logs, at = tables["logs"], tables["logs"].column_names.index("service_instance_id")
    before = [value if at_ns > ns(3000) else "before" for value, at_ns in zip(
        logs["service_instance_id"].to_pylist(), logs["time_ns"].to_pylist(), strict=True)]  # fmt: skip
    tables["logs"] = logs.set_column(at, "service_instance_id", pa.array(before))
    assert [each["told"] for each in asked("lost", tables, **LOST)] == [False, True]


def test_a_process_that_began_another_job_since_was_not_lost_with_the_first() -> None:
    """The studio was restarted in between: the first job's end was not recorded. One that began nothing since was."""
    jobs = [Job("x", 0.0, 5.0, None, 2, seen=6.0), Job("y", 0.0, 8.0, 9.0, 2), Job("z", 0.0, 5.0, None, 3, seen=6.0)]
    assert {row["job_id"]: row["without_end"] for row in rows("lost", jobs, **LOST)} == {"x": True, "z": False}
    with stored(written([*jobs, Job("later", 9e3, 9e3, 9e3 + 1, bulk="after")])) as store:
        explained = explanations.bulk_explanation(store, "bulk", now_ns=ns(1e4))
        report = reports.bulk_report(store, "bulk")
    assert explained is not None
    assert report is not None
    assert (explained["progress"]["lost"], explained["progress"]["without_end"]) == (1, 1)
    assert (report["progress"]["lost"], report["progress"]["unknown"]) == (1, 1)


def test_the_next_attempt_in_the_same_process_is_at_work() -> None:
    failed = {"error_type": "KeyError", "failure_domain": "code", "outcome": "retry"}
    jobs = [Job("x", 0.0, 0.1, 0.2, 1, columns=failed), Job("x", None, 0.5, None, 1, attempt=2, seen=3.0)]
    found = explain(written(jobs), now=4.0)
    assert (found["progress"]["running"], found["progress"]["lost"]) == (1, 0)


def test_of_one_killed_at_once_only_its_parent_knows() -> None:
    tables = written([*row(3), killed("x", 0.0, 5.0, 5.01, 2)])
    tables["logs"] = tables["logs"].filter([job != "x" for job in tables["logs"]["job_id"].to_pylist()])
    with stored(tables) as store:
        report = reports.bulk_report(store, "bulk")
    assert report is not None
    assert (report["progress"]["failed"], report["progress"]["waiting"], report["progress"]["lost"]) == (1, 0, 0)
    assert report["total"]["jobs"]["failures_by_domain"] == {"infra": 1}
    (lost,) = report["lost"]
    assert lost == {
        "job_id": "x", "attempt": 1, "worker": "h:2", "model": "m", "elapsed_s": pytest.approx(0.01),
        "memory_bytes": None, "domain": "infra", "memory_limit_bytes": None, "likely": False, "model_likely": True,
    }  # fmt: skip


def test_the_list_of_the_lost_has_what_the_heartbeats_said() -> None:
    tables = written([killed("x", 0.0, 5.0, 9.0, 2, domain="resource"), killed("late", 0.0, 5.0, 9.0, 3, TIME_LIMIT)])
    said = {
        "bulk.job.attempt": 1,
        "process.memory.usage": 7 << 20,
        "gen_ai.request.model": "m",
        "bulk.job.elapsed": 3.0,
    }
    beat = {
        "span_id": f"{1:016x}", "time_ns": ns(8.0), "event_name": "bulk.job.heartbeat", "job_id": "x", "host_name": "h",
        "pid": 2, "bulk_id": "bulk", "attributes": json.dumps(said), "service_instance_id": "i2",
    }  # fmt: skip
    with stored(tables | {"points": table("points", alive(2, 0.0, 8.0))}) as store:
        insert(store, {"logs": table("logs", [beat])})
        report = reports.bulk_report(store, "bulk")
    assert report is not None
    (lost,) = report["lost"]
    assert (lost["job_id"], lost["worker"], lost["model"], lost["memory_bytes"], lost["elapsed_s"], lost["domain"]) == (
        "x", "h:2", "m", 7 << 20, 4.0, "resource",
    )  # fmt: skip
    assert (report["progress"]["failed"], report["progress"]["lost"]) == (2, 0)


@pytest.mark.parametrize("query", ["explain_workers", "capacity_workers"])
def test_neither_is_the_parent_a_worker_nor_the_child_two(query: str) -> None:
    jobs = [
        *row(3, worker=1), *row(2, worker=2, first=10), killed("x", 0.0, 20.0, 21.0, 2),
        killed("y", 0.0, 20.0, 21.0, 3), killed("z", 0.0, 22.0, 23.0, 4),
    ]  # fmt: skip
    times = {"first": ns(0), "last": ns(60), "begin": ns(0)}
    given = times if query == "explain_workers" else {"firsts": [times["first"]], "lasts": [times["last"]]}
    assert [each["worker"] for each in rows(query, jobs, **given)] == ["h:1", "h:2", "h:3", "h:4"]


def test_what_a_killed_worker_did_for_another_bulk_goes_on_no_more() -> None:
    open_ = [Job(name, 0.0, 0.5, None, worker, "other", seen=2) for name, worker in (("o", 2), ("x", 3))]
    jobs = [*row(3), killed("x", 0.0, 0.5, 2.0, 2, seen=1.5, bulk="other"), *open_]
    times = {"first": ns(1.0), "last": ns(60)}  # it had begun before
    others = rows("explain_others", jobs, bulk="bulk", **times)
    told = {(each["job_id"], each["worker"], each["end_ns"]) for each in others}
    assert told == {("x", "h:2", ns(2.0)), ("o", "h:2", None), ("x", "h:3", None)}
    attempts = rows("capacity_attempts", jobs, firsts=[ns(1.0)], lasts=[ns(60)])
    goes_on = {(each["job_id"], each["worker"]) for each in attempts if each["start_ns"] and not each["end_ns"]}
    assert goes_on == {("o", "h:2"), ("x", "h:3")}


def test_the_place_of_a_killed_worker_is_not_free() -> None:
    """It had one job of 10 s, for its time limit; the one that took its place is at work ever since."""
    begun = [Job(f"j{n}", 0.0, 10.2 + 10 * n, 20.2 + 10 * n, 3) for n in range(30)]
    jobs = [killed("x", 0.0, 0.0, 10.0, 2, TIME_LIMIT, "timeout"), *begun, *(Job(f"w{n}", 0.0) for n in range(5))]
    found = explain(written(jobs, points=alive(3, 10.1, 310.0)), now=310.5)
    (uneven,) = (each for each in found["findings"] if each["code"] == "uneven_hand_out")
    assert [(each["name"], each["value"]) for each in uneven["evidence"]] == [("saved", pytest.approx(0, abs=0.001))]
    assert found["verdict"]["code"] == "at_capacity_workers"


def test_what_ran_in_a_killed_worker_is_no_stand_still() -> None:
    """Killed in an inference of a minute, which has no span; done again in a second."""
    jobs = [*row(9), killed("x", 0.0, 9.0, 69.0, 2, again=True), Job("x", 0.0, 69.2, 70.2, 1)]
    assert item(explain(written(jobs)), "workers' time in jobs that hung")["value"] == 0


@pytest.mark.parametrize(
    ("kind", "told", "expected"),
    [("Consumer", 7, (7, None)), ("Consumer", 42, (42, "i")), ("Consumer", None, (42, "i")), ("Server", 7, (42, "i"))],
)
def test_elasticsearch_says_as_well_whose_work_it_was(
    kind: str, told: int | None, expected: tuple[int, str | None]
) -> None:
    names = ("span_id", "kind", "pid", "service_instance_id", "told_pid")
    columns = {name: documents.OTHER_SPAN[name] for name in names}
    values = ("s", kind, 42, "i", told)
    page = {"start_ms": [1], **{columns[name]: [value] for name, value in zip(names, values, strict=True)}}
    found, (resource,) = documents.spans(page, columns, {})
    assert (found["pid"][0], found["service_instance_id"][0]) == expected
    assert json.loads(resource["attributes"])[c.PROCESS_PID] == 42, "the resource is the sender's"
