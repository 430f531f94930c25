"""Containers that are killed whole for memory: their counter of kills goes with them, what they said last stays."""

from __future__ import annotations

from typing import Any

import pytest

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.rendering import report as render
from bulkscope_studio.services import explanations, reports
from bulkscope_studio.storage.store import Store
from tests.studio.containers import CONTAINERS, MIB, Sent, lost

FULL = thresholds.MEMORY_NEAR.value + 0.01
ROOM = thresholds.MEMORY_NEAR.value - 0.01


def silent(sent: Sent, share: float | None = None, memory: int | None = None, instance: str = "i", **more: Any) -> None:
    """Add a job that began, said once what memory there was, and was never heard of again."""
    said: dict[str, Any] = {"bulk__worker__oom_kills": 0} | more
    if share is not None:
        said["bulk__worker__memory__utilization"] = share
    if memory is not None:
        said["process__memory__usage"] = memory
    sent.event(CONTAINERS[0], instance, "bulk.job.started", 10.0, "killed", 1000, bulk__worker__oom_kills=0)
    sent.event(CONTAINERS[0], instance, "bulk.job.heartbeat", 12.0, "killed", 1000, **said)


def judged(sent: Sent) -> tuple[str, bool]:
    store = sent.stored()
    (row,) = lost(store)
    store.close()
    return row["domain"], row["likely"]


@pytest.mark.parametrize(
    ("share", "memory", "expected"),
    [
        (FULL, None, ("resource", True)),
        (ROOM, None, ("infra", False)),
        # Of the process alone where the container's is not told, over the limit of its resource, 1 GiB.
        (None, 1000 * MIB, ("resource", True)),
        (None, 800 * MIB, ("infra", False)),
        # The container's goes before: mapped weights are given back before anything is killed.
        (0.5, 1000 * MIB, ("infra", False)),
        (None, None, ("infra", False)),
    ],
)
def test_memory_near_the_limit_at_the_last_is_likely_the_cause(
    share: float | None, memory: int | None, expected: tuple[str, bool]
) -> None:
    sent = Sent()
    silent(sent, share, memory)
    assert judged(sent) == expected


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.3, 0.55, 0.8), ("resource", True)),  # as fast as before it is full in less than a second
        ((0.3, 0.45, 0.6), ("infra", False)),
        ((0.8, 0.8, 0.8), ("infra", False)),
        ((0.1, 0.9, 0.8), ("infra", False)),
    ],
)
def test_memory_that_grows_to_its_limit_is_as_near(shares: tuple[float, ...], expected: tuple[str, bool]) -> None:
    """The kernel does not wait for a heartbeat: what was said at the last is up to a second old."""
    sent = Sent()
    for number, share in enumerate(shares):
        at, name = 10.0 + number, "heartbeat" if number else "started"
        sent.event(
            CONTAINERS[0], "i", f"bulk.job.{name}", at, "killed", 1000, bulk__worker__memory__utilization=share,
            process__memory__usage=10 * MIB,
        )  # fmt: skip
    assert judged(sent) == expected


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ("i", ("infra", False)),  # it lives near its limit, and may have been killed by anybody
        ("earlier", ("resource", True)),  # of another process that says nothing
    ],
)
def test_a_process_that_was_as_near_its_limit_before_the_job_proves_nothing(
    instance: str, expected: tuple[str, bool]
) -> None:
    sent = Sent()
    sent.job(CONTAINERS[0], instance, "before", 1, 3)
    sent.event(CONTAINERS[0], instance, "bulk.job.heartbeat", 2.0, "before", 2, bulk__worker__memory__utilization=0.95)
    silent(sent, FULL)
    assert judged(sent) == expected


@pytest.mark.parametrize(("container", "expected"), [(0, ("resource", False)), (1, ("infra", False))])
def test_the_counter_of_its_own_container_is_proof_and_anothers_is_none(
    container: int, expected: tuple[str, bool]
) -> None:
    sent = Sent()
    silent(sent, ROOM)
    sent.event(
        CONTAINERS[container], "other", "bulk.job.heartbeat", 14.0, "other", 2000, pid=19, bulk__worker__oom_kills=1
    )
    store = sent.stored()
    (row,) = (row for row in lost(store) if row["job_id"] == "killed")
    assert (row["domain"], row["likely"]) == expected
    store.close()


def answers(store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    report, explanation = reports.bulk_report(store, "b"), explanations.bulk_explanation(store, "b")
    assert report is not None
    assert explanation is not None
    return report, explanation


def test_report_and_explanation_say_that_it_is_likely_and_of_which_limit() -> None:
    sent = Sent()
    for number in range(40):
        sent.job(CONTAINERS[1], "other", f"j{number}", 1 + number, 2 + number)
    silent(sent, FULL, 900 * MIB)
    store = sent.stored()
    report, explanation = answers(store)
    store.close()
    (row,) = report["lost"]
    assert (row["domain"], row["likely"], row["memory_limit_bytes"]) == ("resource", True, 1024 * MIB)
    # It had not begun an inference: the model is that of all others of the bulk.
    assert (row["model"], row["model_likely"]) == ("m", True)
    (line,) = (line for line in render.markdown(report).splitlines() if "Lost: " in line)
    assert "model m (likely)" in line
    assert line.endswith("RAM then 900 MiB (limit 1 GiB); cause resource (likely)")
    assert explanation["verdict"]["code"] == "memory_limited"
    assert "likely killed for memory" in explanation["verdict"]["text"]


def test_of_a_process_that_died_before_an_export_the_limit_is_its_containers() -> None:
    sent = Sent()
    for number in range(40):
        sent.job(CONTAINERS[1], "other", f"j{number}", 1 + number, 2 + number)
    silent(sent, 0.7)
    store = sent.stored()
    explanation = answers(store)[1]
    store.close()
    (finding,) = (each for each in explanation["findings"] if each["code"] == "memory_limited")
    assert "memory limit of worker dockhost/aaaaaaaaaaaa:18" in finding["evidence"][0]["text"]
    assert finding["evidence"][0]["value"] == 0.7


def test_the_model_of_its_process_goes_before_the_bulks() -> None:
    sent = Sent()
    sent.job(CONTAINERS[0], "i", "before", 1, 3)
    sent.span(CONTAINERS[1], "other", 1, 1, 2, bulk__id="b", gen_ai__request__model="another")
    silent(sent)
    store = sent.stored()
    (row,) = lost(store)
    assert (row["model"], row["model_likely"]) == ("m", True)
    store.close()
    sent = Sent()
    silent(sent, gen_ai__request__model="its own")
    store = sent.stored()
    (row,) = lost(store)
    assert (row["model"], row["model_likely"]) == ("its own", False)
    store.close()
