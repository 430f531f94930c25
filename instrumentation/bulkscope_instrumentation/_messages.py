"""Messages of hand-written producers and consumers: which of them are jobs, and when an attempt begins and ends.

Libraries that carry messages have no notion of a job, and most of what a service sends is none. A message that is sent
is a job when a bulk with a name of its own is known: of the request that sends it, or in the message's headers or JSON
body. What a job sends is an answer or an event as often as another job, and is one only if it goes to where that job
came from. ``BULKSCOPE_MESSAGES``, patterns of queues and topics, decides instead where it is set: these are jobs, and
no others. A message that is received is a job when it has our headers and is where it was sent to; the others cost one
look into their headers.

An attempt is around the callback that takes the message. Where the application asks for messages, it lasts until the
message is settled (ack, nack, commit) or the next one is asked for. Whoever answers for its end says so to ``Attempt``.
"""

from __future__ import annotations

import asyncio
import fnmatch
import gc
import json
import os
import sys
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from opentelemetry import context as otel_context
from opentelemetry.context import Context, create_key, get_value, set_value

from bulkscope import _lifecycle
from bulkscope._export import drops
from bulkscope._jobs import bulks, queues
from bulkscope._jobs import headers as travelled
from bulkscope._jobs.cancel import cancelled
from bulkscope._jobs.job import Job
from bulkscope._jobs.send import Send, under_way
from bulkscope._jobs.work import Work
from bulkscope._safe import guarded, log_once

# Where the message was sent to: a copy of its headers on another message makes no job of that.
TO = "bulkscope-to"
# Headers in which a message says what is to be done, CloudEvents' among them.
_TASKS = ("task", "type", "ce_type", "cloudEvents:type")
_KEYS = frozenset(name.lower() for name in (*bulks.KEYS, *bulks.header_names(bulks.KEYS)))
# What a body that names a bulk has in it; one that has none of these is not parsed.
_IN_BODY = tuple(f'"{key.partition(".")[0]}'.encode() for key in bulks.KEYS)
# Parsing takes 8 ms a MiB.
_LONGEST_BODY = 1 << 20
# Seconds that a question for the depth of a queue may take in the application's loop.
_PATIENCE_S = 2.0
# Jobs whose deliveries to this process are counted.
_REMEMBERED = 10_000

_HERE = create_key("bulkscope-attempt")
_PATTERNS = tuple(filter(None, map(str.strip, os.environ.get("BULKSCOPE_MESSAGES", "").split(","))))


class Rejected(Exception):
    """In place of an error: the consumer has refused the message for good, and not said why."""


class Requeued(Exception):
    """In place of an error: the consumer has put the message back, and not said why."""


# An error's type is what the application's developers read; they know nothing of this module.
Rejected.__module__ = Requeued.__module__ = "builtins"


def texts(headers: Any) -> dict[str, str]:
    """Return the headers that are text, of a mapping or of pairs."""
    found: dict[str, str] = {}
    for key, value in headers.items() if isinstance(headers, Mapping) else headers or ():
        if isinstance(value, bytes | bytearray | memoryview):
            value = bytes(value).decode(errors="replace")
        if isinstance(key, str) and isinstance(value, str):
            found[key] = value
    return found


def _chosen(names: Iterable[str]) -> bool | None:
    """Tell whether ``BULKSCOPE_MESSAGES`` takes messages of a place for jobs; None where it is not set."""
    if not _PATTERNS:
        return None
    return any(fnmatch.fnmatchcase(name, pattern) for name in names if name for pattern in _PATTERNS)


def _named(headers: Mapping[str, Any], body: Any) -> str | None:
    """Return the id of the bulk that the message names."""
    for key, value in headers.items():
        if key.lower() in _KEYS and (found := bulks.clean(value)) is not None:
            return found
    if isinstance(body, str | bytes | bytearray):
        if len(body) > _LONGEST_BODY:  # before a copy is made of it
            return None
        if isinstance(body, str):
            body = body.encode(errors="replace")
        if len(body) > _LONGEST_BODY or not any(key in body for key in _IN_BODY):
            return None
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):  # the parser gives up at some 1,000 brackets
            return None
    return bulks.find(body)


