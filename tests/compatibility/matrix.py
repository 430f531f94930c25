"""Which of the thirteen numbers a library's version has been seen to deliver; ``docs/compatibility.md`` of it."""

from __future__ import annotations

_seen: dict[tuple[str, str], set[str]] = {}

# What a kind of library can deliver at all; the rest of the thirteen comes from the others of a bulk's way.
NUMBERS = {
    "1": "API requests", "2": "API failures", "3": "time to enqueue", "4": "jobs", "5": "job failures",
    "6": "queue wait", "7": "inference time", "8": "CPU", "9": "RAM", "10": "output tokens", "11": "input tokens",
    "12": "tokens/s", "13": "wait ratio",
}  # fmt: skip


def note(library: str, version: str, *numbers: str) -> None:
    """Say that a test has seen these numbers, right, from this version of the library."""
    _seen.setdefault((library, version), set()).update(numbers)
