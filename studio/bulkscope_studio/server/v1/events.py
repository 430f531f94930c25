"""Server-sent events: ``changed`` with the ids of bulks whose records have come, ``deleted`` with those of bulks that
their user has deleted; else nothing is sent.

One query a second serves all clients, and none is asked while there are none.
"""

from __future__ import annotations

import asyncio
import logging
import time
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
# A page is drawn, and listens, within so long; on a machine that is busy with inference too.
LATELY_NS = 10 * 10**9
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
        self._deleted: dict[str, None] = {}
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

    def tell_deleted(self, bulk: str) -> None:
        if not self._bulks or bulk in self._bulks:
            self._untold.pop(bulk, None)
            if len(self._deleted) < MOST_BULKS:
                self._deleted[bulk] = None
            else:
                self._more = True
            self.woken.set()

    def take(self) -> bytes:
        """Return the events: which bulks were deleted, then which have changed, the one that did last at the end."""
        told = b""
        for name, bulks in (("deleted", list(self._deleted)), ("changed", list(self._untold))):
            if bulks:
                data = orjson.dumps({"bulks": bulks, "more": self._more})
                told += b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
        self._untold, self._deleted, self._more = {}, {}, False
        self.woken.clear()
        return told


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
            # What a page has asked before it listens may have changed meanwhile.
            with suppress(TooLong, Unavailable, duckdb.Error):
                mine.tell(await asyncio.to_thread(self._lately))
            # The head of the answer leaves with its first bytes: a comment, which is no event.
            yield b": listening\n\n"
            while True:
                await mine.woken.wait()
                if self._closed:
                    return
                if told := mine.take():
                    yield told
        finally:
            self._clients.discard(mine)
            if not self._clients and self._task is not None:
                self._task.cancel()
                self._task = None

    def tell_deleted(self, bulk: str) -> None:
        """Tell those who listen that a bulk has been deleted. Of its event loop alone."""
        for client in self._clients:
            client.tell_deleted(bulk)

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

    def _lately(self) -> list[str]:
        rows: list[dict[str, Any]] = self._store.query(_CHANGED, {"since": time.time_ns() - LATELY_NS}).to_pylist()
        return [row["bulk_id"] for row in rows]

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
        """`event: changed` with `{"bulks": [...]}` when records of a bulk have come, `event: deleted` with the same
        when bulks were deleted; of the named ones, or of all. With `more` there were others: read the list again."""
        if hub.full:
            return error(503, f"{MOST_CLIENTS} clients listen already", "close a page, or ask for the bulk itself")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(hub.listen(set(bulk)), media_type="text/event-stream", headers=headers)

    routes.add_api_route("/events", events, response_class=StreamingResponse)
    return routes