class Parcel(NamedTuple):
    """A message that is sent and is a job: what ``sending`` needs, and the headers that must travel with it."""

    job: Job
    place: str
    delay: float
    attempt: int
    previous: Mapping[str, str] | None
    expires: float | None

    def send(self) -> Send:
        """Return the job's ``Send``."""
        return Send(self.job, delay=self.delay, attempt=self.attempt, previous=self.previous, expires=self.expires)

    def headers(self, sent: Any) -> dict[str, str]:
        """Return what is to be added to the message's own headers; nothing where ``sent`` could not be made."""
        if not sent.headers:
            return {}
        return {
            **sent.headers, travelled.JOB: str(self.job.id), travelled.TASK: self.job.task, TO: self.place
        }  # fmt: skip

    def undelivered(self, sent: Any) -> None:
        """Say that the broker has not taken what was sent, which is known only after the call that sent it."""
        cancelled(self.job, sent.headers, "undelivered")


@guarded
def parcel(
    system: str, queue: str, place: str, headers: Any, body: Any, *,
    names: Iterable[str] = (), message_id: object = None, task: object = None, delay: float = 0.0,
    expires: float | None = None,
) -> Parcel | None:  # fmt: skip
    """Return what is sent when it is a job, else None.

    ``queue`` is what operators call where it goes, ``place`` what the receiver reads from the message to know that it
    came from there, ``names`` more by which the setting may choose it. ``body`` is bytes, text or a mapping. ``delay``
    and ``expires`` are in seconds, as ``Send`` takes them.
    """
    bulk = attempt = None
    if inside := bool(otel_context.get_current()):  # outside of all there is nothing to look for
        if under_way():
            return None
        bulk, attempt = bulks.current(), here()
    of_job = bulk is not None and bulk.job_id is not None
    back = attempt is not None and attempt.place == place
    chosen = _chosen((queue, *names))
    if chosen is False or (chosen is None and of_job and not back):
        return None
    given = texts(headers) if headers else {}
    carried = given if given.get(TO) == place and travelled.JOB in given else None
    own = _named({key: value for key, value in given.items() if not key.startswith("bulkscope-")}, body)
    if bulk is None:
        belongs = inside and bulks.from_baggage() is not None
    else:  # an id that is the trace's own names no bulk
        belongs = of_job or (bulk.id is not None and bulk.source != "trace")
    if not (chosen or own or carried or belongs):
        return None
    job_id = str(message_id) if message_id else uuid.uuid4().hex
    if carried is not None:
        job_id = carried[travelled.JOB]  # sent once more with what it came with
    elif back and attempt is not None and attempt.body == body:
        job_id = attempt.job_id
    elif message_id and attempt is not None and job_id == attempt.job_id:
        job_id = uuid.uuid4().hex  # another job that names the one it answers
    named_task = task or next((given[key] for key in _TASKS if given.get(key)), None)
    if carried is not None:
        named_task = carried.get(travelled.TASK) or named_task
    return Parcel(
        Job(system=system, queue=queue, id=job_id, task=str(named_task or queue), bulk_id=own),
        place,
        delay,
        1 if carried is None else travelled.attempt_of(carried) + 1,
        carried,
        expires,
    )


def here() -> Attempt | None:
    """Return the attempt that the current context belongs to and that has not ended, or None."""
    found = get_value(_HERE)
    return found if isinstance(found, Attempt) and not found.ended else None


# By queue, group of consumers and job: each group, and each queue of an exchange, has its own deliveries.
_seen: OrderedDict[tuple[str, str, str], int] = OrderedDict()
_lock = threading.Lock()


def _number(job: tuple[str, str, str], sent: int, again: int) -> int:
    """Return the number of an attempt: ``sent`` with which, and delivered ``again`` so many times as far as is known.

    Brokers that put a message back do not all count; this process counts what it gets itself.
    """
    with _lock:
        found = max(sent + again, _seen.pop(job, 0) + 1)
        _seen[job] = found
        if len(_seen) > _REMEMBERED:
            _seen.popitem(last=False)
    return found


