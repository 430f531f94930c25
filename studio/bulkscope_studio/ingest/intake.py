"""From encoded OTLP requests to their answers: what HTTP and gRPC have received is decoded and stored here.

One thread works in rounds: it takes what waits, decodes it, has the writer commit it in one transaction, and answers.
What comes meanwhile is the next round, so that the more senders there are, the larger and cheaper its groups become.
Requests for traces that wait together are decoded as one: a request costs 1.5 ms whatever its size. Where something
is wrong with any of them, each is decoded or stored by itself, and no sender feels another's mistakes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from bulkscope_studio.ingest import otlp_decode
from bulkscope_studio.ingest.connections import RETRY_AFTER_S
from bulkscope_studio.ingest.otlp_decode import Decoded, Malformed
from bulkscope_studio.ingest.writer import Busy, Ingest, Unwritable

Body = bytes | bytearray
logger = logging.getLogger("bulkscope.studio")

# Without progress for so long a request is given up; a sender waits for 10 s by default. What is committed later and
# comes again is known to be there.
COMMIT_SECONDS = 30.0
# A round begins when nothing has come for this time, or the other has passed. A commit alone takes 5 ms of CPU.
QUIET_SECONDS, GATHER_SECONDS = 0.001, 0.005
# Bytes of requests decoded as one, and what a request may have that is not cut into parts over several rounds.
MAX_ROUND = 4 * 2**20

# path: signal, request, response, name of the count in the partial success
SIGNALS: dict[str, tuple[str, type[Message], type[Message], str]] = {
    "/v1/traces": ("traces", ExportTraceServiceRequest, ExportTraceServiceResponse, "rejected_spans"),
    "/v1/logs": ("logs", ExportLogsServiceRequest, ExportLogsServiceResponse, "rejected_log_records"),
    "/v1/metrics": ("metrics", ExportMetricsServiceRequest, ExportMetricsServiceResponse, "rejected_data_points"),
}
_REQUESTS = {signal: request for signal, request, _, _ in SIGNALS.values()}


class Refusal(Exception):
    """A request that cannot be taken: HTTP status, and what to do about it.

    ``reason`` is what is kept of it, by default the message up to its colon: never anything that the sender wrote, or
    a sender could fill the store with reasons.
    """

    def __init__(self, status: int, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.reason = message.partition(":")[0] if reason is None else reason

    @property
    def retry_after(self) -> int | None:
        """Return after how many seconds to try again, None where it would be in vain."""
        return RETRY_AFTER_S if self.status == 503 else None


def again(error: Exception) -> Refusal:
    """Return what tells a sender to keep its data and try again: the fault is not its own."""
    said = "the commit takes long" if isinstance(error, TimeoutError) else str(error)
    return Refusal(503, f"{said}; try again")


def response(kind: type[Message], decoded: Decoded, count_name: str) -> Message:
    """Return the OTLP answer; its partial success names what was refused."""
    answer = kind()
    if decoded.refused:
        partial = answer.partial_success  # type: ignore[attr-defined]
        setattr(partial, count_name, sum(decoded.refused.values()))
        partial.error_message = decoded.message()
    return answer


def decoded(parts: Iterator[Decoded], kind: type[Message]) -> Decoded:
    """Return the next part of a request; raises ``Refusal`` where it cannot be read."""
    try:
        return next(parts)
    except Malformed as error:
        raise Refusal(400, f"the body is not a protobuf {kind.DESCRIPTOR.name}: {error}") from error


@dataclass(eq=False)
class _Request:
    signal: str
    transport: str
    read: Callable[[], Body]
    future: Future[Decoded] = field(default_factory=Future)
    moved: float = field(default_factory=time.monotonic)  # when it came, or its last part was stored
    body: Body = b""
    alone: bool = False  # together with others it failed

    def end(self, found: Decoded | Refusal) -> None:
        with suppress(InvalidStateError):  # who waited may have gone
            if isinstance(found, Refusal):
                self.future.set_exception(found)
            else:
                self.future.set_result(found)


class _Work:
    """Requests that are decoded as one, part by part: several only while they are one part and nothing is wrong."""

    def __init__(self, requests: list[_Request]) -> None:
        self.requests = requests
        self.signal, self.transport = requests[0].signal, requests[0].transport
        self.whole = Decoded()
        self.part = Decoded()
        self._parts = otlp_decode.parts(self.signal, *(request.body for request in requests))

    def advance(self) -> bool:
        """Decode the next part; return whether the requests can go on as one. Raises ``Refusal``."""
        several = len(self.requests) > 1
        try:
            self.part = decoded(self._parts, _REQUESTS[self.signal])
        except Refusal:
            if several:
                return False
            raise
        if several and (self.part.refused or not self.part.last):
            return False
        self.whole.add_counts(self.part)
        return True

    def end(self, found: Decoded | Refusal) -> None:
        for request in self.requests:
            request.end(found)


class Intake:
    """Takes requests for ``ingest``, from any number of event loops."""

    def __init__(self, ingest: Ingest) -> None:
        self.ingest = ingest
        self._waiting: deque[_Request] = deque()
        self._begun: list[_Work] = []  # each round has a part of them
        self._large: deque[_Request] = deque()  # their bodies are read again, unpacked, when their turn comes
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="bulkscope-intake", daemon=True)
        self._thread.start()

    async def take(self, path: str, transport: str, read: Callable[[], Body]) -> Message:
        """Return the OTLP answer to a request, once it is in the file. Raises ``Refusal``.

        ``read`` returns the request as protobuf, or raises ``Refusal``; it is called by the thread that decodes. Who
        no longer waits is stored all the same.
        """
        signal, _, kind, count_name = SIGNALS[path]
        request = _Request(signal, transport, read)
        with self._changed:
            if self._closing:
                raise again(Busy("the studio is ending"))
            self._waiting.append(request)
            self._changed.notify()
        done = asyncio.wrap_future(request.future)
        while not done.done():
            left = request.moved + COMMIT_SECONDS - time.monotonic()
            if left <= 0:
                done.cancel()  # and what is not yet decoded will not be
                raise again(TimeoutError())
            await asyncio.wait([done], timeout=left)
        return response(kind, done.result(), count_name)

    def close(self) -> None:
        """End the thread; who waits is told to try again. To be called when ``ingest`` is closed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(2)

    def _run(self) -> None:
        while self._gathered():
            self._round()
        for each in (*self._large, *self._waiting, *(each for work in self._begun for each in work.requests)):
            each.end(again(Busy("the studio is ending")))

    def _round(self) -> None:
        works, self._begun = self._begun, []
        try:
            works += self._works(self._read(begins=not works))
            self._store(works)
        except BaseException as error:  # the only thread that decodes never ends before it is told to
            logger.exception("requests could not be decoded")
            for work in works:
                work.end(again(Exception(f"the studio could not take the data: {type(error).__name__}")))

    def _gathered(self) -> bool:
        """Wait for requests, and for those that come right behind them; return False when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._begun or self._large or self._closing)
            latest = time.monotonic() + GATHER_SECONDS
            while not self._begun and self._changed.wait(QUIET_SECONDS) and time.monotonic() < latest:
                pass
            return not self._closing

    def _read(self, begins: bool) -> list[_Request]:
        """Return requests for a round, their bodies read: with ``begins`` one that is large may be among them."""
        found: list[_Request] = []
        size = 0
        if begins and self._large:
            self._waiting.appendleft(self._large.popleft())
        while self._waiting and size < MAX_ROUND:
            request = self._waiting.popleft()
            if request.future.cancelled():
                continue
            try:
                request.body = request.body or request.read()
            except Refusal as refusal:
                request.end(refusal)
                continue
            except Exception as error:
                logger.exception("a request could not be read")
                request.end(again(error))
                continue
            if len(request.body) >= MAX_ROUND and not begins:
                request.body = b""
                self._large.append(request)
                continue
            size += len(request.body)
            found.append(request)
        return found

    def _works(self, requests: list[_Request]) -> list[_Work]:
        """Return the requests as they are to be decoded."""
        together: dict[str, list[_Request]] = {}
        works: list[_Work] = []
        for request in requests:
            if request.signal == "traces" and not request.alone and len(request.body) < MAX_ROUND:
                together.setdefault(request.transport, []).append(request)
            else:  # of two equal log records in one request both count, so that requests must be told apart
                works.append(_Work([request]))
        return works + [_Work(some) for some in together.values()]

    def _store(self, works: list[_Work]) -> None:
        """Decode a part of each, store them in one transaction, and answer."""
        ready: list[_Work] = []
        for work in works:
            try:
                if work.advance():
                    ready.append(work)
                else:
                    self._again_alone(work)
            except Refusal as refusal:
                work.end(refusal)
        stored = []
        with self.ingest.together():
            for work in ready:
                try:
                    stored.append((work, self.ingest.submit(work.part, work.signal, work.transport)))
                except Busy as busy:
                    work.end(again(busy))
        for work, future in stored:
            try:
                future.result()
            except Unwritable as error:
                if len(work.requests) > 1:
                    self._again_alone(work)
                else:
                    work.end(Refusal(500, f"the store could not take the data: {error}"))
            except Exception as error:
                work.end(again(error))
            else:
                self._stored(work)

    def _stored(self, work: _Work) -> None:
        if work.part.last:
            work.end(work.whole)
            return
        work.part = Decoded()
        for request in work.requests:
            request.moved = time.monotonic()
        self._begun.append(work)

    def _again_alone(self, work: _Work) -> None:
        for request in work.requests:
            request.alone = True
        self._waiting.extendleft(reversed(work.requests))
