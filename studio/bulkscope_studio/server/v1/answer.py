"""How an answer leaves: JSON with an ETag, compressed; 304 where nothing has changed; errors that say what to do."""

from __future__ import annotations

import gzip
import hashlib
import logging
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote

import orjson
import pyarrow as pa
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import Field

from bulkscope_studio.ingest.connections import RETRY_AFTER_S
from bulkscope_studio.rendering import tables
from bulkscope_studio.services.errors import Conflict, InvalidQuery, NotFound
from bulkscope_studio.storage.store import TooLong, Unavailable

logger = logging.getLogger("bulkscope.studio")
# A packet carries as much: below, compression saves nothing that can be felt.
LEAST_COMPRESSED = 1400
# 5 MB of JSON: level 1 takes 40 ms and leaves 13 %, level 6 110 ms and 10 %.
LEVEL = 1
# What is compressed already.
PACKED = ("application/vnd.apache.parquet",)
# A moment, or a number of rows: to all of these a day may be added in 64 bits, of which the store's numbers are.
Int64 = Annotated[int, Field(ge=-(2**62), le=2**62)]


def json(found: Any) -> Response:
    """Return what a service answers as JSON; a number that is none (NaN) is null."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return Response(orjson.dumps(found, option=options), media_type="application/json")


def attached(found: pa.Table, name: str, kind: str, **headers: str) -> Response:
    """Return a table as a file of one of the formats, which a browser calls ``name`` with the format's ending."""
    said = {"content-disposition": f"attachment; filename*=UTF-8''{quote(f'{name}.{kind}', safe='')}"}
    media_type, _ = tables.FORMATS[kind]
    return Response(tables.written(found, kind), media_type=media_type, headers=said | headers)


def not_json(request: Request) -> Response | None:
    """Refuse what a page of another origin may send unasked: a form, or plain text."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return None
    return error(415, "the body is not application/json", "send it with content-type: application/json")


def error(status: int, said: str, do: str, **more: Any) -> JSONResponse:
    """Return an error: what is wrong, and what to do."""
    headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else None
    return JSONResponse({"error": said, "do": do, **more}, status, headers)


def said(found: Exception) -> JSONResponse:
    """Return what is answered instead of an answer."""
    if isinstance(found, NotFound):
        do = f"nearest: {', '.join(found.nearest)}" if found.nearest else "look it up at /api/v1/search?text="
        return error(404, str(found), do, what=found.what, id=found.name, nearest=found.nearest)
    if isinstance(found, InvalidQuery):
        return error(400, str(found), "see /api for what can be asked")
    if isinstance(found, Conflict):
        return error(409, str(found), found.do)
    if isinstance(found, TooLong):
        return error(503, str(found), "ask for less: a shorter time, fewer rows, or one bulk")
    if isinstance(found, Unavailable):
        return error(503, str(found), "try again; the studio's log says more")
    if isinstance(found, RequestValidationError):
        return error(400, unread(found), "see /api for what can be asked")
    logger.error("a question could not be answered", exc_info=found)
    return error(500, f"the studio could not answer ({type(found).__name__})", "see the studio's log")


def unread(found: RequestValidationError) -> str:
    """Say which parameters are missing, or of another type than the route's."""
    return "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in found.errors())


class Route(APIRoute):  # type: ignore[misc]  # FastAPI is untyped here
    """A route whose answers have an ETag and are compressed, and whose errors are ours."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                response = await inner(request)
            except Exception as found:
                return said(found)
            if len(getattr(response, "body", None) or b"") < LEAST_COMPRESSED:
                return conditional(request, response)
            # In a thread: an export may have many megabytes, and others are answered meanwhile.
            return await run_in_threadpool(conditional, request, response)

        return handler


def conditional(request: Request, response: Response) -> Response:
    """Return 304 where the client has this very answer, else the answer with its tag, compressed where it may be."""
    body = getattr(response, "body", None)
    if request.method != "GET" or response.status_code != 200 or not body:
        return response
    # Weak: the same answer comes compressed or not.
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "no-cache", "vary": "accept-encoding"}
    known = [part.strip() for part in request.headers.get("if-none-match", "").split(",")]
    if tag in known or tag.removeprefix("W/") in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    packed = response.media_type in PACKED
    if len(body) >= LEAST_COMPRESSED and not packed and _takes_gzip(request.headers.get("accept-encoding", "")):
        response.body = gzip.compress(body, LEVEL, mtime=0)
        headers |= {"content-encoding": "gzip", "content-length": str(len(response.body))}
    response.headers.update(headers)
    return response


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
