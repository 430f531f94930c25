"""One writer: batches go in from any thread, and are in the file when their future is done."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from bulkscope_studio.ingest import otlp_decode, repeated
from bulkscope_studio.ingest.otlp_decode import Decoded
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store, Unavailable, first_line

T = TypeVar("T")
SIGNALS = {"spans": "traces", "logs": "logs", "points": "metrics"}
logger = logging.getLogger("bulkscope.studio")

# Requests that wait for the writer; more are told to come back. 64 requests of 512 spans are 1.5 s of work.
MAX_WAITING = 64
# Bytes of them, as Arrow. A request that is larger is taken when nothing else waits.
MAX_WAITING_BYTES = 64 * 2**20
# Rows committed together: large enough that the commit (a few ms) does not count, small enough to stay in memory.
MAX_GROUP = 50_000
# Resources that are known to be stored; under RQ each job has one of its own.
MAX_RESOURCES = 100_000
# When the writer has no memory left, whoever reads may go on for so long before the writer has the store alone.
GRACE_SECONDS = 1.0
# After a commit that failed for the disk or the database: each try may open the file again.
REST_SECONDS = 1.0
# What is wrong with the data itself: sent again, it would fail again. Everything else is not its sender's fault.
_OF_THE_DATA = (
    duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.ConstraintException, duckdb.TypeMismatchException,
    duckdb.InvalidInputException, duckdb.BinderException, pa.ArrowInvalid, pa.ArrowTypeError,
)  # fmt: skip


class Busy(Exception):
    """The writer has as much as it can hold, or has ended; the sender should try again."""


class Unwritable(Exception):
    """The data cannot be stored, however often it is sent."""


@dataclass
class _Batch:
    tables: dict[str, pa.Table]
    future: Future[None] = field(default_factory=Future)
    transport: str = "studio"
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # accepted, refused, truncated: by signal
    nbytes: int = 0

    def __post_init__(self) -> None:
        self.rows = sum(len(table) for table in self.tables.values())


@dataclass
class _Call:
    """Work on the store that is not a batch, done between two of them."""

    work: Callable[[], Any]
    deletes: bool
    future: Future[Any] = field(default_factory=Future)


class Ingest:
    """Writes decoded telemetry to ``store`` in groups, one transaction each, and counts it.

    A group that fails is written again batch by batch, so that one bad batch takes no other with it. Records that were
    stored before are left out and counted (``repeated``).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._resources: set[str] = set()
        self._recent = repeated.Recent()
        self._opened = 0  # the opening of the store that the two above are of
        self._waiting: deque[_Batch | _Call] = deque()
        self._waiting_bytes = 0
        self._working: list[_Batch | _Call] = []
        self._changed = threading.Condition()
        self._closing = False
        self._failed_at = -REST_SECONDS
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {
            kind: Counter() for kind in ("accepted", "refused", "truncated", "repeated")
        }
        self.since_ns = time.time_ns()
        self._thread = threading.Thread(target=self._write, name="bulkscope-writer", daemon=True)
        self._thread.start()

    def submit(self, decoded: Decoded, signal: str, transport: str) -> Future[None]:
        """Queue what was decoded; the future is done when it is in the file.

        Raises ``Busy``. The future raises ``Busy`` or ``store.Unavailable`` when the sender should try again, and
        ``Unwritable`` when it should not.
        """
        rows = otlp_decode.ingest_rows(decoded, signal, transport)
        tables = decoded.arrow()
        if rows:
            tables["ingest"] = otlp_decode.to_arrow("ingest", rows)
        counts = {
            "accepted": Counter({signal: decoded.accepted}),
            "refused": Counter({signal: decoded.refused.total()}),
            "truncated": Counter({signal: decoded.truncated.total()}),
        }
        return self._put(_Batch(tables, transport=transport, counts=counts, nbytes=decoded.nbytes))

    def submit_tables(self, tables: dict[str, pa.Table]) -> Future[None]:
        """Queue Arrow tables by name; as ``submit``."""
        return self._put(_Batch(tables))

    def call(self, work: Callable[[], T], deletes: bool = False) -> Future[T]:
        """Queue ``work`` on the store, to be done by the writer between two groups. Raises ``Busy``.

        ``deletes`` says that it may delete resources.
        """
        return self._put(_Call(work, deletes))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have what is submitted meanwhile committed in one transaction, as far as it fits into one."""
        with self._changed:
            yield

    def _put(self, item: Any) -> Future[Any]:
        with self._changed:
            if self._closing:
                raise Busy("the studio is ending")
            size = item.nbytes if isinstance(item, _Batch) else 0
            full = len(self._waiting) >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES
            if full and self._waiting:
                raise Busy("the writer is busy")
            self._waiting.append(item)
            self._waiting_bytes += size
            self._changed.notify()
        future: Future[Any] = item.future
        return future

    def refuse(self, signal: str, transport: str, reason: str) -> None:
        """Count a whole request that could not be read."""
        row = [time.time_ns(), signal, transport, "refused", reason, 1]
        batch = _Batch({"ingest": otlp_decode.to_arrow("ingest", [row])}, counts={"refused": Counter({signal: 1})})
        try:
            self._put(batch)
        except Busy:
            self._count(batch)
            logger.warning("refused a request for %s (%s) while the writer was busy", signal, reason)

    def close(self, seconds: float = 10.0) -> bool:
        """Write what waits, for ``seconds`` at most, and end the writer; return whether it has ended.

        What is not written then gets ``Busy``, and its sender keeps it.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            left = [*self._working, *self._waiting]
            self._waiting.clear()
        for item in left:
            _fail(item.future, Busy("the studio is ending"))
        if self._thread.is_alive():
            self._store.interrupt(writing=True)
            self._thread.join(2)
        return not self._thread.is_alive()

    def _write(self) -> None:
        while True:
            group = self._take()
            if not group:
                return
            try:
                if isinstance(group[0], _Call):
                    self._do(group[0])
                else:
                    self._commit([item for item in group if isinstance(item, _Batch)])
            except BaseException as error:  # the only writer never ends before it is told to
                logger.exception("the writer failed")
                for item in group:
                    _fail(item.future, Unavailable(f"the store could not take the data: {error}"))
            finally:
                with self._changed:
                    self._working = []

    def _take(self) -> list[_Batch | _Call]:
        """Wait for work; return batches for one transaction, or one call, or nothing when the writer is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            group: list[_Batch | _Call] = []
            rows = 0
            while self._waiting and rows < MAX_GROUP:
                item = self._waiting[0]
                if isinstance(item, _Call):
                    if not group:
                        group.append(self._waiting.popleft())
                    break
                group.append(self._waiting.popleft())
                self._waiting_bytes -= item.nbytes
                rows += item.rows
            self._working = group
            return group

    def _do(self, call: _Call) -> None:
        try:
            found = call.work()
        except Exception as error:
            _fail(call.future, error)
        else:
            with suppress(InvalidStateError):
                call.future.set_result(found)
        finally:
            if call.deletes:
                self._resources.clear()

    def _commit(self, group: list[_Batch]) -> None:
        if self._store.trouble is not None and time.monotonic() - self._failed_at < REST_SECONDS:
            for one in group:  # which makes the rest no longer: senders that ask more often would never end it
                _fail(one.future, Unavailable(self._store.trouble))
            return
        try:
            self._stored(group)
        except _OF_THE_DATA as error:
            if len(group) > 1:
                for one in group:
                    self._commit([one])
                return
            logger.exception("a batch could not be written")
            _fail(group[0].future, Unwritable(str(error)))
        except (Unavailable, duckdb.Error, OSError) as error:
            if self._store.trouble is None:
                logger.error("the store cannot take data: %s", error)
            said = str(error) if isinstance(error, Unavailable) else f"the store cannot take data: {first_line(error)}"
            self._store.trouble = said
            self._failed_at = time.monotonic()
            for one in group:
                _fail(one.future, Unavailable(said))
        else:
            self._store.trouble = None
            for one in group:
                self._count(one)
                with suppress(InvalidStateError):  # who waited may have gone
                    one.future.set_result(None)

    def _stored(self, group: list[_Batch]) -> None:
        """Commit a group, once more after what can be mended."""
        try:
            self._store_once(group)
        except duckdb.OutOfMemoryException:
            with self._store.alone(GRACE_SECONDS):
                pass  # nobody who reads holds memory any longer
            self._store_once(group)
        except duckdb.FatalException:
            # The file was opened again. The commit may have been durable all the same: then the group is there already.
            self._store_once(group, sent_again=False)

    def _store_once(self, group: list[_Batch], sent_again: bool = True) -> None:
        with self._store.writing() as connection:
            if self._opened != self._store.opened:
                self._resources.clear()
                self._recent = repeated.Recent()
                self._recent.add(repeated.recalled(connection))
                self._opened = self._store.opened
            tables, keys = self._fresh(connection, group, sent_again)
            resources = self._transaction(connection, tables)
        self._recent.add(keys)
        if len(self._resources) + len(resources) > MAX_RESOURCES:
            self._resources.clear()
        self._resources |= resources

    def _transaction(self, connection: Any, batches: list[dict[str, pa.Table]]) -> set[str]:
        """Insert in one transaction; return the resources that are new."""
        known: set[str] = set()
        connection.execute("BEGIN")
        try:
            for name in otlp_decode.TABLES:
                parts = [tables[name] for tables in batches if name in tables and len(tables[name])]
                if not parts:
                    continue
                # In one piece: for each of many small ones DuckDB goes through all columns again.
                rows = pa.concat_tables(parts).combine_chunks()
                if name == "resources":
                    fresh = {i: a for i, a in zip(*rows.to_pydict().values(), strict=True) if i not in self._resources}
                    if not fresh:
                        continue
                    known |= fresh.keys()
                    rows = otlp_decode.to_arrow("resources", [list(pair) for pair in fresh.items()])
                conflict = "OR IGNORE " if name == "resources" else ""
                # To let DuckDB find `rows` by its name would save 2.5 us a span, and open it to files too (storefile).
                connection.register("incoming", rows)
                connection.execute(f"INSERT {conflict}INTO {name} BY NAME SELECT * FROM incoming")
                connection.unregister("incoming")
                summaries.note(connection, name, rows)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(duckdb.Error):  # there may be no transaction left; what went wrong is what is raised
                connection.execute("ROLLBACK")
            raise
        return known

    def _fresh(
        self, connection: Any, group: list[_Batch], sent_again: bool
    ) -> tuple[list[dict[str, pa.Table]], repeated.Keys]:
        """Return the group's tables without the records that were stored before, which it counts, and all keys.

        A span is stored once. Of log records and points two that are equal in one request are two: only what an
        earlier request brought was sent again.
        """
        keys = [
            {
                name: repeated.keys(connection, name, batch.tables[name])
                for name in repeated.NAMES
                if name in batch.tables
            }
            for batch in group
        ]
        every = np.concatenate([np.zeros(0, np.uint64), *(some for of_batch in keys for some in of_batch.values())])
        if len(np.unique(every)) == len(every) and not self._recent.known(every).any():
            return [batch.tables for batch in group], every
        earlier = repeated.Recent()
        kept = []
        for batch, of_batch in zip(group, keys, strict=True):
            tables = dict(batch.tables)
            counts: Counter[str] = Counter()
            for name, some in of_batch.items():
                old = self._recent.known(some) | earlier.known(some)
                if name == "spans":
                    first = np.zeros(len(some), np.bool_)
                    first[np.unique(some, return_index=True)[1]] = True
                    old |= ~first
                earlier.add(some)
                if old.any():
                    counts[SIGNALS[name]] = int(old.sum())
                    tables[name] = tables[name].filter(pa.array(~old))
            if sent_again:
                now = time.time_ns()
                said = [[now, s, batch.transport, "repeated", "sent again", n] for s, n in counts.items()]
                if said:
                    parts = [tables["ingest"]] if "ingest" in tables else []
                    tables["ingest"] = pa.concat_tables([*parts, otlp_decode.to_arrow("ingest", said)])
                batch.counts["repeated"] = counts
            kept.append(tables)
        return kept, every

    def _count(self, batch: _Batch) -> None:
        with self._lock:
            for kind, counts in batch.counts.items():
                self._counts[kind].update(counts)
            # What was stored before was accepted then.
            self._counts["accepted"].subtract(batch.counts.get("repeated", {}))

    def status(self) -> dict[str, Any]:
        """Return the counts since the start, by signal; ``trouble`` says why data cannot be taken, None if it can."""
        with self._lock:
            counts: dict[str, Any] = {kind: dict(counts) for kind, counts in self._counts.items()}
        return counts | {
            "waiting": len(self._waiting),
            "since_ns": self.since_ns,
            "trouble": self._store.trouble,
        }


def _fail(future: Future[Any], error: Exception) -> None:
    with suppress(InvalidStateError):  # who waited may have gone
        future.set_exception(error)
