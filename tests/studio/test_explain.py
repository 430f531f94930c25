"""``bulkscope explain``: verdicts from the simulator's truth, numbers worked out on paper, odd bulks, the command."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.explain import findings
from bulkscope_studio.analysis.explain.evidence import measured
from bulkscope_studio.cli import explain as cli
from bulkscope_studio.rendering import explanation
from bulkscope_studio.server import api
from bulkscope_studio.services import explanations
from bulkscope_studio.storage.store import Store
from bulkscope_studio.text import wording
from tests import decoding
from tests.processes import BIN
from tests.simulator.ledger import VERDICTS
from tests.simulator.scenarios import Scenario, scenarios
from tests.simulator.truth import right
from tests.studio import otlp
from tests.studio.answering import studio
from tests.studio.explaining import (
    Job,
    alive,
    explain,
    insert,
    ns,
    sentences,
    silly,
    simulated,
    stored,
    sums,
    written,
)

NAN = float("nan")


@cache
def known() -> dict[str, Scenario]:
    return {scenario.name: scenario for scenario in scenarios()}


def ask(name: str) -> dict[str, Any]:
    tables, now = simulated(known()[name])
    return explain(tables, known()[name].bulk, now)


def finding_of(found: dict[str, Any], code: str) -> dict[str, Any]:
    (finding,) = (each for each in found["findings"] if each["code"] == code)
    return dict(finding)


def item(found: dict[str, Any], code: str, name: str) -> dict[str, Any]:
    """Return one line of evidence."""
    (finding,) = (each for each in found["findings"] if each["code"] == code)
    return next(dict(each) for each in finding["evidence"] if each["name"] == name)


# --- verdicts ---------------------------------------------------------------------------------------

EXAMPLES = (
    "unfit/consumers/0.25/11", "unfit/border/refused", "failure/EngineError/0.3/0", "failure/border/stall/2",
    "overload/poisson/2/4", "overload/border/paced/2", "memory/killed/once/4/5.0/3.0", "cpu/threads/join/4x1on2",
    "cpu/border/join/5x1on4", "bandwidth/join/8/3", "bandwidth/border/join/5", "bandwidth/poisson/8/3.8",
    "contention/lock/join/6/0.4/decode", "contention/border/join/4", "headroom/once/4/60", "headroom/border/lock/join",
)  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_verdict_is_what_held_the_bulk_up(name: str) -> None:
    found = ask(name)
    assert found["verdict"]["code"] in right(known()[name], known()[name].run())
    assert [each for each in found["verdict"]["evidence"] if each["holds"]]
    assert all(each["link"] is None or each["link"].startswith("/") for each in found["verdict"]["evidence"])


def test_the_examples_have_every_verdict_and_its_border() -> None:
    chosen = [known()[name] for name in EXAMPLES]
    assert {scenario.verdict for scenario in chosen} == set(VERDICTS)
    assert {scenario.verdict for scenario in chosen if scenario.border} >= set(VERDICTS) - {"memory_limited"}


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("failure/mix/cpu", "at_capacity_cores"),
        ("failure/mix/overload", "overload"),
        ("overload/cpu/2.5", "at_capacity_cores"),
        ("memory/mix/cpu/join/4", "at_capacity_cores"),
    ],
)
def test_of_two_that_hold_the_earlier_is_the_verdict_and_the_other_stands_beside(name: str, beside: str) -> None:
    found = ask(name)
    assert found["verdict"]["code"] == known()[name].verdict
    assert beside in found["also"]
    order = [finding["code"] for finding in found["findings"]]
    assert order == list(findings.TITLES)
    assert order.index(found["verdict"]["code"]) < order.index(beside)
    assert found["findings"][-1]["holds"] is False, "there is no headroom where something holds the bulk up"
    assert findings.TITLES[found["also"][0]] in explanation.summary(found)[1]


def test_slower_jobs_are_not_said_to_be_of_unknown_cause_where_the_cause_is_known() -> None:
    full, locked = ask("cpu/threads/join/8x1on4"), ask("contention/lock/join/6/0.4/decode")
    assert "contention" in full["also"]
    assert findings.TITLES["at_capacity_cores"] in finding_of(full, "contention")["text"]
    assert not [title for title in findings.TITLES.values() if title in locked["verdict"]["text"]]


def test_unfit_data_are_said_to_be_so_and_nothing_else_is_said() -> None:
    found = ask("unfit/mix/failures")
    assert found["verdict"]["code"] == "data_unfit"
    assert (found["also"], found["next"]) == ([], [])
    assert {finding["holds"] for finding in found["findings"][1:]} == {None}
    assert len({finding["text"] for finding in found["findings"][1:]}) == 1
    assert item(found, "internal_failure", "failed_jobs")["value"] > 0.1, "the numbers are there to be looked at"


@pytest.mark.slow
@pytest.mark.parametrize("verdict", VERDICTS)
def test_over_all_scenarios(verdict: str) -> None:
    """The verdict is right, no sentence is silly, parts make their wholes; unfit data never get another verdict."""
    mine = [scenario for scenario in known().values() if scenario.verdict == verdict]
    wrong, strange = [], {}
    for scenario in mine:
        found = ask(scenario.name)
        json.dumps(found, allow_nan=False)
        if found["verdict"]["code"] not in right(scenario, scenario.run()):
            wrong.append(scenario.name)
        if bad := silly(found) + sums(found):
            strange[scenario.name] = bad
    assert not strange
    assert len(wrong) <= (0 if verdict == "data_unfit" else 0.05 * len(mine)), wrong


# --- numbers on paper -------------------------------------------------------------------------------


def small() -> dict[str, Any]:
    """Six jobs put at 0.5 s on two workers; another bulk's job x has worker 1 until 2 s; of worker 2 nothing is known
    before its first job.

    worker 1: x 0-2, b 2-4, d 4-6, f 6-10
    worker 2: a 0.7-2.5, then free until c 3-5, e 5-6
    """
    jobs = [
        Job("x", 0.0, 0.0, 2.0, 1, "other"), Job("a", 0.5, 0.7, 2.5, 2), Job("b", 0.5, 2.0, 4.0, 1),
        Job("c", 0.5, 3.0, 5.0, 2), Job("d", 0.5, 4.0, 6.0, 1), Job("e", 0.5, 5.0, 6.0, 2),
        Job("f", 0.5, 6.0, 10.0, 1),
    ]  # fmt: skip
    asked = [{"start_ns": ns(0), "end_ns": ns(0.5), "bulk_size": 6}]
    return explain(written(jobs, asked, alive(1, 0.0, 20.0)))


def test_waits_by_cause() -> None:
    found = small()["time_s"]
    # While a job waits for its worker's place, its seconds go to whom the busy places worked for in that time: of b's
    # 1.5 s, a had 1.3 s of worker 2 and x 1.5 s of worker 1.
    parts = ((1.5, 1.3), (2.0, 1.8 + 0.5), (3.5, 1.8 + 2 + 1), (4.5, 1.8 + 2 + 2 + 1), (5.5, 1.8 + 2 + 2 + 2 + 1))
    assert found["wait_own"] == pytest.approx(sum(wait * own / (own + 1.5) for wait, own in parts))
    assert found["wait_others"] == pytest.approx(sum(wait * 1.5 / (own + 1.5) for wait, own in parts))
    assert found["wait_dispatch"] == pytest.approx(0.5)  # worker 2 was free from 2.5 to 3 s
    assert found["wait_absent"] == pytest.approx(0.2)  # a, before its worker was first seen
    assert found["work"] == pytest.approx(1.8 + 2 + 2 + 2 + 1 + 4)
    assert found["api"] == pytest.approx(0.5)
    assert found["delay"] == 0


def test_workers_seconds() -> None:
    found = small()["workers"]
    # From 0.5 to 10 s: worker 1 all of it, worker 2 from 0.7 to the last that is known of it, 6 s.
    assert found["capacity_s"] == pytest.approx(9.5 + 5.3)
    assert found["own_s"] == pytest.approx(12.8)
    assert found["others_s"] == pytest.approx(1.5)
    assert found["dispatch_s"] == pytest.approx(0.5)
    assert found["idle_s"] == pytest.approx(0, abs=1e-9)
    assert found["places"] == 2


def test_the_longest_chain() -> None:
    path = small()["path"]
    # f after d after b after x, all on worker 1, back to the request.
    assert path == {
        "length": pytest.approx(10), "jobs": 4, "start": 0, "absent": 0, "dispatch": 0, "delay": 0,
        "work_own": pytest.approx(8), "work_others": pytest.approx(2), "last_job": "f", "workers": 1,
    }  # fmt: skip


def test_makespan_floor_and_tail() -> None:
    assert small()["makespan"] == {
        "measured": pytest.approx(9.5), "floor": pytest.approx(12.8 / 2), "longest_job": pytest.approx(4),
        # From f's start at 6 s worker 2 had nothing to do for 4 s: 2 s of both.
        "places": 2, "tail": pytest.approx(2),
    }  # fmt: skip


def test_the_wait_that_queueing_alone_gives() -> None:
    found = small()["wait"]
    assert found["measured"] == pytest.approx((0.2 + 1.5 + 2.5 + 3.5 + 4.5 + 5.5) / 6)
    # Without the gap c runs 2.5-4.5, so that e (4.5-5.5) and f (5.5-9.5, on worker 2) begin earlier.
    assert found["expected"] == pytest.approx((0.2 + 1.5 + 2 + 3.5 + 4 + 5) / 6)
    assert found["ratio"] == pytest.approx(17.7 / 16.2)


def test_a_straggler_is_beyond_tukeys_outer_fence() -> None:
    took = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 2.79]
    tokens = [40] * 8 + [400]

    def found(last: float) -> list[dict[str, Any]]:
        at, jobs = 0.0, []
        for number, (seconds, count) in enumerate(zip([*took[:-1], last], tokens, strict=True)):
            model = {"model": "m", "output_tokens": count}
            jobs.append(Job(f"j{number}", 0.0, at, at + seconds, inference=model))
            at += seconds
        return list(explain(written(jobs))["stragglers"])

    # Quartiles 1.2 and 1.6 s: the fence is 1.6 + 3 * 0.4 = 2.8 s.
    assert found(2.79) == []
    (straggler,) = found(2.81)
    assert (straggler["job"], straggler["usual_s"]) == ("j8", pytest.approx(1.4))
    assert re.findall(r"\d+", straggler["reason"]) == ["400", "40"]
    assert straggler["link"] == f"/trace/{9:032x}"


def test_a_retry_waits_its_delay_and_its_chain_goes_back_to_the_first_attempt() -> None:
    failed = {"outcome": "retry", "error_type": "TimeoutError", "failure_domain": "timeout", "status": "UNSET"}
    jobs = [
        Job("a", 0.0, 1.0, 2.0, columns=failed),
        Job("a", 3.0, 9.0, 10.0, attempt=2, delay=5.0),  # put at 3, to be taken from 8 on
    ]
    found = explain(written(jobs, points=alive(1, 0.0, 12.0)))
    assert found["progress"] | {"sent": 1, "done": 1, "failed": 0, "retrying": 0} == found["progress"]
    assert found["time_s"]["delay"] == pytest.approx(5)
    # 1 s before the first attempt; 1 s until it was put again, and 1 s after its delay.
    path = found["path"]
    assert (path["jobs"], path["work_own"], path["delay"]) == (2, pytest.approx(2), pytest.approx(5))
    assert path["dispatch"] == pytest.approx(3)
    assert any(note.startswith("1 attempt failed") for note in found["notes"])
    assert not silly(found) + sums(found)


def test_a_job_that_is_handed_out_again_was_kept_by_its_first_worker() -> None:
    jobs = [
        Job("a", 0.0, 0.0, None, worker=1, seen=4.0), Job("b", 0.0, 0.0, 3.0, worker=2),
        Job("a", 0.0, 6.0, 8.0, worker=3),
    ]  # fmt: skip
    found = explain(written(jobs, points=alive(3, 0.0, 30.0)))
    assert found["path"]["work_own"] == pytest.approx(4 + 2)
    assert found["path"]["dispatch"] == pytest.approx(2)
    assert not sums(found)


def test_a_worker_that_joins_late_is_no_gap() -> None:
    jobs = [Job(f"j{n}", 0.0, float(n), n + 1.0, worker=1 + n // 4) for n in range(12)]
    points = [*alive(1, 0, 4), *alive(2, 4, 8), *alive(3, 8, 12)]
    found = explain(written(jobs, points=points))
    assert found["path"]["absent"] == pytest.approx(8)
    assert found["path"]["dispatch"] == 0
    assert found["workers"] | {"places": 1, "capacity_s": pytest.approx(12)} == found["workers"]
    assert "dispatch" not in {change["change"] for change in found["next"]}
    assert found["path"]["absent"] == pytest.approx(8)


def one_by_one(
    times: Iterable[float], took: Callable[[float], float] = lambda start: 1.0, together: bool = False
) -> list[Job]:
    """Return what one worker does of jobs put at ``times``, in their order; ``took`` is by start, in s.

    Each is a bulk of its own, unless they are one ``together``.
    """
    free, jobs = 0.0, []
    for number, put in enumerate(times):
        start = max(free, put)
        free = start + took(start)
        jobs.append(Job(f"j{number:03d}", put, start, free, bulk="bulk" if together else f"b{number:03d}"))
    return jobs


def slowing(every: float, growth: float, together: bool = True) -> list[Job]:
    """Return what one worker does of 60 s of arrivals while a job that took 1 s comes to take ``growth`` s more."""
    times = every * np.arange(int(60 / every) + 1)
    return one_by_one(times.tolist(), lambda start: 1 + growth * min(start / 60, 1), together)


def test_too_many_jobs_are_an_overload_though_the_workers_became_slower_meanwhile() -> None:
    found = explain(written(slowing(0.5, 0.6)))
    assert found["verdict"]["code"] == "overload"
    # Jobs begin as often as they are short: their mean is 0.6 / ln 1.6 = 1.277 s, and 0.6 s of it are 47 %.
    assert " 47 %" in found["verdict"]["text"]
    assert item(found, "overload", "service_growth")["holds"] is False
    # Of those that began in the first 3 s, which take 1 s and then 1.01 and 1.02 s: 2 jobs/s and one worker.
    assert item(found, "overload", "offered_load")["value"] == pytest.approx(2 * 1.01, rel=0.001)
    # All but the last one, of a second and up to 1.6 s, in 60 s of one worker.
    work = sum((job.end or 0) - (job.start or 0) for job in slowing(0.5, 0.6)[:-1])
    assert item(found, "overload", "load")["value"] == pytest.approx(work / 60)
    # 2 jobs/s came, and 0.78 were done: 2 / 0.78 / 0.85.
    assert "~4 workers" in found["verdict"]["text"]
    assert not silly(found) + sums(found)


def test_workers_that_fall_behind_as_they_become_slower_are_overloaded_and_it_is_said_that_they_did() -> None:
    found = explain(written(slowing(1.1, 1.0)))
    assert found["verdict"]["code"] == "overload"
    assert "grew by 69 %" in found["verdict"]["text"]
    assert item(found, "overload", "offered_load")["value"] == pytest.approx(1.03 / 1.1, rel=0.02)
    assert item(found, "overload", "offered_load")["holds"] is False
    assert not silly(found) + sums(found)


def test_many_small_bulks_are_an_overload_of_each_that_waits_for_those_before_it() -> None:
    # Calm for 60 s, then a job every 0.45 s on a worker that needs 1 s: from the second of them on some stand in line.
    times = [*np.arange(0, 60, 2.0), *(60 + 0.45 * np.arange(89))]
    found = explain(written(one_by_one(times), points=alive(1, 0, 200)), f"b{len(times) - 1:03d}")
    assert found["verdict"]["code"] == "overload"
    assert "other bulks brought 2.22 jobs/s" in found["verdict"]["text"]
    assert item(found, "overload", "before_overload_window")["value"] == pytest.approx(86 * 0.45)
    drift = item(found, "overload", "before_rises")
    assert drift["value"] == pytest.approx(1 / 0.45 - 1, rel=0.03)
    assert drift["low"] < 1 / 0.45 - 1 < drift["high"]
    # It did nothing but queue behind what had come before it, long before its own time.
    assert found["wait"]["measured"] == pytest.approx(88 * (1 - 0.45))
    assert found["wait"]["ratio"] == pytest.approx(1)
    assert not silly(found) + sums(found)


def crowded(*last: Job, stood: int = 0) -> list[Job]:
    """Return a worker's hour: calm, then an overload of other bulks up to 600 s, then ``last``.

    ``stood``: so many jobs of another bulk, put at its begin, are overtaken by all.
    """
    busy = one_by_one([*np.arange(400, 560, 2.0), *(560 + 0.45 * np.arange(89))])
    end = max(job.end or 0 for job in (*busy, *last))
    return [*busy, *last, *(Job(f"s{n}", 400.0, end + n, end + n + 1, bulk="low") for n in range(stood))]


def test_jobs_that_were_overtaken_do_not_hide_when_the_queue_was_empty() -> None:
    waits = Job("x", 600.0, 649.0, 650.0)
    for stood in (0, 1, 2):
        found = explain(written(crowded(waits, stood=stood)))
        assert found["verdict"]["code"] == "overload", stood
        assert item(found, "overload", "before_overload_window")["value"] == pytest.approx(86.0 * 0.45, abs=0.5)


@pytest.mark.parametrize(
    "last",
    [Job("x", 600.0, 649.0, 4249.0), Job("x", 560.0, 560.3, 760.0)],
    ids=["works for an hour", "goes before the others"],
)
def test_a_bulk_that_hardly_waited_was_not_held_up_by_an_overload(last: Job) -> None:
    found = explain(written(crowded(last)))
    assert found["verdict"]["code"] == "headroom"
    assert item(found, "overload", "waited_for_others")["holds"] is False


def test_workers_that_slow_down_are_no_overload_of_small_bulks_either() -> None:
    jobs = slowing(1.1, 1.0, together=False)
    found = explain(written(jobs), jobs[-1].bulk)
    assert found["verdict"]["code"] == "at_capacity_workers"
    assert item(found, "overload", "before_service_growth")["holds"] is False


def test_workers_that_slow_down_once_early_are_no_overload() -> None:
    # 0.8 jobs/s on a worker that needs 1 s, and after one minute of ten 2 s.
    jobs = one_by_one([number / 0.8 for number in range(480)], lambda start: 1 if start < 60 else 2, together=True)
    found = explain(written(jobs))
    assert " 39 %" in found["verdict"]["text"]
    assert item(found, "overload", "offered_load")["value"] == pytest.approx(0.8)


def test_an_overload_of_other_workers_is_no_matter_of_a_bulk_though_no_queue_is_named() -> None:
    far = [dataclasses.replace(job, worker=2, host="h2") for job in one_by_one(list(0.45 * np.arange(200)))]
    near = Job("long", 0.0, 0.0, 270.0, bulk="long")
    found = explain(written([*far, near, Job("x", 78.5, 270.0, 271.0)]))
    assert item(found, "overload", "waited_for_others")["value"] == pytest.approx(191.5 / 192.5)
    assert found["verdict"]["code"] != "overload"


def test_a_bulk_that_waits_for_none_before_it_is_not_judged_by_them() -> None:
    times = [*np.arange(0, 60, 0.5), 200.0]
    found = explain(written(one_by_one(times)), "b120")
    assert found["verdict"]["code"] == "headroom"
    names = [item["name"] for finding in found["findings"] for item in finding["evidence"]]
    assert not [name for name in names if name.startswith("before_")]


def test_a_bulk_behind_a_large_one_waits_for_it_and_nothing_is_overloaded() -> None:
    times = [*[0.0] * 100, *np.arange(1, 60, 2.0)]
    found = explain(written(one_by_one(times), points=alive(1, 0, 200)), f"b{len(times) - 1:03d}")
    assert found["verdict"]["code"] == "at_capacity_workers"
    assert " 99 % of the workers' time" in found["verdict"]["text"]
    assert item(found, "overload", "before_rises")["holds"] is False
    assert found["wait"]["ratio"] == pytest.approx(1)
    assert not silly(found) + sums(found)


# --- odd bulks --------------------------------------------------------------------------------------


def row(count: int, **of_job: Any) -> list[Job]:
    return [Job(f"j{n}", 0.0, float(n), n + 1.0, **of_job) for n in range(count)]


def nothing_of(found: dict[str, Any]) -> None:
    assert found["path"] is found["makespan"] is found["wait"] is None


def test_a_bulk_that_runs_is_partial_and_says_so() -> None:
    found = explain(written([*row(5), Job("z", 0.0, 5.0, None, seen=6.0), Job("y", 0.0)]), now=6.0)
    assert found["state"] == "running"
    assert found["notes"][0].endswith("2 of 7 jobs have not ended.")
    assert (found["progress"]["done"], found["progress"]["running"], found["progress"]["waiting"]) == (5, 1, 1)
    assert item(found, "data_unfit", "little_deviation")["holds"] is None
    assert found["verdict"]["code"] == "at_capacity_workers"
    assert not silly(found) + sums(found)


def test_records_that_end_while_it_runs_are_not_taken_for_a_bulk_that_runs_to_this_day() -> None:
    jobs = [*row(5), Job("z", 0.0, 5.0, None, seen=6.0), Job("y", 0.0)]
    found = explain(written(jobs), now=86_400.0)
    running = explain(written(jobs), now=6.0)
    assert found["notes"][0] != running["notes"][0]
    assert found["notes"][0].endswith("2 of 7 jobs have not ended.")
    assert found | {"notes": []} == running | {"notes": []}, "what came later is not known"


def test_a_bulk_of_which_nothing_is_heard_any_more_has_stopped() -> None:
    # Another service is still heard of, and y was not taken: the queue is not being worked on.
    later = [*row(5), Job("y", 0.0)]
    found = explain(written(later, points=alive(9, 0.0, 500.0, "elsewhere")))
    assert found["state"] == "stopped"
    assert found["notes"][0].endswith("1 of 6 jobs has not ended.")


def test_one_job() -> None:
    found = explain(written([Job("a", 0.0, 0.1, 1.1)]))
    assert found["verdict"]["code"] == "headroom"
    assert (found["next"], found["stragglers"]) == ([], [])
    assert not silly(found) + sums(found)


@pytest.mark.parametrize("now", [1.0, 1e6])
def test_no_job_has_begun(now: float) -> None:
    found = explain(written([Job("a", 0.0), Job("b", 0.0)]), now=now)
    assert found["verdict"]["code"] == "data_unfit"
    assert "no job has ended yet" in found["verdict"]["text"]
    nothing_of(found)
    assert not silly(found)


@pytest.mark.parametrize(
    ("outcome", "size", "verdict", "words"),
    [
        ("overload", None, "overload", "1 of 1 API request was refused"),
        ("internal_error", None, "internal_failure", "1 API request failed"),
        ("ok", 0, "data_unfit", "the bulk has no jobs"),
        ("ok", 3, "data_unfit", "3 that the API request counted and of which no span came"),
    ],
)
def test_a_request_without_jobs(outcome: str, size: int | None, verdict: str, words: str) -> None:
    asked = {"start_ns": ns(0), "end_ns": ns(0.1), "outcome": outcome, "bulk_size": size}
    found = explain(written([], [asked]))
    assert found["verdict"]["code"] == verdict
    assert words in found["verdict"]["text"]
    nothing_of(found)
    assert not silly(found)


def test_two_bulks_on_the_same_workers() -> None:
    jobs = [Job(f"{bulk}{n}", 0.0, 2.0 * n + k, 2.0 * n + k + 1, bulk=bulk)
            for n in range(6) for k, bulk in enumerate(("bulk", "other"))]  # fmt: skip
    found = explain(written(jobs))
    # The other one's last job comes after this bulk's end.
    assert (found["workers"]["own_s"], found["workers"]["others_s"]) == (pytest.approx(6), pytest.approx(5))
    assert any(" 45 % " in note for note in found["notes"])
    assert "other_bulks" in {change["change"] for change in found["next"]}
    assert not silly(found) + sums(found)


def test_a_worker_that_restarts_is_two_processes_one_after_the_other() -> None:
    jobs = [*row(3), Job("l", 0.0, 3.0, None, seen=4.0), *[Job(f"k{n}", 0.0, n, n + 1.0, 2) for n in range(30, 33)]]
    found = explain(written(jobs, points=[*alive(1, 0, 4), *alive(2, 29.5, 60)]))
    assert found["workers"]["places"] == 1
    assert found["progress"]["lost"] == 1
    assert found["verdict"]["code"] == "internal_failure"
    assert item(found, "internal_failure", "lost_workers")["value"] == 1
    assert not silly(found) + sums(found)


def odd_model(name: str) -> list[Job]:
    return row(9, inference={"model": name, "output_tokens": 5})


ZERO = {"model": "m", "input_tokens": 0, "output_tokens": 0, "prefill": 0.0, "decode": 0.0, "cpu_time": 0.0}
WRONG = {"model": "m", "prefill": NAN, "decode": -3.0, "output_tokens": -5, "input_tokens": -3, "cpu_time": NAN,
         "cpu_wait": -1.0, "memory_peak": -5, "memory_limit": -1, "cpu_pressure": NAN}  # fmt: skip
ODD: dict[str, tuple[Callable[[], list[Job]], str]] = {
    "no inference": (lambda: row(6, inference=None), "at_capacity_workers"),
    "zero tokens": (lambda: row(20, inference=ZERO), "at_capacity_workers"),
    "NaN and negative attributes": (lambda: row(20, wait=NAN, delay=NAN, inference=WRONG), "at_capacity_workers"),
    "jobs that take no time": (lambda: [Job(f"j{n}", 0.0, 0.0, 0.0) for n in range(20)], "headroom"),
    "no job ids": (lambda: [Job(None, None, float(n), n + 1.0) for n in range(6)], "at_capacity_workers"),
    "no senders": (lambda: [Job(f"j{n}", None, float(n), n + 1.0) for n in range(6)], "at_capacity_workers"),
    "neither host nor pid": (lambda: row(6, worker=None, host=None), "at_capacity_workers"),
    "a model's name of markup": (lambda: odd_model("\x1b[2J[red]<b>模型|"), "at_capacity_workers"),
    "a model without a name": (lambda: odd_model(""), "at_capacity_workers"),
    "threads": (lambda: [Job(f"j{n}", 0.0, float(n // 4), n // 4 + 1.0) for n in range(20)], "at_capacity_workers"),
    "another clock, 0.5 s behind": (lambda: [Job(f"j{n}", n + 0.5, n, n + 1.0, wait=-0.5) for n in range(9)],
                                    "data_unfit"),
    "another clock, waits positive": (lambda: [Job(f"j{n}", 100.0, n, n + 1.0, wait=0.1) for n in range(9)],
                                      "data_unfit"),
    "a clock that is set while a job waits": (lambda: [*row(9), Job("z", 9.0, 69.0, 70.0, wait=1.0)], "data_unfit"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_records_get_an_answer_in_plain_words(name: str) -> None:
    jobs, verdict = ODD[name]
    found = explain(written(jobs()))
    assert found["verdict"]["code"] == verdict
    assert found["progress"]["sent"] == len(jobs())
    assert found["time_s"]["work"] == pytest.approx(sum((job.end or 0) - (job.start or 0) for job in jobs()))
    assert not silly(found) + sums(found)
    json.dumps(found, allow_nan=False)


def test_threads_of_one_worker_are_its_places() -> None:
    found = explain(written(ODD["threads"][0]()))
    assert (
        found["workers"] | {"places": 4, "capacity_s": pytest.approx(20), "own_s": pytest.approx(20)}
        == (found["workers"])
    )
    assert found["path"]["jobs"] == 5


def test_a_clock_that_was_set_back_makes_no_second_place() -> None:
    """By 80 ms, in the middle of twenty jobs of two seconds that one worker did one after the other."""
    jobs = [Job(f"j{n}", 0.0, 2.0 * n - back, 2.0 * n + 2 - back) for n in range(20) for back in [0.08 * (n >= 10)]]
    found = explain(written(jobs))
    assert found["workers"] | {"places": 1, "capacity_s": pytest.approx(39.92)} == found["workers"]
    assert found["time_s"]["wait_dispatch"] == pytest.approx(0.0, abs=1e-6)
    assert (found["makespan"]["places"], found["path"]["jobs"]) == (1, 20)


def test_short_jobs_beside_long_ones_have_a_place_of_their_own() -> None:
    """Two threads: of two jobs that begin at nearly the same time the short one overlaps by all of its length."""
    jobs = [
        Job(f"{kind}{n}", 100.0 * n, 100 * n + late, 100 * n + late + length)
        for n in range(20)
        for kind, late, length in (("s", 0.0, 4.0), ("l", 0.01, 99.99))
    ]  # fmt: skip
    found = explain(written(jobs))
    assert found["workers"] | {"places": 2, "capacity_s": pytest.approx(4000)} == found["workers"]
    assert found["path"]["dispatch"] >= 0
    assert found["makespan"]["floor"] < found["makespan"]["measured"]


@pytest.mark.parametrize("step", [0.96, 0.5])
def test_jobs_that_always_overlap_a_little_have_two_places(step: float) -> None:
    found = explain(written([Job(f"j{n}", 0.0, step * n, step * n + 1) for n in range(40)]))
    assert found["workers"]["places"] == 2


def test_processes_that_share_no_instance_id_are_told_apart() -> None:
    """Senders without service.instance.id: which process a record is of stands in its host and pid alone."""
    bare = {"service_instance_id": None, "resource_id": None}
    jobs = [
        Job("a", 0.0, 0.0, 1.0, 2, host="x", columns=bare), Job("b", 0.0, 1.0, 2.0, 1, host="y", columns=bare),
        Job("c", 0.0, 1.0, 2.0, None, host="y", columns=bare),
    ]  # fmt: skip
    found = explain(written(jobs))
    assert found["progress"]["done"] == 3
    assert found["makespan"]["places"] == 2


def test_reserved_jobs_of_a_busy_worker_are_no_fault() -> None:
    found = ask("headroom/prefetch")
    assert found["verdict"]["code"] == "at_capacity_workers"


def test_attributes_that_are_no_numbers_never_reach_a_column(tmp_path: Path) -> None:
    """Through the decoder, as they come: NaN and infinity stay among the attributes."""
    asked = otlp.traces(
        {"bulk.id": "bulk", "bulk.job.id": "a", "bulk.job.wait": NAN, "bulk.job.delay": float("inf")}, kind=5
    )
    with stored({}, tmp_path / "s.duckdb") as store:
        insert(store, decoding.traces(asked).arrow())
        found = explanations.bulk_explanation(store, "bulk")
    assert found is not None
    assert found["progress"]["done"] == 1
    assert not silly(found)


def test_what_is_not_recorded_is_said_to_be_unknown_and_no_zero_is_made_up() -> None:
    found = explain(written(row(6, inference=None)))  # not a single point in the store either
    assert any(note.startswith("No inference was recorded") for note in found["notes"])
    assert found["time_s"]["prefill"] is found["time_s"]["decode"] is found["time_s"]["other_work"] is None
    held = {finding["code"]: finding["holds"] for finding in found["findings"]}
    assert (
        held["at_capacity_cores"] is held["cores_taken"] is held["memory_limited"] is held["memory_bandwidth"] is None
    )
    busy = item(found, "at_capacity_cores", "cores_busy")
    assert busy["value"] is busy["holds"] is None
    assert busy["text"].endswith(": not recorded")


# --- evidence ---------------------------------------------------------------------------------------


def test_evidence_at_its_threshold() -> None:
    for relation, expected in ((">", False), (">=", True), ("<", False), ("<=", True)):
        found = measured("busy", thresholds.BUSY_LOW.value, relation, thresholds.BUSY_LOW)
        assert found.holds is expected
        assert found.text == f"busy: 70 % (threshold {relation.replace('>=', '≥').replace('<=', '≤')} 70 %)"
    unknown = measured("busy", NAN, ">", thresholds.BUSY_LOW)
    assert (unknown.holds, unknown.value) == (None, None)


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (0.0, "share", "0 %"), (0.0004, "share", "under 0.1 %"), (0.055, "share", "5.5 %"), (1.0, "share", "100 %"),
        (0.0, "s", "0 s"), (0.0123, "s", "12.3 ms"), (119.0, "s", "119 s"), (120.0, "s", "2.0 min"),
        (9000.0, "s", "2.5 h"), (2**30, "By", "1 GiB"), (512, "By", "512 B"), (1234567.0, "1", "1,234,567"),
        (1e-5, "1", "0.00001"), (2.0, "1/s", "2/s"), (2.0, "jobs/s", "2 jobs/s"), (NAN, "1/s", "–"),
    ],
)  # fmt: skip
def test_numbers_in_words(value: float, unit: str, written: str) -> None:
    assert wording.value(value, unit) == written


def test_thresholds_have_names_of_their_own_and_reasons() -> None:
    declared = [value for value in vars(thresholds).values() if isinstance(value, thresholds.Threshold)]
    assert sorted(t.name for t in declared) == sorted(t.name for t in thresholds.ALL)
    assert len({threshold.name for threshold in thresholds.ALL}) == len(thresholds.ALL)
    assert all(threshold.why.endswith(".") for threshold in thresholds.ALL)


# --- JSON and the command ---------------------------------------------------------------------------

KEYS = {
    "": "also findings id makespan next notes path progress schema state stragglers time_s verdict wait workers",
    "verdict": "code evidence holds text title",
    "progress": "cancelled done duplicate failed lost not_sent retrying running sent unknown waiting without_end",
    "time_s": "api decode delay inference_rest other_work prefill wait_absent wait_dispatch wait_others wait_own work",
    "workers": "capacity_s dispatch_s idle_s others_s own_s places",
    "path": "absent delay dispatch jobs last_job length start work_others work_own workers",
    "makespan": "floor longest_job measured places tail",
    "wait": "expected measured ratio",
}


def test_json_has_stable_keys() -> None:
    found = small()
    assert found["schema"] == "bulkscope.explanation/1"
    for part, names in KEYS.items():
        assert " ".join(sorted(found[part] if part else found)) == names, part
    evidence = found["verdict"]["evidence"][0]
    assert " ".join(sorted(evidence)) == "high holds link low name relation text threshold unit value"
    assert all(sorted(each) == sorted(found["verdict"]) for each in found["findings"])
    (change,) = {tuple(sorted(change)) for change in found["next"]}
    assert change == ("change", "high_s", "low_s", "makespan_s", "text")
    late = explain(written([*row(9), Job("z", 0.0, 9.0, 99.0)]))["stragglers"]
    assert [sorted(straggler) for straggler in late] == [["job", "link", "reason", "seconds", "usual_s"]]


async def test_the_route_says_what_the_function_does(db: Path) -> None:
    store = Store(db)
    app = FastAPI()
    api.install(app, store)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://studio") as http:
        for bulk in ("sample-001", "sample-002", "sample-refused", "latest"):
            answer = await http.get(f"/api/bulks/{bulk}/explain")
            assert answer.json() == json.loads(json.dumps(explanations.bulk_explanation(store, bulk)))
        unknown = await http.get("/api/bulks/sampel-002/explain")
        store.connection().execute("UPDATE spans SET bulk_id = 'team/night 1' WHERE bulk_id = 'sample-002'")
        odd = await http.get("/api/bulks/team%2Fnight%201/explain")
    store.close()
    assert unknown.status_code == 404
    assert unknown.json()["nearest"][0] == "sample-002"
    assert odd.json()["id"] == "team/night 1"


def test_a_running_studio_says_the_same_as_its_file(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample-001", "--format", "json", "--db", str(db)]
    assert cli.command(words) == 0
    of_file = capsys.readouterr().out
    with studio(db):
        assert cli.command(words) == 0
        assert capsys.readouterr().out == of_file
        assert cli.command(["sampel-001", "--db", str(db)]) == 2
        assert "Nearest: sample-001" in capsys.readouterr().err


def test_text_names_verdict_evidence_and_where_the_time_went(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(["sample-001", "--db", str(db)]) == 0
    short = capsys.readouterr().out
    for words in (
        "Bulk sample-001  complete",
        "Verdict: ",
        "Where the jobs' time went",
        "Where the workers' time went",
    ):
        assert words in short
    for words in ("Longest chain", "Findings, in the order", "threshold"):
        assert words not in short
    assert cli.command(["sample-001", "--all", "--db", str(db)]) == 0
    long = capsys.readouterr().out
    for title in findings.TITLES.values():
        assert f" {title}: " in long
    for words in ("Longest chain", "Findings, in the order", "threshold"):
        assert words in long
    assert "API requests that failed with an internal error" in long
    assert "utilisation of the cores" in long
    assert len(long.splitlines()) > len(short.splitlines())


def test_markdown_has_all_evidence(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(["sample-001", "--format", "md", "--db", str(db)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# Bulk sample-001: ")
    for title in findings.TITLES.values():
        assert f"\n## {title}: " in out
    assert cli.command(["sample-001", "--format", "json", "--db", str(db)]) == 0
    found = json.loads(capsys.readouterr().out)
    for sentence in sentences(found):
        assert sentence in out


def test_what_comes_from_outside_is_text_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "\x1b[2J[red]模型|\n<b>"
    bad = {"status": "ERROR", "failure_domain": "model", "error_type": odd, "outcome": "internal_error"}
    jobs = [Job(f"{odd}{n}", 0.0, float(n), n + 1.0, bulk=odd, host=odd, columns=bad) for n in range(9)]
    path = tmp_path / "s.duckdb"
    with stored(written(jobs), path):
        pass
    for form in ("text", "md"):
        assert cli.command([odd, "--all", "--format", form, "--db", str(path)]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "模型" in out
        assert "[red]" in out, "markup is no colour"
    assert cli.command([odd, "--format", "json", "--db", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == odd


def test_exit_codes(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(["--db", str(db)]) == 0
    assert capsys.readouterr().out.startswith("Bulk sample-002  complete\n")  # the newest
    assert cli.command(["sample-01", "--db", str(db)]) == 2
    assert "Nearest: sample-001" in capsys.readouterr().err
    assert cli.command(["any", "--db", str(tmp_path / "none.duckdb")]) == 2
    assert "there is no store" in capsys.readouterr().err
    with pytest.raises(SystemExit) as wrong:
        cli.command(["sample-001", "--format", "html"])
    assert wrong.value.code == 2
    done = subprocess.run([BIN / "bulkscope", "explain", "sample-002", "--db", db], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Bulk sample-002  complete\n")


def test_a_store_of_before_a_column_is_read_as_it_is(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(str(db)) as connection:
        connection.execute("ALTER TABLE spans DROP COLUMN cpu_wait")
    assert cli.command(["sample-001", "--db", str(db)]) == 0
    assert "Verdict: internal failure" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("work", "fits"),
    [(0.5, "about 1.7 times the load fits"), (0.849, "hardly more load fits"), (0.9, "hardly more load fits")],
)
def test_room_for_as_much_again_is_never_one_times_the_load(work: float, fits: str) -> None:
    found = explain(written(Job(f"j{n}", float(n), float(n), n + work) for n in range(60)))
    assert fits in found["verdict"]["text"]


def test_of_workers_that_were_never_busy_no_factor_is_told() -> None:
    lengths = [0.0] * 5 + [0.001]
    found = explain(written(Job(f"j{n}", 10.0 * n, 10.0 * n, 10.0 * n + took) for n, took in enumerate(lengths)))
    assert "far more load fits" in found["verdict"]["text"]


def test_a_time_that_is_none_is_said_before_elasticsearch_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ELASTICSEARCH_URL", "http://127.0.0.1:1")
    assert cli.command(["--last", "soon", "--publish", "--source", "elasticsearch"]) == 2
    assert "--last: 'soon' is not a duration" in capsys.readouterr().err
