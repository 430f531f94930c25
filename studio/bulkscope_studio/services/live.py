"""The queue and the machine now: load, what waits, how long, and the hosts, on one axis."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulkscope_studio.services import listing, machine
from bulkscope_studio.services.axis import Axis, Floats, plain
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.services.saturation import saturation
from bulkscope_studio.services.times import SILENT_NS, heard
from bulkscope_studio.storage import sql
from bulkscope_studio.storage.store import Store

LAST_NS = 15 * 60 * 10**9
MOST_BULKS = 50
MOST_S = 366 * 86_400.0
# Spans leave their process up to 5 s after they end, by our default: a bin is whole after that.
SETTLES_NS = 5 * 10**9
# Gauges are exported every 60 s where nobody asks for another interval: what was said before is not how it is.
FRESH_S = 60.0
_GAUGES = ("waiting", "oldest_waiting_s")


def live(
    store: Store,
    from_ns: int | None = None,
    to_ns: int | None = None,
    bins: int = 150,
    host: str | None = None,
    service: str | None = None,
    last_s: float | None = None,
    now_ns: int | None = None,
) -> dict[str, Any]:
    """Return what arrived, waited, ran and ended from ``from_ns`` to ``to_ns`` in ``bins``.

    The default is the last ``last_s`` seconds, of which the default is 15 min.
    Rates are means of a bin, waiting and running are at its end; waits and work are of the attempts that ended in it.
    ``waiting`` is what processes report of their queues, and of no host or service alone. A request that asked for
    something and got it is a read, apart from the others. ``now`` are the values of the last whole bin. Bins before
    anything was heard, and after, are null. Raises ``InvalidQuery``.
    """
    asked = time.time_ns() if now_ns is None else now_ns
    axis = _axis(from_ns, to_ns, bins, asked, LAST_NS if last_s is None else _ns(last_s))
    first_heard, last_heard = heard(store, asked)
    given = {**axis.named, "host": host, "service": service}
    begins = axis.first_ns + np.arange(axis.bins) * axis.bin_s * 1e9
    known = np.zeros(axis.bins, np.bool_)
    if first_heard is not None and last_heard is not None:
        known = (begins + axis.bin_s * 1e9 > first_heard) & (begins <= min(asked, last_heard))
    silent = min(asked, last_heard or asked) - SILENT_NS
    attempts = store.query(sql.load("v1_live_jobs"), {**given, "silent_ns": silent})
    requests = store.query(sql.load("v1_live_requests"), given)

    def rate(rows: pa.Table, name: str) -> Floats:
        return np.where(known, axis.counts(rows, name) / axis.bin_s, np.nan)

    jobs = {
        "arrivals_per_s": rate(requests, "arrived"),
        **{f"{name}_per_s": rate(attempts, name) for name in ("begun", "done", "failed", "retried")},
        **_queues(store, axis),
        "running": np.where(known, _running(axis, attempts), np.nan),
        **_quantiles(axis, attempts, "wait"),
        **_quantiles(axis, attempts, "work"),
    }
    asked_for = {
        "requests_per_s": rate(requests, "requests"),
        "reads_per_s": rate(requests, "reads"),
        **{f"{name}_per_s": rate(requests, name) for name in ("client_error", "overload", "internal_error")},
        **_quantiles(axis, requests, "latency"),
    }
    tokens = machine.tokens(store, axis, host=host, service=service)
    of_hosts = {"from_ns": axis.first_ns, "to_ns": axis.last_ns, "host": host}
    names = store.query(sql.load("v1_live_hosts"), of_hosts)["host"].to_pylist()
    wanted = listing.Wanted(since_ns=axis.first_ns, until_ns=axis.last_ns, host=host, service=service)
    bulks, total = listing.marks(store, wanted, MOST_BULKS, now_ns)
    hosts = machine.hosts(store, axis, sorted(names[: machine.MOST_HOSTS]))
    series = {name: plain(values) for name, values in (jobs | asked_for).items()}
    latest: dict[str, Any] = {**series, **{f"{name[:-6]}_tokens_per_s": of for name, of in tokens.items()}}
    return {
        **axis.said,
        "heard": {"first_ns": first_heard, "last_ns": last_heard},
        "now": _now(axis, asked, latest),
        "saturation": saturation(hosts, _last_whole(axis, asked), axis.bin_s),
        "jobs": {name: series[name] for name in jobs},
        "requests": {name: series[name] for name in asked_for},
        "tokens": tokens,
        "hosts": hosts,
        "more_hosts": max(0, len(names) - machine.MOST_HOSTS),
        "bulks": bulks,
        "more_bulks": total - len(bulks),
    }


def _ns(last_s: float) -> int:
    if not 0 < last_s <= MOST_S:
        raise InvalidQuery(f"last_s is a number of seconds above 0, at most {MOST_S:.0f}")
    return int(last_s * 1e9)


def _axis(from_ns: int | None, to_ns: int | None, bins: int, asked_ns: int, last_ns: int) -> Axis:
    """Return the axis; one without an end ends with the last whole bin, so that bins stay what they are a while."""
    end = asked_ns if to_ns is None else to_ns
    begin = end - last_ns if from_ns is None else from_ns
    if to_ns is None and 1 <= bins <= end - begin:
        length = (end - begin) // bins
        end = end // length * length
        begin = end - bins * length
    return Axis.of(begin, end, bins)


def _running(axis: Axis, attempts: pa.Table) -> Floats:
    before = pc.sum(attempts.filter(pc.less(attempts["bin"], 0))["begun"]).as_py() or 0
    running: Floats = before + np.cumsum(axis.counts(attempts, "begun") - axis.counts(attempts, "gone"))
    return running


def _queues(store: Store, axis: Axis) -> dict[str, Floats]:
    """Return jobs that wait, in all queues, and the age of the oldest; NaN where no process reports."""
    rows = store.query(sql.load("v1_live_queues"), axis.named)
    found = {name: np.full(axis.bins, np.nan) for name in _GAUGES}
    for queue in pc.unique(rows["queue"]).to_pylist():
        of = rows.filter(pc.equal(rows["queue"], queue))
        for name, column, together in (("waiting", "depth", np.add), ("oldest_waiting_s", "age", np.fmax)):
            told = axis.sampled(of, column)
            both = np.isfinite(told) & np.isfinite(found[name])
            found[name] = np.where(both, together(told, found[name]), np.fmax(told, found[name]))
    return found


def _quantiles(axis: Axis, rows: pa.Table, name: str) -> dict[str, Floats]:
    """Return both quantiles of a column of pairs (s), by bin."""
    found = {}
    for n, quantile in enumerate(("p50", "p95")):
        column = pc.list_element(rows[name].filter(pc.is_valid(rows[name])), n)
        bins = rows["bin"].filter(pc.is_valid(rows[name]))
        found[f"{name}_{quantile}_s"] = axis.values(pa.table({"bin": bins, name: column}), name)
    return found


def _now(axis: Axis, asked_ns: int, series: dict[str, list[float | None] | None]) -> dict[str, Any]:
    """Return the values of the last whole bin, of gauges the last ones that are fresh; None without such a bin."""
    length = axis.bin_s * 1e9
    last = _last_whole(axis, asked_ns)
    if last < 0:
        return {"from_ns": None, "to_ns": None, **dict.fromkeys(series)}
    fresh = max(1, int(FRESH_S / axis.bin_s))
    found: dict[str, Any] = {
        "from_ns": int(axis.first_ns + last * length),
        "to_ns": int(axis.first_ns + (last + 1) * length),
    }
    for name, values in series.items():
        if name in _GAUGES and values is not None:
            told = [value for value in values[max(0, last + 1 - fresh) :] if value is not None]
            found[name] = told[-1] if told else None
        else:
            found[name] = None if values is None else values[last]
    return found


def _last_whole(axis: Axis, asked_ns: int) -> int:
    """Return the last bin of which all has come; below 0 without one."""
    return min(axis.bins, int((asked_ns - SETTLES_NS - axis.first_ns) / (axis.bin_s * 1e9))) - 1
