"""Records as they were taken: failures by error, logs, traces, and what an id names."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from typing import Any

from bulkscope_studio.services import bulks
from bulkscope_studio.services.axis import Axis
from bulkscope_studio.services.errors import InvalidQuery, NotFound
from bulkscope_studio.storage import saved_runs, sql, summaries
from bulkscope_studio.storage.store import Store

Row = dict[str, Any]
MOST_LOGS, MOST_SPANS, MOST_FOUND = 1000, 5000, 50
SEVERITIES = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
# Of a span and of a trace.
_ID = re.compile("[0-9a-f]{16}|[0-9a-f]{32}")
_EVER = (0, 2**62)
# The time of a histogram of nothing.
_EMPTY_NS = 15 * 60 * 10**9


def failures(
    store: Store, bulk_id: str | None = None, since_ns: int | None = None, until_ns: int | None = None
) -> dict[str, Any]:
    """Return failed attempts by domain and type of error, of a bulk or of all, with the first of each as example."""
    bounds = (0, _EVER[1])
    if bulk_id is not None:
        if bulk_id == "latest":
            bulk_id = bulks.latest(store)
        known = summaries.extent(store, bulk_id)
        if known is None:
            raise bulks.not_found(store, bulk_id)
        bounds = (known.first_ns, known.last_ns)
    times = {"from_ns": _EVER[0] if since_ns is None else since_ns, "to_ns": _EVER[1] if until_ns is None else until_ns}
    # A day's span that ends in the time began in it or the day before.
    first = max(bounds[0], 0 if since_ns is None else since_ns - 24 * 3600 * 10**9)
    rows: list[Row] = store.query(sql.load("v1_failures"), {"bulk": bulk_id, "first_ns": first, **times}).to_pylist()
    examples = [row["example"] for row in rows]
    said = {}
    if examples:
        ids = {"traces": [row["trace_id"] for row in examples], "spans": [row["span_id"] for row in examples]}
        for row in store.query(sql.load("v1_messages"), ids).to_pylist():
            said[row["trace_id"], row["span_id"]] = row["message"]
    for row in examples:
        row["message"] = said.get((row["trace_id"], row["span_id"])) or None
    return {"bulk": bulk_id, "attempts": sum(row["attempts"] for row in rows), "failures": rows}


@dataclass(frozen=True, slots=True)
class Lines:
    """Which log records; None is any. ``severity`` is the least, ``after_ns`` asks for what is later, oldest first."""

    bulk: str | None = None
    job: str | None = None
    trace: str | None = None
    service: str | None = None
    host: str | None = None
    severity: str | None = None
    text: str | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    after_ns: int | None = None
    heartbeats: bool = False
    limit: int = 100
    offset: int = 0


def logs(store: Store, wanted: Lines) -> dict[str, Any]:
    """Return log records, newest first; with ``after_ns`` those that are later, oldest first, to follow the tail.

    ``more``: there are further ones. A page of the tail ends between two moments; where all of it is of one moment,
    ``offset`` goes on. A body is cut at 2,000 characters, of one job or trace at 20,000.
    """
    if not 1 <= wanted.limit <= MOST_LOGS or wanted.offset < 0:
        raise InvalidQuery(f"limit is from 1 to {MOST_LOGS}, and offset from 0")
    narrow = wanted.job is not None or wanted.trace is not None
    tail = wanted.after_ns is not None
    first = wanted.after_ns + 1 if wanted.after_ns is not None else wanted.from_ns
    params = _filter(wanted, first, wanted.to_ns)
    params |= {"body": 20_000 if narrow else 2_000, "limit": wanted.limit + 1, "offset": wanted.offset}
    text = _of_logs("v1_logs").replace("{order}", "time_ns ASC" if tail else "time_ns DESC")
    rows: list[Row] = store.query(text, params).to_pylist()
    more = len(rows) > wanted.limit
    if more and tail:
        # Whoever asks for what is later than the last record must not miss others of that same moment.
        rows = [row for row in rows if row["time_ns"] < rows[-1]["time_ns"]] or rows
    rows = rows[: wanted.limit]
    for row in rows:
        row["attributes"] = _tree(row["attributes"])
    return {"more": more, "logs": rows}


def _filter(wanted: Lines, first_ns: int | None, last_ns: int | None) -> Row:
    """Return the parameters of ``queries/v1_log_filter.sql``; raises ``InvalidQuery``."""
    if wanted.severity is not None and wanted.severity not in SEVERITIES:
        raise InvalidQuery(f"no severity {wanted.severity!r}; one of {', '.join(SEVERITIES)}")
    given = asdict(wanted)
    return {key: given[key] for key in ("bulk", "job", "trace", "service", "host", "text", "heartbeats")} | {
        "severity": None if wanted.severity is None else SEVERITIES[wanted.severity],
        "from_ns": _EVER[0] if first_ns is None else first_ns,
        "to_ns": _EVER[1] if last_ns is None else last_ns,
    }


def _of_logs(name: str) -> str:
    return sql.load(name).replace("{filter}", sql.part("v1_log_filter"))


def histogram(store: Store, wanted: Lines, bins: int = 100, now_ns: int | None = None) -> dict[str, Any]:
    """Return how many of the wanted log records each of ``bins`` has, by class of severity.

    A time that is not bounded is that of the records that are wanted. Raises ``InvalidQuery``.
    """
    params = _filter(wanted, wanted.from_ns, wanted.to_ns)
    first, last = wanted.from_ns, wanted.to_ns
    if first is None or last is None:
        (known,) = store.query(_of_logs("v1_log_extent"), params).to_pylist()
        now = time.time_ns() if now_ns is None else now_ns
        if last is None:
            last = known["last_ns"] if known["last_ns"] is not None else max(now, (first or 0) + 1)
        if first is None:
            first = known["first_ns"] if known["first_ns"] is not None else last - _EMPTY_NS
        # All of one moment, or the first of a time that ends with it.
        last = max(last, first + 1) if wanted.to_ns is None else last
        first = min(first, last - 1) if wanted.from_ns is None else first
    axis = Axis.of(first, last, bins)
    found = {name: [0] * bins for name in (*SEVERITIES, "unknown")}
    for row in store.query(_of_logs("v1_log_histogram"), params | axis.named).to_pylist():
        name = "unknown" if row["class"] is None else list(SEVERITIES)[row["class"]]
        found[name][row["bin"]] = row["records"]
    return {**axis.said, "total": sum(map(sum, found.values())), "records": found}


def _tree(text: str | None) -> Any:
    """Return what the text of attributes says; an integer beyond 64 bits, which JSON elsewhere has not, is a double."""
    return None if text is None else json.loads(text, parse_int=_number)


def _number(text: str) -> int | float:
    value = int(text[:40])
    return value if -(2**63) <= value < 2**63 else float(text)


def trace(store: Store, trace_id: str, limit: int = MOST_SPANS, offset: int = 0) -> dict[str, Any]:
    """Return the spans of a trace, oldest first; raises ``NotFound``."""
    if not 1 <= limit <= MOST_SPANS or offset < 0:
        raise InvalidQuery(f"limit is from 1 to {MOST_SPANS}, and offset from 0")
    rows: list[Row] = store.query(
        sql.load("v1_trace"), {"trace": trace_id, "limit": limit, "offset": offset}
    ).to_pylist()
    if not rows and not offset:
        raise NotFound(trace_id, [], "trace")
    total = rows[0]["total"] if rows else None
    for row in rows:
        del row["total"]
    return {"trace": trace_id, "total": total, "spans": rows}


def span(store: Store, trace_id: str, span_id: str) -> Row:
    """Return one span whole, with the attributes of its process; raises ``NotFound``."""
    rows: list[Row] = store.query(sql.load("v1_span"), {"trace_id": trace_id, "span_id": span_id}).to_pylist()
    if not rows:
        raise NotFound(span_id, [], "span")
    row = rows[0]
    for name in ("attributes", "events", "links", "resource"):
        row[name] = _tree(row[name])
    return row


def search(store: Store, text: str, limit: int = 20) -> dict[str, Any]:
    """Return what an id, or the first part of one, names: bulks, runs, jobs, traces, spans and workers."""
    text = text.strip()
    if not text:
        raise InvalidQuery("say what to look for: an id, or the first part of one")
    if not 1 <= limit <= MOST_FOUND:
        raise InvalidQuery(f"limit is from 1 to {MOST_FOUND}")
    looked = text.lower()
    names = [("bulk", name) for name in summaries.ids(store)] + [("run", name) for name in saved_runs.names(store.path)]
    found = [
        {"kind": kind, "id": name, "bulk": None, "trace_id": None} for kind, name in names if looked in name.lower()
    ]
    found.sort(key=lambda row: (row["id"] != text, not str(row["id"]).lower().startswith(looked)))
    given = {"text": text, "limit": limit}
    rows: list[Row] = summaries.query(store, sql.part("v1_search_workers"), given).to_pylist()
    rows += store.query(sql.load("v1_search"), given).to_pylist()
    if _ID.fullmatch(text):
        rows += store.query(sql.load("v1_search_ids"), given).to_pylist()
    rows.sort(key=lambda row: -row["first_ns"])
    for row in rows:
        del row["first_ns"]
    # What is called exactly so comes first, whatever it is.
    every = sorted([*found[:limit], *rows], key=lambda row: row["id"] != text)
    return {"text": text, "found": every[:limit]}
