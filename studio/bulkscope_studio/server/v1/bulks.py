"""Bulks: the list, one, why it took as long, its jobs, how it went, and what failed."""

from __future__ import annotations

from io import BytesIO
from typing import Annotated, Any, Literal
from urllib.parse import quote

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from fastapi import APIRouter, Query
from fastapi.responses import Response

from bulkscope_studio.server.anyid import any_id
from bulkscope_studio.server.v1.answer import Int64, Route, json
from bulkscope_studio.services import bulks, endings, explanations, jobs, listing, overtime, records, reports, whatifs
from bulkscope_studio.storage.store import Store

KINDS = {
    "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}  # fmt: skip
BULK = any_id("bulk_id")


def router(store: Store, ends: endings.Ends) -> APIRouter:
    """Return the routes of bulks."""
    routes = APIRouter(route_class=Route, tags=["bulks"])
    known = listing.Verdicts(store)

    def listed(
        search: str | None = None, since_ns: Int64 | None = None, until_ns: Int64 | None = None,
        service: str | None = None, host: str | None = None, worker: str | None = None, model: str | None = None,
        state: str | None = None,
        failed: bool | None = None, verdict: str | None = None, sort: str = "-start_ns", limit: Int64 = 50,
        offset: Int64 = 0, verdicts: bool = True,
    ) -> Response:  # fmt: skip
        """Bulks, newest first: search in ids; filter by time, service, host, worker, model, state, verdict. With
        `verdicts=false` no verdict is looked for."""
        wanted = listing.Wanted(
            search, since_ns, until_ns, service, host, worker, model, state, failed, verdict, sort, limit, offset
        )
        return json(listing.bulks(store, known if verdicts else None, ends, wanted))

    def summary(bulk_id: str) -> Response:
        """One bulk in the columns of the list, with its verdict."""
        name = bulks.latest(store) if bulk_id == "latest" else bulk_id
        row = listing.one(store, known, name)
        if row is None:
            raise bulks.not_found(store, name)
        return json(row)

    def report(bulk_id: str) -> Response:
        """The numbers of one bulk, as `bulkscope report` has them."""
        return json(reports.bulk_report(store, bulk_id))

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
        error_type: str | None = None, where: Annotated[list[str] | None, Query()] = None, sort: str = "enqueued_ns",
        limit: Int64 = 100, offset: Int64 = 0, format: Literal["json", "csv", "parquet", "arrow"] = "json",
    ) -> Response:  # fmt: skip
        """Jobs of a bulk. `where` is a condition such as `work_s>10` or `excess_s>2`, and may be given several times;
        `sort` is a column, with `-` in front the highest first. As csv, parquet or arrow all of them come."""
        wanted = jobs.Wanted(search, status, model, worker, host, failure_domain, error_type, where or (), sort)
        if format == "json":
            return json(jobs.page(store, bulk_id, wanted, limit, offset))
        found = jobs.chosen(jobs.table(store, bulk_id), wanted)
        name = quote(f"{bulk_id}.{format}", safe="")
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{name}"}
        return Response(_written(found, format), media_type=KINDS[format], headers=headers)

    def job(bulk_id: str, id: str) -> Response:
        """One job: its attempts, what each waited for, its inferences, its log."""
        found = jobs.one(store, bulk_id, id)
        lines = records.logs(store, records.Lines(bulk=found["bulk"], job=id, limit=200))
        return json(found | {"logs": lines["logs"], "more_logs": lines["more"]})

    def over_time(
        bulk_id: str, bins: Int64 = 600, lanes: Int64 = 64, from_ns: Int64 | None = None, to_ns: Int64 | None = None
    ) -> Response:
        """Jobs by state and workers' slots over the time of the bulk, in bins: one size for any number of jobs."""
        return json(overtime.overtime(store, bulk_id, bins, lanes, from_ns, to_ns))

    def failed_of(bulk_id: str, since_ns: Int64 | None = None, until_ns: Int64 | None = None) -> Response:
        """Failed attempts of a bulk by domain and type of error, each with an example."""
        return json(records.failures(store, bulk_id, since_ns, until_ns))

    def failed(since_ns: Int64 | None = None, until_ns: Int64 | None = None) -> Response:
        """Failed attempts of all bulks by domain and type of error, each with an example."""
        return json(records.failures(store, None, since_ns, until_ns))

    routes.add_api_route("/bulks", listed)
    routes.add_api_route(f"/bulks/{BULK}/summary", summary)
    routes.add_api_route(f"/bulks/{BULK}/report", report)
    routes.add_api_route(f"/bulks/{BULK}/explanation", explanation)
    routes.add_api_route(f"/bulks/{BULK}/ending", ending)
    routes.add_api_route(f"/bulks/{BULK}/whatif", whatif)
    routes.add_api_route(f"/bulks/{BULK}/jobs", listed_jobs)
    routes.add_api_route(f"/bulks/{BULK}/job", job)
    routes.add_api_route(f"/bulks/{BULK}/overtime", over_time)
    routes.add_api_route(f"/bulks/{BULK}/failures", failed_of)
    routes.add_api_route("/failures", failed)
    return routes


def _written(table: pa.Table, kind: str) -> bytes:
    sink = BytesIO()
    if kind == "csv":
        pyarrow.csv.write_csv(table, sink)
    elif kind == "parquet":
        pyarrow.parquet.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    found: Any = sink.getvalue()
    return bytes(found)
