"""The plan of a sweep: a TOML file of the user's own, read and checked before anything is started."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bulkscope_studio.text import parse

HERE = ("127.0.0.1", "localhost", "::1")
MOST_STEPS = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_FIELDS = re.compile(r"\{(\w+)\}")


class Bad(ValueError):
    """The plan cannot be run; the message says what is wrong with it and what is allowed."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement: ``workers`` workers, and ``rate`` jobs/s, or as many ``jobs`` at once (rate None)."""

    workers: int
    rate: float | None
    jobs: int

    @property
    def key(self) -> str:
        """Name it within its sweep."""
        return f"w{self.workers}-" + ("closed" if self.rate is None else f"r{self.rate:g}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``docs/capacity.md`` describes; times in seconds. ``body`` is the JSON of a request with its fields."""

    name: str
    digest: str
    limit: float
    seconds: float
    drain: float
    slo: float | None
    quantile: float
    model: str | None
    seed: int
    command: tuple[str, ...]
    instrument: bool
    directory: Path
    environment: Mapping[str, str]
    ready: str | None
    start: float
    grace: float
    warm_up: int
    url: str
    method: str
    headers: Mapping[str, str]
    body: Any
    prompts: tuple[str, ...]
    mark: bool
    one_prompt: bool
    steps: tuple[Step, ...]


def read(path: Path) -> Plan:
    """Read and check a plan; ``Bad`` with the key at fault."""
    try:
        raw = path.read_bytes()
        tree = tomllib.loads(raw.decode())
    except FileNotFoundError as error:
        raise Bad(f"there is no plan {path}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Bad(f"{path} cannot be read as TOML: {error}") from error
    folder = path.absolute().parent
    top = _Table(
        tree,
        "the plan",
        {
            "name",
            "limit",
            "seconds",
            "drain",
            "slo",
            "quantile",
            "model",
            "seed",
            "workers",
            "request",
            "closed",
            "open",
        },
    )
    workers = top.table(
        "workers", {"command", "instrument", "directory", "environment", "ready", "start", "grace", "warm_up"}
    )
    request = top.table("request", {"url", "method", "headers", "body", "prompts", "mark", "hosts"})
    assert workers is not None
    assert request is not None
    name = top.text("name")
    if not _NAME.fullmatch(name):
        raise Bad(f"name must be up to 40 letters, digits, '.', '_' and '-', not {name!r}")
    command = workers.words("command")
    for word in command:
        _fields(word, {"number"}, "workers.command")
    ready = workers.text("ready", None)
    if ready is not None:
        try:
            re.compile(ready)
        except re.error as error:
            raise Bad(f"workers.ready must be a regular expression: {error}") from error
    body, one = _body(request)
    prompts, prompts_digest = _prompts(request, folder)
    return Plan(
        name=name,
        digest=hashlib.sha256(raw + prompts_digest).hexdigest()[:16],
        limit=top.time("limit", "1h"),
        seconds=top.time("seconds", "60s"),
        drain=top.time("drain", "5m"),
        slo=top.time("slo", None),
        quantile=top.number("quantile", 0.95, 0, 1),
        model=top.text("model", None),
        seed=top.whole("seed", 1, 0),
        command=command,
        instrument=workers.flag("instrument", True),
        directory=(folder / workers.text("directory", ".")).resolve(),
        environment=workers.strings("environment"),
        ready=ready,
        start=workers.time("start", "60s"),
        grace=workers.time("grace", "30s"),
        warm_up=workers.whole("warm_up", 2, 0),
        url=_url(request),
        method=_method(request),
        headers=request.strings("headers"),
        body=body,
        prompts=prompts,
        mark=request.flag("mark", True),
        one_prompt=one,
        steps=_steps(top),
    )


def _steps(top: _Table) -> tuple[Step, ...]:
    closed = top.table("closed", {"workers", "jobs_per_worker"}, needed=False)
    opened = top.table("open", {"workers", "rates"}, needed=False)
    if closed is None and opened is None:
        raise Bad("the plan needs [closed] (jobs at once for each worker count), [open] (arrival rates), or both")
    steps: list[Step] = []
    if closed is not None:
        each = closed.whole("jobs_per_worker", 30, 1)
        steps += [Step(n, None, n * each) for n in closed.counts("workers")]
    if opened is not None:
        rates = opened.rates("rates")
        steps += [Step(n, rate, 0) for n in opened.counts("workers") for rate in rates]
    if len(steps) > MOST_STEPS:
        raise Bad(f"the plan has {len(steps)} steps; {MOST_STEPS} is the most")
    # By worker count, so that workers only join; the jobs at once first, as they say what the count sustains.
    return tuple(sorted(steps, key=lambda step: (step.workers, step.rate is not None, step.rate or 0.0)))


def _url(request: _Table) -> str:
    url: str = request.text("url")
    _fields(url, {"bulk_id", "request_id"}, "request.url")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Bad(f"request.url must be a http or https address, not {url!r}")
    hosts = request.words("hosts", ())
    if parts.hostname not in (*HERE, *hosts):
        raise Bad(
            f"request.url is on another host, {parts.hostname}: a sweep puts it under load on purpose; where that is "
            f'meant, add hosts = ["{parts.hostname}"] to [request]'
        )
    return url


def _method(request: _Table) -> str:
    method: str = request.text("method", "POST")
    if method not in ("POST", "PUT"):
        raise Bad(f"request.method must be POST or PUT, not {method!r}")
    return method


def _body(request: _Table) -> tuple[Any, bool]:
    """Return the body's tree, and whether a request takes one prompt instead of a list."""
    body = request.take("body", (dict, str), "a table, or JSON as a string")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError as error:
            raise Bad(f"request.body is not JSON: {error}") from error
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, str):
            fields = _fields(value, {"bulk_id", "request_id", "prompt", "prompts"}, "request.body")
            if "prompts" in fields and value != "{prompts}":
                raise Bad('request.body: "{prompts}" stands for a list and must be a value of its own')
            found.update(fields)
        elif isinstance(value, dict):
            for item in value.values():
                look(item)
        elif isinstance(value, list):
            for item in value:
                look(item)

    look(body)
    if ("prompt" in found) == ("prompts" in found):
        raise Bad('request.body must hold either "{prompts}" (a list) or "{prompt}" (one for each request)')
    return body, "prompt" in found


def _prompts(request: _Table, folder: Path) -> tuple[tuple[str, ...], bytes]:
    path = folder / request.text("prompts")
    try:
        raw = path.read_bytes()
        prompts = json.loads(raw)
    except (OSError, ValueError) as error:
        raise Bad(f"request.prompts: {path} cannot be read as JSON: {error}") from error
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise Bad(f"request.prompts: {path} must hold a JSON list of strings, at least one")
    return tuple(prompts), hashlib.sha256(raw).digest()


def _fields(text: str, allowed: set[str], where: str) -> set[str]:
    found = set(_FIELDS.findall(text))
    if found - allowed:
        names = ", ".join("{" + name + "}" for name in sorted(allowed))
        raise Bad(f"{where}: there is no field {{{sorted(found - allowed)[0]}}}; there is: {names}")
    return found


def fill(value: Any, fields: Mapping[str, Any]) -> Any:
    """Put values into the ``{fields}`` of a tree's strings; a string that is one field becomes its value."""
    if isinstance(value, str):
        if (whole := _FIELDS.fullmatch(value)) and whole[1] in fields:
            return fields[whole[1]]
        return _FIELDS.sub(lambda found: str(fields.get(found[1], found[0])), value)
    if isinstance(value, dict):
        return {key: fill(item, fields) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, fields) for item in value]
    return value