@guarded
def received(
    system: str, queue: str, headers: Any, body: Any, *,
    came_from: Callable[[str], bool], names: Iterable[str] = (), again: int = 0, put_back: bool = False,
    settles: bool = True, group: str = "",
) -> Attempt | None:  # fmt: skip
    """Begin the attempt at a message that is a job, and return it; None of any other.

    ``came_from`` tells whether the message is where ``place`` sent it, ``again`` how often it was worked on before,
    ``put_back`` that it was delivered before, which need not mean that anybody worked on it; ``settles`` whether the
    application will say what becomes of it; ``group`` of several that each get every message of the queue.
    """
    if not headers or (isinstance(headers, Mapping) and TO not in headers):
        return None
    if not isinstance(headers, Mapping) and not any(key == TO for key, _ in headers):
        return None
    if _chosen((queue, *names)) is False:
        return None
    given = texts(headers)
    job_id = given.get(travelled.JOB)
    if not job_id or not (came_from(given[TO]) or _chosen((queue, *names))):
        return None
    sent = travelled.attempt_of(given) or 1
    number = _number((queue, group, job_id), sent, again)
    if number > sent or put_back:  # by the broker, which does not say when
        for name in (travelled.ENQUEUED, travelled.CLOCK, travelled.DELAY):
            given.pop(name, None)
    work = Work(Job(system=system, queue=queue, id=job_id, task=given.get(travelled.TASK) or queue), given)
    return Attempt(work.start(number, enter=False), given[TO], body, settles=settles)


class Attempt:
    """One delivery of a job, from its beginning to whichever of several things ends it first.

    It ends once, in any thread. ``settles``: the application says what becomes of the message, and until then it is
    at work or will come again.
    """

    def __init__(self, work: Work, place: str, body: Any, *, settles: bool) -> None:
        self.place, self.body, self.settles = place, body, settles
        self.job_id = str(work.bulk.job_id)
        self.settled = self.ended = False
        # When it ended (``perf_counter``), where that is known only later.
        self.ended_at: float | None = None
        # What has the message besides whoever asked for it: a call in a thread, a task.
        self.held = 0
        self._work = work
        self._error: BaseException | None = None
        self._retry = self._running = self._left = False
        self._before: Context | None = None
        self._context = set_value(_HERE, self, work.context)
        self._pid = os.getpid()
        with _lock:
            _open[id(self)] = self

    @property
    def error(self) -> BaseException | None:
        """Return what it has failed with so far, or None."""
        return self._error

    def enter(self) -> None:
        """Make the job's context the current one, until ``leave``."""
        self._before = otel_context.get_current()
        otel_context.attach(self._context)

    def leave(self) -> None:
        """Make current what was before; there is nothing to do in another thread, or where that has gone on."""
        if self._before is not None and otel_context.get_current() is self._context:
            otel_context.attach(self._before)
            self._before = None

    @contextmanager
    def running(self, *, requeues: bool = True) -> Iterator[None]:
        """Around the callback. A message that it leaves unsettled is still at work, elsewhere.

        ``requeues`` tells whether the broker delivers it again when the callback raises with it unsettled.
        """
        self._running = True
        self.enter()
        try:
            yield
        except BaseException as error:
            self._running = False
            self.end(error, retry=self.settles and not self.settled and requeues)
            raise
        finally:
            self._running = False
            self.leave()
        if self.settled or not self.settles:
            self._done()
        else:
            self._left = True

    def settle(self, error: BaseException | None = None, *, retry: bool = False) -> None:
        """Say that the message is settled: well, or for good with ``error``, or put back (``retry``)."""
        self.settled = True
        if error is not None:
            self._error, self._retry = error, retry
        if not self._running:
            self._done()

    def hold(self) -> None:
        """Say that something beside the consumer works on the message; ``release`` says that it is over."""
        with _lock:
            self.held += 1

    def release(self, done: Any = None) -> None:
        """End the attempt where the consumer has gone on and nothing else holds it; ``done`` is a future or nothing."""
        with _lock:
            self.held -= 1
            over = self._left and not self.held and (self.settled or not self.settles)
        if done is not None and self._error is None:
            self._error = failure_of(done)
        if over:
            self.end()

    def move_on(self) -> None:
        """Say that the consumer asks for the next message."""
        self.leave()
        self._left = True
        if self.settled or not self.settles:
            self._done()

    def _done(self) -> None:
        self._left = True
        if not self.held:
            self.end()

    @guarded
    def end(self, error: BaseException | None = None, *, retry: bool = False) -> None:
        """End the attempt; what was said of it while it ran goes before."""
        with _lock:
            if _open.pop(id(self), None) is None:
                return
            self.ended = True
        self.leave()
        if self._error is not None:  # of a call that failed with the message unsettled: that is as it ends
            error, retry = self._error, self._retry or (retry and not self.settled)
        if error is None and self._work.bulk.resent:
            error, retry = Requeued("sent once more by the application"), True
        self._work.finish(error, retry=retry, at=self.ended_at)
        self.body = None

    def end_with_process(self) -> None:
        """End it where the process ends and the broker will deliver the message again."""
        if self._pid == os.getpid() and self.settles and not self.settled and not self._running:
            self.end(Requeued("the consumer has ended"), retry=True)


