"""Pages of the list of bulks: searched, filtered, sorted, and each with its verdict where that is known."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from bulkscope_studio.analysis.explain.findings import TITLES
from bulkscope_studio.services import endings, explanations, times
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.storage import saved_runs, sql, summaries
from bulkscope_studio.storage.store import Store, TooLong

Row = dict[str, Any]
MOST_ROWS, MOST_SPARKS = 500, 40
FACETS, MOST_FACETS = ("services", "hosts", "models", "workers"), 200
# What the list of ends reads of a row.
_COUNTS = {"id": "id", "sent": "sent_jobs", "done": "done_jobs", "failed": "failed_jobs", "cancelled": "cancelled_jobs"}
STATES = ("complete", "running", "stopped")
SORTS = (
    "id", "start_ns", "end_ns", "took_s", "sent_jobs", "done_jobs", "failed_jobs", "cancelled_jobs",
    "output_tokens", "wait_mean_s", "wait_p95_s", "work_p95_s", "tokens_per_s", "state",
)  # fmt: skip
_ALL = 2**31
_SCHEMA = pa.schema([
    ("id", pa.string()), ("start_ns", pa.int64()), ("end_ns", pa.int64()), ("took_s", pa.float64()),
    *((f"{name}_jobs", pa.int64()) for name in ("sent", "done", "failed", "cancelled", "not_sent", "duplicate")),
    ("failure_domains", pa.string()), ("models", pa.list_(pa.string())), ("output_tokens", pa.int64()),
    *((name, pa.float64()) for name in ("wait_mean_s", "wait_p95_s", "work_p95_s", "tokens_per_s")),
    ("state", pa.string()), ("verdict", pa.string()), ("verdict_title", pa.string()),
    ("kept", pa.list_(pa.string())),
])  # fmt: skip
# An explanation of a bulk of 100,000 jobs takes 0.6 s, of a small one 0.03: a page fills in as it is asked for again.
VERDICTS_S = 0.3
# What tells of a bulk comes up to AFTER_NS after its end, and is exported up to a minute later (5 s by our
# default, 60 by that of OpenTelemetry).
_SETTLES_NS = times.AFTER_NS + 60_000_000_000
# A filter by verdict looks at the newest bulks that fit otherwise.
LOOKED_AT, LOOKING_S = 500, 10.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which bulks, in which order; None is any. ``sort`` is a name of SORTS, with ``-`` in front the highest first."""

    search: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    service: str | None = None
    host: str | None = None
    worker: str | None = None
    model: str | None = None
    state: str | None = None
    failed: bool | None = None
    verdict: str | None = None
    sort: str = "-start_ns"
    limit: int = 50
    offset: int = 0
    spark: int | None = None


def order(sort: str, known: tuple[str, ...]) -> tuple[str, bool]:
    """Return the column and whether the highest comes first; raises ``InvalidQuery`` for an unknown one."""
    name, highest_first = sort.removeprefix("-"), sort.startswith("-")
    if name not in known:
        raise InvalidQuery(f"cannot sort by {name!r}; sort by one of {', '.join(known)}, with - in front to turn it")
    return name, highest_first


def verdicts() -> list[dict[str, str]]:
    """Return the verdicts that there are: ``name``, by which bulks are filtered, and ``title``."""
    return [{"name": code, "title": title} for code, title in TITLES.items()]


class Verdicts:
    """Verdicts of bulks, each computed once for what is stored of its bulk. Safe from any thread."""

    def __init__(self, store: Store, most: int = 20_000) -> None:
        self._store, self._most = store, most
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[tuple[object, ...], dict[str, str] | None]] = OrderedDict()

    def of(self, row: Row, deadline: float) -> tuple[dict[str, str] | None, bool]:
        """Return the verdict (``code``, ``title``) of a row of the list, and whether it is known: in time, or before.

        One of a running bulk changes with the time, as what is counted beside it does until a while after its end: it
        is not kept for long. That its senders dropped something may be told much later.
        """
        young = time.time_ns() - row["end_ns"] < _SETTLES_NS
        fresh = int(time.monotonic() / 10) if young or row["state"] == "running" else None
        key = (row["last_ns"], row["spans"], row["logs"], row["state"], fresh, self._dropped(row))
        with self._lock:
            known = self._known.get(row["id"])
            if known is not None and known[0] == key:
                self._known.move_to_end(row["id"])
                return known[1], True
        if time.monotonic() >= deadline:
            return None, False
        try:
            verdict = explanations.bulk_explanation(self._store, row["id"])["verdict"]
            found = {"code": verdict["code"], "title": verdict["title"]}
        except NotFound:  # deleted meanwhile
            return None, True
        except TooLong:
            return None, False
        with self._lock:
            self._known[row["id"]] = key, found
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found, True

    def _dropped(self, row: Row) -> int:
        """Return how many counts of dropped records there are up to a bulk's end, of whichever sender."""
        params = {"last": row["end_ns"] + times.AFTER_NS}
        (found,) = self._store.query(sql.load("v1_drops"), params).to_pylist()
        return int(found["counts"])


