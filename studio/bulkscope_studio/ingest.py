"""One writer: batches go in from any thread, and are in the file when their future is done."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from concurrent.futures import Future
from typing import Any

import pyarrow as pa

from bulkscope_studio import decode
from bulkscope_studio.decode import Decoded
from bulkscope_studio.store import Store

logger = logging.getLogger("bulkscope.studio")

# Requests that wait for the writer; more are told to come back. 64 requests of 512 spans are 1.5 s of work.
MAX_WAITING = 64
# Rows committed together: large enough that the commit (a few ms) does not count, small enough to stay in memory.
MAX_GROUP = 50_000


class Busy(Exception):
    """The writer has as much as it can hold; the sender should try again in a second."""


class Ingest:
    """Writes decoded telemetry to ``store`` in groups, one transaction each, and counts it.

    A group that fails is written again batch by batch, so that one bad batch takes no other with it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: queue.Queue[tuple[dict[str, pa.Table], Future[None]] | None] = queue.Queue(MAX_WAITING)
        self._resources: set[str] = set()
        self._lock = threading.Lock()
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.truncated: Counter[str] = Counter()
        self.since_ns = time.time_ns()
        self._thread = threading.Thread(target=self._write, name="bulkscope-writer", daemon=True)
        self._thread.start()

    def submit(self, decoded: Decoded, signal: str, transport: str) -> Future[None]:
        """Queue what was decoded; the future is done when it is in the file. Raises ``Busy``."""
        rows = decode.ingest_rows(decoded, signal, transport)
        tables = decoded.arrow()
        if rows:
            tables["ingest"] = decode.to_arrow("ingest", rows)
        future = self.submit_tables(tables)
        with self._lock:
            self.accepted[signal] += decoded.accepted
            self.refused[signal] += sum(decoded.refused.values())
            self.truncated[signal] += sum(decoded.truncated.values())
        return future

    def submit_tables(self, tables: dict[str, pa.Table]) -> Future[None]:
        """Queue Arrow tables by name. Raises ``Busy``."""
        future: Future[None] = Future()
        try:
            self._waiting.put_nowait((tables, future))
        except queue.Full:
            raise Busy from None
        return future

    def refuse(self, signal: str, transport: str, reason: str) -> None:
        """Count a whole request that could not be read."""
        with self._lock:
            self.refused[signal] += 1
        try:
            row = [time.time_ns(), signal, transport, "refused", reason, 1]
            self.submit_tables({"ingest": decode.to_arrow("ingest", [row])})
        except Busy:
            logger.warning("refused a request for %s (%s) while the writer was busy", signal, reason)

    def close(self) -> None:
        """Write what waits, then end the writer."""
        self._waiting.put(None)
        self._thread.join(30)

    def _write(self) -> None:
        connection = self._store.connection()
        ended = False
        while not ended:
            first = self._waiting.get()
            if first is None:
                return
            group = [first]
            rows = sum(len(table) for table in first[0].values())
            while rows < MAX_GROUP:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ended = True
                    break
                group.append(more)
                rows += sum(len(table) for table in more[0].values())
            self._commit(connection, group)

    def _commit(self, connection: Any, group: list[tuple[dict[str, pa.Table], Future[None]]]) -> None:
        try:
            self._transaction(connection, [tables for tables, _ in group])
        except Exception as error:
            if len(group) > 1:
                for one in group:
                    self._commit(connection, [one])
                return
            logger.exception("a batch could not be written")
            group[0][1].set_exception(error)
            return
        for _, future in group:
            future.set_result(None)

    def _transaction(self, connection: Any, batches: list[dict[str, pa.Table]]) -> None:
        known: set[str] = set()
        connection.execute("BEGIN")
        try:
            for name in decode.TABLES:
                parts = [tables[name] for tables in batches if name in tables]
                if not parts:
                    continue
                rows = pa.concat_tables(parts)
                if name == "resources":
                    fresh = {i: a for i, a in zip(*rows.to_pydict().values(), strict=True) if i not in self._resources}
                    if not fresh:
                        continue
                    known |= fresh.keys()
                    rows = decode.to_arrow("resources", [list(pair) for pair in fresh.items()])
                connection.register("incoming", rows)
                conflict = "OR IGNORE " if name == "resources" else ""
                connection.execute(f"INSERT {conflict}INTO {name} SELECT * FROM incoming")
                connection.unregister("incoming")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._resources |= known

    def status(self) -> dict[str, Any]:
        """Return the counts since the start, by signal."""
        with self._lock:
            return {
                "accepted": dict(self.accepted),
                "refused": dict(self.refused),
                "truncated": dict(self.truncated),
                "waiting": self._waiting.qsize(),
                "since_ns": self.since_ns,
            }
