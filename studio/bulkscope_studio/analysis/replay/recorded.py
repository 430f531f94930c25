"""A bulk as its records tell it, ready to be played: its jobs, its slots, and what of each job's time was what.

Played without a change it must come out as it was measured; ``Replay.fits`` says whether it does. Times in seconds
since the facts' origin.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.replay.play import Jobs, Played, Slots, play
from bulkscope_studio.analysis.replay.sizes import Sizes, sizes
from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.thresholds import QUIET_S
from bulkscope_studio.analysis.timeline.facts import Codes, Facts, Flags, Floats, by_code
from bulkscope_studio.analysis.timeline.timeline import Timeline, first_and_last

# A replay that is further off than this from what was measured says nothing about changes.
FITS = 0.1
# Plays with other draws, for the interval; all of them together play at most so many jobs.
_DRAWS, _DRAWN_JOBS = 20, 40_000


@dataclass(frozen=True, slots=True)
class Change:
    """What is changed before the bulk is played again; without arguments nothing is.

    ``slots``: their number (more are as the usual ones, and begin as cold as those did; fewer: the fastest stay).
    ``at_once``: all jobs are enqueued when the first is. ``gaps``: times the recorded gaps of the hand-out, 0 for none.
    ``first_come``: a free slot takes the job that has been ready longest, whoever had reserved it. ``longest_first``:
    of the ready jobs the longest. ``alike``: slow workers are as the others. ``preloaded``: no worker's first job is
    longer. ``starved``: False for threads that never wait for a core. ``speed``: times as fast. ``alone``: without
    other bulks' jobs. ``cores``: so many are there for all jobs together; None: as many as they want.
    """

    slots: int | None = None
    at_once: bool = False
    gaps: float = 1.0
    first_come: bool = False
    longest_first: bool = False
    alike: bool = False
    preloaded: bool = False
    starved: bool = True
    speed: float = 1.0
    alone: bool = False
    cores: float | None = None
    without_longest: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a played bulk comes to, in s: ``makespan`` from the first ready job to the last end, the mean and the 95th
    percentile of its ``waits``, and the mean time from ready to end (``stay``)."""

    makespan: float
    mean_wait: float
    p95_wait: float
    stay: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """The jobs that the bulk's workers ended while it lasted, its own (``mine``) and others', and the slots.

    By job: ``row`` of attempts; ``sent`` (NaN: not by the sender, a retry), ``ready``, ``start``, ``end``; ``gap``
    between a free slot and the start; ``seconds`` of work as a usual, warm worker does it; ``cold`` and ``lost``
    seconds more, for a worker's first job and for want of a core; ``cores`` that it keeps busy; ``worker`` that did it.
    ``slots``: see ``play.Slots``; ``slot_worker`` of each; ``cold_usual`` seconds more of a worker that is added.
    """

    row: Codes
    mine: Flags
    sent: Floats
    ready: Floats
    start: Floats
    end: Floats
    gap: Floats
    seconds: Floats
    cold: Floats
    lost: Floats
    cores: Floats
    worker: Codes
    slots: Slots
    slot_worker: Codes
    cold_usual: float
    sizes: Sizes

    @property
    def sending(self) -> float:
        """Return the seconds from the first job that was sent to the last; NaN where none was."""
        sent = self.sent[np.isfinite(self.sent)]
        return float(np.ptp(sent)) if len(sent) else np.nan

    @property
    def measured(self) -> Outcome:
        """What was recorded."""
        return _outcome(self.mine, self.ready, self.start, self.end)


def presence(facts: Facts, timeline: Timeline, rows: Codes) -> list[tuple[int, float, float]]:
    """Return each slot's worker, and from when to when it was there: to the end, unless its worker was killed, or fell
    silent long before."""
    a = facts.attempts
    killed = set(a.worker[a.killed].tolist())
    said = {worker.code: worker for worker in facts.workers}
    begun, ended = first_and_last(facts, timeline.end, rows)
    found = []
    for code in np.unique(a.worker[rows]).tolist():
        worker = said.get(code)
        begin, end = float(begun[code]), np.inf
        if worker is not None and np.isfinite(worker.first):
            begin = min(worker.first, begin)
            if worker.last < timeline.last - QUIET_S.value:
                end = max(worker.last, float(ended[code]))
        if code in killed:
            end = float(ended[code])
        # A worker with no sign of life but its jobs may have been there all the time after.
        found += [(code, begin, end)] * timeline.places.places.get(code, 1)
    return found


def worked(facts: Facts, timeline: Timeline) -> Codes:
    """Return the rows of attempts that its workers ended while the bulk lasted."""
    a = facts.attempts
    return np.flatnonzero(timeline.ours & a.ended & (timeline.end >= timeline.first) & (a.start <= timeline.last))


