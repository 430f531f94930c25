"""Server-sent events: ``changed`` with the ids of bulks whose records have come or gone; else nothing is sent.

One query a second serves all clients, and none is asked while there are none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import duckdb
import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from bulkscope_studio.server.v1.answer import Route, error
from bulkscope_studio.storage.store import Store, TooLong, Unavailable

logger = logging.getLogger("bulkscope.studio")
EVERY_S = 1.0
MOST_CLIENTS = 64
# Of one message; a client that is told of more reads the list again.
MOST_BULKS = 200
_CHANGED = """SELECT bulk_id, max(noted_ns) AS noted_ns FROM bulk_changes
WHERE noted_ns > $since AND bulk_id IS NOT NULL GROUP BY bulk_id ORDER BY noted_ns, bulk_id"""
_NEWEST = "SELECT coalesce(max(noted_ns), 0) AS noted_ns FROM bulk_changes"


class Hub:
    """Tells its clients which bulks have changed; lives in one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clients: set[asyncio.Queue[list[str]]] = set()
        self._task: asyncio.Task[None] | None = None
        self._since: int | None = None

    @property
    def full(self) -> bool:
        """As many clients listen as may."""
        return len(self._clients) >= MOST_CLIENTS

    async def listen(self, bulks: set[str]) -> AsyncIterator[bytes]:
        """Yield events of ``bulks`` (of all, where there are none), from now on."""
        mine: asyncio.Queue[list[str]] = asyncio.Queue()
        self._clients.add(mine)
        if self._task is None or self._task.done():
            self._since = None
            self._task = asyncio.create_task(self._look())
        try:
            # The head of the answer leaves with its first bytes: a comment, which is no event.
            yield b": listening\n\n"
            while True:
                changed = await mine.get()
                while not mine.empty():  # of a client that reads slowly: once each
                    changed = list(dict.fromkeys([*changed, *mine.get_nowait()]))
                told = [bulk for bulk in changed if not bulks or bulk in bulks]
                if told:
                    more = len(told) > MOST_BULKS
                    yield (
                        b"event: changed\ndata: " + orjson.dumps({"bulks": told[-MOST_BULKS:], "more": more}) + b"\n\n"
                    )
        finally:
            self._clients.discard(mine)
            if not self._clients and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _look(self) -> None:
        while True:
            with suppress(TooLong, Unavailable, duckdb.Error):
                changed = await asyncio.to_thread(self._changed)
                if changed:
                    for client in self._clients:
                        client.put_nowait(changed)
            await asyncio.sleep(EVERY_S)

    def _changed(self) -> list[str]:
        if self._since is None:
            (row,) = self._store.query(_NEWEST).to_pylist()
            self._since = row["noted_ns"]
            return []
        rows: list[dict[str, Any]] = self._store.query(_CHANGED, {"since": self._since}).to_pylist()
        if rows:
            self._since = max(row["noted_ns"] for row in rows)
        return [row["bulk_id"] for row in rows]


def router(store: Store) -> APIRouter:
    """Return the route of events."""
    routes = APIRouter(route_class=Route, tags=["events"])
    hub = Hub(store)

    async def events(bulk: list[str] = Query(default=[])) -> Response:  # noqa: B008  # FastAPI's way
        """`event: changed` with `{"bulks": [...]}` when records of a bulk have come; of the named ones, or of all."""
        if hub.full:
            return error(503, f"{MOST_CLIENTS} clients listen already", "close a page, or ask for the bulk itself")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(hub.listen(set(bulk)), media_type="text/event-stream", headers=headers)

    routes.add_api_route("/events", events, response_class=StreamingResponse)
    return routes
