"""Celery: a PRODUCER span where a task is published, a CONSUMER span where it runs.

Publishing is wrapped where Celery makes its sender, so that a broker that fails or is slow is seen too
(Celery's own signals say nothing of a publish that raised). Running is seen through Celery's signals,
which hold for prefork, solo and threads alike. Of a child that is killed its parent tells: ``_celery_parent``.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from bulkscope import _lifecycle
from bulkscope._instrumentor import Instrumentor
from bulkscope._jobs import queues
from bulkscope._jobs.cancel import cancelled
from bulkscope._jobs.headers import age
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, sending
from bulkscope._jobs.work import Work
from bulkscope._safe import guarded
from bulkscope_instrumentation import _celery_parent

_SYSTEMS = {"redis": "redis", "rediss": "redis", "sentinel": "redis", "amqp": "rabbitmq", "amqps": "rabbitmq",
            "pyamqp": "rabbitmq", "sqs": "aws_sqs"}  # fmt: skip
_KEPT = "_bulkscope_system"


def _system(app: Any) -> str:
    """Return ``messaging.system``: the broker's product, from the scheme of the app's broker URL."""
    # Kept on the app: a look into Celery's settings walks through several mappings.
    known = vars(app).get(_KEPT)
    if known is None:
        known = vars(app)[_KEPT] = _read_system(app)
    return str(known)


def _read_system(app: Any) -> str:
    url = str(app.conf.broker_write_url or app.conf.broker_url or "amqp")
    scheme = url.partition(":")[0].partition("+")[0]
    return _SYSTEMS.get(scheme, scheme)


def _until(moment: object) -> float | None:
    """Return the seconds from now to a moment of Celery's (ISO 8601 text or datetime); None without one."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


class CeleryInstrumentor(Instrumentor):
    """Instruments Celery 5.3 and later."""

    module = "celery"
    # Only a worker imports it: a process that publishes need not.
    other_modules = ("celery.worker.request",)
    requires = ("celery >= 5.3",)

    def patch(self, module: ModuleType) -> None:
        """Wrap the sender and listen to the worker's signals; in a worker, wrap what it learns of its children."""
        if module.__name__ == self.module:
            self._patch_celery()
        else:
            self._patch_request(module.Request)

    def _patch_celery(self) -> None:
        from celery import signals
        from celery.app.amqp import AMQP

        # One call may do several jobs (celery-batches): all of them, the one whose context is the current one last.
        self._works: dict[tuple[str, int], list[Work]] = {}
        self._errors: dict[tuple[str, int], BaseException] = {}
        self._parent = _celery_parent.Parent(_work_of_request)
        self.wrap(AMQP, "_create_task_sender", _create_task_sender)
        self._connected = [
            (signals.task_prerun, self._prerun),
            (signals.task_postrun, self._postrun),
            (signals.task_failure, self._failed),
            (signals.task_retry, self._retried),
            (signals.task_revoked, _revoked),
            (signals.task_unknown, _unknown),
            (signals.worker_ready, _worker_ready),
            (signals.worker_ready, self._parent.kills_have_risen),
        ]
        for signal, handler in self._connected:
            signal.connect(handler, weak=False)

    def _patch_request(self, request: Any) -> None:
        from billiard.pool import Pool

        _celery_parent.prepare()
        self.wrap(Pool, "_create_worker_process", self._parent.create_child)
        self.wrap(request, "on_failure", self._parent.on_failure)
        self.wrap(request, "reject", _celery_parent.reject)
        # Celery 5.3 has neither.
        if hasattr(request, "_success_was_stored"):
            self.wrap(request, "_success_was_stored", _celery_parent.success_was_stored)
        if hasattr(request, "_retry_worker_lost"):
            self.wrap(request, "_retry_worker_lost", _celery_parent.retry_worker_lost)

    def _uninstrument(self, **kwargs: Any) -> None:
        super()._uninstrument(**kwargs)
        for signal, handler in getattr(self, "_connected", ()):
            signal.disconnect(handler)

    @guarded
    def _prerun(self, task_id: str, task: Any, args: Any, kwargs: Any, **_: Any) -> None:
        request = task.request
        if request.is_eager:
            # No queue was crossed: what runs here belongs to the caller's span.
            return
        works = self._works[_key(task_id)] = []
        batch = _batch(task, args)
        if batch is None:
            works.append(_work(task, task_id, vars(request), args, kwargs).start(attempt=(request.retries or 0) + 1))
        for one in batch or ():
            works.append(_work_of_batch(task, one).start(attempt=((one.request_dict or {}).get("retries") or 0) + 1))

    def _failed(self, task_id: str, exception: BaseException, **_: Any) -> None:
        if _key(task_id) in self._works:
            self._errors[_key(task_id)] = exception

    def _retried(self, request: Any, reason: Any, **_: Any) -> None:
        if _key(request.id) in self._works:
            cause = getattr(reason, "exc", None)
            self._errors[_key(request.id)] = cause if isinstance(cause, BaseException) else reason

    @guarded
    def _postrun(self, task_id: str, state: str | None = None, retval: Any = None, **_: Any) -> None:
        key = _key(task_id)
        works, error = self._works.pop(key, None), self._errors.pop(key, None)
        if not works:
            return
        if state == "FAILURE" and error is None:
            error = _BatchFailed("celery-batches keeps the exception of its call to its log")
        retry = state == "RETRY"
        if state == "REJECTED" and isinstance(retval, BaseException):
            error, retry = retval, bool(getattr(retval, "requeue", False))
        elif state is None:  # the worker is on its way out, by SystemExit for one
            error = error or sys.exc_info()[1]
            if _told_to_go():
                # The parent tells of it, and has killed us by then; if it has not, it is on its way out as well.
                _lifecycle.at_end(lambda: _finish(works, error))
                return
        _finish(works, error, retry=retry)


