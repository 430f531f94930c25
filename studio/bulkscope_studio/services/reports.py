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


def report_of(store: Store, bulk: Own, by_host: bool = False) -> dict[str, Any]:
    """Return the report of a bulk; the store has the samples of its hosts too.

    ``ending``, when a bulk that is not complete will end, is left to whoever knows what runs beside it.
    """
    inferences = store.query(sql.load("report_inferences"), bulk.named)
    hosts = store.query(sql.load("report_host"), {"first": bulk.window[0], "last": bulk.window[1]})
    lost = store.query(sql.load("page_lost"), {**bulk.named, "silent_ns": time.time_ns() - SILENT_NS})
    related = store.query(sql.load("report_related"), bulk.named)
    found = analyse(bulk.id, bulk.attempts, inferences, bulk.requests, hosts, lost, bulk.sends, related, bulk.sampled)
    more = {}
    if by_host:
        more["by_host"] = [plain(dataclasses.asdict(group)) for group in grouped(bulk.attempts, inferences)]
    return to_json(found) | {"ending": None} | more
