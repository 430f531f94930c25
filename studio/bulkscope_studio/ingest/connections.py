"""What clients may hold: connections, requests that they do not finish, bodies, and lines of the log.

Everything here is bounded by number and by time, so that whoever opens connections and leaves them, by intent or by a
fault, neither silences the studio nor fills the disk.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# A head must be whole, and a body go on, in this time; an answer must be read on in it.
SILENT_S = 30.0
# A whole request: 64 MiB at 220 kB/s.
REQUEST_S = 300.0
# What is read of a head, up to one read more.
HEAD = 64 * 2**10
# Of each of the three servers: several times what a large set of workers needs, with three exporters in each.
MOST = 512
# Descriptors that are not connections: DuckDB's files, event loops, libraries.
_RESERVED = 256
# Bodies held at once by the receiver: of each SMALL, which 512 spans have, and BODIES beside: 256 MiB in all.
BODIES, SMALL = 128 * 2**20, 256 * 2**10

# What a client is told where the studio has no room, or trouble of its own: to try again after so many seconds.
RETRY_AFTER_S = 1

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: %d\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 21\r\n\r\ntoo many connections\n"
) % RETRY_AFTER_S
_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 20\r\n\r\nheaders over 64 KiB\n"
)
_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 26\r\n\r\n"
    b"the request took too long\n"
)


def descriptors() -> int:
    """Raise the limit of open files as far as this process may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4 * (_RESERVED + 3 * MOST)
    wanted = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return enough if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


def most(files: int) -> int:
    """Return how many connections each server may have when the process may open ``files``."""
    return max(16, min(MOST, (files - _RESERVED) // 3))


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol, with an end to waiting for the client.

    When there are as many connections as may be, a new one takes the place of the one that has kept the server
    waiting longest; it is refused with 503 only when none does.
    """

    most: ClassVar[int] = MOST
    _since: float  # when the request that is being read began
    _heard: float  # when the client was last heard
    _in_head = True
    _head = 0  # bytes of it
    _stuck: float | None = None  # since when the client reads no answer
    _closing: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self._since = self._heard = self.loop.time()
        if len(self.connections) > self.most:
            self._make_room()

    def _make_room(self) -> None:
        others = [each for each in self.connections if isinstance(each, Bounded) and each is not self]
        waited = [(seconds, each) for each in others if (seconds := each.waiting()) is not None]
        if waited:
            _, slowest = max(waited, key=lambda one: one[0])
            slowest.transport.abort()
            self.connections.discard(slowest)
        else:
            self._end(_BUSY)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        in_head = self._in_head
        super().data_received(data)
        if in_head and self._in_head:
            self._head += len(data)
            if self._head > HEAD and not self.transport.is_closing():
                self._end(_LARGE)

    def on_message_begin(self) -> None:
        self._in_head, self._head, self._since = True, 0, self._heard
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def waiting(self) -> float | None:
        """Return for how many seconds the client has been waited for; None while it waits for the server.

        0 is a client that was heard in this turn of the loop, whose clock stands still meanwhile: hundreds are accepted
        in one turn of a busy machine.
        """
        now = self.loop.time()
        if self._stuck is not None:
            return now - self._stuck
        if self._in_head:  # however often another byte of it comes
            return now - self._since
        cycle = self.cycle
        return now - self._heard if cycle.response_complete or cycle.more_body else None

    def look(self) -> None:
        """End what has been waited for too long."""
        now, waiting = self.loop.time(), self.waiting()
        if self.transport.is_closing():  # and nobody reads what is still to be sent
            self._closing = now if self._closing is None else self._closing
            if now - self._closing > SILENT_S:
                self.transport.abort()
        elif waiting is not None and (waiting > SILENT_S or now - self._since > REQUEST_S):
            if self._stuck is None and not self._answered():
                self._end(_LATE)
            else:
                self.transport.abort()

    def _answered(self) -> bool:
        return self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete

    def _end(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def pause_writing(self) -> None:
        self._stuck = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stuck = None
        super().resume_writing()


def protocol(connections: int) -> type[HttpToolsProtocol]:
    """Return the protocol of a server that has so many connections at most."""

    class Limited(Bounded):
        most = connections

    return Limited


def look(connections: Iterable[Any]) -> None:
    """End the connections of a server that keep it waiting too long: to be called every second."""
    for each in list(connections):
        if isinstance(each, Bounded):  # a socket has pings of its own
            each.look()


class Full(Exception):
    """As many bytes of bodies are held as may be."""


class Bodies:
    """Bounds the bytes of bodies that are held at once; what each has below ``SMALL`` is not counted.

    So nobody's large bodies keep small ones out, and those are bounded by the number of connections.
    """

    def __init__(self, bytes_at_once: int = BODIES) -> None:
        self._free = bytes_at_once

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Give what is to be called with the size that a body has reached; it raises ``Full``."""
        counted = 0

        def reach(size: int) -> None:
            nonlocal counted
            more = max(0, size - SMALL) - counted
            if more > self._free:
                raise Full("other senders' requests fill the memory")
            self._free -= more
            counted += more

        try:
            yield reach
        finally:
            self._free += counted


class Seldom(logging.Filter):
    """Lets a message through so many times a minute; what it has left out is said with the next."""

    def __init__(self, times: int = 10, seconds: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._times, self._seconds, self._now = times, seconds, now
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to log it."""
        key = (record.name, str(record.msg).partition("\n")[0][:80])
        began, count = self._seen.get(key, (self._now(), 0))
        if self._now() - began >= self._seconds:
            if count > self._times:
                record.msg = f"{record.msg}\n({count - self._times} more like it were not logged)"
            began, count = self._now(), 0
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[key] = (began, count + 1)
        return count < self._times