_open: dict[int, Attempt] = {}


def failure_of(done: Any) -> BaseException | None:
    """Return what a future has failed with, or None.

    Asked by ``exception()``, one of asyncio would no longer warn that the application has never asked.
    """
    return getattr(done, "_exception", None)


def _end_with_process() -> None:
    for attempt in list(_open.values()):
        attempt.end_with_process()


_lifecycle.at_end(_end_with_process)


def reason(requeue: bool) -> BaseException:
    """Return why a message is refused: the error that is being handled, else that it is."""
    return sys.exc_info()[1] or (Requeued("put back") if requeue else Rejected("refused"))


def went_without(system: str) -> None:
    """Say that a message that is a job went without our headers: the broker, or the call, takes none."""
    drops.count("headers", 1, "no_room")
    log_once(f"headers of {system}", "A message to %s goes without its bulk and its times: it has no room", system)


class Reader(Protocol):
    """Asks a broker for the depth of a queue by something of the application's, a consumer or a connection."""

    def usable(self) -> bool:
        """Tell whether that is still open."""

    def __call__(self, queue: str, /) -> float | None:
        """Return the depth; None is no observation."""


class InLoop:
    """A reader that asks in the application's event loop, from the thread that collects metrics.

    There is no observation while the loop does not run or is itself what asks, nor where the loop, or what is asked by,
    ends before the answer comes: ``asyncio.run`` cancels what still runs in it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def is_open(self) -> bool:
        """Tell whether what is asked by, a consumer or a connection, is still open."""
        raise NotImplementedError

    async def ask(self, queue: str) -> float | None:
        """Return the depth; runs in the loop."""
        raise NotImplementedError

    def usable(self) -> bool:
        """Tell whether that, and the loop, are still open."""
        return self.is_open() and not self._loop.is_closed()

    def __call__(self, queue: str, /) -> float | None:
        """Return the depth, or None."""
        if not self._loop.is_running() or asyncio._get_running_loop() is self._loop or not self.usable():
            return None
        question = self.ask(queue)
        try:
            asked = asyncio.run_coroutine_threadsafe(question, self._loop)
        except RuntimeError:  # closed since
            question.close()
            return None
        try:
            return asked.result(_PATIENCE_S)
        except CancelledError:
            return None
        except Exception as error:
            if not self.usable():
                return None
            if not isinstance(error, TimeoutError):
                raise
            asked.cancel()
            return None


_readers: dict[tuple[Any, ...], Reader] = {}


def watch(key: tuple[Any, ...], make: Callable[[], Reader]) -> None:
    """Report the depth of the queue that is last in ``key``, once a process.

    ``make`` returns who asks the broker; it is called again where the one before is of no use any more.
    """
    with _lock:
        known = _readers.get(key)
        if known is not None and known.usable():
            return
        _readers[key] = make()
    if known is None:
        queues.watch([key[-1]], lambda name: _readers[key](name))


class Handed(list[Any]):
    """Messages that were given at once; whoever takes one out works on that one until the next is taken.

    A slice and a copy are plain lists.
    """

    def take(self, message: Any) -> None:
        """Say that the application has taken ``message``."""
        raise NotImplementedError

    def over(self) -> None:
        """Say that an iteration has come to its end."""
        raise NotImplementedError

    def _each(self, messages: Iterator[Any]) -> Iterator[Any]:
        for message in messages:
            self.take(message)
            yield message
        self.over()

    def __iter__(self) -> Iterator[Any]:
        return self._each(list.__iter__(self))

    def __reversed__(self) -> Iterator[Any]:
        return self._each(list.__reversed__(self))

    def __getitem__(self, index: Any) -> Any:
        found = list.__getitem__(self, index)
        if not isinstance(index, slice):
            self.take(found)
        return found

    def pop(self, index: Any = -1) -> Any:
        """Take one out."""
        found = list.pop(self, index)
        self.take(found)
        return found

    def __reduce__(self) -> Any:
        return list, (self[:],)


class Unsettled:
    """The attempts at the messages of each channel, by their delivery tags, until the messages are settled."""

    def __init__(self) -> None:
        self._attempts: dict[int, dict[int, Attempt]] = {}
        self._channels: set[int] = set()

    def add(self, channel: Any, tag: int, attempt: Attempt) -> bool:
        """Add an attempt; tells whether it is the channel's first, so that ``closed`` is to be called at its end."""
        self._attempts.setdefault(id(channel), {})[tag] = attempt
        first = id(channel) not in self._channels
        self._channels.add(id(channel))
        return first

    def any(self, channel: Any) -> bool:
        """Tell whether a channel has attempts."""
        return id(channel) in self._attempts

    def settle(
        self, channel: Any, tag: int, multiple: bool, *, error: BaseException | None = None, retry: bool = False
    ) -> None:
        """Settle the message ``tag``, with ``multiple`` all up to it, and with 0 all of the channel."""
        known = self._attempts.get(id(channel))
        if known is None:
            return
        for each in [each for each in known if each == tag or (multiple and (tag == 0 or each <= tag))]:
            known.pop(each).settle(error, retry=retry)
        if not known:
            self._attempts.pop(id(channel), None)

    def closed(self, channel: Any) -> None:
        """End the attempts of a channel that is no more: their messages are delivered again."""
        self._channels.discard(id(channel))
        for attempt in self._attempts.pop(id(channel), {}).values():
            attempt.end(Requeued("the channel was closed"), retry=True)


