"""From the facts of one bulk to one verdict with its evidence, and to where the time went."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from bulkscope_studio.analysis.explain import breakdown, findings
from bulkscope_studio.analysis.explain.evidence import Finding
from bulkscope_studio.analysis.explain.findings import View
from bulkscope_studio.analysis.plain import plain
from bulkscope_studio.analysis.statistics.queueing import Little, little
from bulkscope_studio.analysis.thresholds import QUIET_S
from bulkscope_studio.analysis.timeline import progress as progress_of
from bulkscope_studio.analysis.timeline import timeline
from bulkscope_studio.analysis.timeline.facts import Facts
from bulkscope_studio.analysis.timeline.progress import Progress
from bulkscope_studio.text import wording

SCHEMA = "bulkscope.explanation/1"
_UNJUDGED = "Not judged: the records are too incomplete or contradictory."


@dataclass(frozen=True, slots=True)
class Next:
    """A change and what it would bring: the makespan with it, in seconds, as an estimate."""

    change: str
    makespan_s: float
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
    """Look at all findings; the first that holds is the verdict, the others that hold are listed in ``also``."""
    progress = progress_of.progress(facts)
    line = timeline.build(facts, progress.running and not progress.complete)
    view = findings.look(facts, progress, line, _little(facts) if progress.complete else None)
    found = tuple(look(view) for look in findings.ORDER)
    if any(finding.holds for finding in found[:-1]):
        found = (*found[:-1], dataclasses.replace(found[-1], holds=False, text="Another finding holds."))
    verdict = next(finding for finding in found if finding.holds)
    also: tuple[str, ...] = ()
    if verdict.code == "data_unfit":
        # Their evidence stays, their conclusions do not.
        found = (verdict, *(dataclasses.replace(f, holds=None, text=_UNJUDGED) for f in found[1:]))
    else:
        also = tuple(f.code for f in found if f.holds and f is not verdict)
    length = breakdown.makespan(facts, line, view.load)
    path = breakdown.critical_path(facts, line)
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
        path=path,
        makespan=length,
        wait=breakdown.wait(facts, line),
        stragglers=tuple(
            {"job": s.job, "seconds": s.seconds, "usual_s": s.usual, "reason": s.reason, "link": view.trace(s.row)}
            for s in breakdown.stragglers(facts, line)
        ),
        next=_next(view, length, path) if verdict.code != "data_unfit" else (),
    )


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
        notes.append("Some telemetry was lost: " + ", ".join(parts) + ".")
    if view.load.others > 0.01 * view.load.capacity:
        share = wording.percent(view.load.others / view.load.capacity)
        notes.append(f"Other bulks used the same workers for {share} of their time.")
    retried = int(np.sum(view.facts.attempts.mine & view.facts.attempts.retried))
    if retried:
        notes.append(f"{wording.count(retried, 'attempt')} failed and {wording.agree(retried, 'was', 'were')} retried.")
    if not view.facts.models and (view.facts.attempts.mine & view.facts.attempts.ended).any():
        notes.append("No inference was recorded, so there are no numbers on models, tokens, CPU and memory.")
    return tuple(notes)


def _next(view: View, length: breakdown.Makespan | None, path: breakdown.Path | None) -> tuple[Next, ...]:
    """Say what would shorten the bulk, the most effective change first; each change by itself."""
    if length is None or not view.progress.complete or view.progress.sent < 2 or length.measured <= 0:
        return ()
    changes: list[tuple[str, float, str]] = []
    a = view.facts.attempts
    work = float(np.sum((a.end - a.start)[a.mine & a.ended]))
    if length.floor >= 0.7 * length.measured and length.longest_job < length.floor:
        # Twice the slots divide the work by the gain that was measured; by 2 where none was.
        gain = 2.0 if view.growth.gain is None else min(2.0, max(1.0, view.growth.gain.value))
        twice = max(work / (gain * length.places), length.longest_job * 2 / gain)
        if np.isfinite(view.cpu.busy):
            # The work per core stays: more workers can use no more than the idle cores.
            twice = max(twice, length.measured * min(1.0, view.cpu.busy))
        whole = wording.seconds(length.measured)
        changes.append(
            ("workers", twice, f"twice the workers: {wording.estimate(wording.seconds(twice))} instead of {whole}")
        )
    less: list[tuple[str, float, str]] = [
        ("tail", length.tail, "start the longest jobs first, so that all workers end together"),
    ]
    if path is not None:
        less.append(("dispatch", path.dispatch, "no gaps between the jobs of the longest chain"))
        if not view.open:
            less.append(("api", path.start, f"enqueue the jobs {wording.seconds(path.start)} earlier"))
    if view.load.others > 0.05 * view.load.capacity:
        share = view.load.others / (view.load.others + view.load.own)
        least = min(length.measured * share, length.measured - length.floor)
        less.append(("others", least, "no other bulks on these workers"))
    for change, saved, what in less:
        without = length.measured - saved
        if without >= 0.999 * length.floor:  # none of these changes makes the work itself shorter
            changes.append((change, without, f"{what}: {wording.estimate(wording.seconds(without))}"))
    worth = [Next(*change) for change in changes if change[1] < 0.95 * length.measured]
    return tuple(sorted(worth, key=lambda item: (item.makespan_s, item.change)))


def to_json(found: Explanation) -> dict[str, Any]:
    """Return plain values with stable keys; absent is null, units stand in the names."""
    tree = {"schema": SCHEMA, **plain(dataclasses.asdict(found))}
    for finding in (tree["verdict"], *tree["findings"]):
        finding["title"] = findings.TITLES[finding["code"]]
    if found.wait is not None:
        tree["wait"]["ratio"] = plain(found.wait.ratio)
    return tree
