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


def _jobs(tables: jobs.Tables, bulk_id: str, params: Params) -> Any:
    wanted = jobs.Wanted(status=params.get("status"), sort=params["sort"])
    return jobs.page(tables, bulk_id, wanted, int(params["limit"]), 0)


# The page asks for the jobs in several orders: of one table, which is made once.
ANSWERS: dict[str, Callable[[jobs.Tables, str, Params], Any]] = {
    "/bulks/{id}/summary": lambda of, bulk_id, params: listing.one(of.store, listing.Verdicts(of.store), bulk_id),
    "/bulks/{id}/report": lambda of, bulk_id, params: reports.answer(
        of.store, bulk_id, params.get("workers") != "false"
    ),
    "/bulks/{id}/explanation": lambda of, bulk_id, params: explanations.bulk_explanation(of.store, bulk_id),
    "/bulks/{id}/overtime": lambda of, bulk_id, params: overtime.overtime(
        of.store, bulk_id, int(params["bins"]), int(params["lanes"])
    ),
    "/bulks/{id}/machine": lambda of, bulk_id, params: machine.machine(of.store, bulk_id, int(params["bins"])),
    "/bulks/{id}/jobs": _jobs,
    "/bulks/{id}/failures": lambda of, bulk_id, params: records.failures(of.store, bulk_id),
    "/bulks/{id}/workers": lambda of, bulk_id, params: reports.workers(
        of.store, bulk_id, params["sort"], int(params["limit"]), 0
    ),
    "/logs": lambda of, bulk_id, params: records.logs(
        of.store, records.Lines(bulk=params["bulk"], limit=int(params["limit"]))
    ),
    "/numbers": lambda of, bulk_id, params: figures.numbers(),
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
    found, tables = {}, jobs.Tables(store)
    for path, params in questions().values():
        named = {name: bulk_id if value == "{id}" else value for name, value in params.items()}
        found[address(path, params, bulk_id)] = ANSWERS[path](tables, bulk_id, named)
    return {"id": bulk_id, "answers": found}
