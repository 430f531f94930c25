"""From the facts of one bulk to one verdict with its evidence, and to where the time went."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from bulkscope_studio.analysis.explain import breakdown, causes, findings, plays
from bulkscope_studio.analysis.explain.evidence import Finding
from bulkscope_studio.analysis.explain.view import View
from bulkscope_studio.analysis.plain import plain
from bulkscope_studio.analysis.statistics.queueing import Little, little
from bulkscope_studio.analysis.thresholds import KNOWN_GAP, LOST_RECORDS, QUIET_S, ROOM
from bulkscope_studio.analysis.timeline import progress as progress_of
from bulkscope_studio.analysis.timeline import timeline
from bulkscope_studio.analysis.timeline.facts import Facts
from bulkscope_studio.analysis.timeline.progress import Progress
from bulkscope_studio.text import wording

SCHEMA = "bulkscope.explanation/1"
_UNJUDGED = "Not judged: the records are too incomplete or contradictory."


@dataclass(frozen=True, slots=True)
class Next:
    """A change and what it would bring, as an estimate with its interval: the makespan with it, in seconds; of jobs
    that arrived over time the mean time from ready to end."""

    change: str
    makespan_s: float
    low_s: float
    high_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a bulk took as long as it did. ``findings`` are all that were looked at, in their order."""

    id: str
    state: str
    verdict: Finding
    also: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    progress: dict[str, int]
    time_s: breakdown.Time
    workers: dict[str, float]
    path: breakdown.Path | None
    makespan: breakdown.Makespan | None
    wait: breakdown.Wait | None
    stragglers: tuple[dict[str, Any], ...]
    next: tuple[Next, ...]


def explain(facts: Facts) -> Explanation:
    """Look at all findings; of those that hold one is the verdict, the others are listed in ``also``."""
    progress = progress_of.progress(facts)
    line = timeline.build(facts, progress.running and not progress.complete)
    view = findings.look(facts, progress, line, _little(facts) if progress.complete else None)
    found, verdict = _judged(view)
    also: tuple[str, ...] = ()
    if verdict.code == "data_unfit":
        # Their evidence stays, their conclusions do not.
        found = (verdict, *(dataclasses.replace(f, holds=None, text=_UNJUDGED) for f in found[1:]))
    else:
        also = tuple(f.code for f in found if f.holds and f is not verdict)
    length = breakdown.makespan(facts, line, view.load)
    return Explanation(
        id=facts.id,
        state=progress.state,
        verdict=verdict,
        also=also,
        findings=found,
        notes=_notes(view),
        progress=_counts(progress),
        time_s=view.time,
        workers=_workers(view),
        path=breakdown.critical_path(facts, line),
        makespan=length,
        wait=breakdown.wait(facts, line),
        stragglers=tuple(
            {"job": s.job, "seconds": s.seconds, "usual_s": s.usual, "reason": s.reason, "link": view.trace(s.row)}
            for s in breakdown.stragglers(facts, line)
        ),
        next=_next(view, verdict, found) if verdict.code != "data_unfit" else (),
    )


def _judged(view: View) -> tuple[tuple[Finding, ...], Finding]:
    """Return all findings in their order, and which of them is the verdict."""
    found = {look: look(view) for look in findings.ORDER}
    holding = [found[look] for look in findings.FIRST if found[look].holds]
    if not holding:
        cores = [found[look] for look in findings.CORES if found[look].holds]
        helps = [(found[look], found[look].code) for look in findings.RANKED if found[look].holds]
        helps += [(finding, plays.CORES) for finding in cores]
        helps.sort(key=lambda each: -_share(view, each[1]))
        slowed = [] if cores else [found[look] for look in findings.SLOWED if found[look].holds]
        holding = slowed + [finding for finding, _ in helps]
    if holding:
        for look in findings.LAST:
            found[look] = dataclasses.replace(found[look], holds=False, text="Another finding holds.")
    else:
        holding = [found[look] for look in findings.LAST if found[look].holds]
        # Headroom holds where none of the others does.
        if holding[0].code != findings.LAST[-1](view).code:
            last = findings.LAST[-1]
            found[last] = dataclasses.replace(found[last], holds=False, text="Another finding holds.")
    return tuple(found.values()), holding[0]


def _share(view: View, code: str) -> float:
    """Return what share of the bulk's time a change would save; of a cause that was not played as good as nothing."""
    saving = None if view.plays is None else view.plays.savings.get(code)
    # A job that is nearly all of the makespan is the limit, though its place in the queue does not matter.
    alone = view.plays.longest if view.plays is not None and code == plays.LONG else 0.0
    alone = alone if alone >= ROOM.value else 0.0
    return max(alone, 0.0 if saving is None else saving.share)


def _little(facts: Facts) -> Little | None:
    """Little's law over the bulk's attempts, each in the system from its enqueue to its end."""
    a = facts.attempts
    rows = np.flatnonzero(a.mine & a.ended)
    enqueued = rows[np.isfinite(a.enqueue[rows])]
    # W is what the workers recorded, L what the senders did: the check is for a difference between the two.
    times = a.wait[rows] + (a.ready[rows] - a.enqueue[rows]) + (a.end[rows] - a.start[rows])
    times = times[np.isfinite(times)]
    if not len(enqueued):
        return None
    base = facts.origin_ns
    at = (a.enqueue[enqueued] * 1e9).astype(np.int64) + base
    left = (a.end[rows] * 1e9).astype(np.int64) + base
    return little(at, left, times, (int(at.min()), int(left.max())))


