"""Run steps one after the other; each compares, then changes only what differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bulkscope_studio.setup.client import Client, Credentials, Trouble

State = Literal["ok", "created", "changed", "unchanged", "skipped", "look at"]
PLANNED: Mapping[str, str] = {"created": "would create", "changed": "would change"}
CHANGING = frozenset({"created", "changed"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step did with one thing; ``look at`` is for a person to decide, ``details`` are lines."""

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


Step = Callable[[Session], Iterator[Outcome]]


def run(session: Session, steps: Iterable[Step], report: Callable[[Outcome], None]) -> list[Outcome]:
    """Run ``steps`` and return what they did; a ``Trouble`` says what had been done before it."""
    done: list[Outcome] = []
    try:
        for step in steps:
            for outcome in step(session):
                done.append(outcome)
                report(outcome)
    except (Trouble, KeyError, IndexError, TypeError, AttributeError) as error:
        trouble = error
        if not isinstance(error, Trouble):  # JSON, but of another form: another server, or a later version
            trouble = Trouble(f"an answer does not have the form that is documented ({error!r})")
        changed = [outcome.subject for outcome in done if outcome.state in CHANGING]
        if changed and not session.dry_run:
            raise Trouble(
                f"{trouble}. Half of it is done: {', '.join(changed)}. Running it again is safe, it goes on from there"
            ) from error
        raise trouble from error
    return done


def lines(outcome: Outcome, dry_run: bool) -> list[str]:
    """Return an outcome as it is printed: one line, and its details beneath."""
    word = PLANNED.get(outcome.state, outcome.state) if dry_run else outcome.state
    return [f"{word:<12} {outcome.subject}", *(f"             {detail}" for detail in outcome.details)]
