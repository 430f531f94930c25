"""A real fault on the real demo, and ``bulkscope explain`` gives the right verdict: real model, real Valkey, workers.

The machine has to be quiet otherwise: a busy neighbour is a fault of its own.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.demo.conftest import ROOT, until
from tests.demo.faults import (
    Demo,
    MemoryGroup,
    evidence,
    expect,
    has_now,
    kill,
    kill_below,
    memory_group,
    prompts,
    read,
    running,
    succeeded,
    words,
)

# Verdicts on idle and on full cores: what runs beside these tests would be seen.
pytestmark = [pytest.mark.demo, pytest.mark.alone]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running(tmp_path) as found:
        yield found


def send_paced(demo: Demo, bulk: str, rate: float, seconds: float, max_tokens: int) -> int:
    """Send one request at a time, ``rate`` a second, for ``seconds``; return how many were sent."""
    texts = prompts(round(rate * seconds))
    began = time.monotonic()
    for number, text in enumerate(texts):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))  # the arrivals, not a condition
        assert demo.send(bulk, [text], max_tokens=max_tokens) == [202]
    return len(texts)


def capacity(demo: Demo, max_tokens: int) -> float:
    """Return how many jobs a second one worker can do."""
    demo.send("probe", prompts(6), max_tokens=max_tokens)
    demo.wait_ended("probe", 6)
    found = demo.explanation("probe")
    assert found is not None
    return float(6 / found["workers"]["own_s"])


def long_prompts(count: int, times: int = 30) -> list[str]:
    """Return prompts of about ``12 * times`` tokens: to read 360 takes a second, whatever the model answers."""
    return [text * times for text in prompts(count)]


def wait_begun(demo: Demo, bulk: str, workers: int) -> dict[str, str]:
    """Wait until each worker has a job of the bulk of which the studio has heard; return the job by worker."""
    taken: dict[str, str] = {}

    def begun() -> bool:
        before = {name: has_now(worker) for name, worker in demo.workers.items()}
        counts = (demo.explanation(bulk) or {}).get("progress", {})
        done = sum(len(succeeded(worker)) for worker in demo.workers.values()) - demo.warmed
        # Where the studio knows of every end, what it sees running are the jobs that run now.
        known = counts.get("running") == workers and counts["done"] == done
        if not known or before != {name: has_now(worker) for name, worker in demo.workers.items()}:
            return False
        taken.update({name: job for name, jobs in before.items() for job in jobs})
        return len(taken) == workers

    until(begun, f"{workers} workers are at a job")
    return taken


def gone(jobs: int) -> Callable[[dict[str, Any]], bool]:
    """Return a test of an explanation: none of the jobs is still to come or at work."""

    def over(found: dict[str, Any]) -> bool:
        counts = found["progress"]
        return bool(counts["done"] + counts["failed"] + counts["lost"] == jobs)

    return over


def test_few_jobs_on_a_worker_with_idle_cores_leave_headroom(demo: Demo) -> None:
    demo.add_workers(1)
    sent = send_paced(demo, "calm", rate=1.0, seconds=18, max_tokens=8)
    demo.wait_ended("calm", sent)
    found = demo.explain("calm")
    expect(found, "headroom", "Jobs waited", "the load fits")
    assert found["also"] == [], words(found)


def test_burners_beside_the_workers_saturate_the_cores(demo: Demo) -> None:
    demo.add_workers(2)
    for number in range(2 * len(os.sched_getaffinity(0))):
        burner = [sys.executable, "-c", "while True: pass"]
        demo.children.start(f"burner-{number}", burner, env=demo.environment, cwd=ROOT)
    demo.send("burned", prompts(16))
    demo.wait_ended("burned", 16)
    expect(demo.explain("burned"), "cores_taken", "Other programs had")


def test_workers_that_share_one_core_saturate_it(demo: Demo) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})  # a process inherits it from the thread that starts it
    try:
        demo.add_workers(2)
    finally:
        os.sched_setaffinity(0, allowed)
    demo.send("pinned", prompts(16))
    demo.wait_ended("pinned", 16)
    expect(demo.explain("pinned"), "at_capacity_cores", "2 workers want")


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with ExitStack() as stack:
        try:
            found = stack.enter_context(memory_group(f"bulkscope-faults-{os.getpid()}"))
        except OSError as error:
            pytest.skip(f"no memory cgroup can be made here: {error}")
        yield found


def test_a_memory_limit_just_above_what_the_workers_hold(group: MemoryGroup, demo: Demo) -> None:
    demo.add_workers(2, *group.enter())
    group.limit(int(group.held() * 1.06))
    demo.send("squeezed", prompts(12), max_tokens=4)
    demo.wait_ended("squeezed", 12)
    expect(demo.explain("squeezed"), "memory_limited", "memory limit of worker")


def test_a_worker_killed_for_the_memory_that_another_process_takes(group: MemoryGroup, demo: Demo) -> None:
    demo.add_workers(2, *group.enter())
    demo.send("starved", long_prompts(2, times=100), max_tokens=4)
    # Not while it loads, but at its job the worker is to be killed.
    wait_begun(demo, "starved", 2)
    group.limit(int(group.held() * 1.06))
    # Less than a worker's: the kernel takes the largest process.
    grow = [*group.enter(), sys.executable, "-c", "kept = bytes(1) * (64 << 20); import signal; signal.pause()"]
    demo.children.start("neighbour", grow, env=demo.environment, cwd=ROOT)
    demo.wait_explained("starved", gone(2), "every job has ended or is lost")
    found = demo.explain("starved")
    expect(found, "memory_limited", "killed for memory")
    # One makes room for the other as a rule; where that one's prompt has grown meanwhile the kernel takes both.
    killed = sum(read(worker).count("raised error: WorkerLostError") for worker in demo.workers.values())
    assert killed in (1, 2), words(found)
    counts = found["progress"]
    assert (counts["done"], counts["failed"], counts["lost"]) == (2 - killed, killed, 0), words(found)


def test_a_broker_that_stalls(demo: Demo) -> None:
    demo.add_workers(2)
    demo.send("stalled", long_prompts(6), max_tokens=4)
    # Both are at a job, as busy workers are: what stalls is the storing of its result.
    wait_begun(demo, "stalled", 2)
    demo.broker.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(12)  # the fault itself: that it lasts
    finally:
        demo.broker.process.send_signal(signal.SIGCONT)
    demo.wait_ended("stalled", 6)
    expect(demo.explain("stalled"), "internal_failure")


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Demo]:
    """A second model whose file is gone, and a context of 256 tokens."""
    with running(tmp_path, {"gone": tmp_path / "gone.gguf"}, DEMO_CONTEXT="256") as found:
        yield found


def test_a_model_that_raises_on_some_prompts(narrow: Demo) -> None:
    narrow.add_workers(2)
    texts = [text * 40 if number % 3 == 0 else text for number, text in enumerate(prompts(12))]
    narrow.send("long", texts, max_tokens=8)
    narrow.wait_ended("long", 12)
    found = narrow.explain("long")
    expect(found, "internal_failure", "4 of 12 attempts failed", "input: ", "PromptTooLong")
    assert found["progress"]["failed"] == 4


def test_an_engine_that_is_broken(narrow: Demo) -> None:
    narrow.add_workers(1)
    narrow.send("broken", prompts(6), model="gone")
    narrow.wait_ended("broken", 6)
    expect(narrow.explain("broken"), "internal_failure", "6 of 6 attempts failed", "model: demo.engine.EngineError")


@pytest.mark.parametrize("replaced", [False, True], ids=["not replaced", "replaced"])
def test_a_worker_killed_in_the_middle(demo: Demo, replaced: bool) -> None:
    demo.add_workers(2)
    demo.send("killed", long_prompts(6), max_tokens=4)
    taken = wait_begun(demo, "killed", 2)
    kill(demo.workers["worker-2"])
    if replaced:
        demo.add_worker("worker-3")
    demo.wait_explained("killed", gone(6), "every job has ended or is lost")
    found = demo.explain("killed")
    expect(found, "internal_failure", "1 attempt lost", taken["worker-2"])
    assert (found["progress"]["done"], found["progress"]["lost"]) == (5, 1), words(found)


def test_a_workers_child_killed_in_the_middle(demo: Demo) -> None:
    demo.add_workers(2)
    demo.send("orphaned", long_prompts(6), max_tokens=4)
    taken = wait_begun(demo, "orphaned", 2)
    kill_below(demo.workers["worker-2"])
    demo.wait_explained("orphaned", gone(6), "every job has ended or is lost", seconds=30)
    found = demo.explain("orphaned")
    expect(found, "internal_failure", "1 attempt lost with its worker", taken["worker-2"])
    counts = found["progress"]
    assert (counts["done"], counts["failed"], counts["lost"]) == (5, 1, 0), words(found)


def test_a_burst_ten_times_over_capacity_while_it_drains(tmp_path: Path) -> None:
    with running(tmp_path, DEMO_MAX_QUEUE="100000") as demo:
        demo.add_workers(1)
        rate = 10 * capacity(demo, max_tokens=32)
        sent = send_paced(demo, "burst", rate, seconds=36, max_tokens=32)
        demo.wait_explained("burst", lambda found: found["progress"]["sent"] == sent, "every job is known")
        found = demo.explain("burst")
        expect(found, "overload", "More jobs arrived than the workers could do")
        assert found["state"] == "running", words(found)


def test_an_overload_that_has_drained(tmp_path: Path) -> None:
    with running(tmp_path, DEMO_MAX_QUEUE="100000") as demo:
        demo.add_workers(1)
        rate = 1.7 * capacity(demo, max_tokens=8)
        sent = send_paced(demo, "drained", rate, seconds=32, max_tokens=8)
        demo.wait_ended("drained", sent)
        expect(demo.explain("drained"), "overload", "More jobs arrived than the workers could do")


def test_requests_that_are_refused(tmp_path: Path) -> None:
    with running(tmp_path, DEMO_MAX_QUEUE="4") as demo:
        demo.add_workers(1)
        answers = demo.send("refused", prompts(20), max_tokens=4, apart=True)
        assert set(answers) == {202, 503}
        demo.wait_ended("refused", answers.count(202))
        found = demo.explain("refused")
        expect(found, "overload")
        assert evidence(found, "refused_requests")["holds"], words(found)


def test_two_bulks_on_the_same_workers(demo: Demo) -> None:
    demo.add_workers(2)
    # Mixed, not in turn: two workers in step would each have one of the bulks.
    order = random.Random(1).sample(["one", "other"] * 12, 24)
    for bulk, text in zip(order, prompts(24), strict=True):
        demo.send(bulk, [text], max_tokens=8)
    for bulk in ("one", "other"):
        demo.wait_ended(bulk, 12)
    both = [demo.explain(bulk) for bulk in ("one", "other")]
    for mine, beside in (both, both[::-1]):
        assert any("Other bulks used the same workers" in note for note in mine["notes"]), words(mine)
        assert mine["time_s"]["wait_others"] > 0, words(mine)
        # All but the jobs at the ends, where one of the two is alone.
        assert mine["workers"]["others_s"] == pytest.approx(beside["workers"]["own_s"], rel=0.3), words(mine)
