"""When a running bulk ends: what is counted, what is left open, and how often the interval holds the truth."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import endings as bench
from bulkscope_studio.analysis.ending.draws import Law, Wandering
from bulkscope_studio.cli import watch
from bulkscope_studio.services import jobs as services_jobs
from bulkscope_studio.services import listing
from bulkscope_studio.services.endings import MOST_RUNNING, RESTS, Ends, bulk_ending, list_bulks
from bulkscope_studio.services.overtime import overtime
from bulkscope_studio.services.times import SILENT_NS
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store
from tests.rows import ns
from tests.studio.explaining import Job, insert, stored, written

WORK = 2.0
SILENT_S = SILENT_NS / 1e9
QUEUE = {"queue": "q"}
REQUEST = {"start_ns": ns(0), "end_ns": ns(0.1)}


def halfway(workers: int = 2, done: int = 10, jobs: int = 20, bulk: str = "bulk", first: int = 1) -> list[Job]:
    """Jobs of ``WORK`` s that were put at once; of ``workers`` slots each is one second into its present job."""
    found = []
    for n in range(jobs):
        start = WORK * (n // workers)
        own: dict[str, Any] = {"worker": first + n % workers, "bulk": bulk, "columns": QUEUE}
        if n < done:
            found.append(Job(f"{bulk}-{n}", 0.0, start, start + WORK, **own))
        elif n < done + workers:
            found.append(Job(f"{bulk}-{n}", 0.0, start, None, seen=start + 1.0, **own))
        else:
            found.append(Job(f"{bulk}-{n}", 0.0, bulk=bulk, columns=QUEUE))
    return found


def asked(jobs: list[Job], now: float, bulk: str = "bulk", **more: Any) -> dict[str, Any]:
    with stored(written(jobs, **more)) as store:
        return bulk_ending(store, bulk, ns(now))


def test_of_equal_jobs_the_end_is_known() -> None:
    found = asked(halfway(), 11.0)  # 10 of 20 are done at 10 s; the others need 10 s more
    assert found["state"] == "running"
    assert found["progress"] == {
        "sent": 20, "done": 10, "failed": 0, "cancelled": 0, "running": 2, "retrying": 0, "waiting": 8, "lost": 0,
        "unknown": 0,
    }  # fmt: skip
    left = found["left_s"]
    assert left["low"] <= 9.0 <= left["high"]
    assert left["value"] == pytest.approx(9.0, rel=0.1)
    assert found["end_ns"]["value"] == ns(11.0) + round(left["value"] * 1e9)
    assert (found["slots"], found["ahead"], found["ended_ns"]) == (2, 0, None)
    assert found["rate_per_s"]["value"] == pytest.approx(1.0, rel=0.1)


def test_a_clock_that_was_never_set_leaves_an_answer() -> None:
    """Times from 1971 to today, in ns, are more than a double holds exactly: pyarrow refuses to make one of them."""
    since = ns(0) // 10**9 - 31_536_000
    jobs = [Job("old", -float(since), columns=QUEUE), *halfway(), Job("late", 5.0, columns=QUEUE)]
    others = [Job(f"o{n}", 1.0 + n / 3, bulk="other", columns=QUEUE) for n in range(3)]
    with stored(written([*jobs, *others])) as store:
        found = bulk_ending(store, "bulk", ns(11.0))
        assert (found["state"], found["ahead"]) == ("running", 3)
        over = overtime(store, "bulk", bins=3, now_ns=ns(11.0))
        assert over["jobs"]["waiting"][0] == 1
        assert over["jobs"]["done"][-1] == 10
        assert services_jobs.page(services_jobs.Tables(store), "bulk", services_jobs.Wanted(), 100, 0)["total"] == 22


def test_more_slots_end_it_sooner() -> None:
    two, four = (asked(halfway(n, 12, 40), 13.0 if n == 2 else 7.0)["left_s"] for n in (2, 4))
    assert four["high"] < two["low"]


def test_jobs_of_other_bulks_go_first_where_they_were_put_before() -> None:
    alone = asked(halfway(), 11.0)["left_s"]
    others = [Job(f"o{n}", -1.0, bulk="other", columns=QUEUE) for n in range(20)]
    # What others put before a job that has begun was passed over: it is not waiting for these workers.
    assert asked([*halfway(), *others], 11.0)["ahead"] == 0
    late = [Job(f"late-{n}", 5.0, bulk="late", columns=QUEUE) for n in range(6)]
    before = [*halfway(), *(Job(f"o{n}", 4.0, bulk="other", columns=QUEUE) for n in range(20)), *late]
    found = asked(before, 11.0, bulk="late")
    assert found["ahead"] == 8 + 20  # what waits of the bulk in front of it too
    assert found["left_s"]["value"] > alone["value"] + 20  # 36 s of work for two slots, before its own
    assert found["left_s"]["low"] <= 1 + (8 + 20 + 6) / 2 * WORK <= found["left_s"]["high"]


@pytest.mark.parametrize(
    ("jobs", "now", "state", "why"),
    [
        (halfway()[10:], 11.0, "running", "no job has ended yet"),
        (halfway(), 60.0, "stopped", "nothing was heard of the bulk"),
    ],
)
def test_where_it_cannot_be_known_it_says_why(jobs: list[Job], now: float, state: str, why: str) -> None:
    other = [Job("o", 0.0, 40.0, now - 0.1, worker=9, bulk="other", columns={"queue": "z"})] if now > 20 else []
    found = asked([*jobs, *other], now)
    assert (found["state"], found["left_s"], found["end_ns"]) == (state, None, None)
    assert why in found["why"]


def test_of_a_store_that_is_no_longer_written_to_there_is_no_end() -> None:
    found = asked(halfway(), 5000.0)
    assert found["left_s"] is None
    assert "nothing was recorded since 2025-10-09 08:53:31 UTC" in found["why"]


def test_a_complete_bulk_has_ended() -> None:
    found = asked(halfway(done=20), 30.0)
    assert (found["state"], found["left_s"], found["ended_ns"]) == ("complete", None, ns(20.0))


def test_jobs_that_the_request_announced_and_nobody_saw_are_still_to_come() -> None:
    more = asked(halfway(), 11.0, requests=[{**REQUEST, "bulk_size": 40}])
    assert more["progress"]["unknown"] == 20
    assert more["left_s"]["low"] > asked(halfway(), 11.0)["left_s"]["high"]


def test_a_worker_that_went_silent_is_no_slot() -> None:
    found = asked([*halfway(2, 18, 40), Job("gone", 0.0, 0.0, None, worker=9, seen=1.0, columns=QUEUE)], 19.0)
    assert (found["progress"]["lost"], found["slots"]) == (1, 2)
    assert any("lost" in note for note in found["notes"])


def test_the_list_says_it_of_running_bulks_alone() -> None:
    old = [Job(f"old-{n}", -50.0, -40.0 + n, -39.0 + n, bulk="old") for n in range(3)]
    with stored(written([*halfway(), *old])) as store:
        found = Ends(store).of_running(list_bulks(store), ns(11.0))
        assert list(found) == ["bulk"]
        assert [row["ending"] for row in list_bulks(store)] == [None, None]  # asked months later


def test_announced_jobs_count_in_the_list_as_in_the_ending() -> None:
    """5 of 10 announced jobs were seen, and done: the list must ask for the end of a bulk that is not complete."""
    requests = [{**REQUEST, "bulk_size": 10}]
    with stored(written(halfway(done=5, jobs=5), requests=requests)) as store:
        (row,) = list_bulks(store)
        assert (row["jobs"], row["sent"], row["done"]) == (5, 10, 5)
        assert bulk_ending(store, "bulk", ns(7.0))["state"] == "running"
        assert list(Ends(store).of_running([row], ns(7.0))) == ["bulk"]


@pytest.mark.parametrize("later", [5.0, SILENT_S - 1, SILENT_S + 1, 500.0])
@pytest.mark.parametrize("others", [False, True])
def test_the_list_the_jobs_and_the_ending_have_one_clock(later: float, others: bool) -> None:
    """A bulk is last heard of at 11 s; with ``others`` the store hears of another queue until it is asked."""
    beside = [Job("o", 0.0, 1.0, 11.0 + later - 0.1, worker=9, bulk="other", columns={"queue": "z"})] if others else []
    now_ns = ns(11.0 + later)
    with stored(written([*halfway(), *beside])) as store:
        summaries.ensure(store.connection())  # as a studio does when it starts
        ending = bulk_ending(store, "bulk", now_ns)
        wanted = listing.Wanted(search="bulk")
        (row,) = listing.bulks(store, listing.Verdicts(store), Ends(store), wanted, now_ns)["bulks"]
        assert row["state"] == ending["state"] == ("stopped" if others and later > SILENT_S else "running")
        statuses = Counter(services_jobs.table(store, "bulk", now_ns)["status"].to_pylist())
        assert statuses["running"] == ending["progress"]["running"]
        assert statuses["lost"] == ending["progress"]["lost"]


def test_of_a_long_list_the_newest_few_are_looked_at_and_not_again_at_once() -> None:
    """A clock on which each look at a bulk takes 1 s; 60 bulks do not end."""
    bulks = [job for n in range(60) for job in halfway(done=2, jobs=6, bulk=f"b{n:02}", first=2 * n)]
    with stored(written(bulks)) as store:
        rows = list_bulks(store)
        ticks = iter(range(1_000_000))
        asked: list[str] = []

        class Counted(Ends):
            def of(self, bulk_id: str, now_ns: int | None = None) -> dict[str, Any]:
                asked.append(bulk_id)
                return super().of(bulk_id, now_ns)

        found = Counted(store, lambda: float(next(ticks))).of_running(rows, ns(4.0))
        assert list(found) == asked == [row["id"] for row in rows[:MOST_RUNNING]]
        seconds = 0.0
        ends = Ends(store, lambda: seconds)
        first = ends.of("b00")
        assert ends.of("b00") is not first  # that took no time at all: nothing is saved by keeping it
        took = Ends(store, lambda: float(next(ticks)))
        kept = took.of("b00")
        assert [took.of("b00") is kept for _ in range(RESTS)] == [True] * (RESTS - 1) + [False]


def saved(path: Path, jobs: list[Job]) -> Path:
    store = Store(path / "s.duckdb")
    insert(store, written(jobs))
    store.close()
    return path / "s.duckdb"


@pytest.mark.parametrize(
    ("jobs", "code", "says"),
    [
        (halfway(done=20), 0, "20 of 20 jobs, complete"),
        (
            [*halfway(done=20), Job("x", 0.0, 1.0, 2.0, worker=7, columns={"status": "ERROR"})],
            1,
            "1 failed (unknown 1)",
        ),
        (halfway(), 3, "10 of 20 jobs"),
    ],
)
def test_watch_ends_with_the_bulks_code(
    tmp_path: Path, jobs: list[Job], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    db = str(saved(tmp_path, jobs))
    assert watch.command(["--db", db]) == code
    assert says in capsys.readouterr().out
    assert watch.command(["bulk", "--db", db, "--format", "json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == "bulk"
    assert watch.command(["nobody", "--db", db]) == 2
    assert "no bulk 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--every", "soon"], ["--give-up", "-1s"]])
def test_watch_tells_what_a_time_looks_like(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert watch.command([f"{words[0]}={words[1]}"]) == 2
    assert "is not a duration" in capsys.readouterr().err


def test_jobs_to_come_fall_between_any_two_seen_with_the_same_probability() -> None:
    seen = np.array([1.0, 2.0, 4.0])
    drawn = Law(seen, np.zeros(0), 4000, np.random.default_rng(1)).draw(5)
    share = [
        np.mean(drawn < 1),
        *(np.mean((drawn >= a) & (drawn < b)) for a, b in ((1, 2), (2, 4))),
        np.mean(drawn >= 4),
    ]
    assert share == pytest.approx([0.25] * 4, abs=0.02)


def test_a_job_at_work_is_longer_than_it_has_lasted() -> None:
    law = Law(np.array([1.0, 2.0, 4.0]), np.array([3.0, 9.0]), 2000, np.random.default_rng(1))
    assert law.still.shape == (2000, 2)
    assert law.still[:, 0].min() >= 3.0
    assert law.still[:, 1].min() >= 9.0
    assert law.draw(3).max() > 9.0


def test_the_level_of_the_last_jobs_counts_where_chance_does_not_explain_it() -> None:
    random = np.random.default_rng(1)
    even = random.lognormal(0, 0.3, 90)
    assert Wandering.of(even).lately == pytest.approx(1.0, abs=0.06)
    rising = Wandering.of(even * np.linspace(1, 3, 90))
    assert rising.lately > 1.2
    assert rising.share > 0.2
    assert Wandering.of(even[:10]) == Wandering(0.0, 1, 1.0)


@pytest.mark.slow
def test_the_interval_holds_the_end_of_nine_in_ten_bulks() -> None:
    """By the benchmark's own queue: heavy tails, drift, cold starts, leaving workers, retries, other bulks."""
    found = bench.run(bench.SHAPES, 208, seed=1)
    held = Counter(one.share for one in found if one.held)
    asked_ = Counter(one.share for one in found)
    assert set(asked_) == {0.25, 0.5, 0.75}
    for share, times in asked_.items():
        assert times > 190
        assert held[share] >= 0.9 * times, (share, held[share], times)
