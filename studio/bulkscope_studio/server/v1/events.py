"""Server-sent events: ``changed`` with the ids of bulks whose records have come; else nothing is sent.

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


class _Client:
    """What a client has not been told yet: each bulk once, and no more than fit in a message."""

    def __init__(self, bulks: set[str]) -> None:
        self._bulks = bulks
        self._untold: dict[str, None] = {}
        self._more = False
        self.woken = asyncio.Event()

    def tell(self, changed: list[str]) -> None:
        for bulk in changed:
            if not self._bulks or bulk in self._bulks:
                self._untold.pop(bulk, None)
                self._untold[bulk] = None
        while len(self._untold) > MOST_BULKS:
            self._untold.pop(next(iter(self._untold)))
            self._more = True
        if self._untold:
            self.woken.set()

    def take(self) -> tuple[list[str], bool]:
        """Return the bulks, the one that changed last at the end, and whether there were more."""
        found = list(self._untold), self._more
        self._untold, self._more = {}, False
        self.woken.clear()
        return found


class Hub:
    """Tells its clients which bulks have changed; lives in one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clients: set[_Client] = set()
        self._task: asyncio.Task[None] | None = None
        self._since: int | None = None
        self._begun = asyncio.Event()
        self._closed = False

    @property
    def full(self) -> bool:
        """As many clients listen as may."""
        return len(self._clients) >= MOST_CLIENTS

    async def listen(self, bulks: set[str]) -> AsyncIterator[bytes]:
        """Yield events of ``bulks`` (of all, where there are none), from now on."""
        if self._closed:
            return
        mine = _Client(bulks)
        self._clients.add(mine)
        try:
            if self._task is None or self._task.done():
                self._since, self._begun = None, asyncio.Event()
                self._task = asyncio.create_task(self._look())
            # What comes after the first bytes is told: so what was there before is known by then.
            await self._begun.wait()
            # The head of the answer leaves with its first bytes: a comment, which is no event.
            yield b": listening\n\n"
            while True:
                await mine.woken.wait()
                if self._closed:
                    return
                told, more = mine.take()
                yield b"event: changed\ndata: " + orjson.dumps({"bulks": told, "more": more}) + b"\n\n"
        finally:
            self._clients.discard(mine)
            if not self._clients and self._task is not None:
                self._task.cancel()
                self._task = None

    def close(self) -> None:
        """End what clients listen to: their answers end as if nothing more would come. Of its event loop alone."""
        self._closed = True
        self._begun.set()
        for client in self._clients:
            client.woken.set()

    async def _look(self) -> None:
        while True:
            with suppress(TooLong, Unavailable, duckdb.Error):
                changed = await asyncio.to_thread(self._changed)
                self._begun.set()
                for client in self._clients:
                    client.tell(changed)
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


def router(hub: Hub) -> APIRouter:
    """Return the route of events."""
    routes = APIRouter(route_class=Route, tags=["events"])

    async def events(bulk: list[str] = Query(default=[])) -> Response:  # noqa: B008  # FastAPI's way
        """`event: changed` with `{"bulks": [...]}` when records of a bulk have come; of the named ones, or of all."""
        if hub.full:
            return error(503, f"{MOST_CLIENTS} clients listen already", "close a page, or ask for the bulk itself")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(hub.listen(set(bulk)), media_type="text/event-stream", headers=headers)

    routes.add_api_route("/events", events, response_class=StreamingResponse)
    return routes