def _checked(wanted: Wanted) -> None:
    if wanted.state is not None and wanted.state not in STATES:
        raise InvalidQuery(f"no state {wanted.state!r}; one of {', '.join(STATES)}")
    if not 1 <= wanted.limit <= MOST_ROWS or wanted.offset < 0:
        raise InvalidQuery(
            f"limit is from 1 to {MOST_ROWS}, and offset from 0; all bulks come as csv, parquet, arrow or jsonl"
        )
    if wanted.verdict is not None and wanted.verdict not in TITLES:
        raise InvalidQuery(f"no verdict {wanted.verdict!r}; one of {', '.join(TITLES)}")
    if wanted.spark is not None and not 1 <= wanted.spark <= MOST_SPARKS:
        raise InvalidQuery(f"spark, the number of its bins, is from 1 to {MOST_SPARKS}")


def bulks(
    store: Store, verdicts: Verdicts | None, ends: endings.Ends, wanted: Wanted, now_ns: int | None = None
) -> dict[str, Any]:
    """Return a page of bulks; ``verdicts_pending`` of them have none yet, and it is found out when asked again.

    Without ``verdicts`` none is looked for.
    """
    _checked(wanted)
    if wanted.verdict is not None and verdicts is None:
        raise InvalidQuery("to filter by verdict, verdicts have to be looked for")
    looked_at = None
    if wanted.verdict is None:
        rows, total = _rows(store, wanted, wanted.limit, wanted.offset, now_ns)
        deadline = time.monotonic() + VERDICTS_S
    else:
        rows, _ = _rows(store, wanted, LOOKED_AT, 0, now_ns)
        deadline = time.monotonic() + LOOKING_S
        looked_at = len(rows)
    pending = 0
    short = [{name: row[key] for name, key in _COUNTS.items()} for row in rows if row["state"] == "running"]
    known_ends = ends.of_running(short, now_ns)
    kept = saved_runs.of_bulks(store.path)
    for row in rows:
        row["ending"] = endings.short(known_ends.get(row["id"]))
        row["kept"] = named(kept, row["id"])
        row["verdict"], known = (None, True) if verdicts is None else verdicts.of(row, deadline)
        pending += not known
        _without_counts(row)
    if wanted.verdict is not None:
        rows = [row for row in rows if row["verdict"] is not None and row["verdict"]["code"] == wanted.verdict]
        total = len(rows)
        rows = rows[wanted.offset : wanted.offset + wanted.limit]
    if wanted.spark is not None:
        sparks = _sparks(store, rows, wanted.spark)
        for row in rows:
            row["spark_jobs"] = sparks[row["id"]]
    asked = {name: value for name, value in asdict(wanted).items() if value is not None}
    return {"asked": asked, "total": total, "looked_at": looked_at, "verdicts_pending": pending, "bulks": rows}


def _sparks(store: Store, rows: list[Row], bins: int) -> dict[str, list[int]]:
    """Return of each bulk how many jobs ended in each of ``bins`` of its own time, from begin to end."""
    found = {row["id"]: [0] * bins for row in rows}
    if rows:
        firsts, lasts = ([row[name] for row in rows] for name in ("start_ns", "end_ns"))
        lasts = [max(last, first + 1) for first, last in zip(firsts, lasts, strict=True)]
        given = {"ids": list(found), "firsts": firsts, "lasts": lasts, "bins": bins}
        given |= {"from_ns": min(firsts), "to_ns": max(lasts)}
        for row in store.query(sql.load("v1_sparks"), given).to_pylist():
            found[row["bulk_id"]][row["bin"]] = row["ended"]
    return found


