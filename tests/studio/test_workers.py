"""Workers that no process id tells apart: containers of one host, and one that was restarted in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bulkscope_studio.rendering import capacity
from bulkscope_studio.services import capacities, explanations, overtime, reports
from bulkscope_studio.services.capacities import Question
from bulkscope_studio.storage import workers
from bulkscope_studio.storage.store import Store
from tests.studio.containers import CONTAINERS, MIB, NAMES, Sent, lost

SECOND = 10**9


@pytest.mark.parametrize(
    ("resource", "pid", "expected"),
    [
        ({"host.name": "h"}, 7, "h:7"),
        ({"host.name": "h", "container.id": "0123456789abcdef" * 4}, 7, "h/0123456789ab:7"),
        # A container's host name is its id, unless it is told another.
        ({"host.name": "0123456789ab", "container.id": "0123456789abcdef" * 4}, 7, "0123456789ab:7"),
        ({"host.name": "node", "k8s.pod.name": "worker-5d-x"}, 1, "node/worker-5d-x:1"),
        ({"host.name": "worker-5d-x", "k8s.pod.name": "worker-5d-x"}, 1, "worker-5d-x:1"),
        ({"host.name": "node", "k8s.pod.name": "p", "container.id": "f" * 64}, 1, "node/ffffffffffff:1"),
        ({"host.name": "h", "container.id": 5}, 7, "h:7"),
        ({"host.name": "h"}, None, "i"),
        ({"container.id": "f" * 64}, 7, "i"),
    ],
)
def test_the_name_of_a_worker(resource: dict[str, Any], pid: int | None, expected: str) -> None:
    assert workers.name(workers.place(resource), pid, "i", "s") == expected


def test_a_worker_of_which_little_is_known() -> None:
    assert workers.name(None, None, None, "s") == "s"
    assert workers.name(None, None, None, None) == "worker"


def both(store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    report, explanation = reports.bulk_report(store, "b"), explanations.bulk_explanation(store, "b")
    assert report is not None
    assert explanation is not None
    return report, explanation


@pytest.fixture(scope="module")
def three() -> Iterator[Store]:
    """Three containers of one host name, each with one worker of process id 18; 20 jobs each, of 2 s, one by one."""
    sent = Sent()
    for number in range(60):
        container = CONTAINERS[number % 3]
        begin = 1 + number // 3 * 2 + number % 3 / 10
        sent.job(container, f"i{number % 3}", f"j{number}", begin, begin + 2)
        sent.resident(container, f"i{number % 3}", begin + 1)
    store = sent.stored()
    yield store
    store.close()


def test_three_containers_are_three_workers_in_report_and_explanation(three: Store) -> None:
    report, explanation = both(three)
    assert [(group["name"], group["jobs"]["done"]) for group in report["workers"]] == [(name, 20) for name in NAMES]
    assert explanation["workers"]["places"] == 3
    # Each stands between its jobs for no time at all: all three were busy all of the time.
    assert explanation["workers"]["capacity_s"] == pytest.approx(3 * 40, rel=0.05)


def test_three_containers_are_three_workers_in_capacity_each_with_a_limit_of_its_own(three: Store) -> None:
    (pool,) = capacities.system_capacity(three, Question(["b"]))["pools"]
    assert (pool["workers"], pool["places"]) == (3, 3)
    assert pool["models"][0]["now"]["rate_per_s"]["value"] == pytest.approx(1.5, rel=0.1)
    memory = pool["memory"]
    assert (memory["workers_seen"], memory["limits"], memory["limit_bytes"]) == (3, 3, 1024 * MIB)
    # 90 % of 1024 MiB less 100 MiB of weights, over 200 MiB; how much the host has is not known.
    assert (memory["workers_per_limit"], memory["workers_that_fit"]) == (4, None)
    assert "4 workers fit into each of 3 memory limits of 1 GiB" in capacity._memory(memory)


def test_three_containers_are_three_lanes(three: Store) -> None:
    lanes = overtime.overtime(three, "b")["lanes"]
    assert sorted(lane["workers"] for lane in lanes) == sorted([name] for name in NAMES)


def test_what_a_parent_tells_is_of_the_child_in_its_own_container() -> None:
    sent = Sent()
    for number, container in enumerate(CONTAINERS[:2]):
        # The broker gave the job to both, and both had it in their process 18; of the first alone the parent tells.
        sent.event(container, f"child{number}", "bulk.job.started", 1.0, "j", 100 + number)
        sent.event(container, f"child{number}", "bulk.job.heartbeat", 3.0, "j", 100 + number)
    sent.span(
        CONTAINERS[0], "parent", 5, 1.0, 3.5, 1, bulk__id="b", bulk__job__id="j", process__pid=18,
        bulk__failure__domain="resource", error__type="billiard.exceptions.WorkerLostError",
    )  # fmt: skip
    store = sent.stored()
    found = {row["worker"]: (row["told"], row["domain"]) for row in lost(store)}
    assert found == {NAMES[0]: (True, "resource"), NAMES[1]: (False, "infra")}
    store.close()


def test_a_container_that_was_restarted_in_place_has_lost_its_job() -> None:
    """The next process of the container has the same id: it is not the one that went silent."""
    sent = Sent()
    for number in range(5):
        sent.job(CONTAINERS[0], "before", f"j{number}", 1 + number, 2 + number)
    sent.event(CONTAINERS[0], "before", "bulk.job.started", 6.0, "killed", 1000)
    sent.event(CONTAINERS[0], "before", "bulk.job.heartbeat", 8.0, "killed", 1000)
    for number in range(5, 10):
        sent.job(CONTAINERS[0], "after", f"j{number}", 36 + number, 37 + number)
    store = sent.stored()
    report, explanation = both(store)
    assert [row["job_id"] for row in report["lost"]] == ["killed"]
    assert (explanation["progress"]["lost"], explanation["progress"]["done"]) == (1, 10)
    assert [group["name"] for group in report["workers"]] == [NAMES[0]]
    store.close()


def test_a_store_of_before_names_workers_by_host_and_process() -> None:
    sent = Sent()
    sent.job(CONTAINERS[0], "i", "j", 1, 2)
    store = sent.stored()
    store.connection().execute("UPDATE spans SET worker = NULL")
    assert [group["name"] for group in both(store)[0]["workers"]] == ["dockhost:18"]
    store.close()
