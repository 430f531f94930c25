"""The studio's file, read where no studio runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from bulkscope_studio.services import (
    bulks,
    capacities,
    checks,
    comparisons,
    digests,
    endings,
    explanations,
    exports,
    frozen,
    listing,
    questions,
    reports,
    runs,
    whatifs,
)
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.sources.source import (
    Answer,
    Change,
    Found,
    Question,
    Trouble,
    Value,
    Wanted,
)
from bulkscope_studio.storage import storefile
from bulkscope_studio.storage.store import Store, StoreLocked, TooLong, Unavailable

T = TypeVar("T")


class FileSource:
    """Reads a store, and keeps runs beside it."""

    def __init__(self, db: Path, store: Store) -> None:
        self._db, self._store = db, store
        self._verdicts = listing.Verdicts(store)

    @classmethod
    @contextmanager
    def open(cls, db: Path) -> Iterator[FileSource]:
        """Open the file for as long as the block takes; raises ``Trouble``."""
        store = _open(db)
        try:
            yield cls(db, store)
        finally:
            store.close()

    @property
    def place(self) -> str:
        return str(self._db)

    def bulks(self) -> list[Answer]:
        return self._read(endings.list_bulks)

    def outside(self) -> Answer | None:
        return self._read(bulks.outside)

    def listed(self, wanted: Wanted, verdicts: bool = True) -> Answer:
        known = self._verdicts if verdicts else None
        return self._read(lambda store: listing.bulks(store, known, endings.Ends(store), wanted))

    def report(self, bulk: str, by_host: bool = False) -> Answer:
        return self._read(reports.bulk_report, bulk, by_host)

    def digest(self, bulk: str) -> Answer:
        return self._read(digests.bulk_digest, bulk)

    def frozen(self, bulk: str) -> Answer:
        return self._read(lambda store: frozen.answers(store, bulk))

    def ending(self, bulk: str) -> Answer:
        return self._read(endings.bulk_ending, bulk)

    def explanation(self, bulk: str) -> Answer:
        return self._read(explanations.bulk_explanation, bulk)

    def whatif(self, bulk: str, change: Change) -> Answer:
        return self._read(whatifs.bulk_whatif, bulk, change)

    def comparison(self, a: str, b: str | None, models: bool = False) -> Answer:
        return self._read(lambda store: comparisons.compare(StoredSides(store), a, b, models))

    def check(self, bulk: str, against: str, max_slower: str) -> Answer:
        return self._read(lambda store: checks.check(StoredSides(store), bulk, against, max_slower))

    def capacity(self, question: Question) -> Answer:
        return self._read(capacities.system_capacity, question)

    def runs(self) -> list[Answer]:
        return self._read(runs.every)

    def run(self, name: str) -> Answer:
        return self._read(runs.show, name)

    def keep(self, name: str, bulks: Sequence[str], replace: bool = False) -> Answer:
        return self._read(runs.keep, name, bulks, replace)

    def drop(self, name: str) -> Answer:
        return self._read(runs.drop, name)

    def export(self, bulk: str, what: str) -> pa.Table:
        return self._read(exports.table, bulk, what)

    def sql(self, text: str, params: Mapping[str, Value], limit: int) -> Found:
        return self._read(questions.ask, text, params, limit)

    def _read(self, use_case: Callable[..., T], *given: Any) -> T:
        try:
            return use_case(self._store, *given)
        except (TooLong, Unavailable) as error:
            raise Trouble(str(error)) from error
        except duckdb.BinderException as error:
            raise Trouble(
                f"{self._db} was written by an older version and lacks what is asked for; 'bulkscope studio --db "
                f"{self._db}' brings it up to date ({str(error).splitlines()[0]})"
            ) from error
        except duckdb.Error as error:  # a DuckDB file, but not one of ours
            raise Trouble(f"{self._db} cannot be read as a store: {error}") from error


def _open(db: Path) -> Store:
    if not db.exists():
        raise Trouble(f"there is no store at {db}; 'bulkscope studio --db {db}' makes one")
    try:
        return Store(db, read_only=True)
    except StoreLocked as locked:
        raise Trouble(
            f"{db} is held by {locked.holder}, which does not say where it answers; stop it, or wait until it is up"
        ) from locked
    except (duckdb.Error, storefile.Unfit) as error:
        raise Trouble(f"{db} cannot be read as a store: {error}") from error
