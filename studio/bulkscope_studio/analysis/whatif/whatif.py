"""What would have become of a bulk with other workers, another order or a faster model: its jobs played again.

``analysis.replay`` plays; here it is decided what is played, within which cores and memory, and what is compared.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bulkscope_studio.analysis.plain import plain
from bulkscope_studio.analysis.replay import recorded as replay
from bulkscope_studio.analysis.replay.recorded import FITS, Change, Recorded
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.thresholds import MEMORY_NEAR
from bulkscope_studio.analysis.timeline import measures, timeline
from bulkscope_studio.analysis.timeline.facts import Facts, Floats
from bulkscope_studio.analysis.timeline.progress import progress
from bulkscope_studio.text import wording

SCHEMA = "bulkscope.whatif/1"
MOST_SLOTS = 4096
OF = ("makespan", "mean_wait", "stay")
# Of all combinations those that are shown, the first ending first; those with more slots must be worth them.
_SHOWN, _WORTH = 6, 0.02
_TIMES = (1, 2, 3, 4, 6, 8)  # the numbers of workers that are tried, over what there were


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be changed; None and False leave it as it was recorded.

    ``workers`` of ``threads`` concurrency slots each; ``reserves``: False when a worker takes a job only when it is
    free (prefetch 1); ``longest``: the longest job goes first; ``preload``: a worker's first job is no longer than
    others; ``speed``: times as fast.
    """

    workers: int | None = None
    threads: int | None = None
    reserves: bool = True
    longest: bool = False
    preload: bool = False
    speed: float = 1.0


class Unplayable(Exception):
    """The bulk cannot be played; the message says why."""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is: ``workers`` of ``threads`` slots, ``cores`` they may use (NaN: not known), of which one slot
    keeps ``cores_each`` busy, and how many workers ``fit`` into memory (-1: not known)."""

    workers: int
    threads: int
    cores: float
    cores_each: float
    fit: int


@dataclass(frozen=True, slots=True)
class Combination:
    """One combination and what it comes to, in s; ``saved`` is the share of the makespan."""

    workers: int
    threads: int
    reserves: bool
    longest: bool
    preload: bool
    speed: float
    results: dict[str, Estimate]
    saved: float


def whatif(facts: Facts, asked: Asked) -> dict[str, Any]:
    """Return what was measured, what the change comes to, and what ends first; raises ``Unplayable``."""
    p = progress(facts)
    if not p.complete:
        raise Unplayable(f"only a bulk that has ended can be played again: {wording.unended(p.sent - p.ended, p.sent)}")
    line = timeline.build(facts, running=False)
    bulk = replay.recorded(facts, line)
    if bulk is None:
        raise Unplayable("no job of the bulk has both an end and the time from which it could be taken")
    room = _room(facts, line, bulk)
    plain_result = replay.replayed(bulk)
    if plain_result is None:
        raise Unplayable("its jobs cannot be played on the slots that were recorded")
    measured = bulk.measured
    off = plain_result.makespan / measured.makespan - 1 if measured.makespan > 0 else 0.0
    changed = None if asked == Asked() else _played(bulk, room, asked)
    best = _best(bulk, room, asked.speed)
    return plain(  # type: ignore[no-any-return]
        {
            "schema": SCHEMA, "id": facts.id, "measured": asdict(measured), "room": asdict(room), "off": off,
            "asked": None if asked == Asked() else asdict(asked),
            "change": None if changed is None else asdict(changed),
            "combinations": [asdict(one) for one in best],
            "notes": _notes(bulk, room, asked, best, off),
        }
    )  # fmt: skip


def _room(facts: Facts, line: timeline.Timeline, bulk: Recorded) -> Room:
    workers = len(np.unique(bulk.slot_worker))
    threads = max(1, round(len(bulk.slot_worker) / max(1, workers)))
    memory = measures.memory(facts, line, MEMORY_NEAR.value)
    each = bulk.cores[bulk.mine & (bulk.cores > 0)]
    return Room(workers, threads, _cores(facts), float(np.mean(each)) if len(each) else math.nan, memory.fit)


def _cores(facts: Facts) -> float:
    """Return how many cores the workers may use: each set of a host once; a quota of a container is its own."""
    own = set(facts.attempts.worker[facts.attempts.mine].tolist())
    sets: dict[tuple[object, ...], float] = {}
    for worker in facts.workers:
        if worker.code not in own:
            continue
        if not np.isfinite(worker.cpus):
            return math.nan
        apart = None if worker.cpu_set is None or worker.shares_set() else worker.container or worker.code
        sets[worker.host, worker.cpu_set, apart] = worker.cpus
    return sum(sets.values()) if sets else math.nan


def _change(room: Room, asked: Asked) -> Change:
    workers = room.workers if asked.workers is None else asked.workers
    threads = room.threads if asked.threads is None else asked.threads
    moved = (workers, threads) != (room.workers, room.threads)
    return Change(
        slots=workers * threads if moved else None,
        first_come=not asked.reserves,
        longest_first=asked.longest,
        preloaded=asked.preload,
        speed=asked.speed,
        # More slots share the same cores; as many as before lack as many of them as they did.
        cores=room.cores if moved and np.isfinite(room.cores) and np.isfinite(room.cores_each) else None,
    )


def _played(bulk: Recorded, room: Room, asked: Asked) -> Combination | None:
    change = _change(room, asked)
    base = Change() if change.cores is None else Change(cores=change.cores)
    results = {of: replay.estimated(bulk, change, base, of=of) for of in OF}
    known = {of: one for of, one in results.items() if one is not None}
    if len(known) < len(results):
        return None
    measured = bulk.measured.makespan
    return Combination(
        workers=room.workers if asked.workers is None else asked.workers,
        threads=room.threads if asked.threads is None else asked.threads,
        reserves=asked.reserves and change.slots is None and not asked.longest,
        longest=asked.longest,
        preload=asked.preload,
        speed=asked.speed,
        results=known,
        saved=1 - known["makespan"].value / measured if measured > 0 else 0.0,
    )


def _best(bulk: Recorded, room: Room, speed: float) -> list[Combination]:
    """Return the combinations that end first within the cores and memory that are there, each worth its workers."""
    most = MOST_SLOTS // room.threads
    if room.fit >= 0:
        most = min(most, max(room.fit, room.workers))
    if np.isfinite(room.cores) and room.cores_each > 0:
        # Beyond one slot more than there are cores nothing is gained, whatever is played.
        most = min(most, max(room.workers, math.ceil(room.cores / room.cores_each / room.threads)))
    counts = sorted({min(most, room.workers * times) for times in _TIMES} | {most if most <= 8 * room.workers else 0})
    cold = bool(np.any(bulk.cold[bulk.mine] > 0))
    found = []
    for workers, longest, preload in itertools.product(counts, (False, True), (False, True) if cold else (False,)):
        if workers < 1:
            continue
        asked = Asked(workers=workers, reserves=False, longest=longest, preload=preload, speed=speed)
        one = replay.replayed(bulk, _change(room, asked))
        if one is not None:
            found.append((one.makespan, workers, longest + preload, asked))
    found.sort(key=lambda each: each[:3])
    # In front stands what no cheaper combination comes near to.
    chosen: list[tuple[float, int, int, Asked]] = []
    for each in found:
        cheaper = [
            other for other in found
            if other is not each and other[1] <= each[1] and other[2] <= each[2]
            and other[0] <= each[0] + _WORTH * bulk.measured.makespan
        ]  # fmt: skip
        if not cheaper:
            chosen.append(each)
    played = (_played(bulk, room, asked) for _, _, _, asked in chosen[:_SHOWN])
    return sorted((one for one in played if one is not None), key=lambda one: one.results["makespan"].value)


def _notes(bulk: Recorded, room: Room, asked: Asked, best: list[Combination], off: float) -> list[str]:
    notes = []
    if abs(off) > FITS:
        notes.append(
            f"played without a change it takes {wording.percent(abs(off))} {'longer' if off > 0 else 'less'} than was "
            "measured: jobs were not handed out first come, first served, or something held them up that was not "
            "recorded"
        )
    if asked.workers is not None and 0 <= room.fit < asked.workers:
        notes.append(f"{wording.count(room.fit, 'worker fits', 'workers fit')} into memory, not {asked.workers}")
    slots = (asked.workers or room.workers) * (asked.threads or room.threads)
    slots = max([slots, *(one.workers * one.threads for one in best)])
    if slots > len(bulk.slot_worker) and not (np.isfinite(room.cores) and np.isfinite(room.cores_each)):
        notes.append("how many cores a job keeps busy is not recorded: it is taken that there are enough for all slots")
    last = float(np.max(_ready(bulk)) - np.min(_ready(bulk)))
    if bulk.measured.makespan > 0 and last > 0.5 * bulk.measured.makespan:
        notes.append(f"its jobs came over {wording.seconds(last)}: no change ends it sooner than its last job arrives")
    return notes


def _ready(bulk: Recorded) -> Floats:
    return bulk.ready[bulk.mine]
