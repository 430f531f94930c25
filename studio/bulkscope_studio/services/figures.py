"""What is known of each model, by the report's functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from bulkscope import conventions
from bulkscope_studio.analysis.report import figures
from bulkscope_studio.analysis.report.model import Inferences
from bulkscope_studio.storage import sql
from bulkscope_studio.storage.store import Store

# So many inferences give times and rates to 1 %.
MOST = 300_000


def of_models(store: Store, share: float = 1.0) -> dict[str, Inferences]:
    """Return what is known of each model, of all inferences or of a sample of their ``share``.

    Only what ``queries/inferences.sql`` reads is there.
    """
    found: pa.Table = store.query(sql.sampled("inferences", share))
    return figures.by_model(found)


def numbers() -> list[dict[str, Any]]:
    """Return the thirteen numbers and how each is defined."""
    return [{"number": n.number, "name": n.name, "definition": n.definition} for n in conventions.NUMBERS]


def models(store: Store) -> dict[str, Any]:
    """Return each model by all that is stored; times and rates are of a sample where there are many inferences."""
    rows = store.query(sql.load("model_counts")).to_pylist()
    share = min(1.0, MOST / max(1, sum(row["n"] for row in rows)))
    measured = of_models(store, share)
    for row in rows:
        row["output_tokens"] = None if row["output_tokens"] is None else float(row["output_tokens"])
    found = [{"name": row["model"], **dataclasses.asdict(counted(row, measured.get(row["model"])))} for row in rows]
    return {"sampled_share": share, "models": found}


def counted(row: Mapping[str, Any], sampled: Inferences | None) -> Inferences:
    """Return what a sample says of a model, if anything, with what ``queries/model_counts.sql`` counted of all."""
    of = sampled or figures.inferences(pa.table({}))
    return dataclasses.replace(
        of,
        count=row["n"], failed=row["failed"], output_tokens=row["output_tokens"], memory_peak_bytes=row["peak"],
    )  # fmt: skip
