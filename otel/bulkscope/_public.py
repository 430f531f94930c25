"""For code that no instrumentation covers: a queue of one's own, an engine of one's own.

Each is a context manager and a decorator, for plain and for ``async`` code alike. Where telemetry is not
switched on they cost next to nothing and change nothing.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from bulkscope._jobs import headers as travelled
from bulkscope._jobs.inferences import Inference
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, Unsent, sending
from bulkscope._jobs.work import Work, starting
from bulkscope._safe import report

F = TypeVar("F", bound=Callable[..., Any])


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


class _Around(ABC):
    """What stands around a block or a function. A decorated function gets a fresh one for each call."""

    @abstractmethod
    def _enter(self) -> None: ...

    @abstractmethod
    def _leave(self, error: BaseException | None) -> None: ...

    @abstractmethod
    def _for_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Around: ...

    def __enter__(self) -> Self:
        try:
            self._enter()
        except Exception:
            report("the start of a block")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._leave(error)
        except Exception:
            report("the end of a block")

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with self._for_call(function, args, kwargs):
                    return await function(*args, **kwargs)

            return coroutine  # type: ignore[return-value]
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                with self._for_call(function, args, kwargs):
                    return (yield from function(*args, **kwargs))

            return generator  # type: ignore[return-value]
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def async_generator(*args: Any, **kwargs: Any) -> Any:
                with self._for_call(function, args, kwargs):
                    async for item in function(*args, **kwargs):
                        yield item

            return async_generator  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._for_call(function, args, kwargs):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


class enqueue(_Around):
    """Around handing one job to a queue: its PRODUCER span. ``headers`` must travel with the job.

    >>> with bulkscope.enqueue("prompts", bulk_id="b-1", task="summarise") as job:
    ...     redis.lpush("prompts", json.dumps({"prompt": prompt, "headers": job.headers}))

    Args:
        queue: name of the queue.
        job_id: id of the job; a random one when left out. It travels in ``headers``.
        bulk_id: id of the bulk; left out where a request or another job has it already.
        task: what is to be done; as a decorator, the function's name.
        delay: scheduled delay in seconds; it is no part of the queue wait.
        system: the product, OpenTelemetry's ``messaging.system``: ``redis``, ``rabbitmq``, ``kafka`` …
    """

    def __init__(
        self,
        queue: str,
        *,
        job_id: str | None = None,
        bulk_id: str | None = None,
        task: str | None = None,
        delay: float = 0.0,
        system: str = "in_memory",
    ) -> None:
        self._queue, self._task, self._delay, self._system = queue, task, delay, system
        self._given_id, self._bulk_id = job_id, bulk_id
        self.job_id = job_id or uuid.uuid4().hex
        self.headers: dict[str, str] = {}
        self._send: Send | Unsent | None = None

    def _enter(self) -> None:
        task = self._task or "job"
        self._send = sending(
            lambda: Send(
                Job(system=self._system, queue=self._queue, id=self.job_id, task=task, bulk_id=self._bulk_id),
                delay=self._delay,
            )
        )
        self.headers = {**self._send.headers, travelled.JOB: self.job_id, travelled.TASK: task}
        self._send.__enter__()

    def _leave(self, error: BaseException | None) -> None:
        if self._send is not None:
            self._send.__exit__(type(error), error, None)

    def _for_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> enqueue:
        return enqueue(
            self._queue,
            job_id=self._given_id,
            bulk_id=self._bulk_id,
            task=self._task or _name(function),
            delay=self._delay,
            system=self._system,
        )


Headers = Mapping[str, Any] | Callable[..., Mapping[str, Any] | None] | None


class dequeue(_Around):
    """Around doing one job: its CONSUMER span, with the wait since it was enqueued.

    >>> with bulkscope.dequeue("prompts", headers=message["headers"]):
    ...     answer(message["prompt"])

    >>> @bulkscope.dequeue("prompts", headers=lambda message: message["headers"])
    ... async def work(message): ...

    Args:
        queue: name of the queue.
        headers: what ``enqueue`` gave; as a decorator, a function of the call's arguments that returns it.
        job_id: id of the job, where the headers do not have it.
        bulk_id: id of the bulk, where the headers do not have it.
        task: what is done; as a decorator, the function's name.
        system: as of ``enqueue``.
    """

    def __init__(
        self,
        queue: str,
        *,
        headers: Headers = None,
        job_id: str | None = None,
        bulk_id: str | None = None,
        task: str | None = None,
        system: str = "in_memory",
    ) -> None:
        self._queue, self._headers, self._task, self._system = queue, headers, task, system
        self._job_id, self._bulk_id = job_id, bulk_id
        self._work: Work | None = None

    def retry(self) -> None:
        """Say that the job fails now but will be tried again: its error is then no failure of the job."""
        if self._work is not None:
            self._work.retry = True

    def _enter(self) -> None:
        headers = self._headers if isinstance(self._headers, Mapping) else {}
        self._work = starting(
            lambda: Work(
                Job(
                    system=self._system,
                    queue=self._queue,
                    id=self._job_id or str(headers.get(travelled.JOB) or uuid.uuid4().hex),
                    task=self._task or str(headers.get(travelled.TASK) or "job"),
                    bulk_id=self._bulk_id,
                ),
                headers,
            )
        )

    def _leave(self, error: BaseException | None) -> None:
        if self._work is not None:
            self._work.finish(error, retry=self._work.retry and error is not None)

    def _for_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dequeue:
        headers = self._headers
        if callable(headers):
            try:
                headers = headers(*args, **kwargs)
            except Exception:
                report("the headers of a job, asked of the function given to bulkscope.dequeue")
                headers = None
        return dequeue(
            self._queue,
            headers=headers,
            job_id=self._job_id,
            bulk_id=self._bulk_id,
            task=self._task or _name(function),
            system=self._system,
        )


class inference(_Around):
    """Around one call of a language model: its span, with the CPU time and peak memory of the process.

    >>> with bulkscope.inference(model="my-model") as call:
    ...     answer = model.generate(prompt)
    ...     call.tokens(input=len(prompt_ids), output=len(answer_ids))

    Args:
        model: name of the model asked for.
        provider: the engine, OpenTelemetry's ``gen_ai.provider.name``.
        operation: ``chat``, ``text_completion``, ``embeddings`` …
        max_tokens: the limit that was asked for.
        remote: the engine is another process; CPU and memory of this one are then not the inference's.
        endpoint: host and port at which it answers. Of a process of this machine CPU and memory are measured then.
    """

    def __init__(
        self,
        *,
        model: str,
        provider: str = "custom",
        operation: str = "chat",
        max_tokens: int | None = None,
        remote: bool = False,
        endpoint: tuple[str, int] | None = None,
    ) -> None:
        self._given: dict[str, Any] = {
            "model": model, "provider": provider, "operation": operation, "max_tokens": max_tokens, "remote": remote,
            "endpoint": endpoint,
        }  # fmt: skip
        self._inference: Inference | None = None

    def tokens(self, *, input: int | None = None, output: int | None = None, cached: int | None = None) -> None:
        """Say how many tokens the call had, as the engine counts them; ``cached`` ones are part of ``input``."""
        if self._inference is not None:
            self._inference.input_tokens = input
            self._inference.output_tokens = output
            self._inference.cached_tokens = cached

    def prompt(self, *, input: int, output: int) -> None:
        """Say how many tokens one prompt of a batch had; call it for each. The sums are the call's."""
        if self._inference is not None:
            self._inference.add_prompt(input, output)

    def times(
        self, *, first_token: float | None = None, prefill: float | None = None, decode: float | None = None
    ) -> None:
        """Say how long parts of the call took, in seconds from its start or of their own."""
        if self._inference is not None:
            self._inference.ttft = first_token
            self._inference.prefill = prefill
            self._inference.decode = decode

    def finished(self, reason: str) -> None:
        """Say why the engine stopped: ``stop``, ``length`` …"""
        if self._inference is not None:
            self._inference.finish_reason = reason

    def fail(self, error_type: str, domain: str = "model") -> None:
        """Say that the engine answered with an error; ``domain`` as of ``bulk.failure.domain``."""
        if self._inference is not None:
            self._inference.fail(error_type, domain)

    def _enter(self) -> None:
        try:
            self._inference = Inference(**self._given).start()
        except Exception:
            report("the start of an inference")

    def _leave(self, error: BaseException | None) -> None:
        if self._inference is not None:
            self._inference.finish(error)

    def _for_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> inference:
        return inference(**self._given)
