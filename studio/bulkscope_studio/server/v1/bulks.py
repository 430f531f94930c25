"""Bulks: the list, one, why it took as long, its jobs, how it went, and what failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from bulkscope_studio.rendering import report as rendering
from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.v1.answer import Int64, Route, attached, json
from bulkscope_studio.services import (
    bulks,
    deletions,
    endings,
    explanations,
    exports,
    jobs,
    listing,
    machine,
    overtime,
    records,
    reports,
    whatifs,
)
from bulkscope_studio.storage.store import Store

Format = Literal["json", "csv", "parquet", "arrow", "jsonl"]
BULK = any_id("bulk_id")


def router(
    store: Store, ends: endings.Ends, delete: deletions.Delete, tell_deleted: Callable[[str], None]
) -> APIRouter:
    """Return the routes of bulks; ``delete`` is done by the thread that writes, and then told to who listens."""
    routes = APIRouter(route_class=Route, tags=["bulks"])
    known, tables = listing.Verdicts(store), jobs.Tables(store)

    def listed(
        search: str | None = None, since_ns: Int64 | None = None, until_ns: Int64 | None = None,
        service: str | None = None, host: str | None = None, worker: str | None = None, model: str | None = None,
        state: str | None = None,
        failed: bool | None = None, verdict: str | None = None, sort: str = "-start_ns", limit: Int64 = 50,
        offset: Int64 = 0, spark: Int64 | None = None, verdicts: bool = True, format: Format = "json",
    ) -> Response:  # fmt: skip
        """Bulks, newest first: search in ids; filter by time, service, host, worker, model, state, verdict. With
        `spark`, how many jobs ended in each of so many bins (at most 40) of the bulk's own time; with `verdicts=false`
        no verdict is looked for. As csv, parquet, arrow or jsonl (a line a bulk) all of them come."""
        wanted = listing.Wanted(
            search, since_ns, until_ns, service, host, worker, model, state, failed, verdict, sort, limit, offset,
            spark,
        )  # fmt: skip
        if format != "json":
            return attached(listing.table(store, known, wanted), "bulks", format)
        return json(listing.bulks(store, known if verdicts else None, ends, wanted))

    def facets(since_ns: Int64 | None = None, until_ns: Int64 | None = None) -> Response:
        """What bulks of a time can be filtered by: services, hosts, models, workers, and how many bulks each has."""
        return json(listing.facets(store, since_ns, until_ns))

    def known_verdicts() -> Response:
        """The verdicts that there are: the name, which filters bulks, and the title."""
        return json(listing.verdicts())

    def summary(bulk_id: str) -> Response:
        """One bulk in the columns of the list, with its verdict."""
        name = bulks.latest(store) if bulk_id == "latest" else bulk_id
        row = listing.one(store, known, name)
        if row is None:
            raise bulks.not_found(store, name)
        return json(row)

    def report(bulk_id: str, workers: bool = True) -> Response:
        """The numbers of one bulk, as `bulkscope report` has them; with `workers=false` not those of each worker."""
        return json(reports.answer(store, bulk_id, workers))

    def markdown(bulk_id: str) -> Response:
        """The numbers of one bulk as Markdown, as `bulkscope report --format md` has them."""
        return Response(rendering.markdown(reports.bulk_report(store, bulk_id)), media_type="text/markdown")

    def workers(bulk_id: str, sort: str = "name", limit: Int64 = 100, offset: Int64 = 0) -> Response:
        """The numbers of each worker of a bulk, as `report` has them, with its host; `sort` as that of jobs."""
        return json(reports.workers(store, bulk_id, sort, limit, offset))

    def explanation(bulk_id: str) -> Response:
        """Why the bulk took as long as it did, as `bulkscope explain` has it."""
        return json(explanations.bulk_explanation(store, bulk_id))

    def ending(bulk_id: str) -> Response:
        """How far the bulk is, and when it ends, with an interval."""
        return json(ends.of(bulk_id))

    def whatif(
        bulk_id: str, workers: int | None = None, threads: int | None = None, prefetch: int | None = None,
        order: str | None = None, preload: bool = False, speed: float | None = None,
    ) -> Response:  # fmt: skip
        """The bulk played again under a change, and what ends first, as `bulkscope whatif` has it."""
        change = whatifs.Change(workers, threads, prefetch, order, preload, speed)
        return json(whatifs.bulk_whatif(store, bulk_id, change))

    def listed_jobs(
        bulk_id: str, search: str | None = None, status: str | None = None, model: str | None = None,
        worker: str | None = None, host: str | None = None, failure_domain: str | None = None,
        error_type: str | None = None, where: Annotated[list[str] | None, Query()] = None,
        from_ns: Int64 | None = None, to_ns: Int64 | None = None, sort: str = "enqueued_ns", limit: Int64 = 100,
        offset: Int64 = 0, format: Format = "json",
    ) -> Response:  # fmt: skip
        """Jobs of a bulk. `where` is a condition such as `work_s>10` or `excess_s>2`, and may be given several times;
        `from_ns` and `to_ns` choose those that were at work at some moment between the two; `sort` is a column, with
        `-` in front the highest first. As csv, parquet, arrow or jsonl (a line a job) all of them come."""
        wanted = jobs.Wanted(
            search, status, model, worker, host, failure_domain, error_type, where or (), sort, from_ns, to_ns
        )
        if format == "json":
            return json(jobs.page(tables, bulk_id, wanted, limit, offset))
        return attached(jobs.chosen(tables.of(bulk_id), wanted), bulk_id, format)

    def exported(
        bulk_id: str,
        what: Literal["jobs", "attempts", "inferences", "spans", "logs"] = "jobs",
        format: Literal["csv", "json", "jsonl", "parquet", "arrow"] = "csv",
    ) -> Response:
        """All jobs, attempts, inferences, spans or logs of a bulk, as `bulkscope export` has them."""
        return attached(exports.table(store, bulk_id, what), f"{bulk_id}-{what}", format)

    def job(bulk_id: str, id: str) -> Response:
        """One job: its attempts, what each waited for, its inferences, its log."""
        found = jobs.one(tables, bulk_id, id)
        lines = records.logs(store, records.Lines(bulk=found["bulk"], job=id, limit=200))
        return json(found | {"logs": lines["logs"], "more_logs": lines["more"]})

    def over_time(
        bulk_id: str, bins: Int64 = 600, lanes: Int64 = 64, from_ns: Int64 | None = None, to_ns: Int64 | None = None
    ) -> Response:
        """Jobs by state and workers' slots over the time of the bulk, in bins: one size for any number of jobs."""
        return json(overtime.overtime(store, bulk_id, bins, lanes, from_ns, to_ns))

    def machines(bulk_id: str, bins: Int64 = 600, from_ns: Int64 | None = None, to_ns: Int64 | None = None) -> Response:
        """Hosts of the bulk's workers (CPU, pressure, memory) and its tokens/s, in the bins of `overtime`."""
        return json(machine.machine(store, bulk_id, bins, from_ns, to_ns))

    def failed_of(bulk_id: str, since_ns: Int64 | None = None, until_ns: Int64 | None = None) -> Response:
        """Failed attempts of a bulk by domain and type of error, each with an example."""
        return json(records.failures(store, bulk_id, since_ns, until_ns))

    def failed(since_ns: Int64 | None = None, until_ns: Int64 | None = None) -> Response:
        """Failed attempts of all bulks by domain and type of error, each with an example."""
        return json(records.failures(store, None, since_ns, until_ns))

    async def deleted(bulk_id: str, running: bool = False) -> Response:
        """Delete all that is stored of a bulk; kept runs of it stay. One that runs only with `running=true`."""
        found = await run_in_threadpool(deletions.delete, store, delete, bulk_id, running)
        ends.forget(bulk_id)
        tell_deleted(bulk_id)
        return json(found)

    routes.add_api_route("/bulks", listed)
    routes.add_api_route("/facets", facets)
    routes.add_api_route("/verdicts", known_verdicts)
    routes.add_api_route(f"/bulks/{BULK}", deleted, methods=["DELETE"])
    routes.add_api_route(f"/bulks/{BULK}/summary", summary)
    routes.add_api_route(f"/bulks/{BULK}/report", report)
    routes.add_api_route(f"/bulks/{BULK}/report.md", markdown)
    routes.add_api_route(f"/bulks/{BULK}/workers", workers)
    routes.add_api_route(f"/bulks/{BULK}/explanation", explanation)
    routes.add_api_route(f"/bulks/{BULK}/ending", ending)
    routes.add_api_route(f"/bulks/{BULK}/whatif", whatif)
    routes.add_api_route(f"/bulks/{BULK}/jobs", listed_jobs)
    routes.add_api_route(f"/bulks/{BULK}/export", exported)
    routes.add_api_route(f"/bulks/{BULK}/job", job)
    routes.add_api_route(f"/bulks/{BULK}/overtime", over_time)
    routes.add_api_route(f"/bulks/{BULK}/machine", machines)
    routes.add_api_route(f"/bulks/{BULK}/failures", failed_of)
    routes.add_api_route("/failures", failed)
    return routes
