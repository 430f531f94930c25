"""Which messages are jobs, and when an attempt at one ends, whatever carries it; the clients are in compatibility/."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import json
import pickle
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import context as otel_context

from bulkscope._export import drops
from bulkscope._jobs import bulks, queues
from bulkscope._jobs import headers as travelled
from bulkscope._jobs.bulks import Bulk
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope_instrumentation import _amqp, _kafka, _messages, aiokafka, confluent_kafka
from bulkscope_instrumentation._messages import TO, Attempt, parcel, received
from bulkscope_instrumentation.concurrent import ConcurrentInstrumentor
from tests.telemetry import Telemetry

CONSUMER = "CONSUMER"


@pytest.fixture(autouse=True)
def nothing_stays_at_work() -> Iterator[None]:
    """End the attempts that a test has left: their heartbeats are of the whole process."""
    yield
    for attempt in list(_messages._open.values()):
        attempt.end()


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
    assert (len(batch), batch[1:], type(pickle.loads(pickle.dumps(batch)))) == (3, [2, 3], list)
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


def test_what_is_nested_too_deep_names_no_bulk(telemetry: Telemetry) -> None:
    assert send(body=b'{"bulk_id": ' + b"[" * 100_000) == {}
    assert send(body='{"bulk_id": "b-2", "prompt": "' + "\u00e9" * (1 << 20) + '"}') == {}


def test_each_group_has_its_own_deliveries(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    headers = send()
    for group in ("one", "two", "one"):
        attempt = receive(headers, group=group, settles=False)
        assert attempt is not None
        attempt.end()
    assert sorted(outcomes(telemetry)) == [(1, "ok", None), (1, "ok", None), (2, "ok", None)]


def test_a_call_that_failed_unsettled_comes_again_with_the_end_of_the_channel(
    telemetry: Telemetry, request_of_a_bulk: Bulk
) -> None:
    attempt, channel, unsettled = receive(send()), object(), _messages.Unsettled()
    assert attempt is not None
    unsettled.add(channel, 1, attempt)
    with attempt.running():
        attempt.hold()
    future: Future[None] = Future()
    future.set_exception(OSError())
    attempt.release(future)
    unsettled.closed(channel)
    assert outcomes(telemetry) == [(1, "retry", "OSError")]


def test_a_message_refused_for_good_stays_so(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    attempt = receive(send())
    assert attempt is not None
    attempt.hold()
    attempt.settle(OSError())
    attempt.end(ValueError(), retry=True)
    assert outcomes(telemetry) == [(1, "internal_error", "OSError")]


def test_a_task_whose_error_nobody_asks_for_still_says_so(
    telemetry: Telemetry, request_of_a_bulk: Bulk, caplog: pytest.LogCaptureFixture
) -> None:
    message = object()

    async def handle(message: object) -> None:
        raise ValueError("no")

    async def consume() -> None:
        attempt = receive(send(), settles=False)
        assert attempt is not None
        pulled = _messages.Pulled()
        pulled.add(attempt, message)
        task = asyncio.create_task(handle(message))
        pulled.move_on()
        await asyncio.sleep(0.01)
        assert task.done()

    asyncio.run(consume())
    gc.collect()
    assert outcomes(telemetry) == [(1, "internal_error", "ValueError")]
    assert "Task exception was never retrieved" in caplog.text


def test_a_task_that_is_looked_at_keeps_nothing(telemetry: Telemetry, request_of_a_bulk: Bulk) -> None:
    class Message:
        pass

    async def handle(message: Message) -> None:
        del message
        await asyncio.sleep(30)

    async def consume() -> None:
        attempt = receive(send(), settles=False)
        assert attempt is not None
        message = Message()
        kept = weakref.ref(message)
        task = asyncio.create_task(handle(message))
        _messages.hold_in_tasks(attempt, [message])
        assert attempt.held == 1
        del message
        await asyncio.sleep(0)
        assert kept() is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert attempt.held == 0

    asyncio.run(consume())


@pytest.mark.parametrize("take", ["pop", "index", "reversed"])
def test_a_batch_begins_what_is_taken_out_of_it(
    telemetry: Telemetry, request_of_a_bulk: Bulk, monkeypatch: pytest.MonkeyPatch, take: str
) -> None:
    monkeypatch.setattr(_kafka, "_READING_S", 0.0)
    attempts = _kafka.Attempts("group")
    headers = [list(send(body=b"1").items()), list(send(body=b"2").items())]
    batch = _kafka.Batch([0, 1], lambda each: attempts.take("prompts", 0, each, headers[each], b"", each))
    ways = {"pop": lambda: (batch.pop() for _ in range(2)), "index": lambda: (batch[each] for each in (0, 1))}
    here = set()
    for _ in ways.get(take, lambda: reversed(batch))():
        current = _messages.here()
        assert current is not None
        here.add(current.job_id)
    attempts.move_on()
    assert here == {dict(each)[travelled.JOB] for each in headers}
    assert outcomes(telemetry) == [(1, "ok", None), (1, "ok", None)]


def test_a_depth_is_asked_by_whoever_is_open(telemetry: Telemetry) -> None:
    class Reader:
        def __init__(self, value: float) -> None:
            self.value, self.open = value, True

        def usable(self) -> bool:
            return self.open

        def __call__(self, queue: str) -> float:
            return self.value

    def depth() -> list[Any]:
        return [
            point.value for point in telemetry.metrics()["bulk.queue.depth"]
            if point.attributes["messaging.destination.name"] == "moves"
        ]  # fmt: skip

    first, second = Reader(1.0), Reader(2.0)
    for reader in (first, second):
        _messages.watch(("group", "moves"), lambda reader=reader: reader)  # type: ignore[misc]
    assert depth() == [1.0]
    first.open = False
    _messages.watch(("group", "moves"), lambda: second)
    assert depth() == [2.0]


class Question(_messages.InLoop):
    """One question that is answered as ``answer`` does it; ``begun`` once the loop works on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Callable[[], Awaitable[float]]) -> None:
        super().__init__(loop)
        self.answer, self.open, self.begun, self.ended = answer, True, threading.Event(), threading.Event()

    def is_open(self) -> bool:
        return self.open

    async def ask(self, queue: str) -> float | None:
        self.begun.set()
        try:
            return await self.answer()
        finally:
            self.ended.set()


