"""Bulks in Elasticsearch. What belongs to one is read with ES|QL into tables of the studio, in memory, and from there
on nothing differs: the same SQL, the same formulas, the same report, the same explanation.

Elasticsearch keeps the start of a span in milliseconds and its duration in nanoseconds, so times of day are up to
1 ms off; waits, durations, tokens, CPU and memory are exact. What processes say of themselves in metrics (when they
lived, what they dropped, how near they came to their limits) is in Prometheus, and absent here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from bulkscope import conventions as c
from bulkscope_studio.elastic import environment, esql
from bulkscope_studio.elastic.client import Client, Trouble
from bulkscope_studio.services import reports
from bulkscope_studio.sources.elastic_bulk import TRACES, Loader, notes
from bulkscope_studio.storage.store import Store

# What `bulks.esql` names beside the bulk's id, and the type that an absent one is given.
_BULKS = {
    f"attributes.{c.JOB_ID}": "STRING", f"attributes.{c.BULK_OUTCOME}": "STRING", f"attributes.{c.JOB_ATTEMPT}": "LONG",
    f"attributes.{c.GEN_AI_MODEL}": "STRING", "status.code": "STRING",
}  # fmt: skip


def client() -> Client:
    """Return a client of ELASTICSEARCH_URL with what ``setup.environment.credentials`` finds, which may be nothing."""
    url = environment.address(os.environ, "ELASTICSEARCH_URL", environment.ELASTICSEARCH)
    return Client("Elasticsearch", url, environment.credentials(os.environ), "ELASTICSEARCH_URL")


class Elastic:
    """Reads the data streams that the Collector writes. Raises ``Trouble`` when Elasticsearch cannot be asked."""

    def __init__(self, asked: Client) -> None:
        self._client = asked

    def bulks(self) -> list[dict[str, Any]]:
        """Return every bulk (the newest 10,000), newest first, as ``api.list_bulks``."""
        known = esql.fields(self._client, TRACES)
        if f"attributes.{c.BULK_ID}" not in known:
            return []
        absent = [(path, kind) for path, kind in _BULKS.items() if path not in known]
        found = esql.query(self._client, "bulks", {}, absent, rows=esql.ROWS)
        rows = []
        for row in pa.table(found).to_pylist():
            models = row["models"] if isinstance(row["models"], list) else [row["models"]]
            start_ns = row["start_ms"] * 10**6
            row["end_ns"] = max(row["end_ns"] or start_ns, start_ns)  # a duration beyond 64 bits makes none
            rows.append(
                {
                    "id": row["bulk"], "start_ns": start_ns, "end_ns": row["end_ns"], "jobs": row["jobs"],
                    "done": row["done"], "failed": row["failed"],
                    "models": sorted(model for model in models if model is not None),
                    "duration_s": (row["end_ns"] - start_ns) / 1e9,
                }
            )  # fmt: skip
        return rows

    @contextmanager
    def loaded(self, bulk_id: str) -> Iterator[tuple[Store, Loader]]:
        """Give a store in memory with the spans, job events and resources of one bulk, and what can add to it.

        What does not fit into memory is in a folder of its own, which only this user can read and which ends with it:
        DuckDB's default is a folder in the one that the command is run in.
        """
        with tempfile.TemporaryDirectory(prefix="bulkscope-") as folder:
            store = Store(Path(":memory:"))
            try:
                store.connection().execute("SET GLOBAL temp_directory = ?", [folder])
                yield store, Loader(self._client, store, bulk_id)
            finally:
                store.close()

    def report(self, bulk_id: str) -> dict[str, Any] | None:
        """Return the report of one bulk as ``api.bulk_report`` makes it; None when Elasticsearch has none of it."""
        with self.loaded(bulk_id) as (store, more):
            return _noted(reports.bulk_report(store, bulk_id, more.add_shares), more)

    def explanation(self, bulk_id: str) -> dict[str, Any] | None:
        """Return why one bulk took as long as it did, as ``api.bulk_explanation`` does; None when there is none of it.

        What was dropped on the way is not known here.
        """
        with self.loaded(bulk_id) as (store, more):
            return _noted(reports.bulk_explanation(store, bulk_id, before=more.add_beside, drops_known=False), more)


def _noted(answer: dict[str, Any] | None, more: Loader) -> dict[str, Any] | None:
    if answer is not None:
        answer["notes"] = [*answer["notes"], *more.notes()]
    return answer


def of_bulk(
    asked: Client, bulk_id: str, read: Callable[[Elastic, str], dict[str, Any] | None]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return what ``read`` makes of a bulk (``latest``: the newest with jobs), or None and ids that look like it."""
    source = Elastic(asked)
    if bulk_id == "latest":
        bulk_id = reports.newest(source.bulks())
    found = read(source, bulk_id)
    return found, [] if found is not None else reports.nearest(bulk_id, [row["id"] for row in source.bulks()])


__all__ = ["Elastic", "Trouble", "client", "notes", "of_bulk"]
