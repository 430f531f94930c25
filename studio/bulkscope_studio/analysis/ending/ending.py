"""When a running bulk will end: its jobs played on to the end, with the times that its jobs have taken so far.

Everything is counted from ``facts.origin_ns`` in s. The sizes of prompts that nobody has begun are not recorded, so the
jobs to come are taken for jobs as those that were: of the same kinds, in the same proportions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bulkscope_studio.analysis.ending.draws import Law, Wandering
from bulkscope_studio.analysis.plain import plain
from bulkscope_studio.analysis.statistics import estimates, simulation
from bulkscope_studio.analysis.statistics.estimates import Estimate, Floats
from bulkscope_studio.analysis.thresholds import QUIET_S
from bulkscope_studio.analysis.timeline import timeline
from bulkscope_studio.analysis.timeline.facts import Attempts, Codes, Facts, Flags
from bulkscope_studio.analysis.timeline.progress import Progress, progress
from bulkscope_studio.text import wording

SCHEMA = "bulkscope.ending/1"
RUNS = 400  # of which the 2.5 % and 97.5 % percentiles are the ends of the interval: each has 10 runs outside
# The last jobs are played one by one, since they decide how long the slowest worker goes on alone; those before them
# fill all slots evenly, whatever their order. 400 runs of 400 jobs take 10 ms.
_PLAYED, _PLAYED_PER_SLOT = 300, 20
_KEPT = 1000  # of the jobs that ended last: what was long ago says less of what is to come
# A worker's first job may load its model: left out where there are so many later ones, and the first ones took longer
_LATER, _LONGER = 3, 1.5
_STALE_S = 60.0  # nothing was heard of anything for so long: there is no now to count from
_MOST_SLOTS = 4096
_MOST_RETRIES = 300  # drawn one by one, as the last jobs are
_PAUSE_S = 5.0  # between two jobs of a sender: in less than that it is still at the same request

# In 2116. At a rate of one job in years an end lies beyond the 64 bits in which moments are written.
LATEST_NS = 2**62


@dataclass(frozen=True, slots=True)
class Ahead:
    """Jobs of other bulks that wait in the same queues, ``ready`` (n,) before the bulk's last job."""

    ready: Floats


@dataclass(frozen=True, slots=True)
class Ending:
    """How far a bulk is, and when it ends. Times in s from the first record of the bulk.

    ``left`` are the seconds from ``now`` to the end with their 95 % interval; None with a ``why``. ``rate`` are jobs/s
    while all ``slots`` are busy. ``ahead``: jobs of other bulks that go first; None where they are not known.
    """

    id: str
    state: str
    now: float
    counts: dict[str, int]
    failures: dict[str, int]
    slots: int
    ahead: int | None
    rate: Estimate | None
    left: Estimate | None
    ended: float | None
    why: str | None
    notes: tuple[str, ...]


def ending(facts: Facts, ahead: Ahead | None) -> Ending:
    """Play the bulk to its end; ``ahead`` is None where waiting jobs of others are not known."""
    a, p = facts.attempts, progress(facts)
    line = timeline.build(facts, running=p.state != "complete")
    failed = p.last[a.failed[p.last]]
    domains = [name or "unknown" for name in a.domain.take(failed).to_pylist()]
    known = Ending(
        id=facts.id,
        state=p.state,
        now=facts.now,
        counts=_counts(p),
        failures={name: domains.count(name) for name in sorted(set(domains))},
        slots=0,
        ahead=None if ahead is None else len(ahead.ready),
        rate=None,
        left=None,
        ended=line.last if p.complete else None,
        why=None,
        notes=(),
    )
    if p.complete:
        return known
    why = _hindered(facts, p, line)
    if why is not None:
        return replace(known, why=why)
    return _played(facts, p, line, np.zeros(0) if ahead is None else ahead.ready, known)


def _hindered(facts: Facts, p: Progress, line: timeline.Timeline) -> str | None:
    a = facts.attempts
    if not p.sent:
        return "no job of the bulk was recorded"
    if facts.unheard > _STALE_S:
        since = wording.moment(facts.origin_ns + round(facts.now * 1e9))
        return f"nothing was recorded since {since} UTC"
    if p.state == "stopped":
        return f"nothing was heard of the bulk for {wording.seconds(QUIET_S.value)} or longer; no worker is at it"
    if not np.any(a.ended & line.ours):
        return "no job has ended yet, so nothing is known of how long one takes"
    return None


def _counts(p: Progress) -> dict[str, int]:
    return {
        "sent": p.sent, "done": p.done, "failed": p.failed, "cancelled": p.cancelled, "running": len(p.working),
        "retrying": p.retrying, "waiting": len(p.waiting), "lost": len(p.lost), "unknown": p.unknown + len(p.missing),
    }  # fmt: skip


