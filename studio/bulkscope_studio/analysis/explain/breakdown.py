"""Where a bulk's time went: jobs' seconds by cause, workers' seconds by use, the chain that set the makespan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.replay import recorded
from bulkscope_studio.analysis.statistics import simulation
from bulkscope_studio.analysis.timeline.facts import Facts, Floats, firsts
from bulkscope_studio.analysis.timeline.measures import Load
from bulkscope_studio.analysis.timeline.timeline import Timeline, there_at_once
from bulkscope_studio.text import wording


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds of all jobs together. None: not known. ``other_work`` is the job's work around its inferences,
    ``inference_rest`` what of an inference is neither prefill nor decode."""

    api: float | None
    delay: float
    wait_own: float
    wait_others: float
    wait_dispatch: float
    wait_absent: float
    prefill: float | None
    decode: float | None
    inference_rest: float | None
    other_work: float | None
    work: float

    @property
    def for_others(self) -> float:
        """Share of the jobs' waits and work in which they waited for other bulks' jobs; NaN without either."""
        whole = self.work + self.wait_others + (self.wait_own + self.wait_dispatch + self.wait_absent)
        return self.wait_others / whole if whole > 0 else np.nan


def time(facts: Facts, timeline: Timeline) -> Time:
    """Add up the bulk's seconds."""
    a, i, waits = facts.attempts, facts.inferences, timeline.waits
    own = a.mine & np.isfinite(a.start)
    work = float(np.sum(timeline.end[own] - a.start[own]))
    mine = i.mine
    inferred = float(np.sum(i.end[mine] - i.start[mine])) if mine.any() else None
    prefill, decode = _sum(i.prefill[mine]), _sum(i.decode[mine])
    requests = facts.requests
    return Time(
        api=float(np.sum(requests.end - requests.start)) if len(requests.start) else None,
        delay=float(np.nansum(np.where(own, a.ready - a.enqueue, 0.0))),
        wait_own=float(waits.own.sum()),
        wait_others=float(waits.others.sum()),
        wait_dispatch=float(waits.dispatch.sum()),
        wait_absent=float(waits.absent.sum()),
        prefill=prefill,
        decode=decode,
        inference_rest=None if inferred is None else max(0.0, inferred - (prefill or 0.0) - (decode or 0.0)),
        other_work=None if inferred is None else max(0.0, work - inferred),
        work=work,
    )


def _sum(values: Floats) -> float | None:
    good = values[np.isfinite(values)]
    return float(good.sum()) if len(good) else None


@dataclass(frozen=True, slots=True)
class Path:
    """The chain of waits and work that ends with the bulk's last job: shortening anything else does not help.

    Seconds by part; ``jobs`` on the chain; ``start`` is the API's part before the first was enqueued, ``absent`` the
    time until the worker that took it was there, ``dispatch`` the gaps in which it was there and free.
    """

    length: float
    jobs: int
    start: float
    dispatch: float
    absent: float
    delay: float
    work_own: float
    work_others: float
    last_job: str
    workers: int