async def for_ever() -> float:
    await asyncio.Event().wait()
    return 1.0


def asked_in_a_thread(
    answer: Callable[[], Awaitable[float]], meanwhile: Callable[[Question], Any] = lambda question: None,
    whole: bool = True,
) -> Any:  # fmt: skip
    """Return what a question from another thread comes to, or its error; not ``whole``: the loop ends before that."""
    found: list[Any] = []

    def ask(question: Question) -> None:
        try:
            found.append(question("q"))
        except Exception as error:
            found.append(error)

    async def application() -> tuple[Question, threading.Thread]:
        question = Question(asyncio.get_running_loop(), answer)
        thread = threading.Thread(target=ask, args=(question,))
        thread.start()
        await asyncio.to_thread(question.begun.wait, 30)
        meanwhile(question)
        if whole:
            await asyncio.to_thread(thread.join, 30)
        return question, thread

    question, thread = asyncio.run(application())
    thread.join(30)
    assert question.ended.is_set()
    return found[0]


def test_a_depth_is_asked_in_the_applications_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def four() -> float:
        return 4.0

    assert asked_in_a_thread(four) == 4.0
    # As the loop ends: `asyncio.run` cancels what is under way.
    assert asked_in_a_thread(for_ever, whole=False) is None
    monkeypatch.setattr(_messages, "_PATIENCE_S", 0.01)
    assert asked_in_a_thread(for_ever) is None


@pytest.mark.parametrize("still_open", [True, False])
def test_a_question_fails_unless_what_it_is_asked_by_was_closed(still_open: bool) -> None:
    closed = asyncio.Event()

    async def fails() -> float:
        await closed.wait()
        raise OSError("closed")

    def close(question: Question) -> None:
        question.open = still_open
        closed.set()

    found = asked_in_a_thread(fails, close)
    assert isinstance(found, OSError) if still_open else found is None