def _played(facts: Facts, p: Progress, line: timeline.Timeline, ahead: Floats, known: Ending) -> Ending:
    a, now = facts.attempts, facts.now
    slots = _slots(facts, line, min(_ready(a, p.waiting, now).min(initial=np.inf), ahead.min(initial=np.inf)))
    if not len(slots):
        return replace(known, why="no worker is at work on its queue")
    random = np.random.default_rng(estimates.SEED)
    open_ = ~a.ended[slots]
    # All that are at work, also one whose slot seems to have gone on to the next: its span may only be late.
    at_work = p.working
    theirs = slots[open_ & ~a.mine[slots]]
    own, others = (_times(a, line, whose) for whose in (a.mine, ~a.mine))
    own = own if len(own) else others  # none of the bulk's own has ended: those of bulks before it tell
    others = others if len(others) >= _LATER else own
    wander = Wandering.of(own)
    scale = wander.levels(RUNS, random) * _stretch(a, line)
    gap = _gap(a, line)
    laws = [
        Law(times, np.maximum(a.seen[rows] - a.start[rows], 0.0), RUNS, random)
        for times, rows in ((own, at_work), (others, theirs))
    ]
    free: Floats = np.tile(line.end[slots], (RUNS, 1))
    last = np.full(RUNS, now)
    for law, rows in zip(laws, (at_work, theirs), strict=True):
        ends = a.start[rows] + law.still
        of_slot = {row: column for column, row in enumerate(rows.tolist())}
        for column, row in enumerate(slots.tolist()):
            if row in of_slot:
                free[:, column] = ends[:, of_slot[row]]
        if rows is at_work and len(at_work):
            last = np.maximum(last, ends.max(axis=1))
    free += gap
    jobs = _queue(a, p, ahead, now, random)
    played = max(_PLAYED, _PLAYED_PER_SLOT * len(slots))
    for law, whose in zip(laws, (jobs.mine, ~jobs.mine), strict=True):
        early = int(np.sum(whose[:-played]))
        if early:
            _fill(free, law.total(early) * scale + early * gap)
    ready, mine = jobs.ready[-played:], jobs.mine[-played:]
    work = np.where(mine, laws[0].draw(len(ready)), laws[1].draw(len(ready))) * scale[:, None] + gap
    there = np.arange(len(ready)) < (len(ready) - jobs.most + jobs.more)[:, None]  # retries come last
    work = np.where(there, work, 0.0).T
    arrivals = np.tile(ready[:, None], (1, RUNS))
    ends = arrivals + simulation.waits_of_runs(arrivals, work, free) + work - gap
    last = np.maximum(last, np.where(there.T & mine[:, None], ends, -np.inf).max(axis=0, initial=-np.inf))
    left = np.maximum(last - now, 0.0)
    rate = len(slots) / (laws[0].mean * scale + gap)
    return replace(
        known,
        slots=len(slots),
        rate=estimates.percentiles(float(np.median(rate)), rate),
        left=estimates.percentiles(float(np.median(left)), left),
        notes=_notes(facts, p, slots, line),
    )


def _ready(a: Attempts, rows: Codes, now: float) -> Floats:
    return np.where(np.isfinite(a.ready[rows]), a.ready[rows], now)


def _slots(facts: Facts, line: timeline.Timeline, waits_since: float) -> Codes:
    """Return the last attempt in each slot that is there: at work, or free for a short time while jobs wait."""
    a = facts.attempts
    rows = np.flatnonzero(line.ours)
    tails = rows[~np.isin(rows, line.places.before)]
    working = ~a.ended[tails] & ~a.silent[tails]
    free_for = facts.now - np.maximum(line.end[tails], waits_since)
    # A slot of which an attempt went silent went with its worker.
    there = working | ((a.ended[tails] | a.without_end[tails]) & (free_for <= QUIET_S.value))
    found: Codes = tails[there][:_MOST_SLOTS]
    return found


def _times(a: Attempts, line: timeline.Timeline, whose: Flags) -> Floats:
    """Return how long attempts lasted, in the order of their starts; without cold starts, where enough others are."""
    rows = np.flatnonzero(a.ended & whose & line.ours)
    rows = rows[np.argsort(a.start[rows], kind="stable")]
    times = a.end[rows] - a.start[rows]
    begun = np.flatnonzero(np.isfinite(a.start))
    began = np.full(int(a.worker.max(initial=-1)) + 2, np.inf)
    np.minimum.at(began, a.worker[begun], a.start[begun])
    first = a.start[rows] <= began[a.worker[rows]]
    if first.any() and np.sum(~first) >= _LATER and np.median(times[first]) > _LONGER * np.median(times[~first]):
        times = times[~first]
    return np.asarray(times[-_KEPT:])


def _gap(a: Attempts, line: timeline.Timeline) -> float:
    """Return the mean time in s between two jobs of a slot while others waited; those of stalls are stalls."""
    rows = line.waits.rows
    behind = a.ready[rows] <= line.places.free[rows]
    gaps = line.waits.dispatch[behind & (line.waits.dispatch < QUIET_S.value)]
    return float(np.mean(gaps)) if len(gaps) else 0.0


