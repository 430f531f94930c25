"""What the command line and the page ask: the sides of a comparison by their names, and the kept runs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from bulkscope_studio.analysis.compare import compare as analysis
from bulkscope_studio.analysis.compare import sides
from bulkscope_studio.analysis.compare.sides import Side
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.services import reports
from bulkscope_studio.services.reports import Unknown, Wrong
from bulkscope_studio.sources import elasticsearch
from bulkscope_studio.storage import saved_runs, sql, summaries
from bulkscope_studio.storage.saved_runs import Tables
from bulkscope_studio.storage.store import Store

_TABLES = ("attempts", "inferences", "requests")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where sides come from: ``bulk`` gives the tables of a bulk, None of an unknown one; ``run`` those of a run.

    ``bulks`` and ``runs`` name what there is, newest first; ``latest`` names the newest bulk that has jobs.
    ``notes`` say what to know of what was read.
    """

    bulk: Callable[[str], Tables | None]
    run: Callable[[str], Tables | None]
    latest: Callable[[], str]
    bulks: Callable[[], list[str]]
    runs: Callable[[], list[str]]
    notes: Callable[[], list[str]] = list


def of_store(store: Store) -> Place:
    """Read the bulks of a store and the runs beside it."""

    def run(name: str) -> Tables | None:
        return saved_runs.load(store.path, name) if saved_runs.exists(store.path, name) else None

    return Place(
        lambda bulk: tables(store, bulk), run, lambda: reports.latest(store), lambda: summaries.ids(store),
        lambda: saved_runs.names(store.path),
    )  # fmt: skip


def of_elasticsearch(asked: elasticsearch.Elastic) -> Place:
    """Read the bulks in Elasticsearch, which has no runs."""

    repeated: dict[str, Counter[str]] = {}  # by bulk: one may be read for both sides

    def bulk(bulk_id: str) -> Tables | None:
        with asked.loaded(bulk_id) as (store, more):
            repeated[bulk_id] = more.repeated
            return tables(store, bulk_id)

    def notes() -> list[str]:
        return elasticsearch.notes(sum(repeated.values(), Counter()))

    def latest() -> str:
        return reports.newest(asked.bulks())

    return Place(bulk, lambda _: None, latest, lambda: [row["id"] for row in asked.bulks()], list, notes)


def tables(store: Store, bulk_id: str) -> Tables | None:
    """Return what a comparison reads of one bulk; None when nothing is known of it."""
    known = summaries.extent(store, bulk_id)
    if known is None:
        return None
    found = {}
    for name in _TABLES:
        table = store.query(sql.load(f"report_{name}"), {"bulk": bulk_id, **known.bounds})
        found[name] = table.append_column("bulk_id", pa.array([bulk_id] * len(table), pa.string()))
    return Tables(**found) if any(len(table) for table in found.values()) else None


def _joined(parts: Sequence[Tables]) -> Tables:
    return Tables(
        **{
            name: pa.concat_tables([getattr(part, name) for part in parts], promote_options="permissive")
            for name in _TABLES
        }
    )


def _named(place: Place, name: str) -> Tables | None:
    """Return what a name without a model stands for; a run goes before a bulk of the same name."""
    if name == "latest":
        name = place.latest()
    found = place.run(name)
    return place.bulk(name) if found is None else found


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """Yield NAME, MODEL for every ``@``, the last one first: both may hold some themselves."""
    at = text.rfind("@")
    while at >= 0:
        yield text[:at], text[at + 1 :]
        at = text.rfind("@", 0, at)


def side(place: Place, text: str) -> Side:
    """Return the side that ``text`` names: ``NAME`` or ``NAME@MODEL``, a name being a run, a bulk or ``latest``.

    Raises ``Unknown`` with the nearest names or models.
    """
    found = _named(place, text)
    if found is not None:
        return sides.side(text, found)
    for name, model in _splits(text):
        found = _named(place, name)
        if found is not None:
            there = sides.models(found)
            if model not in there:
                raise Unknown(model, reports.nearest(model, there), f"model in {name!r}:")
            return sides.side(text, found, model)
    name = next((name for name, _ in _splits(text)), text)
    raise Unknown(name, reports.nearest(name, [*place.runs(), *place.bulks()]), "bulk or run")


