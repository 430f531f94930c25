"""Each queue's library, oldest and newest supported version, in an environment of its own, on a real broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.compatibility import five
from tests.compatibility.brokers import Brokers
from tests.compatibility.five import CONSUMER, ERROR, Run
from tests.compatibility.libraries import QUEUES, Queue

test_a_job_that_goes_well = five.a_job_that_goes_well
test_what_a_job_logs_is_found_by_its_bulk = five.what_a_job_logs_is_found_by_its_bulk
test_a_job_that_fails = five.a_job_that_fails
test_a_job_that_is_tried_again = five.a_job_that_is_tried_again
test_a_job_that_publishes_another = five.a_job_that_publishes_another
test_a_wanted_delay_is_no_wait = five.a_wanted_delay_is_no_wait
test_every_job_is_in_the_metrics = five.every_job_is_in_the_metrics
test_arguments_of_jobs_are_not_in_the_logs = five.arguments_of_jobs_are_not_in_the_logs


def _marked(libraries: list[Queue]) -> list[Any]:
    engines = pytest.mark.engines
    return [pytest.param(each, marks=engines if each.broker == "sqs" else (), id=str(each)) for each in libraries]


@pytest.fixture(scope="module", params=_marked(QUEUES))
def run(request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Run:
    library: Queue = request.param
    with brokers.fresh(library.broker) as url:
        return five.run_five(library, url, tmp_path_factory.mktemp(library.package or library.name) / "app")


def test_a_worker_is_what_its_operator_calls_one(run: Run) -> None:
    done = [span["resource"] for span in run.sink.spans if span["kind"] == CONSUMER]
    slots = {resource.get("bulk.worker.slot") for resource in done}
    if run.library.name == "rq":
        assert len({resource["process.pid"] for resource in done}) > 4, "a process for each job"
        assert slots == {f"{run.pid}#1"}
    elif run.library.name == "celery":
        assert slots <= {f"{run.pid}#{number}" for number in range(1, 9)}
    else:
        assert slots == {None}


def test_the_import_of_the_task_is_shown_where_each_job_pays_for_it(run: Run) -> None:
    values = [span["attributes"] for span in run.sink.spans if span["kind"] == CONSUMER]
    took = [each.get("bulk.job.import.duration") for each in values]
    if run.library.name == "rq":
        assert all(seconds > 0 for seconds in took if seconds is not None)
        assert any(seconds is not None for seconds in took)
    else:
        assert set(took) == {None}


def test_what_only_this_library_has(run: Run) -> None:
    found = [
        (span["attributes"]["bulk.outcome"], span["attributes"]["bulk.failure.domain"], span["status"])
        for span in run.processed("b-own")
    ]
    assert found == ([] if run.library.own is None else [(*run.library.own, ERROR)])


def test_inferences_of_greenlets(run: Run) -> None:
    """They take turns in one thread: each has its own job, tokens, CPU time and memory, and the CPU is an estimate."""
    jobs = {span["span_id"]: span for span in run.processed("b-infers")}
    inferences = [span for span in run.sink.spans if span["name"] == "chat tiny"]
    assert len(jobs) == len(inferences) == run.library.greenlets
    assert sorted(span["parent"] for span in inferences) == sorted(jobs)
    for span in inferences:
        found = span["attributes"]
        assert found["bulk.job.id"] == jobs[span["parent"]]["attributes"]["bulk.job.id"]
        assert found["bulk.id"] == "b-infers"
        assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (3, 5)
        assert found["bulk.inference.cpu.time"] >= 0
        assert found["bulk.inference.memory.peak"] > 0
    if run.library.greenlets:
        names = {point["name"] for point in run.sink.points}
        assert names >= {"gen_ai.client.operation.duration", "bulk.queue.depth", "bulk.inference.cpu.time"}
        assert "Exception while exporting" not in run.output
        assert "Cannot switch to a different thread" not in run.output


NEWEST = _marked([library for library in QUEUES if library.age == "newest"])


@pytest.mark.parametrize("library", NEWEST)
def test_a_job_keeps_its_bulk_and_its_trace_without_any_propagator(
    library: Queue, brokers: Brokers, tmp_path: Path
) -> None:
    with brokers.fresh(library.broker) as url:
        run = five.run_five(library, url, tmp_path / "app", OTEL_PROPAGATORS="none")
    five.a_job_that_goes_well(run)
    five.a_job_that_is_tried_again(run)
    five.a_job_that_publishes_another(run)
    five.a_wanted_delay_is_no_wait(run)


@pytest.mark.parametrize("library", NEWEST)
def test_that_a_job_began_is_known_before_any_batch_leaves(library: Queue, brokers: Brokers, tmp_path: Path) -> None:
    with brokers.fresh(library.broker) as url:
        five.tells_that_it_began(library, url, tmp_path / "app")
