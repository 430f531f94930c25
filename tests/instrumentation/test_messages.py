"""Which messages are jobs, and when an attempt at one ends, whatever carries it; the clients are in compatibility/."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import context as otel_context

from bulkscope._jobs import bulks, queues
from bulkscope._jobs import headers as travelled
from bulkscope._jobs.bulks import Bulk
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope_instrumentation import _amqp, _kafka, _messages
from bulkscope_instrumentation._messages import TO, Attempt, parcel, received
from bulkscope_instrumentation.concurrent import ConcurrentInstrumentor
from tests.telemetry import Telemetry

CONSUMER = "CONSUMER"


@pytest.fixture
def request_of_a_bulk() -> Iterator[Bulk]:
    bulk = Bulk()
    bulk.learn("b-1", "body")
    token = otel_context.attach(bulks.bind(bulk))
    yield bulk
    otel_context.detach(token)


def send(headers: Any = None, body: Any = b"", queue: str = "prompts", **rest: Any) -> dict[str, str]:
    """Return the headers that a message gets; none where it is no job."""
    found = parcel("kafka", queue, queue, headers, body, **rest)
    if found is None:
        return {}
    with sending(found.send) as sent:
        return found.headers(sent)


def receive(headers: Any, queue: str = "prompts", body: Any = b"", **rest: Any) -> Attempt | None:
    return received("kafka", queue, headers, body, came_from=lambda to: to == queue, **rest)


def outcomes(telemetry: Telemetry) -> list[tuple[Any, ...]]:
    return [
        (span.attributes["bulk.job.attempt"], span.attributes["bulk.outcome"], span.attributes.get("error.type"))
        for span in telemetry.spans() if span.kind.name == CONSUMER
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (None, b'{"bulk_id": "b-2"}'), (None, '{"bulk_id": "b-2", "prompt": "\\u00e9"}'), (None, {"bulkId": "b-2"}),
        ({"bulk_id": "b-2"}, b""), ([("Bulk-Id", b"b-2")], None), ([("x-bulk-id", b"b-2")], b"no json"),
    ],
)  # fmt: skip
def test_a_message_that_names_its_bulk_is_a_job(telemetry: Telemetry, headers: Any, body: Any) -> None:
    found = send(headers, body)
    assert (found[travelled.BULK], found[TO], found[travelled.TASK]) == ("b-2", "prompts", "prompts")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (None, b""), (None, None), (None, b'{"event": "login"}'), (None, b'"bulk_id"'), (None, b'{"bulk_id": '),
        (None, b'["bulk_id"]'), ({"trace": "1"}, b"\xff\xfe"), ([("key", None)], b"x"),
        (None, b'{"bulk_id": "b-2", "prompt": "' + b"x" * (1 << 20) + b'"}'),
    ],
)  # fmt: skip
def test_another_message_is_none(telemetry: Telemetry, headers: Any, body: Any) -> None:
    before = copy.deepcopy(headers)
    assert send(headers, body) == {}
    assert headers == before
    assert telemetry.spans() == []
    assert receive(headers, body=body) is None


def test_what_a_request_of_a_bulk_sends_is_a_job(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    assert send(body=b"a prompt")[travelled.BULK] == "b-1"
    assert request_of_a_bulk.size == 1


def test_a_bulk_that_only_its_trace_names_makes_no_job(telemetry: Telemetry) -> None:
    bulk = Bulk()
    bulk.learn("0" * 32, "trace")
    token = otel_context.attach(bulks.bind(bulk))
    try:
        assert send() == {}
        assert send(body=b'{"bulk_id": "b-2"}') != {}
    finally:
        otel_context.detach(token)


def test_what_a_job_sends_is_one_only_to_where_it_came_from(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    attempt = receive(send(body=b"question"), body=b"question", settles=False)
    assert attempt is not None
    with attempt.running():
        assert send(queue="answers", body=b'{"bulk_id": "b-1"}') == {}
        other = send(body=b"another")
        assert other[travelled.BULK] == "b-1"
        assert other[travelled.JOB] != attempt.job_id
    assert outcomes(telemetry) == [(1, "ok", None)]


def test_the_same_message_is_the_same_job(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    attempt = receive(send(body=b"question"), body=b"question", settles=False)
    assert attempt is not None
    with attempt.running():
        again = send(body=b"question")
    assert again[travelled.JOB] == attempt.job_id
    assert again[travelled.ATTEMPT] == "2"
    second = receive(again, body=b"question", settles=False)
    assert second is not None
    with second.running():
        pass
    assert outcomes(telemetry) == [(1, "retry", "Requeued"), (2, "ok", None)]


def test_headers_that_are_sent_on_make_no_job_elsewhere(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    headers = send()
    assert receive(headers, "answers") is None
    assert receive([(key, value.encode()) for key, value in headers.items()]) is not None


def test_what_a_queue_of_jobs_sends_by_its_client_is_that_job(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    """Dramatiq on RabbitMQ sends by pika."""
    with Send(Job(system="rabbitmq", queue="bulk", id="1", task="t")):
        assert send(body=b'{"bulk_id": "b-1"}') == {}
        assert parcel("rabbitmq", "bulk", "/bulk", None, b"") is None
    assert send(body=b"") != {}


@pytest.mark.parametrize(
    ("patterns", "queue", "expected"),
    [
        (("prompts",), "prompts", True), (("pro*", "x"), "prompts", True), (("x",), "prompts", False),
        (("-",), "prompts", False),
    ],
)  # fmt: skip
def test_the_setting_decides(
    telemetry: Telemetry, request_of_a_bulk: Bulk, monkeypatch: pytest.MonkeyPatch,
    patterns: tuple[str, ...], queue: str, expected: bool,
) -> None:  # fmt: skip
    headers = send(queue=queue)
    monkeypatch.setattr(_messages, "_PATTERNS", patterns)
    assert bool(send(queue=queue)) is expected
    attempt = receive(headers, queue)
    assert (attempt is not None) is expected
    if attempt is not None:
        with attempt.running():
            assert send(queue=queue, body=b"other") != {}
    # Without any bulk.
    token = otel_context.attach(otel_context.Context())
    try:
        assert bool(send(queue=queue)) is expected
    finally:
        otel_context.detach(token)


def test_what_the_callback_leaves_unsettled_goes_on(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    attempt = receive(send())
    assert attempt is not None
    with attempt.running():
        assert _messages.here() is attempt
    assert _messages.here() is None
    assert outcomes(telemetry) == []
    thread = threading.Thread(target=attempt.settle)
    thread.start()
    thread.join()
    attempt.settle(ValueError(), retry=True)  # once is enough
    assert outcomes(telemetry) == [(1, "ok", None)]


@pytest.mark.parametrize(
    ("settles", "before", "expected"),
    [(True, False, "retry"), (True, True, "internal_error"), (False, False, "internal_error")],
)
def test_what_a_callback_raises(
    telemetry: Telemetry, request_of_a_bulk: Bulk, settles: bool, before: bool, expected: str
) -> None:
    attempt = receive(send(), settles=settles)
    assert attempt is not None

    def callback() -> None:
        with attempt.running():
            if before:
                attempt.settle()
            raise KeyError("x")

    with pytest.raises(KeyError):
        callback()
    assert outcomes(telemetry) == [(1, expected, "KeyError")]


def test_a_call_in_a_pool_is_waited_for(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    instrumentor = ConcurrentInstrumentor()
    was = instrumentor.is_instrumented_by_opentelemetry
    if not was:
        instrumentor.instrument()
    try:
        pulled, go = _messages.Pulled(), threading.Event()
        attempt = receive(send(), settles=False)
        assert attempt is not None
        pulled.add(attempt)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(go.wait, 30)
            pulled.move_on()
            assert outcomes(telemetry) == []
            go.set()
            assert future.result()
        assert outcomes(telemetry) == [(1, "ok", None)]
    finally:
        if not was:
            instrumentor.uninstrument()


def test_a_task_that_got_the_message_is_waited_for(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    message = object()

    async def handle(message: object) -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async def consume() -> None:
        pulled = _messages.Pulled()
        attempt = receive(send(), settles=False)
        assert attempt is not None
        pulled.add(attempt, message)
        task = asyncio.create_task(handle(message))
        pulled.move_on()
        assert outcomes(telemetry) == []
        with pytest.raises(ValueError):
            await task
        await asyncio.sleep(0)

    asyncio.run(consume())
    assert outcomes(telemetry) == [(1, "internal_error", "ValueError")]


def test_a_batch_is_a_list(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    begun = []
    batch = _kafka.Batch([1, 2, 3], begun.append)  # type: ignore[arg-type, func-returns-value]
    assert batch == [1, 2, 3]
    assert (len(batch), batch[1], batch[1:], type(pickle.loads(pickle.dumps(batch)))) == (3, 2, [2, 3], list)
    assert begun == []
    assert [*batch, *batch] == [1, 2, 3, 1, 2, 3]
    assert begun == [1, 2, 3]


@pytest.mark.parametrize(
    ("to", "deaths", "expected"),
    [
        ("/prompts", [], True),
        ("/other", [], False),
        # Rejected in the queue, waited in another, and came back; and lies in one for dead letters.
        ("/prompts", [{"queue": "later", "reason": "expired"}, {"queue": "prompts", "reason": "rejected"}], True),
        ("/strict", [{"queue": "strict", "reason": "rejected"}], False),
        ("/later", [{"queue": "later", "reason": "expired"}], True),
    ],
)
def test_dead_letters(to: str, deaths: list[dict[str, Any]], expected: bool) -> None:
    assert _amqp.came_from("", "prompts", "prompts", {"x-death": deaths} if deaths else {})(to) is expected


def test_headers_that_say_nothing_usable() -> None:
    for headers in ({"x-death": "x", "x-delay": "soon"}, {"x-death": [1], "x-delay": None}, {}):
        assert _amqp.came_from(None, None, "q", headers)("/") is True
        assert _amqp.again(headers) == 0
        assert _amqp.delay(headers) == 0
    assert _amqp.delay({"x-delay": 1500}) == 1.5
    assert json.dumps(_messages.texts([("a", b"\xff"), (1, "x"), ("b", None)])) == '{"a": "\\ufffd"}'


def test_each_watched_queue_of_a_process_reports(telemetry: Telemetry) -> None:
    queues.watch(["one"], lambda name: 1.0)
    queues.watch(["two"], lambda name: 2.0, lambda name: 3.0)
    queues.watch(["three"], lambda name: None)
    found = {
        name: {point.attributes["messaging.destination.name"]: point.value for point in points}
        for name, points in telemetry.metrics().items() if name.startswith("bulk.queue")
    }  # fmt: skip
    assert {"one": 1.0, "two": 2.0}.items() <= found["bulk.queue.depth"].items()
    assert "three" not in found["bulk.queue.depth"]
    assert found["bulk.queue.oldest_age"]["two"] == 3.0
