"""The pages: files of ``static/``, which ask ``/api/v1``. Read once, sent compressed, and kept by browsers for good.

The address of a file has a hash of all of them, so a browser never mixes two versions; the one document that names the
hash is asked for again each time.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from bulkscope_studio.server.anyid import any_id

TYPES = {
    ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
    ".html": "text/html; charset=utf-8",
}  # fmt: skip
# Nothing from elsewhere, no script or style that stands in a document.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGES = ("/", "/live", "/models", "/capacity", "/compare", "/logs")
OF_ONE = ("/bulk", "/job", "/trace")
# Where pages of before were: addresses of theirs stand in bookmarks and chats.
MOVED = {"/bulks": "/", "/inference": "/models"}
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent."""

    content: bytes
    packed: bytes
    type: str


def files() -> dict[str, File]:
    """Return what browsers are sent, by the path below ``static/``."""
    found: dict[str, File] = {}

    def walk(folder: Traversable, path: str) -> None:
        for each in sorted(folder.iterdir(), key=lambda each: each.name):
            if each.is_dir():
                walk(each, f"{path}{each.name}/")
            elif (suffix := "." + each.name.rpartition(".")[2]) in TYPES:
                content = each.read_bytes()
                found[path + each.name] = File(content, gzip.compress(content, 9, mtime=0), TYPES[suffix])

    walk(resources.files("bulkscope_studio") / "static", "")
    return found


def install(app: FastAPI) -> None:
    """Add the pages and their files."""
    known = files()
    mark = hashlib.sha256(b"".join(name.encode() + file.content for name, file in known.items())).hexdigest()[:16]
    root = f"/static/{mark}"
    document = known.pop("index.html").content.replace(b"{static}", root.encode())
    headers = {
        "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
        "vary": "accept-encoding",
    }  # fmt: skip

    def sent(request: Request, content: bytes, packed: bytes, type: str, kept: str) -> Response:
        of = headers | {"cache-control": kept}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type=type, headers=of | {"content-encoding": "gzip"})
        return Response(content, media_type=type, headers=of)

    page = document, gzip.compress(document, 9, mtime=0), TYPES[".html"], "no-cache"

    def shown(request: Request) -> Response:
        return sent(request, *page)

    def file(request: Request, name: str) -> Response:
        found = known.get(name)
        if found is None:
            return Response("there is no such file", 404, headers=headers)
        return sent(request, found.content, found.packed, found.type, _FOR_GOOD)

    app.add_api_route(f"{root}/{any_id('name')}", file, include_in_schema=False)
    for path in PAGES:
        app.add_api_route(path, shown, include_in_schema=False)
    for path in OF_ONE:
        app.add_api_route(f"{path}/{any_id('id')}", shown, include_in_schema=False)

    def moved(to: str) -> Callable[[], Response]:
        return lambda: RedirectResponse(to)

    for path, to in MOVED.items():
        app.add_api_route(path, moved(to), include_in_schema=False)

    def explained(id: str) -> Response:
        return RedirectResponse(f"/bulk/{quote(id, safe='')}?tab=evidence")

    app.add_api_route(f"/explain/{any_id('id')}", explained, include_in_schema=False)

    def unknown(request: Request, rest: str) -> Response:
        response = sent(request, *page)
        response.status_code = 404
        return response

    app.add_api_route(f"/{any_id('rest')}", unknown, include_in_schema=False)
