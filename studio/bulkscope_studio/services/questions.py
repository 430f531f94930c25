"""A user's own question, in SQL, of the tables of docs/sql.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from bulkscope_studio.services import bulks
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.storage import guarded, public, summaries
from bulkscope_studio.storage.store import Store, TooLong, first_line, invalidated

# What an answer holds at most: half of what DuckDB itself may have at the least, as the studio holds it twice.
MOST_ROWS, MOST_BYTES = 1_000_000, 256 * 2**20
# So many rows come at a time: after each the limits are looked at.
_AT_A_TIME = 10_000
Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Found:
    """An answer. ``cut`` says why there is no more of it; None where it is whole."""

    rows: pa.Table
    cut: str | None = None


def ask(
    store: Store, text: str, params: Mapping[str, Value] | None = None, limit: int = MOST_ROWS, size: int = MOST_BYTES
) -> Found:
    """Return the answer to one SELECT, with named parameters (``$name``): at most ``limit`` rows and ``size`` bytes.

    It changes nothing and reads the tables of ``public.sql`` alone; a bulk may be named ``latest`` in ``jobs`` and
    ``attempts``. Raises ``InvalidQuery`` for what is refused, or wrong, and what ``Store.query`` raises.
    """
    if not 1 <= limit <= MOST_ROWS:
        raise InvalidQuery(f"limit is from 1 to {MOST_ROWS}")
    given = dict(params or {})
    named = "latest" in text or "latest" in given.values()
    return run(store, text, given, bulks.latest(store) if named else None, limit, size)


def run(
    store: Store, text: str, params: Mapping[str, Value], latest: str | None, limit: int, size: int
) -> Found:  # fmt: skip
    """Return the answer to one SELECT, as ``ask`` does; ``latest`` is the bulk that the question calls so."""
    listed = summaries.listed(store)

    def work(cursor: duckdb.DuckDBPyConnection) -> Found:
        public.make(cursor, listed, latest)
        try:
            guarded.check(cursor, text, public.TABLES, public.MACROS)
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return _read(cursor, text, params, limit, size)
        except guarded.Refused as error:
            raise InvalidQuery(str(error)) from error
        except (duckdb.InterruptException, duckdb.OutOfMemoryException, duckdb.IOException, duckdb.FatalException):
            raise
        except duckdb.Error as error:
            if invalidated(error):
                raise
            raise InvalidQuery(str(error).strip()) from error

    try:
        # What makes the database fail once would make it fail again.
        return store.run(work, again=False)
    except duckdb.Error as error:
        if not invalidated(error):
            raise
        raise TooLong(f"DuckDB failed over this statement ({first_line(error)}); ask in another way") from error


def _read(cursor: duckdb.DuckDBPyConnection, text: str, params: Mapping[str, Value], limit: int, size: int) -> Found:
    # As a relation it comes as it is read; the result of `execute` is held whole first.
    relation = cursor.sql(text, params=dict(params) or None)
    # DuckDB before 1.5 has it under the other name.
    stream = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
    reader = stream(min(_AT_A_TIME, limit + 1))
    batches: list[pa.RecordBatch] = []
    rows = taken = 0
    cut = None
    for batch in reader:
        taken += batch.nbytes
        if taken > size and rows:
            cut = f"an answer has at most {size // 2**20} MiB: the first {rows} rows are here"
            break
        if rows + len(batch) > limit:
            batches.append(batch.slice(0, limit - rows))
            cut = f"the first {limit} rows are here, there are more"
            break
        batches.append(batch)
        rows += len(batch)
    return Found(pa.Table.from_batches(batches, reader.schema), cut)
