"""Whatever is recorded there are answers, which agree with each other and hold no silly word."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkscope_studio.services import explanations, reports
from bulkscope_studio.services.bulks import list_bulks
from bulkscope_studio.storage.store import Store
from tests.chance import draws
from tests.studio.by_chance import PHASES, answers, messes, queues, told
from tests.studio.explaining import SILLY, Job, explain, ns, silly, stored, sums, written

pytestmark = pytest.mark.slow  # a whole explanation of each draw


@draws(40, phases=PHASES)
@given(queues())
@example(([Job("j0", 1.0, 1.0, 2.0), Job("j1", 1.0, 2.0, 4.0, bulk="other"), Job("j2", 1.0, 4.0, 5.0)], 1))
@example(([Job("j0", 1.0, 1.0, 1.001), Job("j1", 1.996, 1.996, 1.997)], 1))
def test_a_perfect_queue_waits_as_long_as_it_must(queue: tuple[list[Job], int]) -> None:
    jobs, workers = queue
    found = explain(told(jobs, workers))
    assert found["wait"]["measured"] == pytest.approx(found["wait"]["expected"], abs=1e-6)
    mine = [job for job in jobs if job.bulk == "bulk"]
    waits = sum(job.start - job.put for job in mine if job.start is not None and job.put is not None)
    t = found["time_s"]
    causes = (t["wait_own"], t["wait_others"], t["wait_dispatch"], t["wait_absent"])
    assert sum(causes) == pytest.approx(waits, abs=1e-6)
    # Nobody stood idle beside a waiting job.
    assert found["workers"]["dispatch_s"] == pytest.approx(0, abs=1e-6)
    assert found["workers"]["own_s"] == pytest.approx(sum((j.end or 0) - (j.start or 0) for j in mine), abs=1e-6)
    assert not sums(found) + silly(found)


@draws(100, phases=PHASES)
@given(messes(), st.sampled_from([10.0, 100.0, 1e6]))
def test_whatever_is_recorded_there_is_an_answer_without_a_silly_word(jobs: list[Job], now: float) -> None:
    found = explain(written(jobs), now=now)
    json.dumps(found, allow_nan=False)
    assert not silly(found)
    assert sum(found["time_s"][f"wait_{cause}"] for cause in ("own", "others", "dispatch", "absent")) >= 0
    path = found["path"]
    if path is not None:
        parts = ("start", "absent", "dispatch", "delay", "work_own", "work_others")
        assert sum(path[part] for part in parts) == pytest.approx(path["length"], abs=1e-6)


# A bulk of which there is no span is not listed.
SENT = Job("sent", 0.0)
# For the explanation time stands still when nothing is heard any more: what is silent is lost only beside what is not.
LATER = Job("later", 9e5, 9e5, 9e5 + 1, bulk="after")


def progress(store: Store, now: float) -> list[tuple[int, int]]:
    """Return how many jobs were done and failed, as each answer has it."""
    listed = next(row for row in list_bulks(store) if row["id"] == "bulk")
    report = reports.bulk_report(store, "bulk")
    explained = explanations.bulk_explanation(store, "bulk", now_ns=ns(now))
    assert report is not None
    assert explained is not None
    return [(of["done"], of["failed"]) for of in (listed, report["progress"], explained["progress"])]


@draws(60, phases=PHASES)
@given(messes())
@example([Job(None, 1.0, 2.0, 3.0), Job(None, None, 2.0, 3.0), Job("j", 0.0)])
def test_whatever_is_recorded_all_answers_are_without_a_silly_word(jobs: list[Job]) -> None:
    with stored(written([*jobs, SENT])) as store:
        assert not [line for line in answers(store) if SILLY.search(line)]


@draws(40, phases=PHASES)
@given(queues())
def test_of_a_perfect_queue_all_answers_are_without_a_silly_word(queue: tuple[list[Job], int]) -> None:
    with stored(told(*queue)) as store:
        assert not [line for line in answers(store) if SILLY.search(line)]


@draws(60, phases=PHASES)
@given(messes())
@example([Job("again", None, 1.0, 1.0), Job("again", None, 1.0)])
@example([Job("again", None, 1.0, attempt=3), Job("again", None, 1.0, 1.0)])
@example([Job("again", None, 1.0), Job("again", None, 1.0, 1.0, columns={"outcome": "internal_error"})])
# The second attempt is the last, also where it began with the first, and it has not ended.
@example([
    Job("j0", 0.0), Job("j1", 0.0), Job("j2", None, 1.0), Job("j3", None, 1.0),
    Job("again", None, 1.0, attempt=2), Job("again", None, 1.0, 1.0),
])  # fmt: skip
def test_list_report_and_explanation_count_the_same_jobs(jobs: list[Job]) -> None:
    with stored(written([*jobs, SENT, LATER])) as store:
        counts = progress(store, 1e6)
    assert counts == [counts[0]] * 3
