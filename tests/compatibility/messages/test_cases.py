"""Where an attempt begins and ends, and which messages are jobs, in the ways that services use these libraries.

One process a library goes through them (``apps/…_cases.py``), with contrib's instrumentation installed beside ours.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility.five import CONSUMER, ERROR, PRODUCER, copy_applications, python_of
from tests.compatibility.libraries import MESSAGES, Queue
from tests.processes import environment
from tests.sink import Sink, serve

pytestmark = pytest.mark.engines
NEWEST = {library.name: library for library in MESSAGES if library.age == "newest"}
# What an attempt takes beside the sleeps of its application, on a machine with others at work.
SLACK_S = 2.0


@dataclass
class Cases:
    sink: Sink
    output: str

    def attempts(self, bulk: str) -> list[dict[str, Any]]:
        found = [s for s in self.sink.spans if s["kind"] == CONSUMER and s["attributes"].get("bulk.id") == bulk]
        return sorted(found, key=lambda span: span["start"])

    def outcomes(self, bulk: str) -> list[tuple[Any, ...]]:
        """Number, outcome and what went wrong of each attempt."""
        return [
            (span["attributes"]["bulk.job.attempt"], span["attributes"]["bulk.outcome"],
             span["attributes"].get("error.type"))
            for span in self.attempts(bulk)
        ]  # fmt: skip

    def took(self, bulk: str) -> list[float]:
        return [(span["end"] - span["start"]) / 1e9 for span in self.attempts(bulk)]

    def lines(self, bulk: str | None) -> list[str]:
        """Span of each line "working" that the jobs of a bulk wrote; with None, of "afterwards" where it has any."""
        if bulk is None:
            said = [log for log in self.sink.logs if log["body"] == "afterwards"]
            return [log["span_id"] for log in said if log["attributes"].get("bulk.id") or log["span_id"]]
        said = [log for log in self.sink.logs if log["body"] == "working" and log["attributes"].get("bulk.id") == bulk]
        return [log["span_id"] for log in said]

    def undelivered(self, bulk: str) -> list[str]:
        """Ids of the jobs that the broker has not taken."""
        found = [s["attributes"] for s in self.sink.spans if s["attributes"].get("error.type") == "undelivered"]
        return [each["bulk.job.id"] for each in found if each["bulk.id"] == bulk]

    def sent(self, bulk: str) -> list[dict[str, Any]]:
        return [s for s in self.sink.spans if s["kind"] == PRODUCER and s["attributes"].get("bulk.id") == bulk]

    def depths(self, queue: str) -> set[float]:
        return {
            point["value"] for point in self.sink.points
            if point["name"] == "bulk.queue.depth" and point["attributes"]["messaging.destination.name"] == queue
        }  # fmt: skip


def _cases(name: str, url: str, folder: Path) -> Cases:
    library: Queue = NEWEST[name]
    python = python_of(library)
    copy_applications(folder)
    with serve() as sink:
        env = environment(
            sink.url, BROKER=url, OTEL_METRIC_EXPORT_INTERVAL="300",
            PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        )  # fmt: skip
        script = f"{name.replace('-', '_')}_cases.py"
        done = subprocess.run(
            [str(python.parent / "bulkscope"), "run", "python", script],
            cwd=folder, env=env, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Bulkscope could not" not in output, output
    # Each job ended as often as it began, and nothing but our own instrumentation has made a span.
    begun = [log["span_id"] for log in sink.logs if log["event"] == "bulk.job.started"]
    assert sorted(begun) == sorted(span["span_id"] for span in sink.spans if span["kind"] == CONSUMER)
    assert {span["scope"] for span in sink.spans} == {"bulkscope"}
    assert "secret" not in str([log["body"] for log in sink.logs])
    return Cases(sink, done.stdout)


@pytest.fixture(scope="module")
def pika(rabbitmq: str, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return _cases("pika", rabbitmq, tmp_path_factory.mktemp("pika") / "app")


@pytest.fixture(scope="module")
def aio_pika(rabbitmq: str, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return _cases("aio-pika", rabbitmq, tmp_path_factory.mktemp("aio_pika") / "app")


@pytest.fixture(scope="module")
def aiokafka(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return _cases("aiokafka", kafka, tmp_path_factory.mktemp("aiokafka") / "app")


@pytest.fixture(scope="module")
def confluent_kafka(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return _cases("confluent-kafka", kafka, tmp_path_factory.mktemp("confluent_kafka") / "app")


def _each_lasts(seconds: float, found: list[float], count: int) -> None:
    assert len(found) == count
    assert all(seconds <= each < seconds + SLACK_S for each in found), found


OK = (1, "ok", None)


class TestPika:
    def test_a_message_of_no_bulk_is_no_job(self, pika: Cases) -> None:
        assert "event {'mine': '1'}" in pika.output, "its headers are what they were"
        assert "properties {'mine': '1'}" in pika.output, "the application's properties are not changed"
        named = [span["attributes"]["messaging.destination.name"] for span in pika.sink.spans]
        assert "events" not in named
        assert pika.outcomes("b-header") == pika.outcomes("b-properties") == [OK]
        assert pika.sent("b-header")[0]["attributes"]["bulk.job.expires"] == 60

    def test_an_answer_is_no_job(self, pika: Cases) -> None:
        assert pika.outcomes("b-answer") == [OK]
        assert len(pika.sent("b-answer")) == 1

    def test_a_dead_letter_has_failed(self, pika: Cases) -> None:
        assert pika.outcomes("b-dead") == [(1, "internal_error", "Rejected")]
        assert pika.attempts("b-dead")[0]["status"] == ERROR

    def test_one_that_comes_back_is_tried_again(self, pika: Cases) -> None:
        assert pika.outcomes("b-back") == [(1, "internal_error", "Rejected"), (2, "ok", None)]
        assert "gen_ai.latency.time_in_queue" not in pika.attempts("b-back")[1]["attributes"], "absent is not 0"
        assert pika.outcomes("b-expired") == [OK]
        assert pika.attempts("b-expired")[0]["attributes"]["gen_ai.latency.time_in_queue"] >= 0.2

    def test_a_thread_that_acknowledges_it_later_is_the_attempt(self, pika: Cases) -> None:
        assert pika.outcomes("b-thread") == [OK]
        _each_lasts(0.3, pika.took("b-thread"), 1)
        assert pika.lines("b-thread") == [pika.attempts("b-thread")[0]["span_id"]]

    def test_several_are_acknowledged_together(self, pika: Cases) -> None:
        assert pika.outcomes("b-batch") == [OK] * 3
        _each_lasts(0.2, pika.took("b-batch"), 3)

    def test_one_that_is_asked_for_ends_with_its_acknowledgement(self, pika: Cases) -> None:
        assert pika.outcomes("b-get") == [OK] * 2
        _each_lasts(0.1, pika.took("b-get"), 2)
        assert pika.lines("b-get") == [span["span_id"] for span in pika.attempts("b-get")]
        assert pika.lines(None) == []

    def test_without_acknowledgements_it_ends_with_the_next(self, pika: Cases) -> None:
        assert pika.outcomes("b-loop") == [OK] * 3
        _each_lasts(0.1, pika.took("b-loop"), 3)
        assert pika.lines("b-loop") == [span["span_id"] for span in pika.attempts("b-loop")]

    def test_what_the_callback_raises_is_tried_again(self, pika: Cases) -> None:
        assert pika.outcomes("b-raises") == [(1, "retry", "KeyError"), (2, "ok", None)]

    def test_the_same_message_sent_again_is_the_same_job(self, pika: Cases) -> None:
        assert pika.outcomes("b-again") == [(1, "retry", "Requeued"), (2, "ok", None)]
        assert len({span["attributes"]["bulk.job.id"] for span in pika.attempts("b-again")}) == 1
        assert pika.attempts("b-again")[1]["attributes"]["gen_ai.latency.time_in_queue"] >= 0

    def test_an_event_loop(self, pika: Cases) -> None:
        assert pika.outcomes("b-select") == [OK]

    def test_one_that_the_process_leaves_is_to_come_again(self, pika: Cases) -> None:
        assert pika.outcomes("b-lying") == [(1, "retry", "Requeued")]

    def test_the_depth_of_a_queue(self, pika: Cases) -> None:
        assert pika.depths("threads") == {0}


class TestAioPika:
    def test_a_message_of_no_bulk_is_no_job(self, aio_pika: Cases) -> None:
        assert "event {'mine': '1'}" in aio_pika.output
        assert "message {}" in aio_pika.output, "the application's message is not changed"
        ids = [span["attributes"]["bulk.job.id"] for span in aio_pika.attempts("b-twice")]
        assert len(set(ids)) == 2

    def test_a_callback(self, aio_pika: Cases) -> None:
        assert aio_pika.outcomes("b-twice") == [OK] * 2
        _each_lasts(0.1, aio_pika.took("b-twice"), 2)
        assert sorted(aio_pika.lines("b-twice")) == sorted(s["span_id"] for s in aio_pika.attempts("b-twice"))

    def test_process_rejects_and_puts_back(self, aio_pika: Cases) -> None:
        assert aio_pika.outcomes("b-fails") == [(1, "internal_error", "ValueError")]
        assert aio_pika.outcomes("b-back") == [(1, "retry", "ValueError"), (2, "internal_error", "ValueError")]

    def test_tasks_that_an_iterator_hands_its_messages_to_are_the_attempts(self, aio_pika: Cases) -> None:
        assert aio_pika.outcomes("b-tasks") == [OK, OK, (1, "internal_error", "ValueError")]
        _each_lasts(0.3, aio_pika.took("b-tasks"), 3)
        assert sorted(aio_pika.lines("b-tasks")) == sorted(s["span_id"] for s in aio_pika.attempts("b-tasks"))

    def test_an_iterator_that_works_itself(self, aio_pika: Cases) -> None:
        assert aio_pika.outcomes("b-loop") == [OK] * 2
        _each_lasts(0.1, aio_pika.took("b-loop"), 2)
        assert aio_pika.lines("b-loop") == [span["span_id"] for span in aio_pika.attempts("b-loop")]
        assert aio_pika.lines(None) == []

    def test_one_that_is_asked_for(self, aio_pika: Cases) -> None:
        assert aio_pika.outcomes("b-get") == [OK]
        _each_lasts(0.1, aio_pika.took("b-get"), 1)
        assert aio_pika.lines("b-get") == [aio_pika.attempts("b-get")[0]["span_id"]]

    def test_a_callback_that_puts_off_the_acknowledgement(self, aio_pika: Cases) -> None:
        assert aio_pika.outcomes("b-plain") == [OK]
        _each_lasts(0.2, aio_pika.took("b-plain"), 1)

    def test_one_that_is_never_settled_is_to_come_again(self, aio_pika: Cases) -> None:
        assert aio_pika.outcomes("b-lying") == [(1, "retry", "Requeued")]

    def test_the_depth_of_a_queue(self, aio_pika: Cases) -> None:
        assert aio_pika.depths("aio-tasks") == {0}


class _Kafka:
    """What both clients have in common; ``prefix`` is of the topics, the headers are as one is given and gives them."""

    prefix = mine = received = ""

    def test_a_record_of_no_bulk_is_no_job(self, cases: Cases) -> None:
        assert f"event {self.received}" in cases.output
        assert f"headers {self.mine}" in cases.output, "the application's headers are not changed"
        assert cases.outcomes("b-beside") == [OK]
        assert len(cases.sent("b-beside")) == 1

    def test_it_ends_when_the_next_is_asked_for(self, cases: Cases) -> None:
        assert cases.outcomes("b-loop") == [OK] * 2
        _each_lasts(0.1, cases.took("b-loop"), 2)
        assert cases.lines("b-loop") == [span["span_id"] for span in cases.attempts("b-loop")]
        assert cases.lines(None) == []

    def test_records_of_a_batch_that_are_done_in_turns(self, cases: Cases) -> None:
        assert cases.outcomes("b-turns") == [OK] * 3
        _each_lasts(0.1, cases.took("b-turns"), 3)
        assert cases.lines("b-turns") == [span["span_id"] for span in cases.attempts("b-turns")]
        before = 0
        for span in cases.attempts("b-turns"):
            assert span["start"] >= before, "one after the other"
            before = span["end"]

    def test_records_of_a_batch_that_are_done_at_once(self, cases: Cases) -> None:
        assert cases.outcomes("b-at-once") == [OK] * 3
        assert all(0.3 <= took < 0.3 + SLACK_S for took in cases.took("b-at-once"))

    def test_one_that_leaves_the_loop_with_an_error_comes_again(self, cases: Cases) -> None:
        assert cases.outcomes("b-raises") == [(1, "retry", "KeyError"), (2, "ok", None)]

    def test_the_depth_is_what_the_group_has_not_committed(self, cases: Cases) -> None:
        assert 4 in cases.depths(f"{self.prefix}depth")


class TestAiokafka(_Kafka):
    prefix = "aio-"
    mine, received = "[('mine', b'1')]", "(('mine', b'1'),)"

    @pytest.fixture
    def cases(self, aiokafka: Cases) -> Cases:
        return aiokafka

    def test_tasks_that_a_consumer_hands_its_records_to_are_the_attempts(self, cases: Cases) -> None:
        assert cases.outcomes("b-tasks") == [OK, OK, (1, "internal_error", "ValueError")]
        _each_lasts(0.3, cases.took("b-tasks"), 3)
        assert sorted(cases.lines("b-tasks")) == sorted(s["span_id"] for s in cases.attempts("b-tasks"))

    def test_what_the_broker_does_not_take_is_said_of_the_job(self, cases: Cases) -> None:
        assert cases.undelivered("b-lost") == [span["attributes"]["bulk.job.id"] for span in cases.sent("b-lost")]
        assert len(cases.undelivered("b-lost")) == 1
        assert "refused MessageSizeTooLargeError" in cases.output


class TestConfluentKafka(_Kafka):
    mine, received = "{'mine': b'1'}", "[('mine', b'1')]"

    @pytest.fixture
    def cases(self, confluent_kafka: Cases) -> Cases:
        return confluent_kafka

    def test_calls_in_a_pool_are_the_attempts(self, cases: Cases) -> None:
        assert cases.outcomes("b-pool") == [OK, OK, (1, "internal_error", "ValueError")]
        _each_lasts(0.3, cases.took("b-pool"), 3)
        assert sorted(cases.lines("b-pool")) == sorted(s["span_id"] for s in cases.attempts("b-pool"))

    def test_what_the_broker_does_not_take_is_said_of_the_job(self, cases: Cases) -> None:
        assert cases.undelivered("b-lost") == [span["attributes"]["bulk.job.id"] for span in cases.sent("b-lost")]
        assert len(cases.undelivered("b-lost")) == 2
        assert cases.output.count("of all _MSG_TIMED_OUT") == cases.output.count("of one _MSG_TIMED_OUT") == 1

    def test_serializers(self, cases: Cases) -> None:
        assert cases.outcomes("b-serialized") == [OK]
