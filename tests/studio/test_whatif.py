"""A bulk played again under a change comes to what it would really have come to, by a queue that shares no code."""

from __future__ import annotations

import heapq
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulkscope_studio.cli import whatif as command
from bulkscope_studio.rendering import whatif
from bulkscope_studio.rendering.output import Output
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.services.whatifs import Change, bulk_whatif
from tests.studio.explaining import Job, stored, written
from tests.studio.made import Made

WORKERS, LOAD, GAP = 3, 4.0, 0.05
WORK = np.random.default_rng(1).lognormal(0, 0.8, 60).tolist()


def truth(work: list[float], workers: int, load: float = LOAD, longest: bool = False) -> float:
    """Makespan of jobs that are put at once."""
    free = [(0.0, worker) for worker in range(workers)]
    used: set[int] = set()
    last = 0.0
    for seconds in sorted(work, reverse=True) if longest else work:
        at, worker = heapq.heappop(free)
        end = at + seconds + (0.0 if worker in used else load)
        used.add(worker)
        last = max(last, end)
        heapq.heappush(free, (end + GAP, worker))
    return last


@pytest.fixture(scope="module")
def made() -> Made:
    made = Made()
    made.run([0.0] * len(WORK), WORK, WORKERS, load=LOAD, gap=GAP)
    return made


def asked(made: Made, change: Change) -> dict[str, Any]:
    store = made.store()
    try:
        return bulk_whatif(store, "b", change)
    finally:
        store.close()


@pytest.mark.parametrize(
    ("change", "makespan"),
    [
        (Change(workers=6), truth(WORK, 6)),
        (Change(workers=2), truth(WORK, 2)),
        (Change(workers=2, threads=2), truth(WORK, 4)),
        (Change(order="longest"), truth(WORK, 3, longest=True)),
        (Change(preload=True), truth(WORK, 3, load=0.0)),
        (Change(speed=1.3), truth([seconds / 1.3 for seconds in WORK], 3, load=LOAD / 1.3)),
        (Change(workers=6, order="longest", preload=True), truth(WORK, 6, load=0.0, longest=True)),
    ],
)
def test_a_change_comes_to_what_it_would_have_come_to(made: Made, change: Change, makespan: float) -> None:
    found = asked(made, change)
    assert found["measured"]["makespan"] == pytest.approx(truth(WORK, WORKERS), rel=0.01)
    said = found["change"]["results"]["makespan"]
    assert said["low"] <= makespan <= said["high"]
    assert said["value"] == pytest.approx(makespan, rel=0.1)
    assert found["change"]["saved"] == pytest.approx(1 - said["value"] / found["measured"]["makespan"])


def test_what_ends_first_is_within_the_memory_and_no_cheaper_one_ends_as_soon(made: Made) -> None:
    found = asked(made, Change())
    assert found["change"] is None
    fit, best = found["room"]["fit"], found["combinations"]
    assert 3 < fit < 3 * 8
    assert max(one["workers"] for one in best) == fit
    ends = [one["results"]["makespan"]["value"] for one in best]
    assert ends == sorted(ends)
    for one, end in zip(best, ends, strict=True):
        for other, sooner in zip(best, ends, strict=True):
            cheaper = other["workers"] <= one["workers"] and (other["longest"], other["preload"]) == (False, False)
            assert other is one or not cheaper or sooner > end


def test_slots_share_the_cores_that_there_are() -> None:
    jobs = [
        Job(f"j{n}", 0.0, 2.0 * (n // 2), 2.0 * (n // 2) + 2.0, worker=1 + n % 2,
            inference={"model": "m", "cpu_time": 2.0, "cpu_wait": 0.0})
        for n in range(20)
    ]  # fmt: skip
    limits = {worker: {"bulk.worker.cpus": 2.0, "bulk.worker.cpu.set": "0-1"} for worker in (1, 2)}
    with stored(written(jobs, resources=limits)) as store:
        found = bulk_whatif(store, "bulk", Change(workers=4))
    assert (found["room"]["cores"], found["room"]["cores_each"]) == (2.0, pytest.approx(1.0))
    assert found["change"]["results"]["makespan"]["value"] == pytest.approx(20.0, rel=0.05)  # as with two
    assert {one["workers"] for one in found["combinations"]} == {2}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Change(workers=0), "number of workers must be from 1"),
        (Change(threads=-1), "number of threads"),
        (Change(workers=4000, threads=4000), "workers times threads"),
        (Change(prefetch=4), "prefetch can only be 1"),
        (Change(order="random"), "longest"),
        (Change(speed=0.0), "times as fast"),
        (Change(speed=float("nan")), "times as fast"),
    ],
)
def test_what_means_nothing_is_said(made: Made, change: Change, says: str) -> None:
    with pytest.raises(InvalidQuery, match=says):
        asked(made, change)


def test_a_bulk_that_runs_cannot_be_played() -> None:
    with (
        stored(written([Job("a", 0.0, 1.0, 2.0), Job("b", 0.0)])) as store,
        pytest.raises(InvalidQuery, match=r"bulk: only a bulk that has ended can be played again: 1 of 2 jobs"),
    ):
        bulk_whatif(store, "bulk")


def test_the_command_prints_it(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = tmp_path / "s.duckdb"
    made.store(db).close()
    words = ["b", "--workers", "6", "--order", "longest", "--db", str(db)]
    for form in ("text", "md"):
        assert command.command([*words, "--format", form]) == 0
        out = capsys.readouterr().out
        assert "6 workers, longest first" in out
        assert "as measured" in out
    assert command.command([*words, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "bulkscope.whatif/1"
    assert command.command(["b", "--workers", "0", "--db", str(db)]) == 2
    assert "number of workers" in capsys.readouterr().err


def test_what_was_there_is_said(made: Made) -> None:
    file = io.StringIO()
    whatif.text(asked(made, Change(workers=9)), Output(file=file, width=160))
    said = file.getvalue()
    assert "There were: 3 workers of 1 concurrency slot, memory for 8 workers" in said
    assert "8 workers fit into memory, not 9" in said
