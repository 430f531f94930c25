"""What SQS, SAQ and Procrastinate do besides the jobs of ``five``: an application of each does it, once."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility.brokers import Brokers
from tests.compatibility.five import CONSUMER, ERROR, PRODUCER, copy_applications, python_of
from tests.compatibility.libraries import QUEUES, Queue
from tests.processes import environment
from tests.sink import Sink, serve


def _library(name: str) -> Queue:
    return next(each for each in QUEUES if (each.name, each.age) == (name, "newest"))


def _ran(library: Queue, brokers: Brokers, application: str, folder: Path) -> Sink:
    python = python_of(library)
    copy_applications(folder)
    with brokers.fresh(library.broker) as url, serve() as sink:
        done = subprocess.run(
            [str(python.parent / "bulkscope"), "run", str(python), f"{application}.py"], cwd=folder,
            env=environment(sink.url, BROKER=url, OTEL_METRIC_EXPORT_INTERVAL="300"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Bulkscope could not" not in done.stdout, done.stdout
    return sink


def _spans(sink: Sink, kind: int, bulk: str) -> list[dict[str, Any]]:
    found = [span for span in sink.spans if span["kind"] == kind and span["attributes"].get("bulk.id") == bulk]
    return sorted(found, key=lambda span: span["start"])


def _outcomes(sink: Sink, bulk: str) -> list[tuple[Any, ...]]:
    keys = ("bulk.job.attempt", "bulk.outcome", "error.type")
    return [tuple(span["attributes"].get(key) for key in keys) for span in _spans(sink, CONSUMER, bulk)]


def _depths(sink: Sink, queue: str) -> list[float]:
    return [
        point["value"]
        for point in sink.points
        if point["name"] == "bulk.queue.depth" and point["attributes"]["messaging.destination.name"] == queue
    ]


@pytest.fixture(scope="module")
def sqs(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Sink:
    return _ran(_library("boto3 (SQS)"), brokers, "sqs_cases", tmp_path_factory.mktemp("sqs") / "app")


def _one_after_the_other(spans: list[dict[str, Any]]) -> bool:
    return all(before["end"] <= after["start"] for before, after in pairwise(spans))


@pytest.mark.engines
@pytest.mark.parametrize(("bulk", "count"), [("c-serial", 10), ("c-together", 5), ("c-single", 2), ("c-resources", 3)])
def test_messages_that_came_together_are_attempts_one_after_the_other(sqs: Sink, bulk: str, count: int) -> None:
    sent, done = _spans(sqs, PRODUCER, bulk), _spans(sqs, CONSUMER, bulk)
    assert len(sent) == len(done) == count
    assert _one_after_the_other(done)
    assert {span["parent"] for span in done} == {span["span_id"] for span in sent}
    assert _outcomes(sqs, bulk) == [(1, "ok", None)] * count
    lines = [log for log in sqs.logs if log["body"].startswith("working on") and log["attributes"]["bulk.id"] == bulk]
    assert [line["span_id"] for line in lines] == [span["span_id"] for span in done]
    assert all(span["end"] - span["start"] >= 20_000_000 for span in done), "the work is in it"


@pytest.mark.engines
def test_a_message_that_is_handed_to_a_thread_is_at_work_there(sqs: Sink) -> None:
    done = {span["span_id"]: span for span in _spans(sqs, CONSUMER, "c-threads")}
    lines = [log for log in sqs.logs if log["attributes"].get("bulk.id") == "c-threads"]
    lines = [line for line in lines if line["body"].startswith("working on")]
    assert sorted(line["span_id"] for line in lines) == sorted(done)
    assert _outcomes(sqs, "c-threads") == [(1, "ok", None)] * 6
    assert all(span["end"] - span["start"] >= 20_000_000 for span in done.values())


@pytest.mark.engines
def test_a_message_that_is_deleted_for_an_error_has_failed(sqs: Sink) -> None:
    assert _outcomes(sqs, "c-given-up") == [(1, "internal_error", "ValueError")]
    (done,) = _spans(sqs, CONSUMER, "c-given-up")
    assert done["status"] == ERROR


@pytest.mark.engines
def test_a_longer_visibility_timeout_ends_nothing(sqs: Sink) -> None:
    assert _outcomes(sqs, "c-longer") == [(1, "ok", None)]


@pytest.mark.engines
def test_a_message_that_is_never_deleted_is_tried_again_until_it_is_a_dead_letter(sqs: Sink) -> None:
    assert _outcomes(sqs, "c-dead") == [(1, "retry", "NotDeleted"), (2, "internal_error", "NotDeleted")]
    first, second = _spans(sqs, CONSUMER, "c-dead")
    assert first["attributes"]["bulk.job.id"] == second["attributes"]["bulk.job.id"]
    assert first["end"] - first["start"] < 1_000_000_000, "until the loop went on, not until SQS noticed"
    assert "gen_ai.latency.time_in_queue" in first["attributes"]
    assert "gen_ai.latency.time_in_queue" not in second["attributes"], "SQS does not say since when"


@pytest.mark.engines
@pytest.mark.parametrize("bulk", ["c-full", "c-long"])
def test_a_message_without_room_goes_as_it_is_and_is_counted(sqs: Sink, bulk: str) -> None:
    (sent,) = _spans(sqs, PRODUCER, bulk)
    assert sent["status"] == 0
    assert _spans(sqs, CONSUMER, bulk) == []
    dropped = [point for point in sqs.points if point["name"] == "bulk.telemetry.dropped"]
    counted = [point["value"] for point in dropped if point["attributes"]["signal"] == "headers"]
    assert max(counted) == 2


@pytest.mark.engines
def test_a_message_of_no_bulk_is_no_job(sqs: Sink) -> None:
    assert not [span for span in sqs.spans if span["attributes"].get("messaging.destination.name") == "events"
                and span["kind"] in (PRODUCER, CONSUMER)]  # fmt: skip


@pytest.mark.engines
def test_the_depth_of_a_queue_is_asked_for(sqs: Sink) -> None:
    assert _depths(sqs, "never-deleted")


@pytest.mark.engines
def test_calls_that_are_no_jobs_stay_as_botocore_s_own_instrumentation_has_them(sqs: Sink) -> None:
    names = {span["name"] for span in sqs.spans if span["attributes"].get("rpc.system") == "aws-api"}
    assert {"SQS.SendMessageBatch", "SQS.ReceiveMessage", "SQS.DeleteMessage"} <= names


@pytest.fixture(scope="module", params=["saq", "saq on PostgreSQL"])
def saq(request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Sink:
    return _ran(_library(request.param), brokers, "saq_cases", tmp_path_factory.mktemp("saq") / "app")


def test_a_job_of_saq_that_is_aborted_or_stopped(saq: Sink) -> None:
    assert _outcomes(saq, "c-aborted") == [(1, "internal_error", "asyncio.exceptions.CancelledError")]
    assert _outcomes(saq, "c-stopped") == [(1, "retry", "asyncio.exceptions.CancelledError")]


def test_a_job_of_saq_that_is_sent_twice_is_done_once(saq: Sink) -> None:
    assert _outcomes(saq, "c-twice") == [(1, "ok", None)]
    sent = [span["attributes"].get("bulk.outcome") for span in _spans(saq, PRODUCER, "c-twice")]
    assert sent == [None, "duplicate"]
    assert _depths(saq, "bulk")


@pytest.fixture(scope="module")
def procrastinate(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Sink:
    library = _library("procrastinate")
    return _ran(library, brokers, "procrastinate_cases", tmp_path_factory.mktemp("procrastinate") / "app")


@pytest.mark.parametrize("bulk", ["c-none", "c-queueing", "c-lock"])
def test_a_job_of_procrastinate_carries_its_trace_beside_the_application_s_locks(
    procrastinate: Sink, bulk: str
) -> None:
    (sent,), (done,) = _spans(procrastinate, PRODUCER, bulk), _spans(procrastinate, CONSUMER, bulk)
    assert (done["trace_id"], done["parent"]) == (sent["trace_id"], sent["span_id"])
    assert done["attributes"]["bulk.outcome"] == "ok"


def test_a_job_of_procrastinate_with_both_locks_goes_without(procrastinate: Sink) -> None:
    (sent,), (done,) = _spans(procrastinate, PRODUCER, "c-both"), _spans(procrastinate, CONSUMER, "c-both")
    assert done["trace_id"] != sent["trace_id"]
    assert "gen_ai.latency.time_in_queue" not in done["attributes"]
    dropped = [point for point in procrastinate.points if point["name"] == "bulk.telemetry.dropped"]
    assert max(point["value"] for point in dropped if point["attributes"]["signal"] == "headers") == 1


def test_a_batch_of_procrastinate(procrastinate: Sink) -> None:
    sent, done = _spans(procrastinate, PRODUCER, "c-batch"), _spans(procrastinate, CONSUMER, "c-batch")
    assert len(sent) == len(done) == 5
    assert {span["parent"] for span in done} == {span["span_id"] for span in sent}


def test_jobs_of_procrastinate_that_are_aborted_or_refused(procrastinate: Sink) -> None:
    ((attempt, outcome, error),) = _outcomes(procrastinate, "c-aborted")
    assert (attempt, outcome) == (1, "internal_error")
    assert error.rpartition(".")[2] in ("CancelledError", "JobAborted")
    assert _spans(procrastinate, CONSUMER, "c-refused") == []
    (refused,) = _spans(procrastinate, PRODUCER, "c-refused")
    assert refused["attributes"]["bulk.outcome"] == "duplicate"
    assert _depths(procrastinate, "bulk")