def test_a_loop_that_does_not_run_or_asks_itself_or_was_closed_is_asked_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.new_event_loop()
    question = Question(loop, for_ever)
    assert question("q") is None

    async def itself() -> float | None:
        return question("q")

    assert loop.run_until_complete(itself()) is None
    # Closed between the look at it and the question.
    made: list[Any] = []
    ask = question.ask
    monkeypatch.setattr(question, "ask", lambda queue: made.append(ask(queue)) or made[0])
    loop.close()
    monkeypatch.setattr(loop, "is_running", lambda: True)
    monkeypatch.setattr(question, "usable", lambda: True)
    assert question("q") is None
    assert inspect.getcoroutinestate(made[0]) == inspect.CORO_CLOSED
    assert not question.begun.is_set()


class KafkaError:
    def __init__(self, number: int) -> None:
        self.number = number

    def code(self) -> int:
        return self.number


class Record:
    def value(self) -> bytes:
        return b'{"bulk_id": "b-2"}'

    def key(self) -> bytes:
        return b"key"


class Refusing:
    """As confluent-kafka's producer: it refuses what has headers of ours, at once or in the report."""

    late = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.taken: list[dict[str, Any]] = []

    def produce(self, **given: Any) -> None:
        ours = any(name.startswith("bulkscope-") for name, _ in given.get("headers") or ())
        if ours and not self.late:
            raise RuntimeError(KafkaError(10))
        if not ours:
            self.taken.append(given)
        if given.get("on_delivery"):
            given["on_delivery"](KafkaError(10) if ours else None, Record())


class RefusingLate(Refusing):
    late = True


@pytest.mark.parametrize("kind", [Refusing, RefusingLate])
def test_a_record_that_is_too_large_with_our_headers_goes_without(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    reports: list[Any] = []
    counted: list[Any] = []
    monkeypatch.setattr(drops, "count", lambda *what: counted.append(what))
    producer: Any = confluent_kafka._producer(kind)({})
    producer.produce(
        "prompts", Record().value(), b"key", headers=[("mine", b"1")], callback=lambda error, _: reports.append(error)
    )
    assert counted == [("headers", 1, "no_room")]
    [taken] = producer.taken
    assert (taken["topic"], taken["value"], taken["key"]) == ("prompts", Record().value(), b"key")
    assert taken["headers"] == [("mine", b"1")]
    assert reports == [None]


def test_records_that_cannot_be_read_are_handed_on(telemetry: Telemetry) -> None:
    class Broken:
        def error(self) -> None:
            return None

        def headers(self) -> None:
            raise RuntimeError("no headers")

    class Kind:
        left = False

        def consume(self) -> list[Any]:
            return [Broken()]

        def __exit__(self, *error: Any) -> None:
            self.left = True

    consumer: Any = confluent_kafka._consumer(Kind)()
    assert len(consumer.consume()) == 1
    consumer.__exit__(None, None, None)
    assert (consumer.left, consumer._bulkscope.closed) == (True, True)


def test_aiokafka_sends_a_record_that_is_too_large_without_our_headers(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TooLarge(Exception):
        errno = 10

    counted: list[Any] = []
    monkeypatch.setattr(drops, "count", lambda *what: counted.append(what))

    async def send_and_wait(topic: str, value: bytes, headers: Any = ()) -> Any:
        if headers:
            raise TooLarge
        return "taken"

    body = b'{"bulk_id": "b-2"}'
    assert asyncio.run(aiokafka._send(send_and_wait, None, ("prompts", body), {})) == "taken"
    assert counted == [("headers", 1, "no_room")]

    async def other(topic: str, value: bytes, headers: Any = ()) -> Any:
        raise KeyError("elsewhere")

    with pytest.raises(KeyError):
        asyncio.run(aiokafka._send(other, None, ("prompts", body), {}))
