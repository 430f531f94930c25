"""The DuckDB file: who may open it, how it is read beside the writer, and how it comes back after a failure."""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from bulkscope_studio.storage import storefile, views

logger = logging.getLogger("bulkscope.studio")
T = TypeVar("T")

SCHEMA = files("bulkscope_studio.storage").joinpath("schema.sql").read_text()

# Two queries at once: with eight, each takes memory from the writer, and none ends sooner on two cores.
MAX_READS = 2
# The slowest query at 10 million spans took 5 s of CPU before the list of bulks had a table of its own.
READ_SECONDS = 30.0
# DuckDB's share of the machine: 1/16, for the machine is there to infer. Below 512 MB three tabs and three clients
# on 600,000 spans left the writer without memory.
MEMORY_SHARE, LEAST_MEMORY, MOST_MEMORY = 1 / 16, 512 * 10**6, 2 * 10**9
# DuckDB's log, before its content is written into the file: each time the last 122,880 rows are written anew. At the
# default of 16 MB that was 4 of 14 us that a span took.
LOG_BYTES = 64 * 10**6
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
# A file that could not be opened again (its disk is full, say) is tried at most this often.
REOPEN_SECONDS = 1.0


class StoreLocked(Exception):
    """Another process holds the file; ``holder`` says which, as far as it is known."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.holder = holder


class Unavailable(Exception):
    """The file cannot be used now, through no fault of who asked; the message says why. Try again later."""


class TooLong(Exception):
    """A query took longer than it may, or waited so long for others."""


def invalidated(error: BaseException) -> bool:
    """Return whether DuckDB has given the open database up: nothing works until it is opened again."""
    return isinstance(error, duckdb.FatalException) or "has been invalidated" in str(error)


class Store:
    """One open store, read by ``query`` and written by ``writing``, both safe from any thread.

    ``memory_limit`` bounds DuckDB's own memory (default: by the machine's); ``threads`` its worker threads. After a
    fatal error of the database the file is opened again by whoever needs it next; ``opened`` counts the openings.
    ``trouble`` says why data cannot be taken or read now, None while all is well.

    Raises ``StoreLocked``, ``storefile.Unfit`` for a file that is no store, and what DuckDB raises.
    """

    def __init__(
        self, path: Path, *, read_only: bool = False, memory_limit: str | None = None, threads: int = 2
    ) -> None:
        self._given, self.path = path, storefile.resolved(path)
        self._read_only, self._memory_limit, self._threads = read_only, memory_limit, threads
        self.opened = 0
        self.trouble: str | None = None
        self._gate = threading.Condition()
        self._users = 0
        self._shut = False  # nobody may begin: the file is being opened again, or the writer needs all memory
        self._failed_at = -REOPEN_SECONDS
        self._slots = _Slots(MAX_READS)
        self._running = _Running()
        self._connection: duckdb.DuckDBPyConnection | None = self._open()

    def _open(self) -> duckdb.DuckDBPyConnection:
        config = {
            "threads": self._threads,
            "preserve_insertion_order": "false",
            "memory_limit": f"{_share()}B" if self._memory_limit is None else self._memory_limit,
            "checkpoint_threshold": f"{LOG_BYTES}B",
        }
        try:
            connection = storefile.connect(self._given, read_only=self._read_only, config=config)
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise
            found = re.search(r"PID (\d+)", str(error))
            raise StoreLocked(self.path, f"process {found[1]}" if found else "another process") from error
        try:
            if not self._read_only:
                connection.execute(SCHEMA)
            views.apply(connection)
        except BaseException:
            connection.close()
            raise
        self.opened += 1
        self.trouble = None
        return connection

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return a new cursor, to be used by one thread; it does not outlive the file's being opened again."""
        if self._connection is None:
            raise Unavailable(self.trouble)
        return self._connection.cursor()

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a cursor to the one thread that writes. Raises ``Unavailable``."""
        with self._used(math.inf) as cursor:
            yield cursor

    def query(self, sql: str, params: Mapping[str, object] | None = None, seconds: float = READ_SECONDS) -> pa.Table:
        """Return the result of a SELECT with named parameters (``$name``); safe from any thread.

        At most two run at once. Raises ``TooLong`` after ``seconds``, ``Unavailable`` when the file cannot be used.
        """
        given = dict(params) if params else None
        # As a relation: the result of `execute` is copied once more on its way to Arrow, and warns of it.
        return self.run(lambda cursor: cursor.sql(sql, params=given).to_arrow_table(), seconds)

    def run(
        self, work: Callable[[duckdb.DuckDBPyConnection], T], seconds: float = READ_SECONDS, again: bool = True
    ) -> T:
        """Return what ``work`` reads with a cursor, which ends with it; with the limits and errors of ``query``.

        After a fatal error it is tried ``again`` with the file that was opened anew.
        """
        deadline = time.monotonic() + seconds
        if not self._slots.acquire(seconds):
            raise TooLong(f"other questions kept the store busy for {seconds:.0f} s; try again")
        try:
            try:
                return self._read(work, deadline)
            except duckdb.Error as error:
                if not (again and invalidated(error)):
                    raise
                return self._read(work, deadline)
        except duckdb.InterruptException as error:
            raise TooLong(f"the answer took longer than {seconds:.0f} s; ask for less, or try again") from error
        except duckdb.OutOfMemoryException as error:
            raise TooLong("the answer needs more memory than the store may take; ask for less") from error
        finally:
            self._slots.release()

    def _read(self, work: Callable[[duckdb.DuckDBPyConnection], T], deadline: float) -> T:
        with self._used(deadline) as cursor:
            return work(cursor)

    @contextmanager
    def _used(self, deadline: float) -> Iterator[duckdb.DuckDBPyConnection]:
        opened = self._enter()
        try:
            with self._gate:
                assert self._connection is not None
                cursor = self._connection.cursor()
            try:
                with self._running.until(cursor, deadline):
                    yield cursor
            finally:
                cursor.close()
        except duckdb.Error as error:
            self._leave()
            if invalidated(error):
                self._reopen(opened, error)
            raise
        except BaseException:
            self._leave()
            raise
        else:
            self._leave()

    def _enter(self) -> int:
        with self._gate:
            self._gate.wait_for(lambda: not self._shut)
            if self._connection is not None:
                self._users += 1
                return self.opened
        self._reopen(self.opened, None)
        return self._enter()

    def _leave(self) -> None:
        with self._gate:
            self._users -= 1
            self._gate.notify_all()

    def _reopen(self, opened: int, cause: duckdb.Error | None) -> None:
        """Open the file again unless somebody has since ``opened``. Raises ``Unavailable``."""
        with self.alone(grace=0.0):
            if self._connection is not None and self.opened != opened:
                return
            if cause is not None:
                logger.error("the store %s is opened again after a fatal error: %s", self.path, first_line(cause))
            if self._connection is not None:
                with suppress(duckdb.Error):
                    self._connection.close()
                self._connection = None
            if time.monotonic() - self._failed_at < REOPEN_SECONDS:
                raise Unavailable(self.trouble)
            try:
                self._connection = self._open()
            except (duckdb.Error, OSError, StoreLocked, storefile.Unfit) as error:
                self._failed_at = time.monotonic()
                self.trouble = f"the store cannot be opened: {first_line(error)}"
                logger.error("%s", self.trouble)
                raise Unavailable(self.trouble) from error

    @contextmanager
    def alone(self, grace: float) -> Iterator[None]:
        """Hold the store with nobody in it: whoever reads may go on for ``grace`` seconds, and is then interrupted."""
        with self._gate:
            self._gate.wait_for(lambda: not self._shut)
            self._shut = True
            if not self._gate.wait_for(lambda: self._users == 0, grace):
                self._running.interrupt()
                self._gate.wait_for(lambda: self._users == 0)
        try:
            yield
        finally:
            with self._gate:
                self._shut = False
                self._gate.notify_all()

    def interrupt(self, writing: bool = False) -> None:
        """End the queries that run now (``TooLong``); with ``writing`` a transaction too, which is undone."""
        self._running.interrupt(math.inf if writing else sys.float_info.max)

    def close(self) -> None:
        """Close the file; a read-write one is checkpointed by DuckDB."""
        self._running.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says: DuckDB adds hints and its own state in more."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@cache
def _share() -> int:
    """Return DuckDB's share of the machine's memory, in bytes; of its container's, where it runs in one."""
    # DuckDB takes 80 % of what the machine or the control group has, and says so in a text such as 19.1 GiB.
    with storefile.connect(Path(storefile.MEMORY), read_only=False, config={"threads": 1}) as connection:
        row = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    found = re.fullmatch(r"([\d.]+) ([KMGT]iB)", str(row[0]) if row else "")
    machine = float(found[1]) * _UNITS[found[2]] / 0.8 if found else 0.0
    return int(min(max(machine * MEMORY_SHARE, LEAST_MEMORY), MOST_MEMORY))


