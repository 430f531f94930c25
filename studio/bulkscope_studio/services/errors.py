"""What a use case answers instead of an answer. Any other exception is a fault of ours, or of the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class NotFound(Exception):
    """A name that nothing has: ``what`` it should name, and ``nearest``, the names that there are, the likest first."""

    def __init__(self, name: str, nearest: Sequence[str], what: str = "bulk") -> None:
        super().__init__(f"no {what} {name!r}")
        self.name, self.nearest, self.what = name, list(nearest), what

    @property
    def answer(self) -> dict[str, Any]:
        """Say it as JSON."""
        return {"error": f"unknown {self.what}", "id": self.name, "nearest": self.nearest}


class InvalidQuery(Exception):
    """What was asked for makes no sense; the message says what would."""


class Conflict(Exception):
    """What was asked for would replace or spoil something; ``do`` says how to have it all the same."""

    def __init__(self, said: str, do: str = "send it again with replace") -> None:
        super().__init__(said)
        self.do = do
