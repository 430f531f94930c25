"""A bulk that is played again: as it was, and with a change, against what another program does with the same jobs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkscope_studio.analysis.replay.play import Jobs, Slots, play
from bulkscope_studio.analysis.replay.recorded import Change, Recorded, estimated, recorded, replayed
from bulkscope_studio.analysis.statistics import simulation
from bulkscope_studio.analysis.timeline import progress, timeline
from bulkscope_studio.analysis.timeline.measures import lost_seconds
from bulkscope_studio.services import explanations
from bulkscope_studio.services.times import heard
from tests.rows import ns
from tests.studio.explaining import Job, alive, stored, written


def jobs_of(ready: list[float], seconds: list[float], cores: float = 1.0, gap: float = 0.0) -> Jobs:
    count = len(ready)
    return Jobs(
        np.array(ready, float), np.full(count, gap), np.array(seconds, float), np.full(count, cores),
        np.arange(count, dtype=float),
    )  # fmt: skip


def slots_of(count: int) -> Slots:
    return Slots(np.full(count, -1e9), np.full(count, np.inf), np.ones(count), np.zeros(count))


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 9)), min_size=1, max_size=40),
    st.integers(1, 5),
)
def test_first_come_first_served_is_the_recursion_of_kiefer_and_wolfowitz(
    told: list[tuple[float, float]], servers: int
) -> None:
    told = sorted(told, key=lambda job: job[0])
    ready, seconds = [a for a, _ in told], [b for _, b in told]
    known = simulation.replay(ready, seconds, servers)
    for cores in (math.inf, 1e9):  # the second by the program that shares cores, of which there are enough
        found = play(jobs_of(ready, seconds), slots_of(servers), cores)
        assert found.start == pytest.approx(known.starts, abs=1e-6)
        assert found.end == pytest.approx(known.ends, abs=1e-6)


def test_jobs_share_the_cores_that_there_are() -> None:
    # 4 equal jobs of one core on 2 cores take twice as long; then 2 alone, at full speed.
    found = play(jobs_of([0.0] * 6, [3.0] * 6), slots_of(4), 2.0)
    assert found.end == pytest.approx([6, 6, 6, 6, 9, 9])
    # Two jobs of 1 core on 1 core, the second from 2 s on: 2 s alone, 2 x 4 s together, 2 s alone.
    found = play(jobs_of([0.0, 2.0], [6.0, 6.0]), slots_of(2), 1.0)
    assert found.end == pytest.approx([10.0, 12.0])
    assert play(jobs_of([0.0, 0.0], [6.0, 6.0], cores=0.4), slots_of(2), 1.0).end == pytest.approx([6.0, 6.0])


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=30), st.integers(1, 6), st.floats(0.5, 6))
def test_work_is_neither_lost_nor_made(seconds: list[float], servers: int, cores: float) -> None:
    found = play(jobs_of([0.0] * len(seconds), seconds), slots_of(servers), cores)
    last = float(np.max(found.end))
    assert last >= sum(seconds) / min(servers, cores) - 1e-6
    assert last <= sum(seconds) / min(servers, cores, 1.0) + 1e-6
    assert (found.end - found.start >= np.array(seconds) - 1e-9).all()


def test_a_slow_slot_a_cold_one_and_one_that_leaves() -> None:
    slots = Slots(np.array([0.0, 0.0]), np.array([np.inf, 1.5]), np.array([3.0, 1.0]), np.array([0.0, 5.0]))
    found = play(jobs_of([0.0] * 3, [1.0] * 3, gap=0.1), slots)
    assert found.start == pytest.approx([0.1, 0.1, 3.2])
    assert found.end == pytest.approx([3.1, 6.1, 6.2])  # the second leaves after its cold first job
    none = play(jobs_of([2.0], [1.0]), Slots(np.array([0.0]), np.array([1.0]), np.ones(1), np.zeros(1)))
    assert np.isnan(none.end).all()


def test_the_longest_of_those_that_are_ready_first() -> None:
    jobs = jobs_of([0.0, 0.0, 0.0, 5.0], [1.0, 1.0, 4.0, 9.0])
    jobs = Jobs(jobs.ready, jobs.gap, jobs.seconds, jobs.cores, -jobs.seconds)
    assert play(jobs, slots_of(1)).start == pytest.approx([4.0, 14.0, 0.0, 5.0])


def test_lost_seconds() -> None:
    # One thread; four side by side, whose waits pass at the same time; one that runs for a tenth of the time.
    found = lost_seconds(np.array([2.0, 2.0, 2.0]), np.array([1.5, 6.0, 0.1]), np.array([0.5, 2.0, 0.1]))
    assert found == pytest.approx([0.5, 0.5, 0.1])


def bulk_of(jobs: list[Job], points: list[dict[str, object]] | None = None) -> Recorded:
    """What is read off the records of a bulk."""
    with stored(written(jobs, points=points or [])) as store:
        facts = explanations.facts_of(store, explanations.beside(store, "bulk", ns(1e6)))
        assert heard(store, ns(1e6))[0] is not None
        standing = progress.progress(facts)
        found = recorded(facts, timeline.build(facts, standing.running and not standing.complete))
    assert found is not None
    return found


def worked(
    sizes: list[float], workers: int, gap: float = 0.0, cold: float = 0.0, slow: float = 1.0, every: float = 0.0
) -> list[Job]:
    """Let workers take jobs of so many tokens (100 a second), one by one; the last worker is ``slow`` times as slow."""
    free = [0.0] * workers
    made = []
    for number, tokens in enumerate(sizes):
        put = number * every
        worker = min(range(workers), key=lambda each: (max(free[each], put), free[each]))
        first = free[worker] == 0.0 and not any(job.worker == worker + 1 for job in made)
        start = max(free[worker], put) + gap
        took = tokens / 100 * (slow if worker == workers - 1 else 1.0) + (cold if first else 0.0)
        free[worker] = start + took
        told = {"model": "m", "input_tokens": 1, "output_tokens": int(tokens)}
        made.append(Job(f"j{number:03d}", put, start, free[worker], worker=worker + 1, inference=told))
    return made


def points_of(workers: int) -> list[dict[str, object]]:
    return [p for worker in range(workers) for at in range(-5, 195, 10) for p in alive(worker + 1, at, at + 5)]


def length(jobs: list[Job]) -> float:
    return max(job.end for job in jobs if job.end is not None)


SIZES = [float(size) for size in np.random.default_rng(5).integers(50, 400, 60)]


@pytest.mark.parametrize(
    ("was", "change", "then"),
    [
        ({"gap": 0.5, "cold": 8.0}, Change(slots=6), {"workers": 6, "gap": 0.5, "cold": 8.0}),
        ({"gap": 0.5, "cold": 8.0}, Change(slots=2), {"workers": 2, "gap": 0.5, "cold": 8.0}),
        ({"gap": 0.6}, Change(gaps=0), {}),
        ({"cold": 8.0}, Change(preloaded=True), {}),
        ({"slow": 3.0}, Change(alike=True, first_come=True), {}),
        ({"every": 2.0}, Change(at_once=True, first_come=True), {}),
        ({"every": 2.0, "gap": 0.3}, Change(slots=6), {"workers": 6, "every": 2.0, "gap": 0.3}),
        ({}, Change(speed=1.5), {"speed": 1.5}),
    ],
)
def test_a_change_comes_out_as_it_does_where_it_is_made(
    was: dict[str, float], change: Change, then: dict[str, float]
) -> None:
    bulk = bulk_of(worked(SIZES, 3, **was), points_of(3))
    plain, measured = replayed(bulk), bulk.measured
    assert plain is not None
    assert plain.makespan == pytest.approx(measured.makespan, rel=1e-6)
    assert plain.mean_wait == pytest.approx(measured.mean_wait, rel=1e-6)
    speed = then.pop("speed", 1.0) if "speed" in then else 1.0
    workers = int(then.pop("workers", 3)) if "workers" in then else 3
    truth = length(worked([size / speed for size in SIZES], workers, **then))
    found = estimated(bulk, change)
    assert found is not None
    assert found.value == pytest.approx(truth, rel=0.05)
    assert found.low <= truth <= found.high


def test_what_workers_had_reserved_is_played_as_it_was_handed_out() -> None:
    # Each of two workers has half of the jobs from the first: one has the long ones.
    made, free = [], [0.0, 0.0]
    for number in range(24):
        worker, took = number % 2, 3.0 if number % 2 else 0.5
        told = {"model": "m", "input_tokens": 1, "output_tokens": int(100 * took)}
        made.append(Job(f"j{number:02d}", 0.0, free[worker], free[worker] + took, worker=worker + 1, inference=told))
        free[worker] += took
    bulk = bulk_of(made, points_of(2))
    assert bulk.measured.makespan == pytest.approx(36.0)
    plain, shared = replayed(bulk), replayed(bulk, Change(first_come=True))
    assert plain is not None
    assert shared is not None
    assert plain.makespan == pytest.approx(36.0)
    assert 21.0 <= shared.makespan <= 24.0  # 42 s of work on two


def test_cores_bound_what_more_workers_bring() -> None:
    told = {"model": "m", "input_tokens": 1, "output_tokens": 100, "cpu_time": 1.0, "cpu_wait": 1.0}
    made = [Job(f"j{n:02d}", 0.0, 2.0 * (n // 4), 2.0 * (n // 4) + 2.0, worker=1 + n % 4, inference=told)
            for n in range(40)]  # fmt: skip
    bulk = bulk_of(made, points_of(4))
    as_is, twice, free, half = (
        replayed(bulk, change)
        for change in (Change(cores=2.0), Change(slots=8, cores=2.0), Change(starved=False), Change(slots=2, cores=2.0))
    )
    assert [round(each.makespan, 6) for each in (as_is, twice, free, half) if each] == [20.0, 20.0, 10.0, 20.0]


def test_a_hundred_thousand_jobs_are_played_in_order() -> None:
    random = np.random.default_rng(1)
    ready = np.sort(random.uniform(0, 1e5, 100_000))
    found = play(
        Jobs(ready, np.full(100_000, 0.01), random.exponential(3.9, 100_000), np.ones(100_000), np.arange(1e5)),
        slots_of(4),
    )
    assert (np.diff(found.start) >= -1e-9).all()


def test_this_folder_needs_no_store() -> None:
    folder = Path(__file__).resolve().parents[2] / "studio" / "bulkscope_studio" / "analysis" / "replay"
    assert not [path.name for path in folder.glob("*.py") if "storage" in path.read_text()]
