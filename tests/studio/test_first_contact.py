"""What a newcomer is told: of a bulk that a sampler cut, and of a store that holds no bulk."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from bulkscope import conventions as c
from bulkscope_studio.cli import running
from bulkscope_studio.rendering import report as render
from bulkscope_studio.services import bulks, explanations, reports
from tests.studio.explaining import Job, ns, stored, table, written


def sampled(ratio: float | None) -> dict[str, pa.Table]:
    """Return a bulk of which 2 jobs of the 10 that its request announced are recorded."""
    jobs = [Job(f"j{n}", 0.0, 5.0 * n, 5.0 * n + 1) for n in range(2)]
    asked = {"start_ns": ns(0), "end_ns": ns(0.1), "outcome": "ok", "bulk_size": 10}
    tables: dict[str, pa.Table] = dict(written(jobs, [asked]))
    said = {c.SAMPLING: "ParentBased{root:TraceIdRatioBased{0.2}}"} | (
        {} if ratio is None else {c.SAMPLING_RATIO: ratio}
    )
    spans = tables["spans"]
    column = pa.array(["r"] * len(spans), pa.string())
    place = spans.column_names.index("resource_id") if "resource_id" in spans.column_names else None
    tables["spans"] = (
        spans.append_column("resource_id", column) if place is None else spans.set_column(place, "resource_id", column)
    )
    return tables | {"resources": table("resources", [{"resource_id": "r", "attributes": json.dumps(said)}])}


@pytest.mark.parametrize(("ratio", "words"), [(0.2, "sampled, about 20 %"), (None, "sampled, as callers decide")])
def test_a_bulk_that_a_sampler_cut_is_said_to_be(ratio: float | None, words: str) -> None:
    with stored(sampled(ratio)) as store:
        report = reports.bulk_report(store, "bulk")
        explanation = explanations.bulk_explanation(store, "bulk")
    assert report["sampled"].startswith(words)
    assert not report["complete"]
    assert not [note for note in report["notes"] if "unknown jobs" in note]
    assert render.markdown(report).splitlines()[2].startswith(words)
    verdict = explanation["verdict"]
    assert verdict["code"] == "data_unfit"
    assert words in verdict["text"]


class _Source:
    def __init__(self, there: dict[str, Any] | None) -> None:
        self._there = there

    def outside(self) -> dict[str, Any] | None:
        return self._there


def test_a_store_without_a_bulk_says_what_it_holds() -> None:
    only_worker = [
        {"trace_id": f"{n:032x}", "span_id": f"{n:016x}", "kind": "CONSUMER", "job_id": f"j{n}",
         "service_name": "worker", "start_ns": ns(n), "end_ns": ns(n + 1), "status": "UNSET"}
        for n in range(5)
    ]  # fmt: skip
    with stored({"spans": table("spans", only_worker)}) as store:
        found = bulks.outside(store)
    assert found == {"requests": 0, "sent": 0, "attempts": 5, "inferences": 0, "services": ["worker"]}
    text = running.no_bulk(_Source(found))  # type: ignore[arg-type]
    assert "5 attempts at jobs of worker that belong to none" in text
    assert "start what sends the jobs with 'bulkscope run <command>' too" in text


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (None, running.NO_BULK),
        ({}, running.NO_BULK),
        ({"requests": 3, "sent": 2}, "give the request or each job an id 'bulk_id'"),
        ({"requests": 3, "inferences": 4}, "3 API requests, 4 inferences that belong to none: no queue was seen"),
    ],
)
def test_what_is_missing_for_a_bulk(there: dict[str, Any] | None, words: str) -> None:
    none = {"requests": 0, "sent": 0, "attempts": 0, "inferences": 0, "services": []}
    assert words in running.no_bulk(_Source(None if there is None else none | there))  # type: ignore[arg-type]
