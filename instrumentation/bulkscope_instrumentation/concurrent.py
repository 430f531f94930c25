"""Threads and executors: what is started goes on in the context of who started it.

A thread, a call in a ``ThreadPoolExecutor`` (``loop.run_in_executor`` and ``asyncio.to_thread`` are such calls)
and one in a ``ProcessPoolExecutor`` see the caller's span and bulk. Tasks of asyncio do so by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import thread as pool_threads
from types import ModuleType
from typing import Any

from opentelemetry import propagate
from opentelemetry.context import Context, attach, detach, get_current

from bulkscope import _bulk
from bulkscope._bulk import Bulk
from bulkscope._instrumentor import Instrumentor


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
        token = attach(self._context)
        try:
            return self._function(*args, **kwargs)
        finally:
            detach(token)


def _start(wrapped: Callable[..., Any], thread: Any, args: Any, kwargs: Any) -> Any:
    context = get_current()
    # A pool's thread outlives the call it was started for, and a library's own is nobody's.
    target = getattr(thread, "_target", None)
    if context and target is not pool_threads._worker and not thread.name.startswith(("Otel", "bulkscope")):
        thread.run = _In(context, thread.run)
    return wrapped(*args, **kwargs)


def _submit(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    context = get_current()
    if not context or not args:
        return wrapped(*args, **kwargs)
    return wrapped(_In(context, args[0]), *args[1:], **kwargs)


class _InProcess:
    """A function that runs in another process as part of the caller's trace and bulk; can be pickled."""

    def __init__(self, headers: dict[str, str], job_id: str | None, function: Callable[..., Any]) -> None:
        self._headers, self._job_id, self._function = headers, job_id, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        context = propagate.extract(self._headers)
        bulk = Bulk(job_id=self._job_id)
        bulk.learn(_bulk.from_baggage(context), "baggage")
        token = attach(_bulk.bind(bulk, context))
        try:
            return self._function(*args, **kwargs)
        finally:
            detach(token)


def _submit_to_process(wrapped: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    headers: dict[str, str] = {}
    propagate.inject(headers)
    if not headers or not args:
        return wrapped(*args, **kwargs)
    bulk = _bulk.current()
    return wrapped(_InProcess(headers, bulk.job_id if bulk else None, args[0]), *args[1:], **kwargs)
