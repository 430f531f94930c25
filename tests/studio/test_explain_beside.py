"""What runs beside a bulk must neither be overlooked nor be taken for its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.studio.explaining import Job, alive, explain, ns, silly, written


def sent(bulk: str, count: int, put: float, first: float, each: float, worker: int = 1, **of_job: Any) -> list[Job]:
    """``count`` jobs put at once, done one after the other."""
    queue = {"columns": {"queue": "q"}}
    return [
        Job(f"{bulk}{n}", put, first + n * each, first + (n + 1) * each, worker, bulk, **(queue | of_job))
        for n in range(count)
    ]


def evidence(found: dict[str, Any], code: str, name: str) -> dict[str, Any]:
    (only,) = (
        item
        for finding in found["findings"]
        if finding["code"] == code
        for item in finding["evidence"]
        if item["name"] == name
    )
    return only


@pytest.mark.parametrize("now", [20.0, 60.0, 390.0])
def test_a_bulk_behind_another_waits_and_nothing_is_broken(now: float) -> None:
    ahead = [job for job in sent("other", 50, -100.0, -100.0, 10.0) if job.start is not None and job.start < now]
    waiting = [Job(f"j{n}", 0.0, columns={"queue": "q"}) for n in range(20)]
    found = explain(written([*ahead, *waiting], points=alive(1, -100.0, now)), now=now)
    assert found["state"] == "running"
    assert found["verdict"]["code"] == "data_unfit"
    assert "no job has ended yet" in found["verdict"]["text"]
    assert any(" 100 % " in note for note in found["notes"])


def test_an_overtaken_bulk_is_not_taken_for_a_stall() -> None:
    own = [*sent("bulk", 20, 0.0, 0.0, 1.0), *(Job(f"w{n}", 0.0, columns={"queue": "q"}) for n in range(20))]
    others = sent("other", 100, 5.0, 20.0, 1.0)
    found = explain(written([*own, *others], points=alive(1, 0.0, 119.0)), now=120.0)
    assert (found["state"], found["verdict"]["code"]) == ("running", "at_capacity_workers")
    assert " 83 % of the workers' time" in found["verdict"]["text"]
    assert found["next"] == [], "of a bulk that runs nobody knows the end"


@pytest.mark.parametrize(("seen", "places"), [(40.9, 1), (42.1, 2)], ids=["its end is under way", "it goes on"])
def test_a_job_whose_end_has_not_come_yet_has_a_second_place_only_if_it_is_heard_of(seen: float, places: int) -> None:
    done = [Job(f"j{n}", 0.0, float(n), n + 1.0) for n in range(40)]
    late = [
        Job("late", 0.0, 40.0, None, seen=seen),
        Job("next", 0.0, 41.0, 41.5),
        Job("then", 0.0, 41.5, None, seen=42),
    ]
    found = explain(written([*done, *late, *(Job(f"w{n}", 0.0) for n in range(9))]), now=42.2)
    assert found["workers"]["places"] == places
    if places == 1:
        assert found["verdict"]["code"] == "at_capacity_workers"
        assert found["workers"]["own_s"] == pytest.approx(42)


def test_ends_under_way_of_a_worker_with_two_threads_are_no_third_place() -> None:
    done = [Job(f"{thread}{n}", 0.0, 2.0 * n, 2.0 * n + 2.0) for n in range(20) for thread in "ab"]
    late = [Job("late", 0.0, 40.0, None, seen=41.9), Job("on", 0.0, 40.1, None, seen=41.9)]
    begun = [Job("next", 0.0, 42.0, None, seen=42.0)]
    waiting = [Job(f"w{n}", 0.0) for n in range(9)]
    found = explain(written([*done, *late, *begun, *waiting]), now=42.2)
    assert found["workers"]["places"] == 2


def test_jobs_begun_in_one_moment_have_a_place_each() -> None:
    jobs = [Job(f"j{n}", 0.0, 1.0, None, seen=1.0) for n in range(4)]
    later = Job("later", 0.0, 1.2, 1.4, worker=2)
    assert explain(written([*jobs, later]), now=1.5)["workers"]["places"] == 5


def test_jobs_of_several_requests_at_once_are_a_bulk_put_at_once() -> None:
    jobs = [
        Job(f"j{n}", n // 40 * 0.2, 0.1 + n // 4 * 2.0, 0.1 + n // 4 * 2.0 + 2.0, 1 + n % 4) for n in range(240)
    ]  # fmt: skip
    requests = [{"start_ns": ns(n * 0.2), "end_ns": ns(n * 0.2 + 0.1), "bulk_size": 40} for n in range(6)]
    found = explain(written(jobs, requests), now=500.0)
    assert found["verdict"]["text"].startswith("All 4 workers were busy 100 % of the time")


def test_the_longest_job_is_named_where_it_is_the_limit() -> None:
    jobs = [Job("long", 0.0, 0.0, 60.0, 1), *(Job(f"j{n}", 0.0, 0.0, 1.0, 2 + n) for n in range(3))]
    found = explain(written(jobs), now=500.0)
    assert found["verdict"]["text"].startswith("Job long alone took 60 s of 60 s")
    assert all(change["makespan_s"] >= found["makespan"]["floor"] * 0.999 for change in found["next"])
    assert not silly(found)


def test_a_lost_span_of_another_bulk_does_not_keep_its_worker_busy_for_ever() -> None:
    gone = Job("gone", -1000.0, -1000.0, None, 1, "other", seen=-999.0, columns={"queue": "q"})
    found = explain(written([gone, *sent("bulk", 20, 0.0, 0.0, 2.0)]), now=500.0)
    assert (found["workers"]["places"], found["workers"]["others_s"]) == (1, 0.0)


def test_memory_of_a_worker_of_another_queue_is_not_the_bulks() -> None:
    far = sent("other", 2, -3000.0, -3000.0, 5.0, worker=77, columns={"queue": "elsewhere"})
    points = [*alive(1, 0.0, 40.0), *alive(77, -3000.0, -2990.0)]
    points.append(points[-1] | {"name": "bulk.worker.memory.utilization", "value": 0.97, "time_ns": ns(-2995.0)})
    found = explain(written([*far, *sent("bulk", 20, 0.0, 0.0, 2.0)], points=points), now=500.0)
    assert found["verdict"]["code"] == "at_capacity_workers"
    assert evidence(found, "memory_limited", "memory_near_limit")["value"] is None


def test_a_worker_of_the_queue_counts_though_it_had_none_of_the_bulks_jobs() -> None:
    own = sent("bulk", 10, 0.0, 0.0, 2.0, worker=1)
    others = sent("other", 10, 0.0, 0.0, 2.0, worker=2)
    found = explain(written([*own, *others]), now=500.0)
    assert found["workers"]["places"] == 2
    assert found["workers"]["others_s"] == pytest.approx(20.0)


@pytest.mark.parametrize(("cpus", "busy"), [(8.0, 0.99), (2.0, 0.99)])
def test_containers_share_their_cores_unless_each_has_a_quota(cpus: float, busy: float) -> None:
    resources = {
        worker: {"bulk.worker.cpus": cpus, "bulk.worker.cpu.set": "0-7", "container.id": f"c{worker}"}
        for worker in (1, 2, 3, 4)
    }
    used = {"model": "m", "cpu_time": 2.0 * 2.0 * busy, "cpu_wait": 0.5}  # 2 s on two cores
    jobs = [
        Job(f"j{n}", 0.0, n // 4 * 2.0, n // 4 * 2.0 + 2.0, 1 + n % 4, inference=used) for n in range(80)
    ]  # fmt: skip
    found = explain(written(jobs, resources=resources), now=500.0)
    assert evidence(found, "at_capacity_cores", "cores_busy")["value"] == pytest.approx(busy, rel=0.01)
    assert found["verdict"]["code"] == "at_capacity_cores"


def dropped(at: float, value: float, since: float) -> dict[str, Any]:
    return {
        "time_ns": ns(at), "start_ns": ns(since), "name": "bulk.telemetry.dropped", "type": "sum", "value": value,
        "service_instance_id": "i1", "attributes": json.dumps({"error.type": "queue_full", "signal": "traces"}),
    }  # fmt: skip


def test_what_was_dropped_before_a_bulk_is_not_held_against_it() -> None:
    jobs = sent("bulk", 20, 0.0, 0.0, 2.0)
    before = explain(written(jobs, points=[dropped(5.0, 500, -3600.0), dropped(35.0, 500, -3600.0)]), now=500.0)
    assert before["verdict"]["code"] == "at_capacity_workers"
    during = explain(written(jobs, points=[dropped(5.0, 500, -3600.0), dropped(35.0, 520, -3600.0)]), now=500.0)
    assert during["verdict"]["code"] == "data_unfit"
    assert "20 traces (dropped: queue_full)" in during["verdict"]["text"]
    begun = explain(written(jobs, points=[dropped(5.0, 40, 2.0)]), now=500.0)
    assert begun["verdict"]["code"] == "data_unfit", "the count began within the bulk"


@pytest.mark.parametrize("each", [0.25, 1.0, 3.0])
def test_of_a_gap_that_the_senders_have_counted_the_verdict_stands(each: float) -> None:
    """The receiver was away for about 3 of 75 jobs of each worker; what was sent then was counted as dropped."""
    jobs = [Job(f"j{n}", n * 1e-6, 1 + n // 4 * each, 1 + (n // 4 + 0.98) * each, 1 + n % 4) for n in range(300)]
    gap = [Job(job.name, job.put) if 120 <= n < 131 else job for n, job in enumerate(jobs)]
    # Another process is heard of later: nothing more will come of the bulk.
    heard = alive(99, 0.0, 890.0)
    counted = [*heard, dropped(-5.0, 0, -3600.0), dropped(50 * each, 22, -3600.0)]
    whole = explain(written(jobs, points=heard), now=900.0)
    stands = explain(written(gap, points=counted), now=900.0)
    assert stands["verdict"]["code"] == whole["verdict"]["code"] != "data_unfit"
    assert any("That is a gap of 2.5 % of the bulk's spans" in note for note in stands["notes"])
    assert not any("gap" in note for note in whole["notes"])
    unknown = explain(written(gap, points=heard), now=900.0)
    assert unknown["verdict"]["code"] == "data_unfit"
    more = [Job(job.name, job.put) if 120 <= n < 140 else job for n, job in enumerate(jobs)]
    counted = [*heard, dropped(-5.0, 0, -3600.0), dropped(50 * each, 40, -3600.0)]
    assert explain(written(more, points=counted), now=900.0)["verdict"]["code"] == "data_unfit"
    assert not silly(stands)


def test_what_more_workers_did_before_is_not_this_bulks() -> None:
    """An hour with four workers on two cores, that took twice as long for a job, then a bulk of two that did not."""
    jobs = [Job(f"one{n}", 100.0 + n, 100.0 + n, 100.999 + n, worker=1, bulk="before") for n in range(20)]
    jobs += [
        Job(f"four{n}-{w}", 200.0, 200.0 + 2 * n, 201.999 + 2 * n, worker=w, bulk="before")
        for n in range(20)
        for w in (1, 2, 3, 4)
    ]
    jobs += [
        Job(f"two{n}-{w}", 400.0, 400.0 + 1.05 * n, 401.049 + 1.05 * n, worker=w) for n in range(20) for w in (1, 2)
    ]
    found = explain(written(jobs))
    assert found["verdict"]["code"] == "at_capacity_workers"
    contention = next(finding for finding in found["findings"] if finding["code"] == "contention")
    assert contention["holds"] is False