def table(store: Store, verdicts: Verdicts, wanted: Wanted, now_ns: int | None = None) -> pa.Table:
    """Return all bulks that are wanted, whatever ``limit`` and ``offset`` say; one row each, in order.

    ``verdict`` and ``verdict_title`` are null where they are not found out within 10 s: ask again.
    """
    _checked(wanted)
    rows, _ = _rows(store, wanted, LOOKED_AT if wanted.verdict is not None else _ALL, 0, now_ns)
    deadline = time.monotonic() + LOOKING_S
    kept = saved_runs.of_bulks(store.path)
    for row in rows:
        verdict, _ = verdicts.of(row, deadline)
        row["verdict"], row["verdict_title"] = (verdict["code"], verdict["title"]) if verdict else (None, None)
        row["kept"] = [run["name"] for run in named(kept, row["id"])]
        _without_counts(row)
    if wanted.verdict is not None:
        rows = [row for row in rows if row["verdict"] == wanted.verdict]
    return pa.Table.from_pylist(rows, _SCHEMA)


def _without_counts(row: Row) -> None:
    for name in ("last_ns", "spans", "logs"):
        del row[name]


def _rows(
    store: Store, wanted: Wanted, limit: int, offset: int, now_ns: int | None, bulk_id: str | None = None
) -> tuple[list[Row], int]:
    name, highest_first = order(wanted.sort, SORTS)
    by = f"{name} {'DESC' if highest_first else 'ASC'} NULLS LAST, start_ns DESC, id"
    given = asdict(wanted)
    text = sql.part("v1_bulks").replace("{order}", by)
    params = {
        key: given[key]
        for key in ("search", "since_ns", "until_ns", "service", "host", "worker", "model", "state", "failed")
    }
    params |= {
        "quiet_ns": times.present(store, now_ns) - times.SILENT_NS,
        "limit": limit,
        "offset": offset,
        "id": bulk_id,
    }
    rows: list[Row] = summaries.query(store, text, params).to_pylist()
    total = rows[0]["total"] if rows else 0
    if not rows and offset:
        total = _rows(store, wanted, 1, 0, now_ns)[1]
    for row in rows:
        row.pop("total", None)
    return rows, total


def facets(store: Store, since_ns: int | None = None, until_ns: int | None = None) -> dict[str, Any]:
    """Return what the bulks of a time can be filtered by: services, hosts, models and workers, each with its bulks.

    Of each kind the MOST_FACETS that most bulks have; ``more`` counts the others.
    """
    given = {"since_ns": since_ns, "until_ns": until_ns, "most": MOST_FACETS}
    rows: list[Row] = summaries.query(store, sql.part("v1_facets"), given).to_pylist()
    found: dict[str, Any] = {kind: [] for kind in FACETS}
    more = dict.fromkeys(FACETS, 0)
    for row in rows:
        found[row["kind"]].append({"name": row["name"], "bulks": row["bulks"]})
        more[row["kind"]] = row["total"] - min(row["total"], MOST_FACETS)
    return {**found, "more": more}


def named(kept: Mapping[str, Sequence[saved_runs.Run]], bulk_id: str) -> list[Row]:
    """Return the names under which a bulk is kept, each with its note, the last one first."""
    return [{"name": run.name, "note": run.note} for run in kept.get(bulk_id, ())]


def state(store: Store, bulk_id: str, now_ns: int | None = None) -> str | None:
    """Return which of STATES one bulk is in; None when it is not in the list."""
    rows, _ = _rows(store, Wanted(), 1, 0, now_ns, bulk_id)
    return str(rows[0]["state"]) if rows else None


def marks(store: Store, wanted: Wanted, most: int, now_ns: int | None = None) -> tuple[list[Row], int]:
    """Return id, begin, end and state of the newest ``most`` bulks that are wanted, and how many there are in all."""
    rows, total = _rows(store, wanted, most, 0, now_ns)
    return [{name: row[name] for name in ("id", "start_ns", "end_ns", "state")} for row in rows], total


def one(store: Store, verdicts: Verdicts, bulk_id: str, now_ns: int | None = None) -> Row | None:
    """Return the row of one bulk; None when there is none."""
    rows, _ = _rows(store, Wanted(), 1, 0, now_ns, bulk_id)
    if not rows:
        return None
    (row,) = rows
    row["verdict"], _ = verdicts.of(row, time.monotonic() + LOOKING_S)
    row["kept"] = named(saved_runs.of_bulks(store.path), bulk_id)
    _without_counts(row)
    return row