def compare(place: Place, a: str, b: str | None, models: bool = False) -> dict[str, Any]:
    """Return the comparison of two sides, or with ``models`` of the two models of ``a``.

    Raises ``Unknown``, ``Wrong``, and ``runs.Trouble`` for a run that cannot be read.
    """
    if not models:
        if b is None:
            raise Wrong("name two sides: A B, or one and --models for its two models")
        return _noted(place, side(place, a), side(place, b))
    if b is not None:
        raise Wrong("--models compares the two models of one bulk or run; name one")
    found = _named(place, a)
    if found is None:
        raise Unknown(a, reports.nearest(a, [*place.runs(), *place.bulks()]), "bulk or run")
    there = sides.models(found)
    if len(there) != 2:
        said = f"{len(there)}: {', '.join(there)}" if there else "no inferences"
        more = f"; choose two, as in '{a}@{there[0]}' '{a}@{there[1]}'" if len(there) > 2 else ""
        raise Wrong(f"{a!r} has not two models but {said}{more}")
    one, other = (sides.side(f"{a}@{model}", found, model) for model in there)
    return _noted(place, one, other)


def _noted(place: Place, a: Side, b: Side) -> dict[str, Any]:
    return analysis.to_json(analysis.compare(a, b)) | {"notes": place.notes()}


def keep(store: Store, name: str, bulks: Sequence[str], replace: bool) -> dict[str, Any]:
    """Keep bulks under a name; raises ``Unknown``, ``Wrong``, ``runs.Trouble``."""
    if not bulks:
        raise Wrong("name at least one bulk to keep")
    parts: dict[str, Tables] = {}
    for bulk in bulks:
        wanted = reports.latest(store) if bulk == "latest" else bulk
        found = tables(store, wanted)
        if found is None:
            raise reports.unknown(store, bulk)
        parts[wanted] = found
    return dataclasses.asdict(saved_runs.keep(store.path, name, _joined(list(parts.values())), replace=replace))


def show(store: Store, name: str) -> dict[str, Any]:
    """Return one kept run; raises ``Unknown`` with the nearest."""
    try:
        return dataclasses.asdict(saved_runs.show(store.path, name))
    except saved_runs.Unknown as error:
        raise Unknown(name, reports.nearest(name, saved_runs.names(store.path)), "run") from error


def drop(store: Store, name: str) -> dict[str, Any]:
    """Delete a kept run; raises ``Unknown`` with the nearest."""
    try:
        saved_runs.drop(store.path, name)
    except saved_runs.Unknown as error:
        raise Unknown(name, reports.nearest(name, saved_runs.names(store.path)), "run") from error
    return {"dropped": name}


def every(store: Store) -> list[dict[str, Any]]:
    """Return all kept runs, the one kept last first."""
    return [dataclasses.asdict(run) for run in saved_runs.every(store.path)]


def _answered(ask: Callable[[], Any]) -> JSONResponse:
    try:
        return JSONResponse(ask())
    except Unknown as unknown:
        return JSONResponse(unknown.answer, 404)
    except saved_runs.Exists as exists:
        return JSONResponse({"error": str(exists)}, 409)
    except (Wrong, saved_runs.Trouble) as wrong:
        return JSONResponse({"error": str(wrong)}, 400)


def compare_routes(store: Store) -> APIRouter:
    """Return ``/compare`` and ``/runs``, to be included under ``/api``."""
    routes = APIRouter()

    def comparison(a: str, b: str | None = None, models: bool = False) -> JSONResponse:
        return _answered(lambda: compare(of_store(store), a, b, models))

    async def post(request: Request) -> JSONResponse:
        # A page of another origin may post a form or plain text unasked, but not JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return JSONResponse({"error": "send the run as application/json"}, 415)
        try:
            body = orjson.loads(await request.body())
            name, bulks, replace = body["name"], body["bulks"], body.get("replace", False)
            if not (isinstance(name, str) and isinstance(replace, bool) and isinstance(bulks, list)):
                raise TypeError
            if not all(isinstance(bulk, str) for bulk in bulks):
                raise TypeError
        except (ValueError, TypeError, KeyError, AttributeError):
            wanted = 'send {"name": "...", "bulks": ["..."], "replace": false}'
            return JSONResponse({"error": wanted}, 400)
        return await run_in_threadpool(lambda: _answered(lambda: keep(store, name, bulks, replace)))

    def listed() -> JSONResponse:
        return _answered(lambda: every(store))

    def shown(name: str) -> JSONResponse:
        return _answered(lambda: show(store, name))

    def dropped(name: str) -> JSONResponse:
        return _answered(lambda: drop(store, name))

    routes.add_api_route("/compare", comparison)
    routes.add_api_route("/runs", post, methods=["POST"])
    routes.add_api_route("/runs", listed)
    routes.add_api_route(f"/runs/{any_id('name')}", shown)
    routes.add_api_route(f"/runs/{any_id('name')}", dropped, methods=["DELETE"])
    return routes
