"""The bulks in a store: their list, the newest, and what is known of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.services.errors import NotFound
from bulkscope_studio.storage import sql, storefile, summaries
from bulkscope_studio.storage.store import Store
from bulkscope_studio.text import wording

NEAREST = 5
# Of an id, to find those that look like it: some are 64 KiB long, and the time grows with the square.
_LOOKED_AT = 200
_ALIKE = 0.6  # of the similarity of Jaro and Winkler, which is 1 for the same


def list_bulks(store: Store, most: int | None = None) -> list[dict[str, Any]]:
    """Return every bulk, or the newest ``most``, newest first."""
    rows: list[dict[str, Any]] = summaries.query(store, sql.load("report_bulks"), {"most": most}).to_pylist()
    for row in rows:
        row["duration_s"] = (row["end_ns"] - row["start_ns"]) / 1e9
    return rows


def outside(store: Store) -> dict[str, Any]:
    """Return how many requests, sent jobs, attempts and inferences the store holds that belong to no bulk."""
    row: dict[str, Any] = store.query(sql.load("outside")).to_pylist()[0]
    return row | {"services": [name for name in row["services"] or () if name is not None]}


def newest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the id of the newest bulk that has jobs; of none ``latest``, which is then no bulk's id."""
    return next((str(row["id"]) for row in rows if row["jobs"]), "latest")


def latest(store: Store) -> str:
    """Return the id of the newest bulk that has jobs; of none ``latest``, as ``newest``."""
    return summaries.newest(store) or "latest"


def nearest(bulk_id: str, known: Sequence[str]) -> list[str]:
    """Return the known ids that look like ``bulk_id``, the likest first, else the first (newest) ones."""
    if not known:
        return []
    # In DuckDB, outside of the interpreter's lock: 0.1 CPU-s of 100,000 ids, of which difflib makes 5 inside it.
    with storefile.connect(Path(storefile.MEMORY), read_only=False, config={"threads": 1}) as connection:
        connection.register("known", pa.table({"id": pa.array(known, pa.string()), "place": range(len(known))}))
        found = connection.execute(
            "SELECT id FROM (SELECT *, jaro_winkler_similarity(left(id, $most), left($name, $most)) AS alike "
            "FROM known) WHERE alike >= $least ORDER BY alike DESC, place LIMIT $count",
            {"name": bulk_id, "most": _LOOKED_AT, "least": _ALIKE, "count": NEAREST},
        ).fetchall()
    return [row[0] for row in found] or list(known[:NEAREST])


def not_found(store: Store, bulk_id: str) -> NotFound:
    """Return what says that there is no such bulk."""
    return NotFound(bulk_id, nearest(bulk_id, summaries.ids(store)))


@dataclass(frozen=True, slots=True)
class Own:
    """What a store has of one bulk: its attempts, requests and sends that came to nothing (``queries/report_*.sql``),
    and the first and last time of these, in ns.

    ``named`` are the parameters of queries for more of it; ``sampled`` says which sampler its spans were left to.
    """

    id: str
    named: Mapping[str, object]
    attempts: pa.Table
    requests: pa.Table
    sends: pa.Table
    window: tuple[int, int]
    sampled: str | None = None

    @property
    def handed_out(self) -> pa.Table:
        """Return the attempts without jobs that were called off before anybody began them: none of them waits."""
        a = self.attempts
        return a.filter(pc.or_(pc.is_valid(a["start_ns"]), pc.is_null(a["called_off"])))

    @property
    def unbegun(self) -> facts.Unbegun:
        """Return which of its jobs were never begun, or sent in vain."""
        (sends,) = self.sends.to_pylist()
        return facts.Unbegun(
            called_off=tuple(reason for reason in self.attempts["called_off"].to_pylist() if reason is not None),
            not_sent=tuple(sends["reasons"] or ()),
            repeated=sum(self.attempts["repeated"].to_pylist()),
            refused=sends["refused"],
        )


def own(store: Store, bulk_id: str) -> Own:
    """Return what is known of a bulk (``latest``: of the newest with jobs); raises ``NotFound``."""
    if bulk_id == "latest":
        bulk_id = latest(store)
    known = summaries.extent(store, bulk_id)
    if known is None:
        raise not_found(store, bulk_id)
    named = {"bulk": bulk_id, **known.bounds}
    found = [store.query(sql.load(f"report_{name}"), named) for name in ("attempts", "requests", "sends")]
    window = _window(found)
    if window is None:
        raise not_found(store, bulk_id)
    attempts, requests, sends = found
    return Own(bulk_id, named, attempts, requests, sends, window, _sampled(store, named))


def window(store: Store, bulk_id: str, known: summaries.Extent) -> tuple[int, int] | None:
    """Return the first and the last time of a bulk, in ns, as ``Own.window``; None when nothing is known of it."""
    (found,) = store.query(sql.load("v1_window"), {"bulk": bulk_id, **known.bounds}).to_pylist()
    return None if found["first_ns"] is None else (found["first_ns"], found["last_ns"])


def _sampled(store: Store, named: Mapping[str, object]) -> str | None:
    for row in store.query(sql.load("sampling"), named).to_pylist():
        return wording.sampled(row["sampler"], row["ratio"])
    return None


def _window(tables: Sequence[pa.Table]) -> tuple[int, int] | None:
    """Return the first and the last time of a bulk, in ns; None when nothing is known of it."""
    found = [
        pc.min_max(table[column])
        for table in tables
        for column in ("enqueue_ns", "start_ns", "seen_ns", "end_ns")
        if column in table.column_names
    ]
    first = [pair["min"].as_py() for pair in found if pair["min"].is_valid]
    last = [pair["max"].as_py() for pair in found if pair["max"].is_valid]
    return (min(first), max(last)) if first else None