def _stretch(a: Attempts, line: timeline.Timeline) -> float:
    """Return by how much jobs of others, put later and taken before the bulk's, lengthen the slots' time for it."""
    rows = np.flatnonzero(a.mine & np.isfinite(a.ready))
    rows = rows[np.argsort(a.ready[rows], kind="stable")]
    begins = np.maximum.accumulate(np.where(np.isfinite(a.start[rows]), a.start[rows], np.inf))
    others = np.flatnonzero(line.ours & ~a.mine & a.ended & np.isfinite(a.ready))
    before = np.searchsorted(a.ready[rows], a.ready[others])
    passed = others[(before > 0) & (begins[np.maximum(before - 1, 0)] > a.start[others])] if len(rows) else others[:0]
    mine = np.flatnonzero(a.mine & line.ours)
    busy = float(np.sum(line.end[mine] - a.start[mine]))
    return 1 + float(np.sum(line.end[passed] - a.start[passed])) / busy if busy > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Queue:
    """Attempts to come, in the order in which they are ready (n,); of the last ``most`` a run has ``more`` (runs,)."""

    ready: Floats
    mine: Flags
    most: int
    more: Codes


def _queue(a: Attempts, p: Progress, ahead: Floats, now: float, random: np.random.Generator) -> Queue:
    delays = (a.ready - a.enqueue)[a.mine & (a.attempt > 1)]
    delay = float(np.nanmedian(delays)) if np.isfinite(delays).any() else 0.0
    ready = [_ready(a, p.waiting, now), np.full(p.unknown, now), np.full(p.retrying, now + delay)]
    mine = np.concatenate(ready)
    # Attempts that will be made again, as often as they were so far.
    ended = int(np.sum(a.mine & a.ended))
    again = int(np.sum(a.mine & a.ended & a.retried))
    more = np.zeros(RUNS, np.int64)
    if again:
        share = np.minimum(random.beta(again + 0.5, ended - again + 0.5, RUNS), 0.9)
        more = random.negative_binomial(len(mine) + len(p.working), 1 - share)
    most = min(int(more.max(initial=0)), _MOST_RETRIES)
    last = np.full(most, max(now, mine.max(initial=now), ahead.max(initial=now)) + delay)
    all_ready = np.concatenate([ahead, mine, last])
    order = np.argsort(all_ready, kind="stable")
    return Queue(all_ready[order], (np.arange(len(all_ready)) >= len(ahead))[order], most, np.minimum(more, most))


def _fill(free: Floats, work: Floats) -> None:
    """Give ``work`` (runs,) in s to slots that are ``free`` (runs, slots) at different times, those first that are."""
    free.sort(axis=1)
    runs, slots = free.shape
    sums = np.cumsum(free, axis=1)
    # With the first k slots filled they all end at the same time, which is not after the next one is free.
    levels = (sums + work[:, None]) / np.arange(1, slots + 1)
    following = np.column_stack([free[:, 1:], np.full(runs, np.inf)])
    filled = np.argmax(levels <= following, axis=1)
    level = levels[np.arange(runs), filled]
    np.maximum(free, level[:, None], out=free)


def _notes(facts: Facts, p: Progress, slots: Codes, line: timeline.Timeline) -> tuple[str, ...]:
    a = facts.attempts
    notes = []
    puts = np.sort(a.put[a.mine & np.isfinite(a.put)])
    pause = float(np.max(np.diff(puts))) if len(puts) > 1 else 0.0
    if pause > _PAUSE_S and facts.now - puts[-1] < 2 * pause:
        notes.append("its jobs come over time: this is the end of those that have been put")
    if len(p.lost):
        notes.append(f"without {wording.count(len(p.lost), 'lost job')}, which will not end by themselves")
    gone = set(a.worker[line.ours & a.mine].tolist()) - set(a.worker[slots].tolist())
    if gone:
        workers = wording.count(len(gone), "worker has", "workers have")
        notes.append(f"{workers} worked on it and {wording.agree(len(gone), 'is', 'are')} not at work now")
    return tuple(notes)


def to_json(found: Ending, origin_ns: int) -> dict[str, Any]:
    """Return it as plain values: times in ns since the Unix epoch, ``left_s`` in s."""

    def moment(at: float) -> int:
        return min(origin_ns + round(at * 1e9), LATEST_NS)

    left = found.left
    said: dict[str, Any] = plain(
        {
            "schema": SCHEMA, "id": found.id, "state": found.state, "now_ns": moment(found.now),
            "progress": found.counts, "failures_by_domain": found.failures, "slots": found.slots, "ahead": found.ahead,
            "rate_per_s": None if found.rate is None else asdict(found.rate),
            "left_s": None if left is None else asdict(left),
            "end_ns": None if left is None else {name: moment(found.now + s) for name, s in asdict(left).items()},
            "ended_ns": None if found.ended is None else moment(found.ended),
            "why": found.why, "notes": list(found.notes),
        }
    )  # fmt: skip
    return said