def ready_times(facts: Facts, timeline: Timeline, rows: Codes) -> Floats:
    """Return from when each could be taken; what had begun before the bulk, or by a clock before it was ready, when it
    began, and what waited before the bulk from the bulk's first job on."""
    a = facts.attempts
    ready = np.where(np.isfinite(a.ready[rows]), np.minimum(a.ready[rows], a.start[rows]), a.start[rows])
    return np.where(a.start[rows] < timeline.first, a.start[rows], np.maximum(ready, timeline.first))


def recorded(facts: Facts, timeline: Timeline) -> Recorded | None:
    """Read it off the facts; None without an ended job of the bulk whose time of being ready is known."""
    a = facts.attempts
    rows = worked(facts, timeline)
    if not len(rows) or not (a.mine[rows] & np.isfinite(a.ready[rows])).any():
        return None
    ready = ready_times(facts, timeline, rows)
    # Jobs that became ready at the same moment: in the order in which they were taken.
    order = np.lexsort((rows, a.start[rows], ready))
    rows, ready = rows[order], ready[order]
    start, end = a.start[rows], timeline.end[rows]
    free = timeline.places.free[rows]
    gap = np.where(np.isfinite(free), start - np.maximum(ready, np.minimum(np.nan_to_num(free), start)), 0.0)
    there = presence(facts, timeline, rows)
    size = sizes(facts, rows)
    codes = np.array([code for code, _, _ in there], np.int64)
    factor = np.array([size.factor.get(code, 1.0) for code in codes.tolist()], np.float64)
    own_factor = np.array([size.factor.get(code, 1.0) for code in a.worker[rows].tolist()], np.float64)
    cold = size.cold
    by_slot = np.zeros(len(codes))
    for job in np.flatnonzero(cold > 0).tolist():  # one a worker and model
        by_slot[int(np.argmax(codes == a.worker[rows[job]]))] += cold[job]
    firsts = by_slot[by_slot > 0]
    slots = Slots(
        begin=np.array([begin for _, begin, _ in there], np.float64),
        end=np.array([stop for _, _, stop in there], np.float64),
        factor=factor,
        cold=by_slot,
    )
    first = a.mine[rows] & (a.attempt[rows] <= 1)
    warm = np.maximum(end - start - cold, 0.0)
    return Recorded(
        row=rows,
        mine=a.mine[rows] & np.isfinite(a.ready[rows]),
        sent=np.where(first, np.minimum(a.enqueue[rows], ready), np.nan),
        ready=ready,
        start=start,
        end=end,
        gap=np.maximum(gap, 0.0),
        seconds=warm / own_factor,
        cold=cold,
        lost=np.minimum(size.lost, warm) / own_factor,
        cores=size.cores,
        worker=a.worker[rows],
        slots=slots,
        slot_worker=codes,
        cold_usual=float(np.median(firsts)) if len(firsts) else 0.0,
        sizes=size,
    )


def replayed(bulk: Recorded, change: Change = Change(), draw: int = 0) -> Outcome | None:
    """Play it with a change; None where jobs are left that no slot takes.

    ``draw`` above 0 plays as it might have gone another time: with gaps, first jobs and work as they scatter.
    """
    jobs, slots = _changed(bulk, change, draw)
    keep = bulk.mine | (not change.alone)
    # A change of the slots or of the order makes void what workers had reserved.
    free_for_all = change.first_come or change.longest_first or change.slots is not None or change.alone
    if free_for_all or change.cores is not None:
        found = play(_taken(jobs, np.flatnonzero(keep)), slots, math.inf if change.cores is None else change.cores)
    else:
        found = _each_its_own(bulk, jobs, slots)
    start, end = found.start, found.end
    mine, ready = bulk.mine[keep], jobs.ready[keep]
    if not mine.any() or not bool(np.isfinite(end[mine]).all()):
        return None
    return _outcome(mine, ready, start, end)


