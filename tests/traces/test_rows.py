"""A verdict appears once undoing its cause truly saves a tenth, does not vanish as the cause grows, and what is told of
the change is what comes of it: on services that share no code with the replay or with ``tests/simulator``."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from tests.traces.asking import explained
from tests.traces.rows import ROWS, Row, named, without_cpu
from tests.traces.service import Done, Service, at_once, bursts, changed, poisson, work

SURELY_NOT, SURELY = 0.08, 0.12


@cache
def played(row: Row, value: float) -> tuple[Done, float, dict[str, Any]]:
    done = work(row.make(value))
    return done, row.saved(done), explained(done)


def values(row: Row) -> list[Any]:
    """Every value, half of them only with the slow tests."""
    return [
        pytest.param(row, value, marks=[] if place % 2 else [pytest.mark.slow], id=f"{named(row)}/{value:g}")
        for place, value in enumerate(row.values)
    ]


@pytest.mark.parametrize(("row", "value"), [each for row in ROWS for each in values(row)])
def test_a_verdict_holds_where_undoing_its_cause_saves_a_tenth(row: Row, value: float) -> None:
    _, saved, found = played(row, value)
    said = found["verdict"]["code"]
    assert any(item["holds"] for item in found["verdict"]["evidence"]), "a verdict has something that speaks for it"
    if saved >= SURELY:
        assert said in {row.verdict} | row.stays, (saved, found["verdict"]["text"])
    elif saved <= SURELY_NOT and row.verdict != "one_long_job":
        assert said != row.verdict, (saved, found["verdict"]["text"])


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=named)
def test_it_never_vanishes_as_its_cause_grows(row: Row) -> None:
    said = [played(row, value)[2]["verdict"]["code"] in {row.verdict} | row.stays for value in row.values]
    assert said == sorted(said), list(zip(row.values, said, strict=True))
    assert said[-1]


@pytest.mark.parametrize(
    ("row", "value"),
    [(row, row.values[3]) for row in ROWS if "cores" not in row.verdict],
    ids=lambda each: named(each) if isinstance(each, Row) else f"{each:g}",
)  # fmt: skip
def test_what_a_change_is_said_to_bring_it_brings(row: Row, value: float) -> None:
    done, _, found = played(row, value)
    told = [change for change in found["next"] if change["change"] == row.verdict]
    for change in told:
        after = row.undo(done.service)
        truth = after.stay if row.stream else after.makespan
        assert change["makespan_s"] == pytest.approx(truth, rel=0.1)
        assert 0.95 * change["low_s"] <= truth <= 1.05 * change["high_s"]


def test_the_demo_is_at_capacity_with_workers_and_cores() -> None:
    found = explained(work(Service(at_once(26), workers=2, cores=2)))
    assert found["verdict"]["title"] == "at capacity: workers and cores"
    assert "More workers need more cores" in found["verdict"]["text"]
    assert not [change for change in found["next"] if change["change"] == "at_capacity_workers"]


def test_jobs_that_sleep_on_a_full_host_lack_workers_and_no_cores() -> None:
    done = work(without_cpu(Service(at_once(26), workers=2, cores=2, burners=4)))
    found = explained(done)
    assert found["verdict"]["code"] == "at_capacity_workers"
    (more,) = (change for change in found["next"] if change["change"] == "at_capacity_workers")
    assert more["low_s"] <= changed(done.service, workers=4).makespan * 1.02 <= more["high_s"]


@pytest.mark.parametrize("seed", range(3))
def test_a_tenth_more_load_never_turns_overload_into_headroom(seed: int) -> None:
    for load in (1.15, 1.3, 1.6, 2.0):
        found = explained(work(Service(bursts(300, 4 * load, seed), workers=4)))
        assert found["verdict"]["code"] in ("overload", "at_capacity_workers"), (load, found["verdict"]["text"])


@pytest.mark.parametrize("seed", range(4))
def test_paced_jobs_of_workers_that_do_not_slow_each_other_are_no_contention(seed: int) -> None:
    uneven = tuple((n * 0.4, n, a, b, bulk) for n, (_, _, a, b, bulk) in enumerate(at_once(150, seed, spread=0.7)))
    found = explained(work(Service(uneven)))
    assert found["verdict"]["code"] in ("headroom", "at_capacity_workers")
    assert "contention" not in found["also"]


def test_workers_that_slow_each_other_do() -> None:
    found = explained(work(Service(poisson(200, 1.2, 3), together=0.4)))
    assert found["verdict"]["code"] == "contention"


@pytest.mark.parametrize(("count", "workers"), [(1, 1), (3, 1), (3, 4)])
def test_tiny_bulks_are_healthy(count: int, workers: int) -> None:
    tiny = tuple((put, request, 8, 1, bulk) for put, request, _, _, bulk in at_once(count))
    found = explained(work(Service(tiny, workers=workers)))
    assert found["verdict"]["code"] == "headroom"
    assert found["next"] == []


def test_a_row_without_its_cause_is_the_same_for_all() -> None:
    """What the rows are made of has nothing wrong with it: none says more than that the workers are busy."""
    for row in ROWS:
        service = row.make(row.values[0])
        assert replace(service) == service
        assert played(row, row.values[0])[2]["verdict"]["code"] in (
            "headroom", "at_capacity_workers", "at_capacity_workers_and_cores"
        )  # fmt: skip
