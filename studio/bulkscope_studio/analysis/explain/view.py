"""All that findings look at."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import numpy as np

from bulkscope_studio.analysis.explain import breakdown
from bulkscope_studio.analysis.explain.arrivals import Arrivals
from bulkscope_studio.analysis.explain.plays import Plays
from bulkscope_studio.analysis.statistics.queueing import Little
from bulkscope_studio.analysis.timeline.facts import Facts
from bulkscope_studio.analysis.timeline.measures import Before, Cpu, Growth, Load, Memory
from bulkscope_studio.analysis.timeline.progress import Progress
from bulkscope_studio.analysis.timeline.timeline import Timeline


@dataclass(frozen=True, slots=True)
class View:
    """All of it.

    ``open``: the jobs arrived over time, as ``arrivals`` says; ``ahead``: what arrived before the bulk, None unless its
    jobs mostly waited for that. ``plays``: what changes would bring, None where the bulk cannot be played again.
    """

    facts: Facts
    progress: Progress
    timeline: Timeline
    little: Little | None
    growth: Growth
    load: Load
    arrivals: Arrivals
    open: bool
    time: breakdown.Time
    ahead: Arrivals | None
    cpu: Cpu
    memory: Memory
    before: Before | None
    plays: Plays | None

    @property
    def outcomes(self) -> list[str]:
        """Return the outcomes of the bulk's API requests, where one was recorded."""
        return [outcome for outcome in self.facts.requests.outcome if outcome is not None]

    @property
    def bulk(self) -> str:
        """Return the bulk's page."""
        return f"/bulk/{quote(self.facts.id, safe='')}"

    @property
    def wait(self) -> float:
        """Return the mean queue wait in s."""
        return np.nan if self.plays is None else self.plays.bulk.measured.mean_wait

    @property
    def waits_over_work(self) -> float:
        """Return the mean queue wait over the mean work of a job."""
        if self.plays is None:
            return np.nan
        bulk = self.plays.bulk
        work = float(np.mean((bulk.end - bulk.start)[bulk.mine]))
        return bulk.measured.mean_wait / work if work > 0 else np.nan

    @property
    def idle(self) -> float:
        """Return the share of the slots' time in which they had nothing to do."""
        w = self.load
        return max(0.0, w.capacity - w.own - w.others - w.dispatch) / w.capacity if w.capacity > 0 else np.nan

    def trace(self, row: int) -> str | None:
        """Return the page of the trace of an attempt."""
        found = self.facts.attempts.trace[row].as_py()
        return None if found is None else f"/trace/{quote(found, safe='')}"
