"""The system: models, capacity, comparisons, kept runs, and what failed to arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, Field

from bulkscope_studio.rendering import capacity as rendering
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.v1.answer import Int64, Route, json, not_json
from bulkscope_studio.services import capacities, checks, comparisons, drops, figures, live, runs
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage.store import Store


class Kept(BaseModel):
    """A run to keep."""

    name: str
    bulks: list[str] = Field(min_length=1)
    note: str = ""
    replace: bool = False


class Note(BaseModel):
    """A new note of a kept run."""

    note: str


def router(store: Store, status: Callable[[], Mapping[str, object]]) -> APIRouter:
    """Return the routes of the system; ``status`` gives the receiver's counts."""
    routes = APIRouter(route_class=Route, tags=["system"])

    def models(
        bulk: str | None = None, since_ns: Int64 | None = None, until_ns: Int64 | None = None, host: str | None = None
    ) -> Response:  # fmt: skip
        """Each model and the hosts that it ran on: jobs, inferences, tokens, times, rates, CPU, RAM; of all inferences,
        or of those of a bulk, a time, a host."""
        return json(figures.models(store, figures.Wanted(bulk, since_ns, until_ns, host)))

    def points(
        bulk: str | None = None, since_ns: Int64 | None = None, until_ns: Int64 | None = None, host: str | None = None,
        model: str | None = None, limit: Int64 = figures.MOST_POINTS,
    ) -> Response:  # fmt: skip
        """Times and tokens of at most `limit` (2,000) inferences, drawn evenly of each model, and their ids."""
        return json(figures.points(store, figures.Wanted(bulk, since_ns, until_ns, host, model), limit))

    def numbers() -> Response:
        """The thirteen numbers and how each is defined."""
        return json(figures.numbers())

    def compare(a: str, b: str | None = None, models: bool = False) -> Response:
        """Two bulks, runs or models (`NAME@MODEL`), as `bulkscope compare` has it."""
        return json(comparisons.compare(StoredSides(store), a, b, models))

    def check(bulk: str, against: str, max_slower: str = checks.MAX_SLOWER) -> Response:
        """Whether a bulk is slower than another or a run by more than a share, as `bulkscope check` has it."""
        return json(checks.check(StoredSides(store), bulk, against, max_slower))

    def capacity(
        bulk: Annotated[list[str] | None, Query()] = None, last: str | None = None, rate: float | None = None,
        slo: str | None = None, quantile: float | None = None, model: str | None = None, workers: int | None = None,
    ) -> Response:  # fmt: skip
        """What the system sustains, as `bulkscope capacity` has it."""
        question = capacities.Question(bulk or (), last, rate, slo, quantile, model, workers)
        return json(capacities.system_capacity(store, question))

    def now(
        from_ns: Int64 | None = None, to_ns: Int64 | None = None, bins: Int64 = 150, host: str | None = None,
        service: str | None = None, last_s: float | None = None,
    ) -> Response:  # fmt: skip
        """Load, queue, latencies, tokens/s and hosts over a time (default: the last 15 minutes), and what they are."""
        return json(live.live(store, from_ns, to_ns, bins, host, service, last_s))

    def capacity_curve(
        bulk: Annotated[list[str] | None, Query()] = None, last: str | None = None, rate: float | None = None,
        target: str | None = None, model: str | None = None, workers: int | None = None, queue: str | None = None,
    ) -> Response:  # fmt: skip
        """The p95 of the queue wait over the arrival rate, with as many slots as there are, one less, one more and
        `workers`; the load of today, or `rate`; and up to which rate the p95 stays under `target` (such as `30s`)."""
        question = capacities.Question(bulk or (), last, rate, target, None, model, workers)
        found = capacities.capacity_curve(store, question, queue)
        return json({"answer": rendering.curve_answer(found)} | found)

    def receiver() -> Response:
        """The receiver: addresses, counts, and what was refused or dropped in the last hour."""
        return json({**status(), "drops_s": drops.LATELY_S, "drops": drops.lately(store)})

    def kept() -> Response:
        """Kept runs, the one kept last first."""
        return json(runs.every(store))

    async def keep(request: Request, run: Kept) -> Response:
        """Keep bulks under a name, where the retention leaves them alone."""
        if (refused := not_json(request)) is not None:
            return refused
        return json(await run_in_threadpool(runs.keep, store, run.name, run.bulks, run.replace, run.note))

    def shown(name: str) -> Response:
        """One kept run."""
        return json(runs.show(store, name))

    async def noted(request: Request, name: str, note: Note) -> Response:
        """Change the note of a kept run."""
        if (refused := not_json(request)) is not None:
            return refused
        return json(await run_in_threadpool(runs.annotate, store, name, note.note))

    def dropped(name: str) -> Response:
        """Delete a kept run; its bulks stay."""
        return json(runs.drop(store, name))

    routes.add_api_route("/models", models)
    routes.add_api_route("/models/points", points)
    routes.add_api_route("/numbers", numbers)
    routes.add_api_route("/compare", compare)
    routes.add_api_route("/check", check)
    routes.add_api_route("/capacity", capacity)
    routes.add_api_route("/live", now)
    routes.add_api_route("/capacity/curve", capacity_curve)
    routes.add_api_route("/status", receiver)
    routes.add_api_route("/runs", kept)
    routes.add_api_route("/runs", keep, methods=["POST"])
    routes.add_api_route(f"/runs/{any_id('name')}", shown)
    routes.add_api_route(f"/runs/{any_id('name')}", noted, methods=["PATCH"])
    routes.add_api_route(f"/runs/{any_id('name')}", dropped, methods=["DELETE"])
    return routes