def estimated(bulk: Recorded, change: Change, base: Change = Change(), *, of: str = "makespan") -> Estimate | None:
    """Return what ``of`` an ``Outcome`` would come to with a change, in s.

    By as much as the replay without it is off, the value is moved; the interval holds that error, and how other draws
    of gaps, first jobs and work come out.
    """
    value, plain = replayed(bulk, change), replayed(bulk, base)
    if value is None or plain is None:
        return None
    was, now, then = getattr(bulk.measured, of), getattr(plain, of), getattr(value, of)
    # The base may differ from what was measured by what the change takes away (an uneven hand-out): not the change.
    off = was / now if now > 0 and was > 0 and not change.first_come and not base.first_come else 1.0
    off = off if abs(math.log(off)) < math.log1p(FITS) else 1.0
    count = min(_DRAWS, _DRAWN_JOBS // max(1, len(bulk.row)))
    drawn = [getattr(one, of) for n in range(count) if (one := replayed(bulk, change, n + 1)) is not None]
    wide = max(0.02, abs(off - 1))
    low, high = (float(np.quantile(drawn, q)) for q in (0.025, 0.975)) if len(drawn) > 1 else (then, then)
    return Estimate(then * off, min(low, then) * off * (1 - wide), max(high, then) * off * (1 + wide))


def _outcome(mine: Flags, ready: Floats, start: Floats, end: Floats) -> Outcome:
    waits = np.maximum(start - ready, 0.0)[mine]
    return Outcome(
        makespan=float(np.max(end[mine]) - np.min(ready[mine])),
        mean_wait=float(np.mean(waits)),
        p95_wait=float(np.quantile(waits, 0.95)),
        stay=float(np.mean((end - ready)[mine])),
    )


def _taken(jobs: Jobs, rows: Codes) -> Jobs:
    return Jobs(*(getattr(jobs, field.name)[rows] for field in dataclasses.fields(Jobs)))


def _changed(bulk: Recorded, change: Change, draw: int) -> tuple[Jobs, Slots]:
    ready, gap, seconds = bulk.ready, bulk.gap * change.gaps, bulk.seconds
    slots, cold_usual = bulk.slots, bulk.cold_usual
    if not change.starved or change.cores is not None:
        seconds = seconds - bulk.lost
    if change.without_longest and len(seconds):
        longest = np.flatnonzero(bulk.mine)[np.argmax(seconds[bulk.mine])]
        seconds = seconds.copy()
        seconds[longest] = float(np.median(seconds[bulk.mine]))
    if draw:
        random = np.random.default_rng([estimates.SEED, draw])
        seconds = seconds * np.exp(random.normal(0.0, bulk.sizes.scatter, len(seconds)))
        gap = gap[random.integers(0, len(gap), len(gap))]
        known = bulk.slots.cold[bulk.slots.cold > 0]
        if len(known):
            slots = dataclasses.replace(
                slots, cold=np.where(slots.cold > 0, random.choice(known, len(slots.cold)), 0.0)
            )
            cold_usual = float(random.choice(known))
    if change.at_once:
        # A scheduled delay stays, and so does what was put again after a failure.
        sent = np.isfinite(bulk.sent)
        ready = np.where(sent, ready - np.nan_to_num(bulk.sent - np.nanmin(bulk.sent)), ready) if sent.any() else ready
    factor, cold = slots.factor, slots.cold
    if change.alike:
        factor = np.ones_like(factor)
    if change.slots is not None:
        more = change.slots - len(factor)
        kept = np.argsort(factor, kind="stable")[: change.slots]
        # What is added is there as long as the bulk lasts.
        first = float(np.min(ready[bulk.mine]))
        slots = Slots(
            np.concatenate([slots.begin[kept], np.full(max(0, more), min(first, float(np.min(slots.begin))))]),
            np.concatenate([slots.end[kept], np.full(max(0, more), np.inf)]),
            np.concatenate([factor[kept], np.ones(max(0, more))]),
            np.concatenate([cold[kept], np.full(max(0, more), cold_usual)]),
        )
        factor, cold = slots.factor, slots.cold
    if change.preloaded:
        cold = np.zeros_like(cold)
    if change.speed != 1.0:
        seconds, cold = seconds / change.speed, cold / change.speed
    key = np.arange(len(ready), dtype=np.float64)
    if change.longest_first:
        # Who enqueues them sorts them: the longest is ready when the first was.
        own = np.flatnonzero(bulk.mine)
        ready, key = ready.copy(), -seconds
        ready[own[np.argsort(-seconds[own], kind="stable")]] = np.sort(ready[own])
    return Jobs(ready, gap, seconds, bulk.cores, key), Slots(slots.begin, slots.end, factor, cold.copy())


def _each_its_own(bulk: Recorded, jobs: Jobs, slots: Slots) -> Played:
    """Play each worker's jobs on its own slots, in the order in which it took them: as they were handed out."""
    start, end = np.full(len(jobs.ready), np.nan), np.full(len(jobs.ready), np.nan)
    of_worker = by_code(bulk.slot_worker, np.arange(len(bulk.slot_worker)))
    for code, rows in by_code(bulk.worker, np.lexsort((bulk.start,))).items():
        mine = of_worker[code]
        own = dataclasses.replace(_taken(jobs, rows), key=np.arange(len(rows), dtype=np.float64))
        # In its order: no job overtakes one that it took before.
        own = dataclasses.replace(own, ready=np.maximum.accumulate(own.ready))
        found = play(own, Slots(slots.begin[mine], slots.end[mine], slots.factor[mine], slots.cold[mine]))
        start[rows], end[rows] = found.start, found.end
    return Played(start, end)
