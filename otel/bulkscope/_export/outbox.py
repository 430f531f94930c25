"""What waits to be delivered: kept through an outage of the end point, in bounded memory, sent by a thread of its own.

Whoever records telemetry never waits for the end point, and neither does the SDK's queue of 2,048 records: a batch
is handed over and goes on from here. An end point that is away (restarted, overloaded, unreachable) is asked again
for as long as it takes. The batches are compressed meanwhile, a tenth of their size; when they take more than
``BULKSCOPE_HELD_BYTES`` (default 8 MiB for each signal of a process, some 100,000 spans), the oldest go, counted.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from http.client import HTTPException

from bulkscope._export.otlp_http import BusyError, RefusedError
from bulkscope._safe import guarded, report

logger = logging.getLogger("bulkscope")

# Seconds between two attempts: the first, doubled with each failure up to the longest; spread by a fifth, so
# that many workers do not come back at the same moment. What waits goes at once when one attempt has succeeded.
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 5.0
_LAST_WAIT = 0.5  # the longest while the process ends, which is bounded by BULKSCOPE_FLUSH_TIMEOUT
# As long as an end point may ask for: longer would spend the memory on its wish.
_MOST_ASKED = 60.0
# As long as whoever hands a batch over waits to see it delivered, where nothing waits before it.
_PATIENCE = 1.0
# A batch that is put off so often while others are taken will never be.
_MOST_ATTEMPTS = 8
_HELD_BYTES = 8 << 20
_TOO_LARGE = 413
# Bytes of a batch beside its records, measured. It counts: one that is handed over each second, of one record, makes
# 40,000 in an outage of a night.
_OVERHEAD = 360


def held_bytes() -> int:
    """Return the bound of what one signal holds, in bytes (``BULKSCOPE_HELD_BYTES``); at least one batch is held."""
    text = os.environ.get("BULKSCOPE_HELD_BYTES", "").strip()
    if text.isdecimal() and len(text) < 16:
        return int(text)
    if text:
        logger.warning("BULKSCOPE_HELD_BYTES is %r; set it to a number of bytes. Using %d.", text, _HELD_BYTES)
    return _HELD_BYTES


class _Handed:
    """A batch as it was handed over, until all parts of it are delivered or given up."""

    __slots__ = ("lost", "parts")

    def __init__(self) -> None:
        self.parts, self.lost = 1, False

    def done(self, delivered: bool) -> None:
        self.parts -= 1
        self.lost = self.lost or not delivered

    @property
    def over(self) -> bool:
        return self.parts <= 0


class _Parcel:
    """Records that are sent together, and how many there are of them; ``failures`` are answers that put them off."""

    __slots__ = ("_lengths", "_packed", "content", "failures", "handed", "records", "seen")

    def __init__(self, items: Sequence[bytes], records: int, handed: _Handed) -> None:
        self.content = b"".join(items)
        self._lengths = array("L", [len(item) for item in items])
        self._packed = False
        self.records, self.handed = records, handed
        self.failures = self.seen = 0

    @property
    def size(self) -> int:
        return len(self.content) + self._lengths.itemsize * len(self._lengths) + _OVERHEAD

    def pack(self) -> None:
        """Compress what has to wait; level 1 takes 5 us a span, without Python's lock."""
        if not self._packed:
            self.content, self._packed = zlib.compress(self.content, 1), True

    def items(self) -> list[bytes]:
        content = zlib.decompress(self.content) if self._packed else self.content
        found, at = [], 0
        for length in self._lengths:
            found.append(content[at : at + length])
            at += length
        return found