class _BatchFailed(Exception):
    """What the jobs of a call of celery-batches fail with that raised: their library tells nobody what it was."""


def _finish(works: Sequence[Work], error: BaseException | None, *, retry: bool = False) -> None:
    for work in reversed(works):  # each leaves the context that it entered
        work.finish(error, retry=retry)


def _batch(task: Any, args: Any) -> list[Any] | None:
    """Return the jobs that celery-batches does with one call, the first of them last; None where it is one job's."""
    batches = getattr(sys.modules.get("celery_batches"), "Batches", None)
    if batches is None or not isinstance(task, batches) or not args or not isinstance(args[0], list):
        return None
    return list(reversed(args[0]))


def _key(task_id: str) -> tuple[str, int]:
    # A job that is delivered a second time may run beside the first delivery, in another thread.
    return task_id, threading.get_ident()


def _told_to_go() -> bool:
    """Tell whether this is a child that its pool is ending: what runs gets a SystemExit then."""
    fired = getattr(sys.modules.get("billiard.common"), "_should_have_exited", (False,))
    return bool(fired[0])


def _work(task: Any, job_id: str, message: Mapping[str, Any], args: Sequence[object] | None, payload: object) -> Work:
    return Work(_job(task, job_id, message, args, payload), _headers(message))


def _job(task: Any, job_id: str, message: Mapping[str, Any], args: Sequence[object] | None, payload: object) -> Job:
    info = message.get("delivery_info") or {}
    return Job(
        system=_system(task.app),
        queue=str(info.get("routing_key") or task.app.conf.task_default_queue),
        id=job_id,
        task=task.name,
        args=args or (),
        payload=payload,
        function=task.run,
    )


