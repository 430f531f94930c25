"""Where the jobs of a bulk are, and which of them have an end that nobody recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.thresholds import QUIET_S
from bulkscope_studio.analysis.timeline.facts import Codes, Facts


@dataclass(frozen=True, slots=True)
class Progress:
    """Jobs by state; each list has rows of attempts.

    ``last``: the attempt that decides each job. ``lost``: begun, and their worker went silent with them;
    ``lost_attempts`` the same, those made again by another worker included, and those of which the worker's parent has
    told: these have failed.
    ``missing``: the worker went on, or later jobs were taken instead, so that their end was not recorded; ``unknown``
    were announced by the request, and nothing was seen of them. ``running``: something was heard a moment ago.
    ``cancelled`` ended before anybody began them, or before they were tried again; ``not_sent`` and ``duplicate`` are
    none of those that were ``sent``: the broker did not take them, or one of their id was sent before.
    """

    sent: int
    done: int
    failed: int
    cancelled: int
    not_sent: int
    duplicate: int
    retrying: int
    last: Codes
    working: Codes
    waiting: Codes
    lost: Codes
    lost_attempts: Codes
    missing: Codes
    unknown: int
    running: bool

    @property
    def complete(self) -> bool:
        """Every job that was sent has ended, and there was something to send."""
        return self.sent + self.not_sent + self.duplicate > 0 and self.ended == self.sent

    @property
    def ended(self) -> int:
        """Return how many jobs have ended, well or not, or been called off."""
        return self.done + self.failed + self.cancelled

    @property
    def state(self) -> str:
        """``complete``, ``running`` or ``stopped`` (nothing is heard of it any more, and not all has ended)."""
        return "complete" if self.complete else "running" if self.running else "stopped"


def progress(facts: Facts) -> Progress:
    """Sort the bulk's jobs by the attempt that decides each (``storage/views.sql`` says which)."""
    a = facts.attempts
    own = np.flatnonzero(a.mine)
    begun = np.isfinite(a.start)
    open_ = begun & ~a.ended & ~a.silent
    last = own[a.decides[own] & ~a.called_off[own]]
    ended = last[a.ended[last]]
    settled = ended[~a.retried[ended]]
    silent = last[begun[last] & ~a.ended[last] & a.silent[last]]
    gone = a.without_end[silent]
    mute = own[begun[own] & ~a.ended[own] & a.silent[own] & ~a.called_off[own]]
    waiting = last[~begun[last]]
    heard = np.concatenate([a.seen[own], a.enqueue[own]])
    working = last[open_[last]]
    # What other bulks do on the same queue keeps this one waiting, not stopped.
    queues, workers = a.queue[own][a.queue[own] >= 0], a.worker[own][a.worker[own] >= 0]
    # Nobody said which queue: it may be any.
    near = np.isin(a.queue, queues) | np.isin(a.worker, workers) | (len(queues) + len(workers) == 0)
    beside = np.concatenate([a.seen[~a.mine & near], a.end[~a.mine & near]])
    quiet_since = float(np.max(np.nan_to_num(np.concatenate([heard, beside]), nan=-np.inf), initial=-np.inf))
    running = len(working) > 0 or facts.now - quiet_since < QUIET_S.value
    retrying = ended[a.retried[ended]]
    overtaken = np.zeros(len(waiting), np.bool_)
    died = mute[~a.without_end[mute]]
    if not running and len(waiting) and not len(died):
        # The queue went on after these were put, and then fell silent: they were taken, or are no more. Where workers
        # died, one may have taken them with it before it could say so.
        latest = float(np.max(a.enqueue[own][begun[own]], initial=-np.inf))
        overtaken = a.enqueue[waiting] < latest
    announced = int(np.nansum(facts.requests.size)) if len(facts.requests.size) else 0
    unbegun = facts.unbegun
    announced, known = announced - unbegun.repeated, len(last) + len(unbegun.called_off)
    return Progress(
        sent=max(announced, known),
        done=int(np.sum(a.ok[settled])),
        failed=int(np.sum(~a.ok[settled])),
        cancelled=len(unbegun.called_off),
        not_sent=len(unbegun.not_sent),
        duplicate=unbegun.repeated + unbegun.refused,
        retrying=len(retrying),
        last=last,
        working=working,
        waiting=waiting[~overtaken],
        lost=silent[~gone],
        lost_attempts=np.sort(np.concatenate([died, own[a.crashed[own]]])),
        missing=np.concatenate([silent[gone], waiting[overtaken]]),
        unknown=max(0, announced - known),
        running=running,
    )
