"""Numbers of requests and inferences as pages ask for them: of the report's queries, by the report's functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bulkscope_studio.analysis.report import figures
from bulkscope_studio.analysis.report.model import Inferences, Requests
from bulkscope_studio.analysis.statistics.stats import Distribution
from bulkscope_studio.storage import sql
from bulkscope_studio.storage.store import Store
from bulkscope_studio.storage.summaries import Extent

__all__ = ["FAILURES", "MOST", "Distribution", "Figures", "Inferences", "Requests", "models", "of_bulk", "of_models"]

# What an outcome says of a failure; it may also be that nobody knows.
FAILURES = frozenset(figures.OUTCOMES) - {"ok"}
# So many inferences give times and rates to 1 %.
MOST = 300_000


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers 1 to 3 and 7 to 12 of one bulk, the latter of each model too, the one with most inferences first."""

    requests: Requests
    total: Inferences
    models: dict[str, Inferences]


def of_bulk(store: Store, bulk_id: str, known: Extent) -> Figures:
    """Return the figures of a bulk whose records lie within ``known``."""
    requests, inferences = (
        store.query(sql.load(f"report_{name}"), {"bulk": bulk_id, **known.bounds})
        for name in ("requests", "inferences")
    )
    return Figures(figures.requests(requests), figures.inferences(inferences), figures.by_model(inferences))


def of_models(store: Store, share: float = 1.0) -> dict[str, Inferences]:
    """Return what is known of each model, of all inferences or of a sample of their ``share``.

    Only what ``queries/page_inferences.sql`` reads is there.
    """
    found: pa.Table = store.query(sql.sampled("page_inferences", share))
    return figures.by_model(found)


def models(store: Store) -> dict[str, Any]:
    """Return each model by all that is stored; times and rates are of a sample where there are many inferences."""
    rows = store.query(sql.load("page_model_counts")).to_pylist()
    share = min(1.0, MOST / max(1, sum(row["n"] for row in rows)))
    measured = of_models(store, share)
    for row in rows:
        row["output_tokens"] = None if row["output_tokens"] is None else float(row["output_tokens"])
    found = [{"name": row["model"], **dataclasses.asdict(counted(row, measured.get(row["model"])))} for row in rows]
    return {"sampled_share": share, "models": found}


def counted(row: Mapping[str, Any], sampled: Inferences | None) -> Inferences:
    """Return what a sample says of a model, if anything, with what ``queries/page_model_counts.sql`` counted of all."""
    of = sampled or figures.inferences(pa.table({}))
    return dataclasses.replace(
        of,
        count=row["n"], failed=row["failed"], output_tokens=row["output_tokens"], memory_peak_bytes=row["peak"],
    )  # fmt: skip
