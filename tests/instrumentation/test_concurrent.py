"""Threads and executors go on in the context of who started them."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace

import bulkscope
from bulkscope._jobs import bulks
from bulkscope._jobs.bulks import Bulk
from bulkscope_instrumentation import concurrent
from bulkscope_instrumentation.concurrent import ConcurrentInstrumentor
from tests.telemetry import Telemetry

Where = tuple[str | None, str | None, str]


def where() -> Where:
    """Where the caller thinks it is: bulk, job, trace."""
    bulk = bulks.current()
    trace_id = trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
    return (bulk.id, bulk.job_id, trace_id) if bulk else (None, None, trace_id)


NOWHERE: Where = (None, None, "0" * 32)


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    instrumentor = ConcurrentInstrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


@pytest.fixture
def here(telemetry: Telemetry) -> Iterator[Where]:
    context = bulks.bind(Bulk("b", "body", "j"))
    span = trace.get_tracer("tests").start_span("request", context)
    token = otel_context.attach(trace.set_span_in_context(span, context))
    yield where()
    otel_context.detach(token)
    assert where() == NOWHERE


def in_thread(function: Callable[[], Any], **options: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()), **options)
    thread.start()
    thread.join()
    return found[0]


def test_a_thread(here: Where) -> None:
    assert in_thread(where) == here


def test_a_thread_of_ones_own_class(here: Where) -> None:
    class Mine(threading.Thread):
        def run(self) -> None:
            self.found = where()

    thread = Mine()
    thread.start()
    thread.join()
    assert thread.found == here


def test_a_librarys_own_thread_is_nobodys(here: Where) -> None:
    assert in_thread(where, name="OtelBatchSpanRecordProcessor") == NOWHERE


def test_a_pools_threads_belong_to_nobody(here: Where) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(where).result() == here
        token = otel_context.attach(otel_context.Context())
        assert pool.submit(where).result() == NOWHERE, "the thread was started by the first call and outlives it"
        otel_context.detach(token)


def test_map_and_what_it_raises(here: Where) -> None:
    def fails(number: int) -> None:
        raise KeyError(number)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: where(), range(3))) == [here] * 3
        with pytest.raises(KeyError, match="1"):
            list(pool.map(fails, [1]))
        assert isinstance(pool.submit(fails, 2).exception(), KeyError)


async def test_executors_of_the_loop(telemetry: Telemetry) -> None:
    async with bulkscope.dequeue("q", bulk_id="b", job_id="j"):
        here = where()
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, where) == here
        assert await asyncio.to_thread(where) == here
        assert await asyncio.create_task(asyncio.to_thread(where)) == here


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_process_pool(here: Where, method: str) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(where).result(timeout=60) == here
        assert list(pool.map(int, ["1", "2"])) == [1, 2]
        with pytest.raises(ValueError, match="invalid literal"):
            pool.submit(int, "x").result(timeout=60)


def test_outside_of_everything_nothing_is_wrapped(telemetry: Telemetry) -> None:
    seen = []

    class Pool(ThreadPoolExecutor):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            seen.append(function)
            return super().submit(function, *args, **kwargs)

    with Pool(1) as pool:
        assert pool.submit(where).result() == NOWHERE
    assert seen == [where]


def test_arguments_that_are_wrong_stay_the_callers_error(here: Where) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError):
        pool.submit()  # type: ignore[call-arg]


def test_a_thread_that_has_ended_is_freed_without_the_garbage_collector(here: Where) -> None:
    class Mine(threading.Thread):
        def run(self) -> None:
            self.found = where()

    class Owns(threading.Thread):
        def __init__(self) -> None:
            super().__init__()
            self.run = lambda: None  # type: ignore[method-assign]

    gc.collect()
    gc.disable()
    try:
        seen = []
        for make in (lambda: threading.Thread(target=where), Mine, Owns):
            thread = make()
            own = vars(thread).get("run")
            thread.start()
            thread.join()
            assert vars(thread).get("run") is own
            seen.append(weakref.ref(thread))
            del thread, own
        assert [ref() is None for ref in seen] == [True, True, True]
    finally:
        gc.enable()


def test_a_thread_that_could_not_be_started_can_be_tried_again(here: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Where] = []
    thread = threading.Thread(target=lambda: found.append(where()))
    with monkeypatch.context() as without:
        without.setattr(threading, "_start_new_thread", _no_more, raising=False)
        without.setattr(threading, "_start_joinable_thread", _no_more, raising=False)
        with pytest.raises(RuntimeError, match="can't start"):
            thread.start()
    assert "run" not in vars(thread)
    thread.start()
    thread.join()
    assert found == [here]


def _no_more(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("can't start new thread")


def _fault(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("ours")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(concurrent, name) for name in ("get_current", "_Run", "_In", "_of_interpreters")]
    + [(otel_context, name) for name in ("attach", "detach")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fault_of_ours_or_of_the_context_does_not_reach_what_is_started(
    here: Where, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    with monkeypatch.context() as faulty:
        faulty.setattr(owner, name, _fault)
        assert in_thread(lambda: 1) == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: 1).result(30) == 1


def test_a_threads_attributes_that_cannot_be_put_back(here: Where) -> None:
    class Fixed(threading.Thread):
        def __delattr__(self, name: str) -> None:
            if name == "run":
                raise AttributeError(name)
            super().__delattr__(name)

    raised: list[Any] = []
    before, threading.excepthook = threading.excepthook, raised.append
    try:
        thread = Fixed(target=lambda: None)
        thread.start()
        thread.join()
    finally:
        threading.excepthook = before
    assert raised == []


def test_a_thread_that_was_never_made_says_so(here: Where) -> None:
    class Half(threading.Thread):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match="not called"):
        Half().start()


@pytest.mark.parametrize("name", ["headers", "bulks", "_InProcess"])
def test_a_fault_of_ours_does_not_reach_a_call_in_another_process(
    here: Where, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as faulty:
        faulty.setattr(concurrent, name, None)
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            assert pool.submit(abs, -1).result(30) == 1


def test_a_fault_of_ours_in_another_process_does_not_reach_the_call(
    here: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = concurrent._in_process(abs)
    assert isinstance(call, concurrent._InProcess)
    monkeypatch.setattr(concurrent, "headers", None)
    assert call(-1) == 1