def critical_path(facts: Facts, timeline: Timeline) -> Path | None:
    """Walk back from the last end: to the job before on the same slot if the job waited for it, else to the attempt
    before, else to the API request. None while nothing has ended."""
    a = facts.attempts
    ended = np.flatnonzero(a.mine & a.ended)
    if not len(ended):
        return None
    last = int(ended[np.lexsort((ended, a.end[ended]))[-1]])
    sent = a.enqueue[a.mine & np.isfinite(a.enqueue)]
    begun = a.start[a.mine & np.isfinite(a.start)]
    begin = float(min(np.min(facts.requests.start, initial=np.inf), np.min(sent, initial=np.inf), begun.min()))
    start, end, ready, enqueue = a.start.tolist(), timeline.end.tolist(), a.ready.tolist(), a.enqueue.tolist()
    free, before, mine = timeline.places.free.tolist(), timeline.places.before.tolist(), a.mine.tolist()
    earlier = _earlier_attempts(facts)
    dispatch = absent = delay = own = others = first = 0.0
    jobs, workers, row, until = 0, set(), last, end[last]
    while True:
        jobs += 1
        workers.add(int(a.worker[row]))
        # Work of another bulk's job from before this bulk began delayed none of its jobs.
        work = max(0.0, min(end[row], until) - max(start[row], begin))
        own, others = (own + work, others) if mine[row] else (own, others + work)
        if start[row] <= begin:
            break
        kept = free[row] if before[row] >= 0 and free[row] > begin else -np.inf
        # With a clock that is behind, a job seems enqueued after its start: it was ready by then.
        ready_at = min(ready[row], start[row]) if ready[row] == ready[row] else -np.inf
        former = earlier.get(row, -1)
        # A redelivered job could not be taken before its first worker was gone.
        since = max(ready_at, min(end[former], start[row])) if former >= 0 else ready_at
        if kept >= since and kept > -np.inf:
            dispatch += start[row] - kept
            row, until = before[row], kept
            continue
        if since == -np.inf:
            first = start[row] - begin
            break
        since = max(since, begin)
        put = min(max(enqueue[row], begin), since) if ready_at > -np.inf else since
        # A slot that had a job before was there; of other slots only the time that is known counts as a gap.
        came = start[row] if free[row] != free[row] else since if before[row] >= 0 else max(free[row], since)
        absent, dispatch = absent + came - since, dispatch + start[row] - came
        if former >= 0:
            until = max(min(end[former], since), begin)
            put = min(max(put, until), since)
            delay += since - put
            dispatch += put - until
            row = former
            continue
        delay += since - put
        first = put - begin
        break
    return Path(
        length=float(a.end[last]) - begin, jobs=jobs, start=first, dispatch=dispatch, absent=absent, delay=delay,
        work_own=own, work_others=others, last_job=facts.job_name(last), workers=len(workers),
    )  # fmt: skip