_NEEDED: Any = object()


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the plan, of which only known keys may be used."""

    tree: Mapping[str, Any]
    where: str
    allowed: set[str]

    def __post_init__(self) -> None:
        for key in self.tree:
            if key not in self.allowed:
                raise Bad(f"{self.where} has no key {key!r}; it may have: {', '.join(sorted(self.allowed))}")

    def take(self, key: str, kinds: type | tuple[type, ...], what: str, default: Any = _NEEDED) -> Any:
        if key not in self.tree:
            if default is _NEEDED:
                raise Bad(f"{self._path(key)} is missing: {what}")
            return default
        found = self.tree[key]
        if not isinstance(found, kinds) or isinstance(found, bool) != (kinds is bool):
            raise Bad(f"{self._path(key)} must be {what}, not {found!r}")
        return found

    def table(self, key: str, allowed: set[str], needed: bool = True) -> _Table | None:
        found = self.take(key, dict, "a table", _NEEDED if needed else None)
        return None if found is None else _Table(found, f"[{key}]", allowed)

    def text(self, key: str, default: Any = _NEEDED) -> Any:
        return self.take(key, str, "a string", default)

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.take(key, bool, "true or false", default))

    def number(self, key: str, default: float, above: float, below: float) -> float:
        found = self.take(key, (int, float), f"a number between {above:g} and {below:g}", default)
        if not above < found < below:
            raise Bad(f"{self._path(key)} must be a number between {above:g} and {below:g}, not {found!r}")
        return float(found)

    def whole(self, key: str, default: int, least: int) -> int:
        found = self.take(key, int, f"a whole number from {least} up", default)
        if found < least:
            raise Bad(f"{self._path(key)} must be a whole number from {least} up, not {found!r}")
        return int(found)

    def time(self, key: str, default: str | None) -> Any:
        found = self.take(key, str, "a time such as 30s, 5m or 1h", default)
        if found is None:
            return None
        try:
            return parse.duration(found)
        except ValueError as error:
            raise Bad(f"{self._path(key)} must be a time such as 30s, 5m or 1h, not {found!r}") from error

    def words(self, key: str, default: Any = _NEEDED) -> tuple[str, ...]:
        found = self.take(key, (list, tuple), "a list of strings", default)
        if not all(isinstance(word, str) for word in found) or (default is _NEEDED and not found):
            raise Bad(f"{self._path(key)} must be a list of strings, not {found!r}")
        return tuple(found)

    def strings(self, key: str) -> Mapping[str, str]:
        found = self.take(key, dict, "a table of strings", {})
        if not all(isinstance(value, str) for value in found.values()):
            raise Bad(f"{self._path(key)} must be a table of strings, not {found!r}")
        return dict(found)

    def counts(self, key: str) -> list[int]:
        return self._several(key, "whole numbers from 1 to 1000", lambda n: isinstance(n, int) and 1 <= n <= 1000)

    def rates(self, key: str) -> list[float]:
        return self._several(
            key, "jobs per second above 0", lambda rate: isinstance(rate, int | float) and 0 < rate < 1e6
        )

    def _several(self, key: str, what: str, fits: Callable[[Any], bool]) -> list[Any]:
        found = self.take(key, list, f"a list of {what}")
        if not found or not all(not isinstance(value, bool) and fits(value) for value in found):
            raise Bad(f"{self._path(key)} must be a list of {what}, not {found!r}")
        return sorted(set(found))

    def _path(self, key: str) -> str:
        return key if self.where == "the plan" else f"{self.where.strip('[]')}.{key}"
