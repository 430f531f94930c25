"""What is known of each model and of the hosts that it ran on, by the report's functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulkscope import conventions
from bulkscope_studio.analysis.report import figures
from bulkscope_studio.analysis.report.model import Inferences
from bulkscope_studio.analysis.statistics import stats
from bulkscope_studio.services import bulks
from bulkscope_studio.services.errors import InvalidQuery
from bulkscope_studio.storage import sql, summaries
from bulkscope_studio.storage.store import Store

Row = dict[str, Any]
# So many inferences give times and rates to 1 %.
MOST = 300_000
MOST_MODELS, MOST_HOSTS = 50, 16
MOST_POINTS = 2000
# What is counted of a model and of each of its hosts; poisoned stores may name very many.
_MOST_ROWS = 5000
# Of a host: what tells it from another.
_OF_HOST = ("duration_s", "ttft_s", "cpu_s_per_output_token", "tokens_per_s", "decode_tokens_per_s")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which inferences; None is any. Those count that ended in the time."""

    bulk: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    host: str | None = None
    model: str | None = None


def _given(store: Store, wanted: Wanted) -> Row:
    """Return the parameters of ``queries/v1_inference_filter.sql``; raises ``NotFound``."""
    name = bulks.latest(store) if wanted.bulk == "latest" else wanted.bulk
    first, last = 0, 2**62
    if name is not None:
        known = summaries.extent(store, name)
        if known is None:
            raise bulks.not_found(store, name)
        first, last = known.first_ns, known.last_ns
    return {
        "bulk": name, "host": wanted.host, "model": wanted.model, "first_ns": first, "last_ns": last,
        "from_ns": 0 if wanted.since_ns is None else wanted.since_ns,
        "to_ns": 2**62 if wanted.until_ns is None else wanted.until_ns,
    }  # fmt: skip


def _filtered(text: str) -> str:
    return text.replace("{filter}", sql.part("v1_inference_filter"))


def of_models(store: Store, share: float = 1.0, wanted: Wanted | None = None) -> dict[str, Inferences]:
    """Return what is known of each model, of all inferences or of a sample of their ``share``.

    Only what ``queries/v1_inferences.sql`` reads is there.
    """
    return figures.by_model(_rows(store, share, _given(store, wanted or Wanted())))


def numbers() -> list[dict[str, Any]]:
    """Return the thirteen numbers and how each is defined."""
    return [{"number": n.number, "name": n.name, "definition": n.definition} for n in conventions.NUMBERS]


def _rows(store: Store, share: float, given: Row) -> pa.Table:
    return store.query(_filtered(sql.sampled("v1_inferences", share)), given)


def models(store: Store, wanted: Wanted | None = None) -> dict[str, Any]:
    """Return each model, that with most inferences first, and of each the hosts that it ran on.

    Counts, tokens and the highest memory are of all inferences, times and rates of a sample where there are many.
    ``prefill_rate_tokens_per_s`` and ``decode_rate_tokens_per_s`` are of single inferences: of prompts what no cache
    had, of generated tokens all but the first. Raises ``NotFound``.
    """
    given = _given(store, wanted or Wanted())
    rows: list[Row] = store.query(_filtered(sql.load("v1_models")), given | {"most": _MOST_ROWS}).to_pylist()
    whole = [row for row in rows if row["whole"]]
    share = min(1.0, MOST / max(1, sum(row["n"] for row in whole)))
    sample = _rows(store, share, given).combine_chunks()
    found = []
    for row in whole[:MOST_MODELS]:
        own = sample.filter(pc.equal(sample["model"], row["model"]))
        hosts = [each for each in rows if not each["whole"] and each["model"] == row["model"]]
        found.append(
            {
                "name": row["model"],
                "jobs": row["jobs"],
                **dataclasses.asdict(counted(row, own)),
                **_rates(own),
                "hosts": [_host(each, own) for each in hosts[:MOST_HOSTS]],
                "more_hosts": max(0, len(hosts) - MOST_HOSTS),
            }
        )
    more = (whole[0]["models"] if whole else 0) - len(found)
    return {"sampled_share": share, "models": found, "more_models": more}


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def counted(row: Mapping[str, Any], sample: pa.Table) -> Inferences:
    """Return what a sample says of a model, if anything, with what ``queries/v1_models.sql`` counted of all."""
    return dataclasses.replace(
        figures.inferences(sample),
        count=row["n"], failed=row["failed"], memory_peak_bytes=row["peak"],
        output_tokens=_float(row["output_tokens"]), input_tokens=_float(row["input_tokens"]),
    )  # fmt: skip


def _rates(rows: pa.Table) -> Row:
    """Return tokens/s of single inferences: of prefill and of decode, their distributions."""
    read, made = stats.floats(rows["computed_tokens"]), stats.after_first(stats.floats(rows["output_tokens"]))
    found: Row = {}
    for name, tokens, column in (("prefill", read, "prefill"), ("decode", made, "decode")):
        seconds = stats.floats(rows[column])
        with np.errstate(over="ignore"):  # of no time that can be told there is no rate
            rates = np.divide(tokens, seconds, out=np.full(len(seconds), np.nan), where=seconds > 0)
        told = stats.distribution(rates)
        found[f"{name}_rate_tokens_per_s"] = None if told is None else dataclasses.asdict(told)
    return found


def _host(row: Row, sample: pa.Table) -> Row:
    own = sample.filter(pc.equal(sample["host"], row["host"]))
    known = dataclasses.asdict(counted(row, own))
    return {
        "host": row["host"], "jobs": row["jobs"], "count": row["n"], "failed": row["failed"],
        "input_tokens": known["input_tokens"], "output_tokens": known["output_tokens"],
        "memory_peak_bytes": row["peak"], **{name: known[name] for name in _OF_HOST}, **_rates(own),
    }  # fmt: skip


def points(store: Store, wanted: Wanted | None = None, most: int = MOST_POINTS) -> dict[str, Any]:
    """Return at most ``most`` inferences, as many of each model, drawn evenly: their times, tokens and ids.

    Raises ``NotFound``, ``InvalidQuery``.
    """
    if not 1 <= most <= MOST_POINTS:
        raise InvalidQuery(f"limit is from 1 to {MOST_POINTS}")
    given = _given(store, wanted or Wanted())
    rows: list[Row] = store.query(_filtered(sql.load("v1_models")), given | {"most": MOST_MODELS}).to_pylist()
    whole = [row for row in rows if row["whole"]]
    each = max(1, most // max(1, len(whole)))
    text = _filtered(sql.load("v1_model_points")).replace("{each}", str(each))
    found: list[Row] = store.query(text, given).to_pylist()
    return {"inferences": sum(row["n"] for row in whole), "points": found[:most]}
