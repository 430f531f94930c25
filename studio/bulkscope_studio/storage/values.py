"""OTLP values as what JSON can hold: what is too large is cut, and counted by reason."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import orjson

MAX_STRING = 64 * 1024
MAX_ATTRIBUTES = 1000
MAX_DEPTH = 8
FIRST_NS = 31_536_000 * 10**9  # 1971: anything before is a clock that was never set
_DAY_NS = 86_400 * 10**9

LONG_STRING = "string longer than 64 KiB"
MANY_ATTRIBUTES = "more than 1,000 attributes"


def dump(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys: equal attributes give equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


class Values:
    """Converts the values of one request; ``truncated`` counts what was cut, ``latest`` is the last time taken."""

    def __init__(self) -> None:
        self.truncated: Counter[str] = Counter()
        self.latest = time.time_ns() + _DAY_NS

    def text(self, value: str) -> str:
        if len(value) > MAX_STRING:
            self.truncated[LONG_STRING] += 1
            return value[:MAX_STRING]
        return value

    def value(self, any_value: Any, depth: int = 0) -> Any:
        """Return an ``AnyValue`` as what JSON can hold."""
        kind = any_value.WhichOneof("value")
        if kind == "string_value":
            return self.text(any_value.string_value)
        if kind == "double_value":
            number = any_value.double_value
            return number if math.isfinite(number) else str(number)
        if kind is None:
            return None
        if kind == "bytes_value":
            return self.text(any_value.bytes_value.hex())
        if depth > MAX_DEPTH:
            self.truncated["value nested deeper than 8"] += 1
            return None
        if kind == "array_value":
            values = any_value.array_value.values
            if len(values) > MAX_ATTRIBUTES:
                self.truncated["array of more than 1,000 values"] += 1
            return [self.value(item, depth + 1) for item in values[:MAX_ATTRIBUTES]]
        if kind == "kvlist_value":
            return self.mapping(any_value.kvlist_value.values, depth + 1)
        return getattr(any_value, kind)

    def mapping(self, pairs: Any, depth: int = 0) -> dict[str, Any]:
        """Return key-value pairs as a dict, at most 1,000."""
        if len(pairs) > MAX_ATTRIBUTES:
            self.truncated[MANY_ATTRIBUTES] += 1
        return {self.text(pair.key): self.value(pair.value, depth) for pair in pairs[:MAX_ATTRIBUTES]}

    def bad_time(self, moment: int) -> str | None:
        """Return why a record of this time (ns) cannot be kept, None when it can."""
        if moment == 0:
            return "timestamp is 0"
        if moment < FIRST_NS:
            return "timestamp is before 1971"
        return "timestamp is more than a day in the future" if moment > self.latest else None
