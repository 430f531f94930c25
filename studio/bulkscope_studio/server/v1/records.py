"""Records: traces, logs, and what an id names."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from bulkscope_studio.server.v1.answer import Int64, Route, json
from bulkscope_studio.services import records
from bulkscope_studio.storage.store import Store


def router(store: Store) -> APIRouter:
    """Return the routes of records."""
    routes = APIRouter(route_class=Route, tags=["records"])

    def trace(trace_id: str, limit: Int64 = records.MOST_SPANS, offset: Int64 = 0) -> Response:
        """The spans of a trace, oldest first."""
        return json(records.trace(store, trace_id, limit, offset))

    def span(trace_id: str, span_id: str) -> Response:
        """One span whole, with its attributes, events, links and resource."""
        return json(records.span(store, trace_id, span_id))

    def logs(
        bulk: str | None = None, job: str | None = None, trace: str | None = None, service: str | None = None,
        host: str | None = None, severity: str | None = None, text: str | None = None, from_ns: Int64 | None = None,
        to_ns: Int64 | None = None, after_ns: Int64 | None = None, heartbeats: bool = False, limit: Int64 = 100,
        offset: Int64 = 0,
    ) -> Response:  # fmt: skip
        """Log records, newest first; with `after_ns` those that came since, oldest first, to follow the tail.
        `severity` is the least: trace, debug, info, warn, error or fatal."""
        wanted = records.Lines(
            bulk, job, trace, service, host, severity, text, from_ns, to_ns, after_ns, heartbeats, limit, offset
        )
        return json(records.logs(store, wanted))

    def histogram(
        bulk: str | None = None, job: str | None = None, trace: str | None = None, service: str | None = None,
        host: str | None = None, severity: str | None = None, text: str | None = None, from_ns: Int64 | None = None,
        to_ns: Int64 | None = None, heartbeats: bool = False, bins: Int64 = 100,
    ) -> Response:  # fmt: skip
        """How many log records each bin has, by class of severity; filters are those of `/logs`."""
        wanted = records.Lines(bulk, job, trace, service, host, severity, text, from_ns, to_ns, heartbeats=heartbeats)
        return json(records.histogram(store, wanted, bins))

    def search(text: str, limit: Int64 = 20) -> Response:
        """What an id, or the first part of one, names: bulks, runs, jobs, traces, spans, workers."""
        return json(records.search(store, text, limit))

    routes.add_api_route("/traces/{trace_id}", trace)
    routes.add_api_route("/traces/{trace_id}/spans/{span_id}", span)
    routes.add_api_route("/logs", logs)
    routes.add_api_route("/logs/histogram", histogram)
    routes.add_api_route("/search", search)
    return routes
