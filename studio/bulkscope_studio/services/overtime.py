"""A bulk over its time, in bins: jobs by state, and what each worker did. Of one size for 3 and for 300,000 jobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bulkscope_studio.analysis.timeline import facts
from bulkscope_studio.analysis.timeline.timeline import steps
from bulkscope_studio.services import bulks
from bulkscope_studio.services.axis import Axis
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.services.times import SILENT_NS, present
from bulkscope_studio.storage.store import Store

Floats = NDArray[np.float64]
_LEAST_BUSY = 0.001
MOST_LANES = 256


def overtime(
    store: Store,
    bulk_id: str,
    bins: int = 600,
    lanes: int = 64,
    from_ns: int | None = None,
    to_ns: int | None = None,
    now_ns: int | None = None,
) -> dict[str, Any]:
    """Return the bulk from ``from_ns`` to ``to_ns`` (default: all of it) in ``bins`` of equal length.

    ``jobs`` are at the end of each bin: attempts that wait (their scheduled delay over) and that run, jobs that are
    done and failed so far; one that was called off before anybody began it is none of them. Of each lane there are
    ``busy``, the mean number of its slots that worked in a bin (0 is none at all: any work is 0.001 or more), and
    ``failed``, the attempts that failed in it. With more workers than ``lanes``, neighbours of one host share one.
    Raises ``NotFound``, ``InvalidQuery``.
    """
    if not 1 <= lanes <= MOST_LANES:
        raise InvalidQuery(f"lanes are from 1 to {MOST_LANES}")
    own = bulks.own(store, bulk_id)
    a = own.handed_out
    base, end_ns = own.window
    axis = Axis.of(base if from_ns is None else from_ns, max(end_ns, base + 1) if to_ns is None else to_ns, bins)
    first, last = axis.first_ns, axis.last_ns
    edges = np.linspace((first - base) / 1e9, (last - base) / 1e9, bins + 1)

    enqueue, start, end, seen = (
        facts.seconds_since(a[name], base) for name in ("enqueue_ns", "start_ns", "end_ns", "seen_ns")
    )
    ready = enqueue + np.nan_to_num(facts.amounts(a["delay"]))
    begun, ended = np.isfinite(start), np.isfinite(end)
    # One that has not ended runs on, until nothing more is heard of it.
    now = (present(store, now_ns, own.window[1]) - base) / 1e9
    until = np.where(ended, end, np.where(seen < now - SILENT_NS / 1e9, seen, np.maximum(seen, edges[-1] + 1)))
    known = np.isfinite(ready)
    there = np.where(known, np.minimum(ready, np.where(begun, start, np.inf)), start)
    decides, ok, retried = (facts.flags(a[name]) for name in ("decides", "ok", "retried"))
    settled = decides & ended & ~retried

    def so_far(moments: Floats) -> Floats:
        return np.searchsorted(np.sort(moments[np.isfinite(moments)]), edges[1:], "right").astype(np.float64)

    jobs = {
        "waiting": so_far(there) - so_far(start),
        "running": so_far(start) - so_far(until[begun]),
        "done": so_far(end[settled & ok]),
        "failed": so_far(end[settled & ~ok]),
    }
    failed = ended & ~ok & ~retried
    return {
        "bulk": own.id, **axis.said,
        "jobs": {name: [int(value) for value in values] for name, values in jobs.items()},
        "lanes": _lanes(a, start, until, begun, failed, edges, lanes),
    }  # fmt: skip


def _lanes(
    attempts: pa.Table,
    start: Floats,
    until: Floats,
    begun: NDArray[np.bool_],
    failed: NDArray[np.bool_],
    edges: Floats,
    most: int,
) -> list[dict[str, Any]]:
    hosts, names, instances = (attempts[name].to_pylist() for name in ("host_name", "worker", "instance"))
    rows: dict[tuple[str, str, str], list[int]] = {}
    for row in np.flatnonzero(begun).tolist():
        name = names[row] or "unknown"
        rows.setdefault((hosts[row] or "", name, instances[row] or name), []).append(row)
    found = []
    for host, workers in _shared(sorted(rows), most):
        mine = np.concatenate([np.array(rows[worker]) for worker in workers])
        busy = steps(start[mine], until[mine]).mean(edges[:-1], edges[1:])
        # Rounding leaves no attempt out: one of 1 ms in a bin of an hour is seen as well.
        begun_by = np.searchsorted(np.sort(start[mine]), edges[1:], "left")
        over = np.maximum(until[mine], np.nextafter(start[mine], np.inf))
        over_by = np.searchsorted(np.sort(over), edges[:-1], "right")
        shown = np.where(begun_by > over_by, np.maximum(np.round(busy, 3), _LEAST_BUSY), 0.0)
        ends = np.sort(until[mine][failed[mine]])
        count = np.diff(np.searchsorted(ends, edges, "right"))
        found.append(
            {
                "host": host, "workers": [worker[1] for worker in workers],
                "slots": sum(_slots(start[of], until[of]) for of in (np.array(rows[w]) for w in workers)),
                "jobs": len(mine),
                "busy": shown.tolist(),
                "failed": {str(bin_): int(count[bin_]) for bin_ in np.flatnonzero(count).tolist()},
            }
        )  # fmt: skip
    return found


def _slots(start: Floats, until: Floats) -> int:
    return steps(start, until).highest()


def _shared(workers: list[tuple[str, str, str]], most: int) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Divide the workers among lanes: each its own while there are as many, else neighbours of one host share one."""
    hosts: dict[str, list[tuple[str, str, str]]] = {}
    for worker in workers:
        hosts.setdefault(worker[0], []).append(worker)
    each = max(1, -(-len(workers) // most))
    while sum(-(-len(of) // each) for of in hosts.values()) > most and each < len(workers):
        each += 1
    lanes = [(host, of[at : at + each]) for host, of in hosts.items() for at in range(0, len(of), each)]
    if len(lanes) <= most:
        return lanes
    # More hosts than lanes: the last one has the rest.
    rest = [worker for _, of in lanes[most - 1 :] for worker in of]
    return [*lanes[: most - 1], ("", rest)]
