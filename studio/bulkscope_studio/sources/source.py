"""Where an answer comes from, whichever it is: the studio's file, a running studio, or Elasticsearch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from bulkscope_studio.services.capacities import Question, asked
from bulkscope_studio.services.errors import Conflict, InvalidQuery, NotFound
from bulkscope_studio.services.exports import WHAT
from bulkscope_studio.services.listing import MOST_ROWS, STATES, Wanted
from bulkscope_studio.services.questions import MOST_ROWS as MOST_ANSWERED
from bulkscope_studio.services.questions import Found, Value
from bulkscope_studio.services.whatifs import ORDERS, Change

__all__ = [
    "MOST_ANSWERED",
    "MOST_ROWS",
    "ORDERS",
    "STATES",
    "WHAT",
    "Answer",
    "Change",
    "Conflict",
    "Found",
    "InvalidQuery",
    "NotFound",
    "Question",
    "Source",
    "Trouble",
    "Unnamed",
    "Value",
    "Wanted",
    "asked",
]

Answer = dict[str, Any]


class Trouble(Exception):
    """The source cannot be asked, or cannot answer; the message says why and what to do about it."""


class Unnamed(InvalidQuery):
    """A bulk, or with ``runs`` a kept run, has to be named; the message says so, and which ones there are helps."""

    def __init__(self, message: str, runs: bool = False) -> None:
        super().__init__(message)
        self.runs = runs


class Source(Protocol):
    """Answers as the JSON of the API, the same from each source as far as it knows.

    Each method raises ``NotFound`` for a name that nothing has, ``InvalidQuery`` for what makes no sense, ``Conflict``
    for a run that would be replaced, and ``Trouble``. A bulk may be named ``latest``: the newest one with jobs.
    """

    @property
    def place(self) -> str:
        """Say where it reads: a file, or an address."""

    def bulks(self) -> list[Answer]:
        """Return every bulk, newest first."""

    def listed(self, wanted: Wanted, verdicts: bool = True) -> Answer:
        """Return a page of bulks; without ``verdicts`` none is looked for."""

    def outside(self) -> Answer | None:
        """Return how much is there that belongs to no bulk: what to say where there is none. None: not asked for."""

    def report(self, bulk: str, by_host: bool = False) -> Answer:
        """Return the numbers of a bulk; ``by_host`` adds those of each host."""

    def digest(self, bulk: str) -> Answer:
        """Return a bulk in short: report, explanation, and which jobs failed or took too long."""

    def frozen(self, bulk: str) -> Answer:
        """Return what the page of a bulk shows: its ``id``, and ``answers`` by their address."""

    def ending(self, bulk: str) -> Answer:
        """Return how far a bulk is, and when it will end; made to be asked again and again."""

    def explanation(self, bulk: str) -> Answer:
        """Return why a bulk took as long as it did."""

    def whatif(self, bulk: str, change: Change) -> Answer:
        """Return what a bulk that has ended would have taken under a change."""

    def comparison(self, a: str, b: str | None, models: bool = False) -> Answer:
        """Compare two bulks or kept runs, or with ``models`` the two models of ``a``."""

    def check(self, bulk: str, against: str, max_slower: str) -> Answer:
        """Return whether a bulk is slower than another or a kept run by more than a share, such as ``10%``."""

    def capacity(self, question: Question) -> Answer:
        """Return what the system sustains."""

    def runs(self) -> list[Answer]:
        """Return the kept runs, the one kept last first."""

    def run(self, name: str) -> Answer:
        """Return one kept run."""

    def keep(self, name: str, bulks: Sequence[str], replace: bool = False) -> Answer:
        """Keep bulks under a name; return the run."""

    def drop(self, name: str) -> Answer:
        """Delete a kept run."""

    def export(self, bulk: str, what: str) -> pa.Table:
        """Return the records of a bulk of one of the kinds of ``WHAT``, oldest first."""

    def sql(self, text: str, params: Mapping[str, Value], limit: int) -> Found:
        """Return the answer to one SELECT of the tables of docs/sql.md, at most ``limit`` rows."""
