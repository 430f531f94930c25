"""What a comparison chooses its sides from: bulks and kept runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from bulkscope_studio.services import bulks
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.storage import saved_runs, sql, summaries
from bulkscope_studio.storage.saved_runs import Tables
from bulkscope_studio.storage.store import Store

__all__ = ["Sides", "StoredSides", "Tables", "joined", "tables"]

_TABLES = ("attempts", "inferences", "requests")


class Sides(Protocol):
    """What two sides are chosen from."""

    def bulk(self, name: str) -> Tables | None:
        """Return what a comparison reads of a bulk; None of an unknown one."""

    def run(self, name: str) -> Tables | None:
        """Return what a comparison reads of a kept run; None of an unknown one."""

    def latest(self) -> str:
        """Return the id of the newest bulk that has jobs."""

    def names(self) -> Sequence[str]:
        """Return the names of all runs, and the ids of all bulks, newest first."""


class StoredSides:
    """The bulks of a store and the runs beside it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def bulk(self, name: str) -> Tables | None:
        return tables(self._store, name)

    def run(self, name: str) -> Tables | None:
        return _run(self._store, name)

    def latest(self) -> str:
        return bulks.latest(self._store)

    def names(self) -> list[str]:
        return [*saved_runs.names(self._store.path), *summaries.ids(self._store)]


def tables(store: Store, bulk_id: str, *, alone: bool = False) -> Tables | None:
    """Return what a comparison reads of one bulk; None when nothing is known of it.

    ``alone``: the store has the bulk's own records only, so what its processes ran before is not known.
    """
    known = summaries.extent(store, bulk_id)
    if known is None:
        return None
    found = {}
    for name in _TABLES:
        table = store.query(sql.load(f"report_{name}"), {"bulk": bulk_id, **known.bounds})
        found[name] = table.append_column("bulk_id", pa.array([bulk_id] * len(table), pa.string()))
    if not alone:
        before = store.query(sql.load("compare_history"), {"bulk": bulk_id, **known.bounds})
        found["inferences"] = _with_history(found["inferences"], before)
    return Tables(**found) if any(len(table) for table in found.values()) else None


_HISTORY = ("process", "ran_before", "ran_other")


def _with_history(inferences: pa.Table, history: pa.Table) -> pa.Table:
    """Add the columns of ``compare_history.sql``; absent for an inference that came in between the two queries."""
    keys = zip(history["span_id"].to_pylist(), history["start_ns"].to_pylist(), strict=True)
    row = {key: number for number, key in enumerate(keys)}
    wanted = zip(inferences["span_id"].to_pylist(), inferences["start_ns"].to_pylist(), strict=True)
    places = pa.array([row.get(key) for key in wanted], pa.int64())
    for name in _HISTORY:
        inferences = inferences.append_column(name, history[name].take(places))
    return inferences


def _run(store: Store, name: str) -> Tables | None:
    try:
        return saved_runs.load(store.path, name) if saved_runs.exists(store.path, name) else None
    except saved_runs.Trouble as trouble:  # it cannot be read
        raise InvalidQuery(str(trouble)) from trouble


def joined(parts: Sequence[Tables]) -> Tables:
    """Return the tables of several bulks as those of one side."""
    return Tables(
        **{
            name: pa.concat_tables([getattr(part, name) for part in parts], promote_options="permissive")
            for name in _TABLES
        }
    )
