"""Attributes, resources and scopes of every kind, for records that two encoders must write alike."""

from __future__ import annotations

import enum
import random
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope


class Level(enum.IntEnum):
    LOW = 3


class Name(str):
    __slots__ = ()


VALUES: list[Any] = [
    "", "text", "ü" * 200, "line\nbreak\0", 0, 1, -1, 127, 128, 2**31, 2**63 - 1, -(2**63), 0.0, -0.0, 1.5,
    float("inf"), 1e-300, True, False, (), ("a", "b"), (1, -2), (1.5,), (True, False), ["x" * 300], b"", b"\0\xff",
    Level.LOW, Name("n"), {"inner": {"deep": [1, "two", None]}}, None,
]  # fmt: skip
RESOURCES = [
    Resource({"service.name": "a", "process.pid": 7}), Resource({"service.name": "b"}, "https://schema/1"),
    Resource({}),
]  # fmt: skip
SCOPES = [
    InstrumentationScope("bulkscope"), InstrumentationScope("x", "1.2", "https://schema/2", {"k": "v"}), None,
]  # fmt: skip


def attributes(rng: random.Random) -> dict[str, Any]:
    return {f"key.{n}": rng.choice(VALUES) for n in range(rng.choice((0, 1, 5, 40)))}
