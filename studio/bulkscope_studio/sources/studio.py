"""A running studio, asked over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow as pa

from bulkscope_studio.sources.source import (
    Answer,
    Change,
    Conflict,
    Found,
    InvalidQuery,
    NotFound,
    Question,
    Trouble,
    Value,
    Wanted,
)
from bulkscope_studio.storage import trouble
from bulkscope_studio.storage.address import Runtime

TIMEOUT_S = 60.0  # of one read or write on the connection: a query may wait, and take, 30 s


class StudioSource:
    """Asks the studio that holds a store. ``warn`` is told what is wrong with the store beside an answer."""

    def __init__(self, db: object, running: Runtime, client: httpx.Client, warn: Callable[[str], None]) -> None:
        self._db, self._running, self._client, self._warn = db, running, client, warn

    @classmethod
    @contextmanager
    def open(cls, db: object, running: Runtime, warn: Callable[[str], None]) -> Iterator[StudioSource]:
        """Give the source of a studio; its connections end with the block."""
        headers = {"Authorization": f"Bearer {running.token}"} if running.token else {}
        # Asked on the machine itself: a proxy from the environment must not come between, and to compress takes longer.
        headers["Accept-Encoding"] = "identity"
        with httpx.Client(base_url=running.web, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
            yield cls(db, running, client, warn)

    @property
    def place(self) -> str:
        return str(self._db)

    @property
    def receiver(self) -> str:
        """Return the address that takes OTLP over HTTP."""
        return self._running.otlp_http

    def bulks(self) -> list[Answer]:
        return self._list("/api/bulks")

    def outside(self) -> Answer | None:
        return self._ask("GET", "/api/outside")

    def listed(self, wanted: Wanted, verdicts: bool = True) -> Answer:
        given = asdict(wanted) | {"failed": _yes(wanted.failed), "verdicts": _yes(verdicts)}
        return self._ask("GET", "/api/v1/bulks", given)

    def report(self, bulk: str, by_host: bool = False) -> Answer:
        return self._ask("GET", f"/api/bulks/{_quoted(bulk)}/report", {"by_host": _yes(by_host or None)})

    def digest(self, bulk: str) -> Answer:
        return self._ask("GET", f"/api/bulks/{_quoted(bulk)}/digest")

    def frozen(self, bulk: str) -> Answer:
        return self._ask("GET", f"/api/bulks/{_quoted(bulk)}/frozen")

    def ending(self, bulk: str) -> Answer:
        return self._ask("GET", f"/api/bulks/{_quoted(bulk)}/ending")

    def explanation(self, bulk: str) -> Answer:
        return self._ask("GET", f"/api/bulks/{_quoted(bulk)}/explain")

    def whatif(self, bulk: str, change: Change) -> Answer:
        given = asdict(change) | {"preload": _yes(change.preload or None)}
        return self._ask("GET", f"/api/bulks/{_quoted(bulk)}/whatif", given)

    def comparison(self, a: str, b: str | None, models: bool = False) -> Answer:
        return self._ask("GET", "/api/compare", {"a": a, "b": b, "models": _yes(models or None)})

    def check(self, bulk: str, against: str, max_slower: str) -> Answer:
        return self._ask("GET", "/api/check", {"bulk": bulk, "against": against, "max_slower": max_slower})

    def capacity(self, question: Question) -> Answer:
        given = asdict(question)
        return self._ask("GET", "/api/capacity", {"bulk": list(given.pop("bulks")), **given})

    def progress(self, bulk: str) -> dict[str, int]:
        """Return how many jobs of a bulk were ``sent`` and have ``ended``: made to be polled."""
        return self._ask("GET", "/api/capacity/progress", {"bulk": bulk})

    def runs(self) -> list[Answer]:
        return self._list("/api/runs")

    def run(self, name: str) -> Answer:
        return self._ask("GET", f"/api/runs/{_quoted(name)}")

    def keep(self, name: str, bulks: Sequence[str], replace: bool = False) -> Answer:
        return self._ask("POST", "/api/runs", body={"name": name, "bulks": list(bulks), "replace": replace})

    def drop(self, name: str) -> Answer:
        return self._ask("DELETE", f"/api/runs/{_quoted(name)}")

    def export(self, bulk: str, what: str) -> pa.Table:
        given = {"what": what, "format": "arrow"}
        return _table(self._answer("GET", f"/api/v1/bulks/{_quoted(bulk)}/export", given))

    def sql(self, text: str, params: Mapping[str, Value], limit: int) -> Found:
        body = {"query": text, "params": dict(params), "limit": limit}
        answer = self._answer("POST", "/api/v1/sql", {"format": "arrow"}, body)
        return Found(_table(answer), answer.headers.get("bulkscope-cut"))

    def _list(self, path: str) -> list[Answer]:
        rows: Any = self._ask("GET", path)
        return list(rows)

    def _ask(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: object = None) -> Answer:
        answer = self._answer(method, path, query, body)
        try:
            found: Answer = answer.json()
        except ValueError as error:
            raise self._silent(path, str(error)) from error
        return found

    def _answer(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: object = None
    ) -> httpx.Response:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._client.request(method, path, params=given, json=body)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:  # longer than 64 KiB, or no text
            raise InvalidQuery(f"this cannot be asked of a running studio: {error}") from error
        except httpx.HTTPError as error:
            raise self._silent(path, str(error) or type(error).__name__) from error
        told = trouble.decoded(answer.headers.get(trouble.HEADER))
        if told is not None:
            self._warn(f"the studio has trouble: {told}")
        if answer.is_success:
            return answer
        try:
            said = answer.json()
        except ValueError:
            said = None
        if isinstance(said, dict) and "error" in said:
            if answer.status_code == 404 and "nearest" in said:
                what = said.get("what", said["error"].removeprefix("unknown "))
                raise NotFound(said["id"], said["nearest"], what)
            kind = _ERRORS.get(answer.status_code)
            if kind is not None:
                raise kind(said["error"])
        raise Trouble(
            f"the studio at {self._running.web} answered {answer.status_code} to {path}; its log says why"
        )  # fmt: skip

    def _silent(self, path: str, why: str) -> Trouble:
        url = self._running.web.rstrip("/") + path
        return Trouble(f"the studio (process {self._running.pid}) does not answer at {url}: {why}; restart it")


_ERRORS: dict[int, type[Exception]] = {400: InvalidQuery, 409: Conflict, 503: Trouble}


def _yes(so: bool | None) -> str | None:
    return None if so is None else "true" if so else "false"


def _table(answer: httpx.Response) -> pa.Table:
    return pa.ipc.open_stream(answer.content).read_all()


def _quoted(name: str) -> str:
    """Return a name as one segment of a path, which no client takes for the folder above."""
    quoted = quote(name, safe="", errors="replace")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted
