"""What each change would have saved: the bulk played again, once as it was and once for each change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.replay import recorded
from bulkscope_studio.analysis.replay.recorded import FITS, Change, Recorded
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.timeline.facts import Facts
from bulkscope_studio.analysis.timeline.measures import Before, Growth
from bulkscope_studio.analysis.timeline.progress import Progress
from bulkscope_studio.analysis.timeline.timeline import Timeline

# The changes, by the code of the finding that they belong to.
CORES, SENDER, HAND_OUT, UNEVEN, LONG, SLOW, COLD, SLOWER, WORKERS, OTHERS = (
    "cores", "waiting_for_sender", "slow_hand_out", "uneven_hand_out", "one_long_job", "slow_worker", "cold_start",
    "slower_than_before", "at_capacity_workers", "other_bulks",
)  # fmt: skip
_NEVER_MORE = 1.5  # times the median: a job that is no longer is not what holds the others up


@dataclass(frozen=True, slots=True)
class Saving:
    """One change: what the bulk would take with it, in s, and the ``share`` of its time that this saves."""

    change: Change
    then: Estimate
    share: float

    @property
    def worth(self) -> bool:
        """Whether it saves a share that counts; that it is long enough to count at all is part of the share."""
        return self.share >= thresholds.SAVED.value


@dataclass(frozen=True, slots=True)
class Plays:
    """What was played. ``time`` is what the bulk took, in s: its makespan, or, ``stream``, of jobs that arrived over
    time the mean from ready to end. ``fits``: played as it was, it comes out as it was measured.

    ``longest``: share of the makespan that the longest job took alone, if it is longer than others; ``idle`` seconds
    of slots that stood free beside ready jobs which another worker had reserved.
    """

    bulk: Recorded
    stream: bool
    time: float
    fits: bool
    savings: dict[str, Saving]
    longest: float
    longest_job: int
    bounded: bool

    def worth(self, code: str) -> Saving | None:
        """Return what a change would bring where that counts."""
        found = self.savings.get(code)
        return found if found is not None and found.worth else None


def plays(
    facts: Facts, progress: Progress, timeline: Timeline, growth: Growth, before: Before | None, stream: bool
) -> Plays | None:
    """Play all changes that could matter; None where too little is recorded to play the bulk at all, or workers were
    lost with their jobs."""
    bulk = None if len(progress.lost_attempts) else recorded.recorded(facts, timeline)
    if bulk is None or not (bulk.end > bulk.start)[bulk.mine].any():
        return None
    of = "stay" if stream else "makespan"
    time = getattr(bulk.measured, of)
    as_it_was, shared = recorded.replayed(bulk), recorded.replayed(bulk, Change(first_come=True))
    if as_it_was is None or shared is None or time <= 0:
        return None
    fits = abs(math.log(getattr(as_it_was, of) / time)) < math.log1p(FITS)
    plain = getattr(shared, of)
    jobs = int(bulk.mine.sum())
    savings: dict[str, Saving] = {}

    def tried(code: str, change: Change, base: float = plain, least: float = thresholds.SAVED.value / 4) -> None:
        found = recorded.replayed(bulk, change)
        if found is None or base <= 0:
            return
        share = 1 - getattr(found, of) / base
        lost = time * share * (jobs if stream else 1)
        if lost < thresholds.IDLE_S.value or lost < thresholds.A_JOB_S.value * (jobs if stream else 1):
            share = min(share, 0.0)  # too little in seconds to be worth a word
        if share >= least:
            reference = Change() if code == UNEVEN else Change(first_come=True)
            then = recorded.estimated(bulk, change, reference, of=of)
            if then is not None:
                savings[code] = Saving(change, then, share)

    own = bulk.mine
    if not stream and bulk.sending > thresholds.SAVED.value / 2 * time:
        tried(SENDER, Change(at_once=True, first_come=True))
    if float(bulk.gap[own].sum()) > thresholds.A_JOB_S.value * jobs:
        tried(HAND_OUT, Change(gaps=0.0, first_come=True))
    tried(UNEVEN, Change(first_come=True), getattr(as_it_was, of))
    if bulk.sizes.factor:
        tried(SLOW, Change(alike=True, first_come=True))
    if bulk.cold_usual > 0:
        tried(COLD, Change(preloaded=True, first_come=True))
    if (bulk.lost > 0).any():
        tried(CORES, Change(starved=False, first_come=True))
    if before is not None and before.ratio.low > thresholds.SURE_SLOWDOWN.value:
        tried(SLOWER, Change(speed=before.ratio.value, first_come=True))
    longest, share, where = _longest(bulk, bulk.measured.makespan)
    if not stream and longest:
        tried(LONG, Change(longest_first=True))
    if not bulk.mine.all():
        tried(OTHERS, Change(alone=True))
    gain = 2.0 if growth.gain is None else min(2.0, max(1.0, growth.gain.value))
    tried(WORKERS, Change(slots=2 * len(bulk.slot_worker), speed=gain / 2))
    if WORKERS in savings:
        savings[WORKERS] = _ranged(bulk, savings[WORKERS], growth, of, time)
    return Plays(bulk, stream, time, fits, savings, share, where, growth.gain is not None)


def _ranged(bulk: Recorded, found: Saving, growth: Growth, of: str, time: float) -> Saving:
    """Let the interval hold what is not known of the gain: where nothing is, it begins at no gain at all."""
    low, high = found.then.low, max(found.then.high, time)
    if growth.gain is not None:
        count = 2 * len(bulk.slot_worker)
        ends = [
            recorded.replayed(bulk, Change(slots=count, speed=min(2.0, max(1.0, gain)) / 2))
            for gain in (growth.gain.high, growth.gain.low)
        ]
        known = [getattr(end, of) for end in ends if end is not None]
        low, high = min([low, *known]), min(time, max([found.then.high, *known]))
    return Saving(found.change, Estimate(found.then.value, low, max(high, found.then.value)), found.share)


def _longest(bulk: Recorded, makespan: float) -> tuple[bool, float, int]:
    """Tell whether the bulk has a job that is longer than the others, its share of the makespan, and its row."""
    own = np.flatnonzero(bulk.mine)
    work = (bulk.end - bulk.start)[own]
    which = int(np.argmax(bulk.seconds[own]))
    longest, usual = float(bulk.seconds[own[which]]), float(np.median(bulk.seconds[own]))
    alone = len(own) > 2 and longest > _NEVER_MORE * usual and longest - usual >= thresholds.IDLE_S.value
    share = float(work[which]) / makespan if makespan > 0 else 0.0
    return alone, share if alone else 0.0, int(bulk.row[own[which]])
