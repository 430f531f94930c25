"""The plan of a sweep: a TOML file of the user's own, read and checked before anything is started."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from bulkscope_studio.text import parse

HERE = ("127.0.0.1", "localhost", "::1")
MOST_STEPS = 200
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


def _allowed(words: str) -> Any:
    """Say what a key may hold; the sentence about one that holds something else ends with it."""
    return Field(description=words)


def _seconds(found: object) -> float | None:
    return parse.duration(found) if isinstance(found, str) else float("nan")


def _sorted(found: list[Any]) -> list[Any]:
    return sorted(set(found))


def _folder(info: ValidationInfo) -> Path:
    """Return the folder of the plan, which its paths begin at."""
    assert isinstance(info.context, Path)
    return info.context


Text = Annotated[str, _allowed("a string")]
Flag = Annotated[bool, _allowed("true or false")]
Time = Annotated[float, BeforeValidator(_seconds), Field(gt=0), _allowed("a time such as 30s, 5m or 1h")]
Natural = Annotated[int, Field(ge=0), _allowed("a whole number from 0 up")]
Words = Annotated[list[str], _allowed("a list of strings")]
Strings = Annotated[dict[str, str], _allowed("a table of strings")]
Counts = Annotated[
    list[Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1), AfterValidator(_sorted),
    _allowed("a list of whole numbers from 1 to 1000"),
]  # fmt: skip
Rates = Annotated[
    list[Annotated[float, Field(gt=0, lt=1e6)]], Field(min_length=1), AfterValidator(_sorted),
    _allowed("a list of jobs per second above 0"),
]  # fmt: skip


class _Table(BaseModel):
    """A table of the plan, of which only known keys may be used, each with its own kind of value."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Workers(_Table):
    """How a worker is started; times in seconds."""

    command: Annotated[list[str], Field(min_length=1), _allowed("a list of strings")]
    instrument: Flag = True
    directory: Annotated[Path, Field(validate_default=True), _allowed("a string")] = Path(".")
    environment: Strings = {}
    ready: Text | None = None
    start: Time = 60.0
    grace: Time = 30.0
    warm_up: Natural = 2

    @field_validator("command")
    @classmethod
    def _has_known_fields(cls, command: list[str]) -> list[str]:
        for word in command:
            _fields(word, {"number"}, "workers.command")
        return command

    @field_validator("directory", mode="before")
    @classmethod
    def _is_from_the_folder_of_the_plan(cls, found: object, info: ValidationInfo) -> object:
        return (_folder(info) / found).resolve() if isinstance(found, str | Path) else found

    @field_validator("ready")
    @classmethod
    def _is_an_expression(cls, ready: str | None) -> str | None:
        try:
            re.compile(ready or "")
        except re.error as error:
            raise Bad(f"workers.ready must be a regular expression: {error}") from error
        return ready


class Request(_Table):
    """What is sent; ``body`` is the JSON of a request with its fields."""

    hosts: Words = []
    url: Text
    method: Annotated[Literal["POST", "PUT"], _allowed("POST or PUT")] = "POST"
    headers: Strings = {}
    body: Annotated[Any, _allowed("a table, or JSON as a string")]
    prompts: Annotated[list[str], _allowed("a string")]
    mark: Flag = True

    @field_validator("url")
    @classmethod
    def _is_here_or_meant(cls, url: str, info: ValidationInfo) -> str:
        _fields(url, {"bulk_id", "request_id"}, "request.url")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Bad(f"request.url must be a http or https address, not {url!r}")
        if parts.hostname not in (*HERE, *info.data.get("hosts", ())):
            raise Bad(
                f"request.url is on another host, {parts.hostname}: a sweep puts it under load on purpose; where that "
                f'is meant, add hosts = ["{parts.hostname}"] to [request]'
            )
        return url

    @field_validator("body")
    @classmethod
    def _has_prompts(cls, body: object) -> object:
        if isinstance(body, str):
            try:
                body = json.loads(body)
            except ValueError as error:
                raise Bad(f"request.body is not JSON: {error}") from error
        elif not isinstance(body, dict):
            raise ValueError
        found = _fields_of(body)
        if ("prompt" in found) == ("prompts" in found):
            raise Bad('request.body must hold either "{prompts}" (a list) or "{prompt}" (one for each request)')
        return body

    @field_validator("prompts", mode="before")
    @classmethod
    def _are_read(cls, name: object, info: ValidationInfo) -> object:
        if not isinstance(name, str):
            raise ValueError
        path = _folder(info) / name
        try:
            prompts = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise Bad(f"request.prompts: {path} cannot be read as JSON: {error}") from error
        if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise Bad(f"request.prompts: {path} must hold a JSON list of strings, at least one")
        return prompts

    @property
    def takes_one(self) -> bool:
        """Tell whether a request takes one prompt instead of a list."""
        return "prompt" in _fields_of(self.body)


