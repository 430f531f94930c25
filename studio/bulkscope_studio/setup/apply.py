"""Run steps one after the other; each compares, then changes only what differs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bulkscope_studio.elastic.client import Again, Client, Credentials, Trouble

State = Literal["ok", "created", "changed", "unchanged", "skipped", "look at", "failed"]
PLANNED: Mapping[str, str] = {"created": "would create", "changed": "would change"}
CHANGING = frozenset({"created", "changed"})
# Of one thing, one after the other. Of several runs at once, one gets on each time: five are enough for four of them.
LOOKS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step did with one thing; ``look at`` is for a person to decide, ``details`` are lines.

    ``failed`` is for one thing that the server refused where the next ones do not need it.
    """

    state: State
    subject: str
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class Session:
    """What steps work with. ``elasticsearch`` and ``kibana`` folders are the sources; nothing here is global."""

    elasticsearch: Client
    kibana: Client
    sources: Path  # the folder elasticsearch/
    kibana_sources: Path | None  # the folder kibana/, None where there is none
    retention: Mapping[str, str] = field(default_factory=dict)
    exporter: Literal["otlp", "bulk"] = "otlp"
    dry_run: bool = False
    wait_s: float = 180.0
    pause_s: float = 1.0
    kibana_password: Credentials | None = None  # of kibana_system
    kibana_secret: str | None = field(default=None, repr=False)
    key_files: Mapping[str, Path] = field(default_factory=dict)  # role -> file
    rotate_keys: bool = False
    print_keys: bool = False
    shorten_retention: bool = False
    rollover: bool = False
    force_dashboards: bool = False
    ndjson: Path | None = None
    say: Callable[[str], None] = print
    now: Callable[[], float] = time.time
    # Learned on the way.
    kibana_version: tuple[int, int] = (0, 0)
    refused: list[str] = field(default_factory=list)  # of Kibana's things, those that it did not take


Step = Callable[[Session], Iterator[Outcome]]


def run(session: Session, steps: Iterable[Step], report: Callable[[Outcome], None]) -> list[Outcome]:
    """Run ``steps`` and return what they did; a ``Trouble`` says what had been done before it."""
    done: list[Outcome] = []
    try:
        for step in steps:
            for outcome in _outcomes(step, session):
                done.append(outcome)
                report(outcome)
    except Trouble as error:
        changed = [outcome.subject for outcome in done if outcome.state in CHANGING]
        if changed and not session.dry_run:
            raise Trouble(
                f"{error}. Half of it is done: {', '.join(changed)}. Running it again is safe, it goes on from there"
            ) from error
        raise
    return done


def _outcomes(step: Step, session: Session) -> Iterator[Outcome]:
    """Run a step; after ``Again`` it is run anew, which compares anew, and goes on with what it has not said yet."""
    said: set[str] = set()
    looks, before = 1, 0
    while True:
        try:
            for outcome in step(session):
                if outcome.subject in said:
                    continue
                said.add(outcome.subject)
                if looks > 1 and outcome.state == "unchanged":
                    words = "so at another look: an answer to this run was lost, or another run was here"
                    yield dataclasses.replace(outcome, details=(*outcome.details, words))
                else:
                    yield outcome
                looks = 1
            return
        except Again:
            looks = looks + 1 if len(said) == before else 2
            before = len(said)
            if looks > LOOKS:
                raise
            session.elasticsearch.sleep(session.pause_s)


def lines(outcome: Outcome, dry_run: bool) -> list[str]:
    """Return an outcome as it is printed: one line, and its details beneath."""
    word = PLANNED.get(outcome.state, outcome.state) if dry_run else outcome.state
    return [f"{word:<12} {outcome.subject}", *(f"             {detail}" for detail in outcome.details)]
