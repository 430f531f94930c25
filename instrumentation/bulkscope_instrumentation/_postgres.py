"""Asking PostgreSQL, beside a library whose own connections belong to its event loop, how many jobs wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from bulkscope._jobs import queues

# What one export asks, depth and age of each queue, is one question.
_KEPT_S = 1.0


def watch(names: list[str], conninfo: str, options: Mapping[str, Any], ask: Callable[[Any, str], Any]) -> None:
    """Report depth and oldest age of the queues ``names`` by a connection of our own.

    ``ask`` takes a psycopg connection and a name and returns a row: how many jobs wait, and the oldest one's age in
    seconds, None where none waits. After an error the next question opens a fresh connection.
    """
    import psycopg
    from psycopg.rows import tuple_row

    kept: dict[str, tuple[float, Any]] = {}
    connection: Any = None
    lock = threading.Lock()

    def asked(name: str) -> Any:
        nonlocal connection
        with lock:
            moment, row = kept.get(name, (0.0, None))
            if row is not None and time.monotonic() - moment < _KEPT_S:
                return row
            try:
                if connection is None:
                    settings = {"connect_timeout": 2, **options, "autocommit": True, "row_factory": tuple_row}
                    connection = psycopg.connect(conninfo, **settings)
                # Of this question alone: a pool between us and the server shares what is set of a session.
                with connection.transaction():
                    connection.execute("SET LOCAL statement_timeout = 2000")
                    row = ask(connection, name)
            except BaseException:
                connection = None
                raise
            kept[name] = time.monotonic(), row
            return row

    def oldest_age(name: str) -> float | None:
        age = asked(name)[1]
        return None if age is None else max(0.0, float(age))

    queues.watch(names, lambda name: float(asked(name)[0]), oldest_age)
