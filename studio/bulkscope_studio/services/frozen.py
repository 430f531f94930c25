"""A bulk's page for good: the answers to what it asks when it is drawn, as ``report.html`` has them.

Which questions these are the page says itself (``static/parts/questions.js``); the answers are those of the API, by the
same functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote, urlencode

from bulkscope_studio.services import (
    bulks,
    explanations,
    figures,
    jobs,
    listing,
    machine,
    overtime,
    records,
    reports,
)
from bulkscope_studio.storage import summaries
from bulkscope_studio.storage.store import Store

ROOT = "/api/v1"
Params = Mapping[str, str]
_QUESTIONS = re.compile(r"^export const QUESTIONS = (\{.*?^\});", re.DOTALL | re.MULTILINE)
# What encodeURIComponent leaves as it is, beside letters, digits and "_.-~".
_KEPT = "!'()*"


def _summary(store: Store, bulk_id: str, params: Params) -> Any:
    return listing.one(store, listing.Verdicts(store), bulk_id)


def _report(store: Store, bulk_id: str, params: Params) -> Any:
    return reports.answer(store, bulk_id, params.get("workers") != "false")


def _jobs(store: Store, bulk_id: str, params: Params) -> Any:
    wanted = jobs.Wanted(status=params.get("status"), sort=params["sort"])
    return jobs.page(jobs.Tables(store), bulk_id, wanted, int(params["limit"]), 0)


def _logs(store: Store, bulk_id: str, params: Params) -> Any:
    return records.logs(store, records.Lines(bulk=params["bulk"], limit=int(params["limit"])))


ANSWERS: dict[str, Callable[[Store, str, Params], Any]] = {
    "/bulks/{id}/summary": _summary,
    "/bulks/{id}/report": _report,
    "/bulks/{id}/explanation": lambda store, bulk_id, params: explanations.bulk_explanation(store, bulk_id),
    "/bulks/{id}/overtime": lambda store, bulk_id, params: overtime.overtime(
        store, bulk_id, int(params["bins"]), int(params["lanes"])
    ),
    "/bulks/{id}/machine": lambda store, bulk_id, params: machine.machine(store, bulk_id, int(params["bins"])),
    "/bulks/{id}/jobs": _jobs,
    "/bulks/{id}/failures": lambda store, bulk_id, params: records.failures(store, bulk_id),
    "/bulks/{id}/workers": lambda store, bulk_id, params: reports.workers(
        store, bulk_id, params["sort"], int(params["limit"]), 0
    ),
    "/logs": _logs,
    "/numbers": lambda store, bulk_id, params: figures.numbers(),
}


@cache
def questions() -> dict[str, tuple[str, dict[str, str]]]:
    """Return what the page of a bulk asks, by name: a path below ``ROOT`` and parameters, ``{id}`` for the bulk's."""
    text = (resources.files("bulkscope_studio") / "static" / "parts" / "questions.js").read_text(encoding="utf-8")
    found = _QUESTIONS.search(text)
    if found is None:
        raise ValueError("static/parts/questions.js does not say what the page of a bulk asks")
    return {name: (path, params) for name, (path, params) in json.loads(found[1]).items()}


def address(path: str, params: Params, bulk_id: str) -> str:
    """Return the address of a question as the page writes it (``encodeURIComponent``, ``URLSearchParams``)."""
    given = {name: bulk_id if value == "{id}" else value for name, value in params.items()}
    query = urlencode(given, safe="*").replace("~", "%7E")
    return ROOT + path.replace("{id}", quote(bulk_id, safe=_KEPT)) + (f"?{query}" if query else "")


def answers(store: Store, bulk_id: str) -> dict[str, Any]:
    """Return the bulk's ``id`` (``latest``: the newest with jobs) and ``answers`` by address; raises ``NotFound``."""
    if bulk_id == "latest":
        bulk_id = bulks.latest(store)
    if summaries.extent(store, bulk_id) is None or listing.state(store, bulk_id) is None:
        raise bulks.not_found(store, bulk_id)
    found = {}
    for path, params in questions().values():
        named = {name: bulk_id if value == "{id}" else value for name, value in params.items()}
        found[address(path, params, bulk_id)] = ANSWERS[path](store, bulk_id, named)
    return {"id": bulk_id, "answers": found}
