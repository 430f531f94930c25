"""``bulkscope.enqueue``, ``dequeue`` and ``inference``, on queues that people roll by hand."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

import bulkscope
from bulkscope import _public, _safe
from bulkscope._jobs import bulks, clock, send, work
from bulkscope._jobs.bulks import Bulk
from bulkscope._jobs.heartbeat import heartbeat
from bulkscope._jobs.job import Job
from tests.telemetry import Telemetry


def pair(telemetry: Telemetry) -> tuple[Any, Any]:
    sent, done = telemetry.spans()
    assert (sent.kind, done.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert done.parent.span_id == sent.context.span_id
    assert done.context.trace_id == sent.context.trace_id
    return sent, done


def test_one_job(telemetry: Telemetry) -> None:
    began = time.monotonic()
    with bulkscope.enqueue("prompts", bulk_id="b", job_id="j", task="answer", delay=2, system="redis") as job:
        pass
    with bulkscope.dequeue("prompts", headers=job.headers, system="redis"):
        taken = time.monotonic()
    sent, done = pair(telemetry)
    assert dict(sent.attributes) == {
        "messaging.system": "redis",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "prompts",
        "messaging.message.id": "j",
        "bulk.task.name": "answer",
        "bulk.job.attempt": 1,
        "bulk.job.delay": 2,
        "bulk.id": "b",
        "bulk.job.id": "j",
    }
    found = dict(done.attributes)
    wait = found.pop("gen_ai.latency.time_in_queue")
    # However busy the machine: from somewhere in the sending to somewhere in the taking.
    assert -0.001 <= wait + 2 <= taken - began + 0.001
    assert found == {
        "messaging.system": "redis",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "prompts",
        "messaging.message.id": "j",
        "bulk.task.name": "answer",
        "bulk.job.attempt": 1,
        "bulk.job.delay": 2,
        "bulk.job.wait_negative": True,  # taken two seconds before it was wanted
        "bulk.outcome": "ok",
        "bulk.id": "b",
        "bulk.job.id": "j",
    }


@pytest.mark.parametrize(
    ("boot", "wait"),
    [
        ("the same", pytest.approx(0, abs=1)),  # the clock that is set was turned back an hour in between
        ("another", pytest.approx(-3600, abs=1)),  # and is the only one that two machines share
    ],
)
def test_on_one_machine_the_wait_comes_from_a_clock_that_nobody_sets(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, boot: str, wait: Any
) -> None:
    if clock.stamp() is None:
        pytest.skip("this system does not name its boots")
    with monkeypatch.context() as patch:
        now = time.time_ns
        patch.setattr(time, "time_ns", lambda: now() + 3600 * 10**9)
        with bulkscope.enqueue("q", job_id="j") as job:
            pass
    if boot == "another":
        job.headers["bulkscope-clock"] = "f00:1"
    with bulkscope.dequeue("q", headers=job.headers):
        pass
    found = telemetry.spans()[-1].attributes
    assert found["gen_ai.latency.time_in_queue"] == wait
    assert found.get("bulk.job.wait_negative", False) is (boot == "another")


@pytest.mark.parametrize("clock", ["", ":", "f00", "f00:x", "f00:-1", None, 7])
def test_a_clock_that_says_nothing_is_not_asked(telemetry: Telemetry, clock: Any) -> None:
    with bulkscope.enqueue("q") as job:
        pass
    with bulkscope.dequeue("q", headers={**job.headers, "bulkscope-clock": clock}):
        pass
    assert 0 <= telemetry.spans()[-1].attributes["gen_ai.latency.time_in_queue"] < 60


def test_ids_are_made_and_bulks_are_inherited(telemetry: Telemetry) -> None:
    token = otel_context.attach(bulks.bind(Bulk("from-the-request", "body")))
    with bulkscope.enqueue("prompts") as first, bulkscope.enqueue("prompts") as second:
        pass
    otel_context.detach(token)
    assert first.job_id != second.job_id
    with bulkscope.dequeue("prompts", headers=first.headers):
        pass
    done = telemetry.spans()[-1].attributes
    assert (done["bulk.id"], done["bulk.job.id"]) == ("from-the-request", first.job_id)


def test_jobs_of_several_bulks_from_one_caller(telemetry: Telemetry) -> None:
    request = Bulk()
    token = otel_context.attach(bulks.bind(request))
    for name in ("a", "a", "b"):
        with bulkscope.enqueue("prompts", bulk_id=name):
            pass
    otel_context.detach(token)
    assert [span.attributes["bulk.id"] for span in telemetry.spans()] == ["a", "a", "b"]
    assert (request.id, request.size, request.jobs) == ("a", 2, 3), "the request's size is that of its own bulk"


def test_a_failure_passes_unchanged(telemetry: Telemetry) -> None:
    error = MemoryError("mine")
    with pytest.raises(MemoryError) as caught, bulkscope.dequeue("prompts"):
        raise error
    assert caught.value is error
    (done,) = telemetry.spans()
    assert done.status.status_code == StatusCode.ERROR
    assert (done.attributes["bulk.failure.domain"], done.attributes["bulk.outcome"]) == ("resource", "internal_error")


def test_a_retry(telemetry: Telemetry) -> None:
    with bulkscope.enqueue("prompts", job_id="j") as first:
        pass
    with pytest.raises(KeyError), bulkscope.dequeue("prompts", headers=first.headers):  # noqa: PT012
        with bulkscope.enqueue("prompts", job_id="j") as second:
            pass
        raise KeyError
    with pytest.raises(KeyError), bulkscope.dequeue("prompts", headers=second.headers) as job:  # noqa: PT012
        job.retry()
        raise KeyError
    attempts = [span for span in telemetry.spans() if span.kind == SpanKind.CONSUMER]
    assert [span.attributes["bulk.job.attempt"] for span in attempts] == [1, 2]
    assert [span.attributes["bulk.outcome"] for span in attempts] == ["retry", "retry"]
    assert len({span.context.trace_id for span in telemetry.spans()}) == 1


async def test_asyncio_queue_and_decorators(telemetry: Telemetry) -> None:
    @bulkscope.dequeue("prompts", headers=lambda message: message["headers"])
    async def answer(message: dict[str, Any]) -> str:
        await asyncio.sleep(0)
        return str(message["prompt"]).upper()

    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for name in ("a", "b"):
        async with bulkscope.enqueue("prompts", bulk_id=name, task="answer") as job:
            await queue.put({"prompt": name, "headers": job.headers})
    # At the same time: each has a context of its own.
    assert await asyncio.gather(answer(await queue.get()), answer(await queue.get())) == ["A", "B"]
    done = [span for span in telemetry.spans() if span.kind == SpanKind.CONSUMER]
    assert sorted(span.attributes["bulk.id"] for span in done) == ["a", "b"]
    assert {span.attributes["bulk.task.name"] for span in done} == {"answer"}


def test_a_decorated_function_is_the_function(telemetry: Telemetry) -> None:
    @bulkscope.enqueue("prompts")
    def publish(prompt: str, *, shout: bool = False) -> str:
        """Publish it."""
        return prompt

    assert publish("x", shout=True) == "x"
    assert (publish.__name__, publish.__doc__) == ("publish", "Publish it.")
    publish("y")
    names = [(span.attributes["bulk.task.name"], span.attributes["bulk.job.id"]) for span in telemetry.spans()]
    assert names[0][0] == "publish"
    assert names[0][1] != names[1][1]


def _child(queue: Any, answers: Any) -> None:
    message = queue.get()
    answers.put((message["prompt"], sorted(message["headers"])))


def test_multiprocessing_queue(telemetry: Telemetry) -> None:
    spawn = multiprocessing.get_context("spawn")
    queue, answers = spawn.Queue(), spawn.Queue()
    with bulkscope.enqueue("prompts", bulk_id="b") as job:
        queue.put({"prompt": "x", "headers": job.headers})
    process = spawn.Process(target=_child, args=(queue, answers))
    process.start()
    prompt, names = answers.get(timeout=60)
    process.join()
    assert prompt == "x"
    assert {"traceparent", "baggage", "bulkscope-enqueued", "bulkscope-job"} <= set(names)


def test_threads_each_have_their_job(telemetry: Telemetry) -> None:
    @bulkscope.dequeue("prompts", headers=lambda headers: headers)
    def work(headers: dict[str, str]) -> None:
        with bulkscope.inference(model="m"):
            pass

    jobs = []
    for number in range(8):
        with bulkscope.enqueue("prompts", bulk_id=f"b-{number}") as job:
            jobs.append(job.headers)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, jobs))
    spans = {span.context.span_id: span for span in telemetry.spans()}
    calls = [span for span in spans.values() if span.name == "chat m"]
    assert len(calls) == 8
    assert all(spans[call.parent.span_id].attributes["bulk.id"] == call.attributes["bulk.id"] for call in calls)


def test_an_inference(telemetry: Telemetry) -> None:
    with bulkscope.inference(model="m", provider="mine", operation="text_completion", max_tokens=9) as call:
        call.tokens(input=7, output=3, cached=2)
        call.times(first_token=0.1, prefill=0.1, decode=0.5)
        call.finished("stop")
    (span,) = telemetry.spans()
    assert (span.name, span.kind) == ("text_completion m", SpanKind.INTERNAL)
    found = span.attributes
    assert (found["gen_ai.provider.name"], found["gen_ai.request.max_tokens"]) == ("mine", 9)
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (7, 3)
    assert found["bulk.inference.decode_tokens_per_second"] == 4
    assert found["bulk.inference.cpu.time"] >= 0
    assert "bulk.inference.batch_size" not in found


def test_a_batch(telemetry: Telemetry) -> None:
    with bulkscope.inference(model="m") as call:
        call.prompt(input=5, output=1)
        call.prompt(input=7, output=2)
    (span,) = telemetry.spans()
    found = span.attributes
    assert found["bulk.inference.batch_size"] == 2
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (12, 3)
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        (
            "bulk.inference.prompt",
            {"bulk.inference.prompt.index": index, "gen_ai.usage.input_tokens": i, "gen_ai.usage.output_tokens": o},
        )
        for index, i, o in ((0, 5, 1), (1, 7, 2))
    ]


def test_a_remote_engine_uses_nothing_of_ours(telemetry: Telemetry) -> None:
    with bulkscope.inference(model="m", remote=True) as call:
        call.tokens(input=1, output=2)
    (span,) = telemetry.spans()
    assert span.kind == SpanKind.CLIENT
    assert not [name for name in span.attributes if name.startswith(("bulk.inference.cpu", "bulk.inference.memory"))]
    assert span.attributes["bulk.inference.tokens_per_second"] > 0
    assert "bulk.inference.cpu.time" not in telemetry.metrics()


def test_an_engines_error_without_an_exception(telemetry: Telemetry) -> None:
    with bulkscope.dequeue("prompts"), bulkscope.inference(model="m") as call:
        call.fail("bad_output")
    call_span, _ = telemetry.spans()
    assert (call_span.attributes["error.type"], call_span.attributes["bulk.failure.domain"]) == ("bad_output", "model")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Send", "Work", "Inference"):
        monkeypatch.setattr(_public, name, None)


def test_faults_of_ours_reach_nobody(telemetry: Telemetry, broken: None) -> None:
    with bulkscope.enqueue("prompts") as job:
        assert job.headers
    with bulkscope.dequeue("prompts", headers=job.headers) as working:
        working.retry()
    with bulkscope.inference(model="m") as call:
        call.tokens(input=1)
        call.prompt(input=1, output=1)
        call.times(prefill=1)
        call.finished("stop")
        call.fail("x")
    with pytest.raises(KeyError), bulkscope.dequeue("prompts"):
        raise KeyError


def test_headers_that_cannot_be_asked(telemetry: Telemetry) -> None:
    @bulkscope.dequeue("prompts", headers=lambda message: message["no such thing"])
    def work(message: dict[str, Any]) -> int:
        return 1

    assert work({}) == 1
    (done,) = telemetry.spans()
    assert "gen_ai.latency.time_in_queue" not in done.attributes


UNTOUCHED = """
import bulkscope, sys
assert "opentelemetry.sdk" not in sys.modules
with bulkscope.enqueue("q") as job:
    pass