class Pulled:
    """The attempts at what a source of messages gave last; asking it for more says that the application goes on."""

    def __init__(self) -> None:
        self._attempts: list[tuple[Attempt, tuple[Any, ...]]] = []

    def add(self, attempt: Attempt, *objects: Any) -> None:
        """Take an attempt that begins, and make its context current for whoever asked.

        ``objects`` are what a task would be started with that is to work on it in place of who asked.
        """
        self._attempts.append((attempt, objects))
        attempt.enter()

    def move_on(self) -> None:
        """Leave what was given before."""
        attempts, self._attempts = self._attempts, []
        for attempt, objects in attempts:
            if not attempt.ended:
                hold_in_tasks(attempt, objects)
                guarded(attempt.move_on)()

    def close(self, error: BaseException | None, retry: bool) -> None:
        """End what is left, as the source is closed: with the ``error`` for which it is, if there is one."""
        if error is None:
            self.move_on()
        attempts, self._attempts = self._attempts, []
        for attempt, _ in attempts:
            attempt.end(error, retry=retry)

    def done(self, covers: Callable[[Attempt], bool]) -> None:
        """End the attempts of which the application says that they are done."""
        for attempt, _ in self._attempts:
            if not attempt.ended and covers(attempt):
                attempt.end()


@guarded
def hold_in_tasks(attempt: Attempt, objects: Iterable[Any]) -> None:
    """Let the attempt last as long as the tasks of this loop that were started with one of ``objects``.

    A loop that only hands messages to tasks asks for the next one at once. The tasks are known by what their
    coroutines hold, what they were called with among it. The garbage collector tells that and makes no copy: a frame's
    ``f_locals`` would keep the message in memory as long as the task, and take twice as long (of 2,000 tasks 6 ms).
    """
    wanted = {id(each) for each in objects if each is not None}
    if not wanted or asyncio._get_running_loop() is None:
        return
    tasks = asyncio.all_tasks()
    mine = asyncio.current_task()
    for task in tasks:
        if task is not mine and any(id(each) in wanted for each in gc.get_referents(task.get_coro())):
            attempt.hold()
            task.add_done_callback(attempt.release)
