"""Threads and executors: what is started goes on in the context of who started it.

A thread, a call in a ``ThreadPoolExecutor`` (``loop.run_in_executor`` and ``asyncio.to_thread`` are such calls)
and one in a ``ProcessPoolExecutor`` see the caller's span and bulk. Tasks of asyncio do so by themselves. Calls in an
``InterpreterPoolExecutor`` do not: nothing is recorded in other interpreters.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import thread as pool_threads
from contextvars import Token
from types import ModuleType
from typing import Any

from opentelemetry.context import Context, get_current

from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import bulks, current, headers
from bulkscope._jobs.bulks import Bulk
from bulkscope._safe import guarded
from bulkscope_instrumentation import _messages


class ConcurrentInstrumentor(Instrumentor):
    """Instruments ``threading.Thread`` and the executors of ``concurrent.futures``."""

    module = "concurrent.futures"
    name = "concurrent"

    def patch(self, module: ModuleType) -> None:
        """Wrap where work is handed over."""
        import threading
        from concurrent.futures.thread import ThreadPoolExecutor

        self.wrap(threading.Thread, "start", _start)
        self.wrap(ThreadPoolExecutor, "submit", _submit)
        try:
            from concurrent.futures.process import ProcessPoolExecutor
        except ImportError:
            return  # a system without semaphores has no process pools
        self.wrap(ProcessPoolExecutor, "submit", _submit_to_process)


class _In:
    """A function that runs in a context."""

    def __init__(self, context: Context, function: Callable[..., Any]) -> None:
        self._context, self._function = context, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = current.enter(self._context)
        try:
            return self._function(*args, **kwargs)
        finally:
            current.leave(token)


class _Run:
    """A thread's ``run`` in a context; at its end the thread is as it was.

    The two hold each other, with the request's span and bulk: 2,000 threads that had ended stayed in memory until the
    garbage collector came by.
    """

    __slots__ = ("_context", "_own", "_run", "_thread")

    def __init__(self, context: Context, thread: Any) -> None:
        self._context, self._thread = context, thread
        self._run, self._own = thread.run, vars(thread).get("run")

    def __call__(self) -> None:
        token = current.enter(self._context)
        try:
            self._run()
        finally:
            current.leave(token)
            self.put_back()

    @guarded
    def put_back(self) -> None:
        """Give the thread its own ``run`` again."""
        if vars(self._thread).get("run") is self:
            if self._own is None:
                del self._thread.run
            else:
                self._thread.run = self._own
        self._thread = self._run = None


@guarded
def _carried(thread: Any) -> _Run | None:
    """Let a thread that is about to start run in the current context; None where it is to run as it is."""
    context = get_current()
    # A pool's thread outlives the call it was started for, and a library's own is nobody's.
    target = getattr(thread, "_target", None)
    # One whose class did not make it has no name to ask for: starting it raises, and says why.
    if not context or target is pool_threads._worker or not getattr(thread, "_initialized", False):
        return None
    if thread.name.startswith(("Otel", "bulkscope")):
        return None
    thread.run = ours = _Run(context, thread)
    return ours


def _start(wrapped: Callable[..., Any], thread: Any, args: Any, kwargs: Any) -> Any:
    ours = _carried(thread)
    if ours is None:
        return wrapped(*args, **kwargs)
    try:
        return wrapped(*args, **kwargs)
    except BaseException:
        if not thread.is_alive():  # not begun: it may be tried again
            ours.put_back()
        raise


@guarded
def _in_thread(pool: Any, function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a function of a pool's call in the current context; None where it is to run as it is."""
    context = get_current()
    return _In(context, function) if context and not _of_interpreters(type(pool)) else None


def _submit(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    if args and (function := _in_thread(pool, args[0])) is not None:
        args = function, *args[1:]
        # A consumer that hands its message to a pool goes on at once, and the job does not end with that.
        if (attempt := _messages.here()) is not None:
            attempt.hold()
            try:
                future = wrapped(*args, **kwargs)
            except BaseException:
                attempt.release()
                raise
            future.add_done_callback(attempt.release)
            return future
    return wrapped(*args, **kwargs)


def _of_interpreters(kind: type) -> bool:
    """Tell whether a pool's calls go to other interpreters (Python 3.14), which take no object of ours."""
    return kind is not pool_threads.ThreadPoolExecutor and any(
        base.__module__ == "concurrent.futures.interpreter" for base in kind.__mro__
    )


class _InProcess:
    """A function that runs in another process as part of the caller's trace and bulk; can be pickled."""

    def __init__(self, origin: dict[str, str], job_id: str | None, function: Callable[..., Any]) -> None:
        self._origin, self._job_id, self._function = origin, job_id, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = self._arrive()
        try:
            return self._function(*args, **kwargs)
        finally:
            current.leave(token)

    @guarded
    def _arrive(self) -> Token[Context] | None:
        context, bulk_id, source = headers.read_origin(self._origin)
        bulk = Bulk(job_id=self._job_id)
        bulk.learn(bulk_id, source)
        return current.enter(bulks.bind(bulk, context))


@guarded
def _in_process(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """As ``_in_thread``, for a call in another process."""
    origin = headers.origin()
    if not origin:
        return None
    bulk = bulks.current()
    return _InProcess(origin, bulk.job_id if bulk else None, function)


def _submit_to_process(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    if args and (function := _in_process(args[0])) is not None:
        args = function, *args[1:]
    return wrapped(*args, **kwargs)
