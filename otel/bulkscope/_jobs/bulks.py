"""The bulk a request or a job belongs to, carried in the OpenTelemetry context.

One mutable ``Bulk`` stands in the context for each request and each job. It is mutable because the id
is often learnt after the SERVER span began (from the parsed body), and everything below must see it
without a new context having to reach it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opentelemetry import baggage
from opentelemetry.context import Context, create_key, get_value, set_value

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

    ``size`` counts the jobs published under it so far, ``enqueue_seconds`` the time that took;
    ``logged`` says that an access log line of this request was recorded; ``inference_failure`` is the
    failure domain of the job's last inference, None when that went well; ``inference_model`` the
    model that is being asked right now; ``attempt`` is the job's, and
    ``resent`` says that it has enqueued itself again.
    """

    id: str | None = None
    source: str | None = None
    job_id: str | None = None
    size: int = 0
    enqueue_seconds: float = 0.0
    overload: bool = False
    logged: bool = False
    inference_failure: str | None = None
    inference_model: str | None = None
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
    """Return ``value`` as an id: a non-empty string or an integer; anything else, or a longer one, is None."""
    # Of an integer the bits are looked at first: from 4,300 digits on Python refuses to write it.
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 4 * MAX_ID_LENGTH:
        value = str(value)
    if not isinstance(value, str):
        return None
    value = value.strip()
    return value if 0 < len(value) <= MAX_ID_LENGTH else None


def find_in_call(args: Sequence[object], kwargs: object) -> str | None:
    """Return the bulk id in a call's keyword arguments, else in the first positional mapping that has one."""
    for fields in (kwargs, *args):
        found = find(fields)
        if found is not None:
            return found
    return None


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
