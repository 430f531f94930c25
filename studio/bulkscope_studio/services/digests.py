"""One bulk in short: its report, its verdict, and its jobs that failed or took too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bulkscope_studio.services import explanations, jobs, records, reports
from bulkscope_studio.storage.store import Store, TooLong

SCHEMA = "bulkscope.digest/1"
# The first of each is named, and the second where the lines are long.
MOST_SLOW = 2


def bulk_digest(store: Store, bulk_id: str) -> dict[str, Any]:
    """Return it of a bulk (``latest``: the newest with jobs); raises ``NotFound``."""
    report = reports.bulk_report(store, bulk_id)
    return digest_of(store, report, lambda: explanations.bulk_explanation(store, report["id"]))


def digest_of(store: Store, report: dict[str, Any], explained: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the same of a report. ``explanation`` is None where it took longer than a query may."""
    try:
        explanation = explained()
    except TooLong:
        explanation = None
    of = jobs.table(store, report["id"])

    def highest(column: str) -> list[dict[str, Any]]:
        found = jobs.chosen(of, jobs.Wanted(sort=f"-{column}")).slice(0, MOST_SLOW).to_pylist()
        return [job for job in found if job[column] is not None]

    return {
        "schema": SCHEMA,
        "report": report,
        "explanation": explanation,
        "failures": records.failures(store, report["id"])["failures"],
        "slow_for_their_size": highest("excess_s"),
        "longest_work": highest("work_s"),
    }
