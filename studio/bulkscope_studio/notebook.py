"""What the studio has stored as Arrow tables: the functions of ``bulkscope_studio`` itself.

Each asks the studio that runs, which it finds as the commands do, and reads the file where none runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import pyarrow as pa

from bulkscope_studio.sources import resolve
from bulkscope_studio.sources.source import MOST_ANSWERED, InvalidQuery, NotFound, Source, Trouble, Value

__all__ = ["InvalidQuery", "NotFound", "Trouble", "bulks", "jobs", "read", "sql"]

_BULKS = pa.schema(
    [
        ("id", pa.string()), ("start_ns", pa.int64()), ("end_ns", pa.int64()), ("took_s", pa.float64()),
        ("sent_jobs", pa.int64()), ("done_jobs", pa.int64()), ("failed_jobs", pa.int64()),
        ("cancelled_jobs", pa.int64()), ("not_sent_jobs", pa.int64()), ("duplicate_jobs", pa.int64()),
        ("models", pa.list_(pa.string())),
    ]
)  # fmt: skip


@dataclass(slots=True)
class _Options:
    source: str
    db: Path | None


def read(
    bulk: str = "latest", what: str = "jobs", *, db: str | PathLike[str] | None = None, source: str = "studio"
) -> pa.Table:
    """Return the ``jobs``, ``attempts``, ``inferences``, ``spans`` or ``logs`` of a bulk, oldest first.

    ``latest`` is the newest bulk with jobs. ``db`` is the studio's file (default: the usual one), ``source`` may be
    ``elasticsearch``. Columns have their units in their names, as docs/sql.md has them. Raises ``NotFound``,
    ``InvalidQuery`` and ``Trouble``.
    """
    with _open(source, db) as asked:
        return asked.export(bulk, what)


def jobs(bulk: str = "latest", *, db: str | PathLike[str] | None = None, source: str = "studio") -> pa.Table:
    """Return the jobs of a bulk, one row each: ``read(bulk, "jobs")``."""
    return read(bulk, "jobs", db=db, source=source)


def bulks(*, db: str | PathLike[str] | None = None, source: str = "studio") -> pa.Table:
    """Return all bulks, newest first."""
    with _open(source, db) as asked:
        rows = asked.bulks()
    named = [
        {"id": row["id"], "start_ns": row["start_ns"], "end_ns": row["end_ns"], "took_s": row["duration_s"],
         "models": row["models"], **{f"{name}_jobs": row.get(name) for name in
                                     ("sent", "done", "failed", "cancelled", "not_sent", "duplicate")}}
        for row in rows
    ]  # fmt: skip
    return pa.Table.from_pylist(named, _BULKS)


def sql(
    query: str, params: Mapping[str, Value] | None = None, *, limit: int = MOST_ANSWERED,
    db: str | PathLike[str] | None = None,
) -> pa.Table:  # fmt: skip
    """Return the answer to one SELECT of the tables of docs/sql.md, with named parameters (``$name``).

    At most ``limit`` rows, and 256 MiB; where there are more a warning says so. Raises ``InvalidQuery``, ``Trouble``.
    """
    with _open("studio", db) as asked:
        found = asked.sql(query, params or {}, limit)
    if found.cut:
        warnings.warn(found.cut, stacklevel=2)
    return found.rows


@contextmanager
def _open(source: str, db: str | PathLike[str] | None) -> Iterator[Source]:
    if source not in resolve.SOURCES:
        raise InvalidQuery(f"there is no source {source!r}; one of {', '.join(resolve.SOURCES)}")
    try:
        with resolve.open(_Options(source, None if db is None else Path(db)), _warned) as asked:
            yield asked
    except NotFound as error:
        if error.nearest:
            error.add_note(f"Nearest: {', '.join(map(repr, error.nearest))}")
        raise


def _warned(message: str) -> None:
    warnings.warn(message, stacklevel=2)