def _earlier_attempts(facts: Facts) -> dict[int, int]:
    """Return for each own retry the row of the attempt before it."""
    a = facts.attempts
    own = np.flatnonzero(a.mine & np.isfinite(a.start))
    order = own[np.lexsort((a.start[own], a.job[own]))]
    job, start = a.job[order], a.start[order]
    same = np.flatnonzero((job[1:] == job[:-1]) & (job[1:] >= 0) & (start[1:] > start[:-1]))
    return dict(zip(order[same + 1].tolist(), order[same].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Makespan:
    """From the first ready job to the last end, and the shortest time that the same work needs on the same slots.

    ``floor`` is work / slots, or the longest job where that is longer; ``tail`` the slot-seconds at the end in which no
    job of the bulk was left to take, divided by the slots.
    """

    measured: float
    floor: float
    longest_job: float
    places: int
    tail: float


def makespan(facts: Facts, timeline: Timeline, load: Load) -> Makespan | None:
    """Compute it over the ended attempts; None without one."""
    a = facts.attempts
    own = a.mine & a.ended
    if not own.any():
        return None
    work = a.end[own] - a.start[own]
    places = max(min(load.places, int(own.sum())), there_at_once(a.worker[own], a.start[own], a.end[own]))
    last_start = float(a.start[own].max())
    final = float(a.end[own].max())
    open_places = places * (final - last_start) - timeline.mine.between(last_start, final)
    longest = float(work.max())
    return Makespan(
        measured=final - timeline.first,
        floor=min(max(float(work.sum()) / places, longest), final - timeline.first),
        longest_job=longest,
        places=places,
        tail=max(0.0, open_places) / places,
    )


@dataclass(frozen=True, slots=True)
class Wait:
    """Mean queue wait of the bulk's jobs, and the one that queueing alone explains: the same arrivals and service times
    on the same slots, first come first served (``simulation.replay``)."""

    measured: float
    expected: float | None

    @property
    def ratio(self) -> float | None:
        """Measured over expected: 1 is a queue that does nothing but queue."""
        return None if self.expected is None or self.expected <= 0 else self.measured / self.expected


def wait(facts: Facts, timeline: Timeline) -> Wait | None:
    """Compare them; None when no wait is known. Negative waits are left out."""
    a = facts.attempts
    rows = recorded.worked(facts, timeline)
    if not len(rows) or not (a.mine[rows] & np.isfinite(a.ready[rows])).any():
        return None
    ready = np.where(np.isfinite(a.ready[rows]), np.minimum(a.ready[rows], a.start[rows]), a.start[rows])
    own = a.mine[rows] & np.isfinite(a.ready[rows]) & (a.ready[rows] <= a.start[rows])
    if not own.any():
        return None
    measured = float(np.mean((a.start[rows] - ready)[own]))
    # Jobs that ended before are no rows. What the slots held then stays there, and what waited still waits.
    put = recorded.ready_times(facts, timeline, rows)
    # Jobs that became ready at the same moment: in the order in which they were taken.
    order = np.lexsort((a.start[rows], ready))
    work = (timeline.end[rows] - a.start[rows])[order]
    there = [(begin, end) for _, begin, end in recorded.presence(facts, timeline, rows)]
    found = simulation.replay(put[order], work, there)
    expected = found.waits[own[order]]
    return Wait(measured, float(np.mean(expected)) if np.isfinite(expected).all() else None)


@dataclass(frozen=True, slots=True)
class Straggler:
    """A job that took far longer than others of its model; ``reason`` says what sets it apart, where something does."""

    job: str
    seconds: float
    usual: float
    row: int
    reason: str


MOST_STRAGGLERS = 5


def stragglers(facts: Facts, timeline: Timeline) -> list[Straggler]:
    """Return the bulk's longest jobs beyond Tukey's outer fence of their model, longest first."""
    a, i = facts.attempts, facts.inferences
    own = np.flatnonzero(a.mine & a.ended)
    if len(own) < 8:
        return []
    work = a.end[own] - a.start[own]
    model = _by_job(facts, i.model.astype(np.float64), "last")[a.job[own]]
    found: list[Straggler] = []
    first = firsts(a.start[own], a.worker[own])
    tokens = _by_job(facts, i.output_tokens, "sum")[a.job[own]]
    given = _by_job(facts, i.prefilled_tokens, "sum")[a.job[own]]
    lacked = _by_job(facts, i.cpu_wait, "sum")[a.job[own]]
    for name in np.unique(model[np.isfinite(model)]).tolist() or [np.nan]:
        of = np.flatnonzero(model == name) if np.isfinite(name) else np.arange(len(own))
        if len(of) < 8:
            continue
        low, usual, high = np.quantile(work[of], (0.25, 0.5, 0.75))
        # Where all jobs are alike, a millisecond more is no straggler: the spread is a tenth of the median at least.
        fence = high + thresholds.STRAGGLER.value * max(high - low, 0.1 * usual)
        usual_tokens = np.nanmedian(tokens[of]) if np.isfinite(tokens[of]).any() else np.nan
        usual_given = np.nanmedian(given[of]) if np.isfinite(given[of]).any() else np.nan
        for index in of[work[of] > fence].tolist():
            reasons = []
            if np.isfinite(tokens[index]) and tokens[index] > 2 * usual_tokens:
                usual_count = wording.number(round(usual_tokens))
                reasons.append(f"{wording.count(round(tokens[index]), 'output token')}, median {usual_count}")
            if np.isfinite(given[index]) and given[index] > 2 * usual_given:
                reasons.append(
                    f"{wording.count(round(given[index]), 'input token')}, median {wording.number(round(usual_given))}"
                )
            if first[index]:
                reasons.append("first job of its worker")
            if np.isfinite(lacked[index]) and lacked[index] > 0.25 * work[index]:
                reasons.append("its threads waited for a core for over a quarter of the time")
            row = int(own[index])
            found.append(Straggler(facts.job_name(row), float(work[index]), float(usual), row, ", ".join(reasons)))
    return sorted(found, key=lambda item: (-item.seconds, item.job))[:MOST_STRAGGLERS]


def _by_job(facts: Facts, values: Floats, how: str) -> Floats:
    i = facts.inferences
    # One row more than there are jobs: the code -1 (no job) finds NaN there.
    result = np.full(len(facts.job_ids) + 1, np.nan)
    rows = np.flatnonzero(i.mine & (i.job >= 0) & np.isfinite(values))
    if how == "last":
        result[i.job[rows]] = values[rows]
        return result
    total = np.bincount(i.job[rows], values[rows], len(result)) if len(rows) else np.zeros(len(result))
    seen = np.bincount(i.job[rows], minlength=len(result)) if len(rows) else np.zeros(len(result))
    return np.where(seen > 0, total, np.nan)