def _counts(p: Progress) -> dict[str, int]:
    return {
        "sent": p.sent, "done": p.done, "failed": p.failed, "running": len(p.working), "retrying": p.retrying,
        "waiting": len(p.waiting), "lost": len(p.lost), "without_end": len(p.missing), "unknown": p.unknown,
        "cancelled": p.cancelled, "not_sent": p.not_sent, "duplicate": p.duplicate,
    }  # fmt: skip


def _workers(view: View) -> dict[str, float]:
    load = view.load
    idle = max(0.0, load.capacity - load.own - load.others - load.dispatch)
    return {
        "places": load.places, "capacity_s": load.capacity, "own_s": load.own, "others_s": load.others,
        "dispatch_s": load.dispatch, "idle_s": idle,
    }  # fmt: skip


def _notes(view: View) -> tuple[str, ...]:
    p, of, notes = view.progress, view.facts.unbegun, []
    left = p.sent - p.ended
    open_ = wording.unended(left, p.sent)
    if p.state == "running" and view.facts.unheard > QUIET_S.value:
        notes.append(f"Partial: the records end while the bulk was running; {open_}.")
    elif p.state == "running":
        notes.append(f"Partial: the bulk is still running; {open_}.")
    elif p.state == "stopped" and p.sent:
        notes.append(f"Partial: nothing more was heard of the bulk, and {open_}.")
    notes += [f"{line[0].upper()}{line[1:]}." for line in wording.unbegun(p, of.called_off, of.not_sent)]
    if view.facts.drops is None:
        notes.append("Whether telemetry was dropped is not recorded in this source.")
    elif view.facts.drops:
        parts = (f"{records:,} {signal} ({reason})" for signal, reason, records in view.facts.drops)
        notes.append("Some telemetry was lost: " + ", ".join(parts) + "." + _gap(view))
    if view.load.others > 0.01 * view.load.capacity:
        share = wording.percent(view.load.others / view.load.capacity)
        notes.append(f"Other bulks used the same workers for {share} of their time.")
    retried = int(np.sum(view.facts.attempts.mine & view.facts.attempts.retried))
    if retried:
        notes.append(f"{wording.count(retried, 'attempt')} failed and {wording.agree(retried, 'was', 'were')} retried.")
    if not view.facts.models and (view.facts.attempts.mine & view.facts.attempts.ended).any():
        notes.append("No inference was recorded, so there are no numbers on models, tokens, CPU and memory.")
    return tuple(notes)


def _gap(view: View) -> str:
    """Say how far what was lost leaves the numbers open, in a bulk whose verdict stands all the same."""
    ended = int(np.sum(view.facts.attempts.mine & view.facts.attempts.ended))
    lost = sum(records for signal, _, records in view.facts.drops or () if signal in ("traces", "unknown"))
    share = lost / max(1, 3 * ended + lost)
    if not LOST_RECORDS.value < share <= KNOWN_GAP.value:
        return ""
    return f" That is a gap of {wording.percent(share)} of the bulk's spans: sums and shares may be off by as much."


_CHANGES = (
    (plays.SENDER, "all jobs enqueued at once"),
    (plays.HAND_OUT, "no gaps between a worker's jobs"),
    (plays.UNEVEN, "no job reserved for a worker that is busy (prefetch 1)"),
    (plays.LONG, "the longest jobs first"),
    (plays.SLOW, "all workers as fast as the others"),
    (plays.COLD, "the model loaded before the first job"),
    (plays.SLOWER, "inferences as fast as before"),
    (plays.OTHERS, "no other bulks on these workers"),
)
_NO_MORE_WORKERS = {"memory_limited", "memory_bandwidth", "cores_taken", "at_capacity_cores"}


def _next(view: View, verdict: Finding, found: tuple[Finding, ...]) -> tuple[Next, ...]:
    """Say what would shorten the bulk, each change played by itself, the most effective first.

    What the verdict excludes is not advised: more workers where cores or memory are full.
    """
    p = view.plays
    if p is None or not p.fits or not view.progress.complete or view.progress.sent < 2:
        return ()
    holds = {finding.code for finding in found if finding.holds}
    changes = [(code, what) for code, what in _CHANGES if code in holds or code == plays.OTHERS]
    if "cores_taken" in holds:
        changes.append((plays.CORES, "the cores without the other programs"))
    if not holds & _NO_MORE_WORKERS and verdict.code != "at_capacity_workers_and_cores":
        count = len(p.bulk.slot_worker)
        changes.append((plays.WORKERS, f"{2 * count} workers instead of {count}"))
    made = []
    for code, what in changes:
        saving = p.worth(code)
        if saving is not None:
            text = f"{what}: {causes.instead(view, saving)}"
            then = saving.then
            made.append(Next(code, then.value, then.low, then.high, text))
    return tuple(sorted(made, key=lambda item: (item.makespan_s, item.change)))


def to_json(found: Explanation) -> dict[str, Any]:
    """Return plain values with stable keys; absent is null, units stand in the names."""
    tree = {"schema": SCHEMA, **plain(dataclasses.asdict(found))}
    for finding in (tree["verdict"], *tree["findings"]):
        finding["title"] = findings.TITLES[finding["code"]]
    if found.wait is not None:
        tree["wait"]["ratio"] = plain(found.wait.ratio)
    return tree