def _headers(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of a message; Celery lays them out among the fields of its own."""
    headers = {key: value for key, value in message.items() if isinstance(value, str)}
    return {**(message.get("headers") or {}), **headers}


def _work_of_request(request: Any) -> Work:
    return _work(request.task, request.id, request.request_dict, request.args, request.kwargs)


@guarded
def _revoked(sender: Any, request: Any, terminated: bool, expired: bool, **_: Any) -> None:
    # What is terminated was at work: its attempt says how it ended.
    if not terminated:
        message = vars(request)
        job = _job(sender, request.id, message, request.args, request.kwargs)
        cancelled(job, _headers(message), "expired" if expired else "revoked")


@guarded
def _unknown(sender: Any, message: Any, name: str, id: str, **_: Any) -> None:
    fields = message.headers or {}
    body = message.payload
    args, kwargs = body[:2] if isinstance(body, list | tuple) else (body.get("args"), body.get("kwargs"))
    job = Job(
        system=_system(sender.app),
        queue=str(message.delivery_info.get("routing_key") or sender.app.conf.task_default_queue),
        id=id,
        task=name,
        args=args or (),
        payload=kwargs,
    )
    cancelled(job, fields if "id" in fields else body, "unregistered")


def _work_of_batch(task: Any, request: Any) -> Work:
    """Return one of the jobs of a call of celery-batches; what runs in the call belongs to the first of them."""
    message = {**(request.request_dict or {}), "delivery_info": request.delivery_info}
    return _work(task, request.id, message, request.args, request.kwargs)


def _create_task_sender(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
    """Wrap the function that Celery publishes every task with."""
    send_task_message = wrapped(*args, **kwargs)
    amqp = instance

    def send(producer: Any, name: str, message: Any, *rest: Any, **options: Any) -> Any:
        with sending(lambda: _send(amqp, name, message, options)) as sent:
            message[0].update(sent.headers)
            # A retry copies the headers of the attempt before it into this option, which is merged over ours.
            if options.get("headers"):
                options["headers"] = {**options["headers"], **sent.headers}
            return send_task_message(producer, name, message, *rest, **options)

    return send


def _send(amqp: Any, name: str, message: Any, options: dict[str, Any]) -> Send:
    headers, _properties, body, _event = message
    queue = options.get("queue")
    if queue is None and options.get("exchange") is None:
        queue = amqp.default_queue
    protocol_2 = bool(headers)
    fields = headers if protocol_2 else body
    return Send(
        Job(
            system=_system(amqp.app),
            queue=str(getattr(queue, "name", queue) or options.get("routing_key") or "default"),
            id=str(fields.get("id")),
            task=name,
            args=(body[0] if protocol_2 else body.get("args")) or (),
            payload=body[1] if protocol_2 else body.get("kwargs"),
            # Not `app.tasks`, which makes the app look for its tasks: one that only sends has none.
            function=getattr(vars(amqp.app).get("_tasks", {}).get(name), "run", None),
        ),
        delay=_until(fields.get("eta")) or 0.0,
        expires=_until(fields.get("expires")),
        attempt=int(fields.get("retries") or 0) + 1,
    )


@guarded
def _worker_ready(sender: Any, **_: Any) -> None:
    """Report depth and oldest age of the worker's queues, from its main process only."""
    broker = _Broker(sender.app)
    queues.watch({queue.name for queue in sender.task_consumer.queues}, broker.depth, broker.oldest_age)


class _Broker:
    """Asks the broker over a connection of its own; after an error the next question opens a fresh one."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None

    def _ask(self, read: Callable[[Any, str], float | None], name: str) -> float | None:
        try:
            if self._connection is None:
                self._connection = self._app.connection_for_read(connect_timeout=2)
            return read(self._connection.default_channel, name)
        except Exception:
            self._connection = None
            raise

    def depth(self, name: str) -> float | None:
        """Jobs waiting; those a worker has already taken are not among them."""
        return self._ask(_depth, name)

    def oldest_age(self, name: str) -> float | None:
        """Seconds since the oldest waiting job was enqueued; None when none waits or none can be seen."""
        return self._ask(_oldest_age, name)


def _depth(channel: Any, name: str) -> float | None:
    if hasattr(channel, "_size"):
        return float(channel._size(name))
    return float(channel.queue_declare(queue=name, passive=True).message_count)


def _oldest_age(channel: Any, name: str) -> float | None:
    client: Any = getattr(channel, "client", None)
    if not hasattr(client, "lindex") or not hasattr(channel, "_q_for_pri"):
        return None
    # Kombu's client puts the prefix before the keys of some commands, of which this is none.
    prefix = "" if "LINDEX" in getattr(client, "PREFIXED_SIMPLE_COMMANDS", ()) else channel.global_keyprefix
    # A list for each step of priorities. Celery pushes on the left and pops on the right: the oldest is the last.
    last = [client.lindex(f"{prefix}{channel._q_for_pri(name, each)}", -1) for each in channel.priority_steps]
    ages = (age(json.loads(raw).get("headers", {})) for raw in last if raw is not None)
    return max((each for each in ages if each is not None), default=None)