class Outbox:
    """Delivers the batches of one signal, one at a time.

    Args:
        deliver: sends a batch, the items as they were handed over. Raises ``BusyError``, ``OSError`` or
            ``HTTPException`` where it should be tried again, ``RefusedError`` where it never will be taken.
        dropped: told how many records are lost, and why.
        failed: told of each failure. delivered: told of each success.
        newest_only: what is handed over stands in for what waits still, as cumulative metrics do.
    """

    def __init__(
        self,
        deliver: Callable[[list[bytes]], None],
        dropped: Callable[[int, str], None],
        failed: Callable[[Exception], None],
        delivered: Callable[[], None],
        *,
        newest_only: bool = False,
    ) -> None:
        self._deliver, self._dropped, self._failed, self._delivered = deliver, dropped, failed, delivered
        self._newest_only, self._most = newest_only, held_bytes()
        self.renew()

    def renew(self) -> None:
        """Start empty and without a thread. A forked child does: what waits is the parent's to send."""
        self._changed = threading.Condition(threading.Lock())
        self._held: deque[_Parcel] = deque()
        self._flying: _Parcel | None = None
        self._bytes = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._deadline: float | None = None  # by which the process ends
        # Of time.monotonic: when the next attempt is due, and before when the end point does not want one.
        self._due = self._unwanted = 0.0
        self._failed_at = 0.0
        self._wait = _FIRST_WAIT
        self._deliveries = 0

    def waiting(self) -> int:
        """Return how many records are not delivered yet.

        Without the lock: it is asked in a handler of a signal too, which may have struck whoever holds it.
        """
        return sum(parcel.records for parcel in self._all())

    def _all(self) -> list[_Parcel]:
        flying = self._flying
        return [*self._held, *([] if flying is None else [flying])]

    def send(self, items: Sequence[bytes], records: int | None = None) -> bool:
        """Take a batch over; True when it has been delivered by the time that this returns, which is soon."""
        handed = _Handed()
        parcel = _Parcel(items, len(items) if records is None else records, handed)
        with self._changed:
            closed, alone = self._closed, not self._all()
        if closed:
            self._dropped(parcel.records, "export_failed")
            return False
        if not alone and not self._newest_only:
            parcel.pack()
        with self._changed:
            if self._newest_only:
                self._held.clear()
                self._bytes = 0
            pushed_out = self._hold(parcel)
            self._changed.notify_all()
        self._give_up(pushed_out)
        if not self._working():
            self._attempt()
        elif alone:
            with self._changed:
                self._changed.wait_for(lambda: handed.over, _PATIENCE)
        return handed.over and not handed.lost

    def _hold(self, parcel: _Parcel, *, first: bool = False) -> list[_Parcel]:
        """Let ``parcel`` wait; with the lock held. Returns those that have no place any more, for ``_give_up``."""
        (self._held.appendleft if first else self._held.append)(parcel)
        self._bytes += parcel.size
        pushed_out = []
        while self._bytes > self._most and len(self._held) > 1:
            oldest = self._held.popleft()
            self._bytes -= oldest.size
            pushed_out.append(oldest)
        return pushed_out

    def _give_up(self, parcels: list[_Parcel]) -> None:
        # Not under the lock: to count is the SDK's, with locks of its own, and may write a log record.
        for parcel in parcels:
            parcel.handed.done(False)
            self._dropped(parcel.records, "buffer_full")

    def _working(self) -> bool:
        """Tell whether a thread sends what waits; begun when first needed, so that every fork has one of its own."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._work, name="bulkscope-sender", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is going down, or there can be no more threads
                    self._thread = None
                else:
                    self._thread = thread
            return self._thread is not None

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held or self._closed)
                # Asked anew each time: the end of the process brings the next attempt forward.
                while not self._closed and (pause := self._pause()) > 0:
                    self._changed.wait(pause)
                if self._closed:
                    return
            self._attempt()

    def _pause(self) -> float:
        """Return the seconds until the next attempt; of an ending process what is left, when it may make none."""
        due = self._due
        if self._deadline is not None:
            due = max(self._unwanted, min(due, self._failed_at + _LAST_WAIT))
        return due - time.monotonic()

    @guarded
    def _attempt(self) -> None:
        """Try to deliver the parcel that has waited longest, and see to what comes of it."""
        with self._changed:
            if not self._held or self._flying is not None:
                return
            parcel = self._flying = self._held.popleft()
            self._bytes -= parcel.size
        try:
            self._deliver(parcel.items())
        except (BusyError, OSError, HTTPException) as error:
            self._put_off(parcel, error)
        except RefusedError as error:
            if error.status != _TOO_LARGE or not self._halved(parcel):
                self._end(parcel, error)
        except Exception as error:
            report("sending telemetry")
            self._end(parcel, error)
        else:
            self._end(parcel, None)
        finally:
            with self._changed:
                if self._flying is parcel:
                    self._flying = None
                self._changed.notify_all()

    def _end(self, parcel: _Parcel, error: Exception | None) -> None:
        self._due = self._unwanted = 0.0
        self._wait = _FIRST_WAIT
        if error is None:
            self._deliveries += 1
            self._delivered()
        else:
            self._failed(error)
            self._dropped(parcel.records, "export_failed")
        parcel.handed.done(error is None)

    def _put_off(self, parcel: _Parcel, error: Exception) -> None:
        busy = isinstance(error, BusyError)
        if busy:
            parcel.failures += 1
            if parcel.failures == 1:
                parcel.seen = self._deliveries
            if parcel.failures >= _MOST_ATTEMPTS and self._deliveries > parcel.seen:
                self._end(parcel, error)
                return
        parcel.pack()
        now = self._failed_at = time.monotonic()
        self._unwanted = now + min(error.retry_after, _MOST_ASKED) if isinstance(error, BusyError) else 0.0
        self._due = max(self._unwanted, now + self._wait * random.uniform(0.8, 1.2))
        self._wait = min(self._wait * 2, _LONGEST_WAIT)
        pushed_out = []
        with self._changed:
            if not self._closed and not (self._newest_only and self._held):
                # One that was looked at and put off lets the others go first: the reason may be in it alone.
                pushed_out = self._hold(parcel, first=not busy)
            self._flying = None  # or it would be counted twice, if the process ended here
        self._give_up(pushed_out)
        self._failed(error)

    def _halved(self, parcel: _Parcel) -> bool:
        items = parcel.items()
        half = len(items) // 2
        if not half:
            return False
        parcel.handed.parts += 1
        pushed_out = []
        with self._changed:
            for part in (items[half:], items[:half]):
                pushed_out += self._hold(_Parcel(part, len(part), parcel.handed), first=True)
            self._flying = None
        self._give_up(pushed_out)
        return True

    def drain(self, deadline: float) -> bool:
        """Try to deliver all that waits until ``deadline`` (``time.monotonic``); True when nothing waits any more.

        Ends before it where the end point wants to be asked later than that.
        """
        self._deadline = deadline
        try:
            if self._working():
                with self._changed:
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._drained(deadline), max(0.0, deadline - time.monotonic()))
            else:
                while not self._drained(deadline) and (left := deadline - time.monotonic()) > 0:
                    time.sleep(max(0.0, min(left, self._pause())))
                    self._attempt()
        finally:
            self._deadline = None
        return not self.waiting()

    def _drained(self, deadline: float) -> bool:
        return not self._all() or (self._flying is None and self._unwanted > deadline)

    def close(self) -> int:
        """Take nothing any more and give up what waits; return how many records that are."""
        with self._changed:
            self._closed = True
            left = self._all()
            self._held.clear()
            self._bytes = 0
            self._changed.notify_all()
        for parcel in left:
            parcel.handed.done(False)
        records = sum(parcel.records for parcel in left)
        if records:
            self._dropped(records, "export_failed")
        return records
