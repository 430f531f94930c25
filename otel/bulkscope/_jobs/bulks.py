"""The bulk a request or a job belongs to, carried in the OpenTelemetry context.

One mutable ``Bulk`` stands in the context for each request and each job. It is mutable because the id
is often learnt after the SERVER span began (from the parsed body), and everything below must see it
without a new context having to reach it.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from opentelemetry import baggage
from opentelemetry.context import Context, create_key, get_value, set_value

from bulkscope._safe import log_once
from bulkscope.conventions import BULK_ID

_KEY = create_key("bulkscope-bulk")

# First in this order wins, however late it is learnt.
SOURCES = ("baggage", "body", "path", "query", "header", "payload", "trace")
_RANK = {source: rank for rank, source in enumerate(SOURCES)}

# An id is copied onto every span and log record of its jobs; a longer one is a mistake.
MAX_ID_LENGTH = 256

KEYS = tuple(
    key.strip() for key in os.environ.get("BULKSCOPE_BULK_ID_KEYS", "bulkId,bulk_id,bulk.id").split(",") if key.strip()
)


@dataclass(slots=True, eq=False)
class Bulk:
    """What is known of the bulk in one request (``job_id`` is None) or one job.

    ``jobs`` counts the jobs published by it so far, ``size`` those of them that are of this bulk,
    ``enqueue_seconds`` is the time that took;
    ``logged`` says that an access log line of this request was recorded; ``inference_failure`` is the
    failure domain of the job's last inference, None when that went well; ``inference_model`` the
    model that is being asked right now; ``import_seconds`` is how long the job's module took to be there;
    ``attempt`` is the job's, and
    ``resent`` says that it has enqueued itself again.
    """

    id: str | None = None
    source: str | None = None
    job_id: str | None = None
    jobs: int = 0
    size: int = 0
    enqueue_seconds: float = 0.0
    overload: bool = False
    logged: bool = False
    inference_failure: str | None = None
    inference_model: str | None = None
    import_seconds: float | None = None
    attempt: int = 1
    resent: bool = False

    def learn(self, bulk_id: str | None, source: str) -> bool:
        """Take ``bulk_id`` unless an id from a source that goes before is known. True if taken."""
        if not bulk_id or (self.source is not None and _RANK[self.source] <= _RANK[source]):
            return False
        self.id, self.source = bulk_id, source
        return True


def current(context: Context | None = None) -> Bulk | None:
    """Return the bulk of ``context`` (default: the current one), or None."""
    bulk = get_value(_KEY, context)
    return bulk if isinstance(bulk, Bulk) else None


def bind(bulk: Bulk, context: Context | None = None) -> Context:
    """Return ``context`` with ``bulk`` in it and, when its id is known, in W3C baggage too."""
    context = set_value(_KEY, bulk, context)
    return baggage.set_baggage(BULK_ID, bulk.id, context) if bulk.id else context


def from_baggage(context: Context | None = None) -> str | None:
    """Return the bulk id that came in with W3C baggage, or None."""
    return clean(baggage.get_baggage(BULK_ID, context))


def clean(value: object) -> str | None:
    """Return ``value`` as an id: a non-empty string, an integer or a UUID; anything else is None.

    So is a text that is too long, or has a line break or the like in it, which is said once: an id is part of paths,
    headers and log lines.
    """
    # Of an integer the bits are looked at first: from 4,300 digits on Python refuses to write it.
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 4 * MAX_ID_LENGTH:
        value = str(value)
    if not isinstance(value, str):
        return str(value) if isinstance(value, UUID) else None
    value = value.strip()
    if 0 < len(value) <= MAX_ID_LENGTH and value.isprintable():
        return value
    if value:
        _refuse(value)
    return None


def _refuse(value: str) -> None:
    length = f"has {len(value)} characters, of which an id has at most {MAX_ID_LENGTH}"
    reason = length if len(value) > MAX_ID_LENGTH else "has a line break or another character that cannot be printed"
    log_once("a bulk's id", "A bulk's id is not taken: it %s; its jobs are found by their trace", reason)


def find_in_call(args: Sequence[object], kwargs: object, function: object = None) -> str | None:
    """Return the bulk id in a call's keyword arguments, else in the first positional mapping that has one.

    Last where it stands by position: ``function`` is what is called, if it is at hand.
    """
    for fields in (kwargs, *args):
        found = find(fields)
        if found is not None:
            return found
    if function is None or not args:
        return None
    by_position = (clean(args[position]) for position in _positions(function) if position < len(args))
    return next(filter(None, by_position), None)


def _positions(function: object) -> tuple[int, ...]:
    """Return where in a call of ``function`` the parameters stand that are called like one of ``KEYS``."""
    try:
        return _read_positions(function)
    except (TypeError, ValueError):  # not callable, not hashable, or of C
        return ()


@lru_cache(512)  # 50 us the first time
def _read_positions(function: Any) -> tuple[int, ...]:
    parameters = inspect.signature(function).parameters.values()
    names = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return tuple(names.index(key) for key in KEYS if key in names)


def header_names(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the request headers for ``keys``: of ``batch_id``, ``batchId`` and ``batch.id`` ``(x-)batch-id``."""
    plain = (re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_.\s]+", "-", key).lower() for key in keys)
    return tuple(dict.fromkeys(name for base in plain for name in (base, f"x-{base}")))


def find(fields: object) -> str | None:
    """Return the bulk id in a mapping (a parsed body, keyword arguments), or None.

    Looks for each of ``KEYS`` as it stands and, for one with dots, as a path of nested mappings.
    """
    if not isinstance(fields, Mapping):
        return None
    for key in KEYS:
        found = clean(fields.get(key))
        if found is None and "." in key:
            inner: object = fields
            for part in key.split("."):
                inner = inner.get(part) if isinstance(inner, Mapping) else None
            found = clean(inner)
        if found is not None:
            return found
    return None