class _Slots:
    """A semaphore that serves in the order of arrival: of eight readers a common one let some wait for 30 s."""

    def __init__(self, free: int) -> None:
        self._lock = threading.Lock()
        self._free = free
        self._waiting: deque[threading.Event] = deque()

    def acquire(self, seconds: float) -> bool:
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            mine = threading.Event()
            self._waiting.append(mine)
        if mine.wait(seconds):
            return True
        with self._lock:
            if mine.is_set():
                return True
            self._waiting.remove(mine)
            return False

    def release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


class _Running:
    """Ends queries that run for too long: one thread for all, which sleeps while there are none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[int, tuple[float, Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def until(self, cursor: duckdb.DuckDBPyConnection, deadline: float) -> Iterator[None]:
        with self._changed:
            self._running[id(cursor)] = (deadline, cursor.interrupt)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="bulkscope-queries", daemon=True)
                self._thread.start()
            elif len(self._running) == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._running[id(cursor)]

    def interrupt(self, latest: float = math.inf) -> None:
        """End all that run, whose deadline is not after ``latest``."""
        with self._changed:
            for deadline, stop in self._running.values():
                if deadline <= latest:
                    stop()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                if not self._running:
                    self._changed.wait()
                    continue
                now = time.monotonic()
                for deadline, stop in self._running.values():
                    if deadline <= now:
                        stop()  # again each time: one that comes before the query has begun is lost
                self._changed.wait(0.25)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