with bulkscope.dequeue("q", headers=job.headers), bulkscope.inference(model="m") as call:
    call.tokens(input=1, output=1)
print("done", "opentelemetry.sdk.trace" in sys.modules)
"""


def test_without_telemetry() -> None:
    done = subprocess.run([sys.executable, "-c", UNTOUCHED], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done False\n", "")


def test_any_callable_can_be_decorated(telemetry: Telemetry) -> None:
    class Callable:
        def __call__(self, number: int) -> int:
            return number + 1

    assert bulkscope.dequeue("q")(functools.partial(int, "7"))() == 7
    assert bulkscope.enqueue("q")(Callable())(1) == 2
    assert [span.attributes["bulk.task.name"] for span in telemetry.spans()] == ["partial", "Callable"]


async def test_generators_are_measured_to_their_end(telemetry: Telemetry) -> None:
    @bulkscope.inference(model="m")
    def stream() -> Iterator[int]:
        yield 1
        raise KeyError("later")

    @bulkscope.inference(model="n")
    async def async_stream() -> AsyncIterator[int]:
        yield 1
        yield 2

    numbers = stream()
    assert next(numbers) == 1
    assert telemetry.spans() == []
    with pytest.raises(KeyError):
        next(numbers)
    assert [number async for number in async_stream()] == [1, 2]
    first, second = telemetry.spans()
    assert (first.attributes["error.type"], second.name) == ("KeyError", "chat n")


def test_errors_that_cause_each_other_end_the_sending(telemetry: Telemetry) -> None:
    first, second = KeyError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(KeyError), bulkscope.enqueue("q"):
        raise first
    assert telemetry.spans()[0].attributes["error.type"] == "KeyError"


def test_a_time_limit_that_strikes_in_our_code_passes_on(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    class SoftTimeLimitExceeded(Exception):
        """As Celery raises it from its signal handler, wherever the thread is."""

    def struck(self: Any, *args: Any) -> None:
        raise SoftTimeLimitExceeded

    with monkeypatch.context() as patch:
        patch.setattr(work.Work, "_announce", _safe.guarded(struck))
        with pytest.raises(SoftTimeLimitExceeded), work.working(lambda: work.Work(JOB, {})):
            raise AssertionError("the job's own code is not reached")
    with monkeypatch.context() as patch:
        patch.setattr(work.Work, "_describe", struck)
        with pytest.raises(SoftTimeLimitExceeded), work.working(lambda: work.Work(JOB, {})):
            pass
    assert otel_context.get_current() == {}
    assert len(telemetry.spans()) == 2
    assert not heartbeat._running


@pytest.mark.parametrize("name", ["_enter", "_leave"])
@pytest.mark.parametrize("kind", ["enqueue", "dequeue", "inference"])
def test_a_fault_of_ours_does_not_reach_the_block(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    original = getattr(getattr(_public, kind), name)

    def fault(*args: Any) -> None:
        original(*args)
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(getattr(_public, kind), name, fault)
    around = getattr(bulkscope, kind)(**({"model": "m"} if kind == "inference" else {"queue": "q"}))

    @around
    async def asynchronous() -> int:
        return 2

    with around:
        done = 1
    assert (done, around(lambda: 1)(), asyncio.run(asynchronous())) == (1, 1, 2)
    with pytest.raises(LookupError), around:
        raise LookupError("the block's own")


@pytest.mark.parametrize("name", ["attach", "detach"])
def test_a_context_that_cannot_be_changed_costs_the_job_nothing(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fault(*args: Any) -> None:
        raise RuntimeError("the context's own")

    def application() -> int:
        with send.sending(lambda: send.Send(JOB)) as sent:
            assert sent.headers
        with bulkscope.enqueue("q") as job:
            pass
        with bulkscope.dequeue("q", headers=job.headers), bulkscope.inference(model="m"):
            return 1

    with monkeypatch.context() as faulty:
        faulty.setattr(otel_context, name, fault)
        assert contextvars.copy_context().run(application) == 1
    assert sorted(span.name for span in telemetry.spans()) == ["chat m", "process q", "send q", "send q"]
    assert not heartbeat._running


JOB = Job(system="redis", queue="q", id="j", task="t")


def test_a_start_that_fails_half_way_is_still_a_job(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "add", lambda work: 1 / 0)
    with bulkscope.dequeue("q", job_id="j"):
        pass
    assert [span.attributes["bulk.outcome"] for span in telemetry.spans()] == ["ok"]
    busy = telemetry.metrics()["bulk.worker.busy"]
    assert [point.value for point in busy] == [0]
    assert otel_context.get_current() == {}


def test_a_send_that_fails_after_its_span_began_is_still_a_job_of_its_bulk(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "stamp", lambda: 1 / 0)
    with bulkscope.enqueue("q", bulk_id="b") as job:
        pass
    assert job.job_id
    (span,) = telemetry.spans()
    assert (span.name, span.attributes["bulk.id"]) == ("send q", "b")
    assert otel_context.get_current() == {}


def test_a_time_limit_that_strikes_a_send_ends_its_span(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    class SoftTimeLimitExceeded(Exception):
        """As Celery raises it."""

    def struck() -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(clock, "stamp", struck)
    with pytest.raises(SoftTimeLimitExceeded), send.sending(lambda: send.Send(JOB)):
        raise AssertionError("nothing is handed over")
    assert [span.name for span in telemetry.spans()] == ["send q"]


def test_the_end_of_a_send_that_fails_ends_its_span(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "is_overload", lambda error: 1 / 0)
    with pytest.raises(KeyError), bulkscope.enqueue("q"):
        raise KeyError("the broker's own")
    assert [span.name for span in telemetry.spans()] == ["send q"]


def test_a_job_that_is_not_sampled_announces_nothing(telemetry: Telemetry) -> None:
    unsampled = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
    job = work.Work(JOB, unsampled)
    job.span = trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)
    job._announce()
    assert telemetry.logs() == []
    assert not heartbeat._running


def test_the_names_are_there_after_set_up() -> None:
    """A look-up that imports holds a lock, which a child that is forked meanwhile never gets back."""
    code = (
        "import bulkscope\n"
        "print(all(name in vars(bulkscope) for name in ('enqueue', 'dequeue', 'inference')))\n"
        "from bulkscope import _setup\n"
        "_setup.pre_instrument()\n"
        "print(all(name in vars(bulkscope) for name in ('enqueue', 'dequeue', 'inference')))\n"
    )
    nowhere = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | nowhere,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="no attribute 'dequeues'"):
        bulkscope.dequeues  # type: ignore[attr-defined]  # noqa: B018


FORKED_WHILE_IMPORTING = """
import importlib.abc, os, sys, threading, time
import bulkscope

began = threading.Event()

class Slow(importlib.abc.MetaPathFinder):  # what the names stand for takes half a second to import
    def find_spec(self, name, path, target=None):
        if name == "bulkscope._public":
            began.set()
            time.sleep(0.5)

sys.meta_path.insert(0, Slow())
looking = threading.Thread(target=lambda: bulkscope.enqueue)
looking.start()
began.wait()
child = os.fork()
if child == 0:
    with bulkscope.enqueue("q"):
        pass
    os._exit(0)
looking.join()
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        sys.exit(status)
    time.sleep(0.01)
os.kill(child, 9)
sys.exit("the child waits for the import of a thread that it does not have")
"""


def test_without_set_up_a_child_forked_in_another_threads_first_look_up_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED_WHILE_IMPORTING], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_heartbeat_is_of_severity_debug(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    with bulkscope.dequeue("q"):
        (running,) = heartbeat._running
        monkeypatch.setattr(running, "clock", running.clock - 2)
        heartbeat._report(running)
    told = {
        log.log_record.event_name: (log.log_record.severity_text, log.log_record.severity_number.value)
        for log in telemetry.logs()
    }
    assert told == {"bulk.job.started": ("INFO", 9), "bulk.job.heartbeat": ("DEBUG", 5)}