class Closed(_Table):
    """Jobs at once, for each worker count."""

    workers: Counts
    jobs_per_worker: Annotated[int, Field(ge=1), _allowed("a whole number from 1 up")] = 30


class Open(_Table):
    """Arrival rates, in jobs/s, for each worker count."""

    workers: Counts
    rates: Rates


class Plan(_Table):
    """What ``docs/capacity.md`` describes; times in seconds."""

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"),
        _allowed("up to 40 letters, digits, '.', '_' and '-'"),
    ]  # fmt: skip
    limit: Time = 3600.0
    seconds: Time = 60.0
    drain: Time = 300.0
    slo: Time | None = None
    quantile: Annotated[float, Field(gt=0, lt=1), _allowed("a number between 0 and 1")] = 0.95
    model: Text | None = None
    seed: Natural = 1
    workers: Annotated[Workers, _allowed("a table")]
    request: Annotated[Request, _allowed("a table")]
    closed: Annotated[Closed | None, _allowed("a table")] = None
    open: Annotated[Open | None, _allowed("a table")] = None
    _digest: str = PrivateAttr("")

    @model_validator(mode="after")
    def _has_steps(self) -> Plan:
        if self.closed is None and self.open is None:
            raise Bad("the plan needs [closed] (jobs at once for each worker count), [open] (arrival rates), or both")
        if len(self.steps) > MOST_STEPS:
            raise Bad(f"the plan has {len(self.steps)} steps; {MOST_STEPS} is the most")
        return self

    @property
    def digest(self) -> str:
        """Tell it from every other plan, or other prompts."""
        return self._digest

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return them by worker count, so that workers only join.

        The jobs at once come first, as they say what the count sustains.
        """
        found: list[Step] = []
        if self.closed is not None:
            found += [Step(n, None, n * self.closed.jobs_per_worker) for n in self.closed.workers]
        if self.open is not None:
            found += [Step(n, rate, 0) for n in self.open.workers for rate in self.open.rates]
        return tuple(sorted(found, key=lambda step: (step.workers, step.rate is not None, step.rate or 0.0)))


def read(path: Path) -> Plan:
    """Read and check a plan; ``Bad`` with each key at fault."""
    try:
        raw = path.read_bytes()
        tree = tomllib.loads(raw.decode())
    except FileNotFoundError as error:
        raise Bad(f"there is no plan {path}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Bad(f"{path} cannot be read as TOML: {error}") from error
    try:
        plan = Plan.model_validate(tree, context=path.absolute().parent)
    except ValidationError as error:
        raise Bad("; ".join(dict.fromkeys(_sentence(tree, each) for each in error.errors()))) from error
    prompts = json.dumps(plan.request.prompts).encode()
    plan._digest = hashlib.sha256(raw + hashlib.sha256(prompts).digest()).hexdigest()[:16]
    return plan


_TABLES: dict[str, type[_Table]] = {"workers": Workers, "request": Request, "closed": Closed, "open": Open}


def _sentence(tree: Mapping[str, Any], error: ErrorDetails) -> str:
    """Say what is wrong with a key and what it may hold."""
    if isinstance(own := error.get("ctx", {}).get("error"), Bad):
        return str(own)
    names = [str(name) for name in error["loc"]]
    fields = Plan.model_fields
    if names[0] in _TABLES and len(names) > 1:
        tree, fields = tree[names[0]], _TABLES[names[0]].model_fields
        *where, key = names[:2]
    else:
        where, key = [], names[0]
    if key not in fields:
        table = f"[{where[0]}]" if where else "the plan"
        return f"{table} has no key {key!r}; it may have: {', '.join(sorted(fields))}"
    path, allowed = ".".join([*where, key]), fields[key].description
    return f"{path} is missing: {allowed}" if key not in tree else f"{path} must be {allowed}, not {tree[key]!r}"


def _fields(text: str, allowed: set[str], where: str) -> set[str]:
    found = set(_FIELDS.findall(text))
    if found - allowed:
        names = ", ".join("{" + name + "}" for name in sorted(allowed))
        raise Bad(f"{where}: there is no field {{{sorted(found - allowed)[0]}}}; there is: {names}")
    return found


def _fields_of(body: object) -> set[str]:
    """Return the fields of all strings in the body of a request."""
    if isinstance(body, str):
        found = _fields(body, {"bulk_id", "request_id", "prompt", "prompts"}, "request.body")
        if "prompts" in found and body != "{prompts}":
            raise Bad('request.body: "{prompts}" stands for a list and must be a value of its own')
        return found
    inner = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    return {name for item in inner for name in _fields_of(item)}


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
