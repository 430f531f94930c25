"""The thirteen numbers of one bulk."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from bulkscope_studio.analysis import analyse, to_json
from bulkscope_studio.analysis.plain import plain
from bulkscope_studio.analysis.report.bulk import by_host as grouped
from bulkscope_studio.services import endings
from bulkscope_studio.services.bulks import Own, own
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.services.listing import order
from bulkscope_studio.services.times import SILENT_NS
from bulkscope_studio.storage import sql
from bulkscope_studio.storage.store import Store


def bulk_report(store: Store, bulk_id: str, by_host: bool = False) -> dict[str, Any]:
    """Return the report of one bulk (``latest``: the newest one with jobs); raises ``NotFound``.

    ``by_host`` adds a group for each host, as there is one for each model and worker.
    """
    found = report_of(store, own(store, bulk_id), by_host)
    if not found["complete"]:
        found["ending"] = endings.bulk_ending(store, found["id"])
    return found


def answer(store: Store, bulk_id: str, workers: bool = True) -> dict[str, Any]:
    """Return the report of one bulk, without the numbers of each worker where they are asked for by the page."""
    found = bulk_report(store, bulk_id)
    return found if workers else {name: of for name, of in found.items() if name != "workers"}


# By what workers can be sorted, and where the number stands in the report.
_SORTS = {
    "name": ("name",), "host": ("host",), "done_jobs": ("jobs", "done"), "failed_jobs": ("jobs", "failed"),
    "retries": ("jobs", "retries"), "jobs_per_s": ("jobs", "rate_per_s"), "wait_p95_s": ("jobs", "wait_s", "p95"),
    "work_p50_s": ("jobs", "process_s", "p50"), "work_p95_s": ("jobs", "process_s", "p95"),
    "slots": ("jobs", "places"), "tokens_per_s": ("inferences", "tokens_per_s"),
    "output_tokens": ("inferences", "output_tokens"), "cpu_s": ("inferences", "cpu_s"),
    "memory_peak_bytes": ("inferences", "memory_peak_bytes"),
}  # fmt: skip
MOST_WORKERS = 1000


def workers(store: Store, bulk_id: str, sort: str = "name", limit: int = 100, offset: int = 0) -> dict[str, Any]:
    """Return the workers of a bulk as its report has them, each with its host, a page of them in order.

    Absent numbers come last. Raises ``NotFound``, ``InvalidQuery``.
    """
    name, highest_first = order(sort, tuple(_SORTS))
    if not 1 <= limit <= MOST_WORKERS or offset < 0:
        raise InvalidQuery(f"limit is from 1 to {MOST_WORKERS}, and offset from 0")
    bulk = own(store, bulk_id)
    hosts = dict(zip(bulk.attempts["worker"].to_pylist(), bulk.attempts["host_name"].to_pylist(), strict=True))
    found = [group | {"host": hosts.get(group["name"])} for group in report_of(store, bulk)["workers"]]

    def value(group: Any) -> Any:
        for step in _SORTS[name]:
            group = None if group is None else group[step]
        return group

    known = [group for group in found if value(group) is not None]
    known.sort(key=value, reverse=highest_first)
    rows = known + [group for group in found if value(group) is None]
    return {"total": len(rows), "workers": rows[offset : offset + limit]}


def report_of(store: Store, bulk: Own, by_host: bool = False) -> dict[str, Any]:
    """Return the report of a bulk; the store has the samples of its hosts too.

    ``ending``, when a bulk that is not complete will end, is left to whoever knows what runs beside it.
    """
    inferences = store.query(sql.load("report_inferences"), bulk.named)
    hosts = store.query(sql.load("report_host"), {"first": bulk.window[0], "last": bulk.window[1]})
    lost = store.query(sql.load("lost"), {**bulk.named, "silent_ns": time.time_ns() - SILENT_NS})
    related = store.query(sql.load("report_related"), bulk.named)
    found = analyse(bulk.id, bulk.attempts, inferences, bulk.requests, hosts, lost, bulk.sends, related, bulk.sampled)
    more = {}
    if by_host:
        more["by_host"] = [plain(dataclasses.asdict(group)) for group in grouped(bulk.attempts, inferences)]
    return to_json(found) | {"ending": None} | more
