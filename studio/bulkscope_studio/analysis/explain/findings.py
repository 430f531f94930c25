"""The verdicts that rest on numbers of their own, one function each; ``causes`` has those that are played.

What each requires stands in ``docs/analysis.md``, its numbers in ``thresholds``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter

import numpy as np

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.explain import arrivals, breakdown, causes, plays
from bulkscope_studio.analysis.explain.arrivals import Arrivals
from bulkscope_studio.analysis.explain.evidence import Evidence, Finding, every, measured, said, some
from bulkscope_studio.analysis.explain.view import View
from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.statistics.queueing import Little
from bulkscope_studio.analysis.thresholds import Threshold
from bulkscope_studio.analysis.timeline import measures
from bulkscope_studio.analysis.timeline.facts import Codes, Facts
from bulkscope_studio.analysis.timeline.measures import Growth, Memory
from bulkscope_studio.analysis.timeline.progress import Progress
from bulkscope_studio.analysis.timeline.timeline import Timeline
from bulkscope_studio.text import wording


def unfit(view: View) -> Finding:
    """The records contradict themselves, or lack what a verdict would stand on."""
    if view.facts.sampled is not None:
        # Nothing is read off the jobs that are missing, nor off the times in which workers seem idle.
        text = f"The bulk was {view.facts.sampled}: what the workers did for the other jobs is not recorded"
        return Finding("data_unfit", True, text + ".", (said("sampled", text, True, None, link=view.bulk),))
    a, p = view.facts.attempts, view.progress
    own = a.mine & a.ended
    waits = a.wait[own & np.isfinite(a.wait)]
    negative = float(np.mean(waits < 0)) if len(waits) else None
    expected = max(1, 3 * int(own.sum()))  # PRODUCER, CONSUMER and inference span of each
    lost = sum(records for signal, _, records in view.facts.drops or () if signal in ("traces", "unknown"))
    # What was refused contradicts itself; what was dropped was good, and nobody took it.
    drops = view.facts.drops or ()
    counted = sum(n for signal, why, n in drops if signal in ("traces", "unknown") and why.startswith("dropped"))
    ends = len(p.missing) + p.unknown
    first = own & (a.attempt <= 1)
    unsent = int(np.sum(first & np.isnan(a.put)))
    sent = int(first.sum()) - unsent
    early = int(np.sum(own & (a.enqueue < view.facts.heard_first - 1)))

    def least(gone: int, usual: Threshold) -> Threshold:
        """Return what makes the data unfit: more, where the senders' counts say that so many were lost on the way."""
        return thresholds.KNOWN_GAP if 0 < gone <= counted else usual

    evidence = [
        measured(
            "deviation from Little's law (L = λW)", view.little.deviation if view.little else None, ">",
            thresholds.LITTLE,
            detail="L from the senders, W from the workers", link=view.bulk,
        ) if p.complete else said("little_deviation", "Little's law is not checked before the bulk has ended", None),
        # No sender's span at all: the sender is not instrumented. Spans of some jobs only: the others were lost.
        measured(
            "jobs without the sender's span", unsent / (sent + unsent) if sent else None, ">",
            least(unsent, thresholds.MISSING_SENDS), link=view.bulk,
        ),
        said(
            "cut_window",
            f"{wording.count(early, 'job')} enqueued before the first record in the store" if early
            else "the records begin before the bulk",
            early > 0, float(early), link="/",
        ),
        measured("negative queue waits", negative, ">", thresholds.NEGATIVE_WAITS, link=view.bulk),
        measured(
            "records dropped or refused", None if view.facts.drops is None else lost / expected, ">",
            least(lost, thresholds.LOST_RECORDS), detail=_drops(view.facts), link="/",
        ),
        measured(
            "jobs without a recorded end", ends / p.sent if p.sent else None, ">", least(ends, thresholds.MISSING_ENDS),
            detail=_missing(p), link=view.bulk,
        ),
    ]  # fmt: skip
    if not own.any() and not len(p.lost) and view.load.stalled == 0:
        # A request that was refused, or failed, is an answer of its own.
        answered = {"overload", "internal_error"} & set(view.facts.requests.outcome)
        what = "no job has ended yet" if p.sent else "the bulk has no jobs: no queue that Bulkscope knows was used"
        holds = (bool(p.sent) or not answered) and not p.complete
        if p.complete:
            what = "no job was begun, and none is left to begin"
        evidence.append(said("ended_jobs", what, holds, 0.0, link=view.bulk))
    reasons = [item.text for item in evidence if item.holds]
    text = "The records are complete enough for a verdict."
    if reasons:
        text = "The records are too incomplete or contradictory for a verdict: " + "; ".join(reasons) + "."
    # Evidence that is not known (a partial bulk, senders that count no drops) does not make the data unfit.
    return Finding("data_unfit", bool(reasons), text, tuple(evidence))


def _drops(facts: Facts) -> str:
    return ", ".join(f"{records:,} {signal} ({reason})" for signal, reason, records in facts.drops or ())


def _missing(p: Progress) -> str:
    parts = []
    if len(p.missing):
        parts.append(f"{len(p.missing):,} whose worker or queue was heard of later")
    if p.unknown:
        parts.append(f"{p.unknown:,} that the API request counted and of which no span came")
    return ", ".join(parts)


def internal_failure(view: View) -> Finding:
    """Jobs fail without overload, workers are lost, or the broker stalls."""
    a, load = view.facts.attempts, view.load
    ended = np.flatnonzero(a.mine & a.ended & ~a.crashed)
    failed = ended[a.failed[ended]]
    domains = _domains(view.facts, failed)
    errors = a.error.take(failed).to_pylist()
    internal = [
        row
        for row, domain, error in zip(failed.tolist(), domains, errors, strict=True)
        if not (domain == "timeout" or (domain == "resource" and _of_memory(error)))
    ]
    by_load = len(failed) - len(internal)
    share = measured(
        "attempts that failed for another reason than load", estimates.proportion(len(internal), len(ended)), ">",
        thresholds.FAILED,
        bound="low", detail=_errors(view.facts, internal), link=view.trace(internal[0]) if internal else view.bulk,
    )  # fmt: skip
    timeouts = measured(
        "attempts that failed by a time-out or for memory", estimates.proportion(by_load, len(ended)), ">",
        thresholds.FAILED,
        bound="low", link=view.bulk,
    )  # fmt: skip
    busy = measured("workers busy", load.busy, "<", thresholds.BUSY_LOW, link=view.bulk)
    rising = view.arrivals.piles_up
    flat = said("backlog", "the backlog rose" if rising else "the backlog did not rise", not rising)
    crashed = _gone(view, by_memory=False)
    whose = wording.agree(len(crashed), "its worker", "their workers")
    gone = said(
        "lost_workers",
        f"{wording.count(len(crashed), 'attempt')} lost with {whose} ({_jobs(view, crashed)})"
        if crashed
        else "no worker was lost",
        bool(crashed),
        float(len(crashed)),
        link=(view.trace(crashed[0]) if crashed else None) or view.bulk,
    )
    total = load.capacity or load.dispatch or np.nan  # no worker ever came: all of the time was lost
    stalled = measured(
        "workers' time lost to long stalls while jobs waited", load.stalled / total if load.stalls else 0.0, ">=",
        thresholds.STALL_SHARE, detail=_stalls(view), link=view.bulk,
    )  # fmt: skip
    hung = measured(
        "workers' time in jobs that hung outside the inference", load.hung / total if load.hangs else 0.0, ">=",
        thresholds.STALL_SHARE, link=view.bulk,
    )  # fmt: skip
    requests = view.outcomes
    api = measured(
        "API requests that failed with an internal error",
        estimates.proportion(requests.count("internal_error"), len(requests)), ">", thresholds.FAILED, bound="low",
        link="/",
    )  # fmt: skip
    light = every(timeouts, busy, flat)
    holds = True in (share.holds, gone.holds, stalled.holds, hung.holds, api.holds, light)
    text = "No failure besides load was found."
    if holds:
        text = "Jobs failed or were held up, and not by load: " + "; ".join(
            filter(
                None,
                [
                    _failed_text(view, internal, ended) if share.holds else "",
                    gone.text if gone.holds else "",
                    f"workers stood still while jobs waited for {wording.percent(load.stalled / total)} of their time "
                    f"({_stalls(view)})"
                    if stalled.holds
                    else "",
                    f"{wording.count(load.hangs, 'job')} hung outside the inference for {wording.seconds(load.hung)} "
                    "in all (look for a broker, a result store or a disk that does not answer)"
                    if hung.holds
                    else "",
                    f"{wording.count(requests.count('internal_error'), 'API request')} failed" if api.holds else "",
                    f"{wording.count(by_load, 'attempt')} timed out or lacked memory though workers had time"
                    if light
                    else "",
                ],
            )
        )
        text += "."
    return Finding("internal_failure", holds, text, (share, timeouts, busy, flat, gone, stalled, hung, api))


_MEMORY = re.compile("memory|oom|alloc", re.IGNORECASE)


def _of_memory(error: str | None) -> bool:
    """Tell whether an error of the domain ``resource`` is one of memory, not of a disk or a file handle."""
    return error is None or _MEMORY.search(error) is not None


def _gone(view: View, *, by_memory: bool) -> list[int]:
    """Return the attempts that were lost with their workers, killed for memory or otherwise."""
    silent = {item["job_id"] for item in view.facts.lost if item["domain"] == "resource"}
    rows = view.progress.lost_attempts
    told = zip(rows.tolist(), view.facts.attempts.crashed[rows].tolist(), _domains(view.facts, rows), strict=True)
    return [
        row
        for row, crashed, domain in told
        if (domain == "resource" if crashed else view.facts.job_name(row) in silent) == by_memory
    ]


def _likely(view: View, rows: list[int]) -> str:
    """Return a word where the kernel has counted no kill for memory of some of them."""
    likely = {item["job_id"] for item in view.facts.lost if item["likely"]}
    return " likely" if any(view.facts.job_name(row) in likely for row in rows) else ""


def _domains(facts: Facts, rows: Codes) -> list[str]:
    return [domain or "unknown" for domain in facts.attempts.domain.take(rows).to_pylist()]


def _errors(facts: Facts, rows: list[int]) -> str:
    """Name domains and error types, the most frequent first."""
    if not rows:
        return ""
    index = np.array(rows, np.int64)
    errors = facts.attempts.error.take(index).to_pylist()
    found = Counter(zip(_domains(facts, index), errors, strict=True))
    named = sorted(found.items(), key=lambda item: (-item[1], item[0][0], item[0][1] or ""))
    return ", ".join(f"{domain}: {error or 'no error type'} ({count:,})" for (domain, error), count in named[:4])


def _failed_text(view: View, rows: list[int], ended: Codes) -> str:
    return (
        f"{wording.part(len(rows), len(ended), 'attempt')} failed ({_errors(view.facts, rows)}); the first is job "
        f"{view.facts.job_name(rows[0])}"
    )


def _jobs(view: View, rows: list[int], most: int = 3) -> str:
    names = [view.facts.job_name(row) for row in rows[:most]]
    more = f" and {len(rows) - most:,} more" if len(rows) > most else ""
    return f"job {', '.join(names)}{more}"


def _stalls(view: View) -> str:
    load = view.load
    if not load.stalls:
        return ""
    where = (
        f", before job {view.facts.job_name(load.longest_row)} began" if load.longest_row >= 0 else ", until the end"
    )
    return f"{wording.count(load.stalls, 'stall')}, the longest {wording.seconds(load.longest)}{where}"


def overload(view: View) -> Finding:
    """More jobs arrive than the workers can do: backlog and queue wait both rise.

    Besides, either the service time did not rise, or the arrivals exceed what the workers could do at their initial
    speed. The jobs are the bulk's own, or those of other bulks that its jobs waited for.
    """
    requests = view.outcomes
    refused = measured(
        "API requests refused for load", estimates.proportion(requests.count("overload"), len(requests)), ">",
        thresholds.REFUSED, bound="low", link="/",
    )  # fmt: skip
    own: tuple[Evidence, ...] = (said("arrivals", _AT_ONCE, False, link=view.bulk),)
    rises: bool | None = False
    by = None
    if view.open:
        own, rises = _rising(view.arrivals, view.bulk)
        by = view.arrivals
    waited = measured(
        "jobs' time spent waiting for jobs of other bulks",
        view.time.for_others,
        ">",
        thresholds.FOR_OTHERS,
        link=view.bulk,
    )
    before: tuple[Evidence, ...] = ()
    if view.ahead is not None:
        before, rose = _rising_before(view.ahead)
        if rose and not rises:
            rises, by = True, view.ahead
    answer = True if rises or refused.holds else rises
    return Finding("overload", answer, _overload_text(view, answer, by), (*own, waited, *before, refused))


_AT_ONCE = "all jobs were enqueued at once: overload does not apply to the bulk itself"


def _rising(came: Arrivals, link: str) -> tuple[tuple[Evidence, ...], bool | None]:
    """Return the evidence that more jobs arrived than could be done, and whether it proves it."""
    flat = _flat(came, link)
    offered = measured(
        "arrivals over what the workers could do at their initial speed", came.offered, ">", thresholds.OFFERED,
        bound="low", link=link,
    )  # fmt: skip
    found = _piling_up(came, link)
    load = measured(
        "time that the jobs took of the workers, over the time these had", came.load, ">", thresholds.LOAD, link=link
    )
    places = came.places if np.isfinite(came.places) else math.nan
    left = measured(
        "jobs a worker that waited when the last arrived", came.left / places if places > 0 else None, ">",
        thresholds.BEHIND, link=link,
    )  # fmt: skip
    behind = every(found[0], load, left)
    trend = every(*found, _either(flat, offered))
    return (load, left, *found, flat, offered), True if behind or trend else trend


def _rising_before(came: Arrivals) -> tuple[tuple[Evidence, ...], bool | None]:
    """Return the same of what came before a bulk.

    The window starts where the queue was last empty. If a slowdown caused the backlog, it starts with the slowdown, so
    the service time at its start is no baseline and ``offered`` is left out.
    """
    found = (*_piling_up(came, "/"), _flat(came, "/"))
    named = (
        dataclasses.replace(item, name=f"before_{item.name}", text=f"other bulks before it: {item.text}")
        for item in found
    )
    return tuple(named), every(*found)


def _piling_up(came: Arrivals, link: str) -> tuple[Evidence, ...]:
    return (
        measured("duration of the arrivals", came.window, ">=", thresholds.OVERLOAD_S, link=link),
        measured("steps of the trend", float(came.points), ">=", thresholds.OVERLOAD_POINTS),
        measured("backlog grows by", came.backlog, ">", thresholds.RISES, bound="low", unit="jobs/s", link=link),
        measured("queue wait grows by", came.wait, ">", thresholds.RISES, bound="low", unit="s/s", link=link),
        measured("workers busy during the arrivals", came.busy, ">=", thresholds.BUSY_LOW, link=link),
    )


def _flat(came: Arrivals, link: str) -> Evidence:
    return measured(
        "growth of the service time during the arrivals",
        came.service,
        "<=",
        thresholds.SERVICE_GROWTH,
        bound="low",
        link=link,
    )


def _overload_text(view: View, holds: bool | None, by: Arrivals | None) -> str:
    if not holds:
        return (
            "No overload was seen."
            if holds is False
            else "Whether more jobs arrived than the workers could do is not known."
        )
    text = "More jobs arrived than the workers could do"
    if by is not None and by is view.ahead:
        text += f": before this bulk, other bulks brought {wording.number(by.rate)} jobs/s"
    elif by is not None:
        text += f": {wording.number(float(f'{by.rate:.2g}'))} jobs/s came"
        if np.isfinite(by.load):
            text += f", {wording.number(float(f'{by.load:.2g}'))} times what they can do"
    if by is not None and by is not view.ahead:
        waiting = wording.count(by.left, "job")
        text += f"; {waiting} waited when the last arrived, and {causes.rough(by.drain)} passed until all had begun"
    if by is not None and by.slowed:
        text += f"; the time of a job grew by {wording.percent(by.slowed)} meanwhile"
    asked = view.outcomes
    if refused := asked.count("overload"):
        verb = wording.agree(refused, "was", "were")
        text += f"; {wording.part(refused, len(asked), 'API request')} {verb} refused"
    others = view.load.others / view.load.capacity if view.load.capacity > 0 else 0.0
    if others > 0.1:
        text += f"; other bulks took {wording.percent(others)} of the workers' time"
    return f"{text}{_enough(view, by, others)}."


def _enough(view: View, by: Arrivals | None, others: float) -> str:
    """Say how many workers would have kept up; nothing where other bulks took a part that ``by`` does not count."""
    if by is None or by.backlog is None or not by.piles_up or (by is view.arrivals and others > 0.1):
        return ""
    done = by.rate - by.backlog.value  # jobs/s, by workers that were busy
    if not done > 0:
        return ""
    workers = math.ceil(by.places * by.rate / done / thresholds.ROOM.value)
    needed = wording.estimate(wording.count(workers, "worker"))
    return f"; to keep up needs {needed} of the same speed{_more(view)}"


def memory_limited(view: View) -> Finding:
    """Memory is nearly used up, or its lack already costs time or workers."""
    m = view.memory
    near = measured(
        f"{m.near_of or 'memory'}, at the peak", m.near, ">=", thresholds.MEMORY_NEAR, detail=_fit(m), link=view.bulk
    )
    pressure = measured(
        "time in which some program of the host waited for memory (PSI)",
        m.pressure,
        ">=",
        thresholds.MEMORY_PRESSURE,
        link="/",
    )
    faults = measured(
        "major page faults (pages read back from disk), median", m.faults, ">=", thresholds.MAJOR_FAULTS, link="/"
    )
    killed = _gone(view, by_memory=True)
    gone = said(
        "workers_killed_for_memory",
        f"{wording.count(len(killed), 'attempt')} lost with workers that were{_likely(view, killed)} killed for memory"
        if killed
        else "no worker was killed for memory",
        bool(killed),
        float(len(killed)),
        link=view.bulk,
    )
    a = view.facts.attempts
    ended = np.flatnonzero(a.mine & a.ended & ~a.crashed)
    failed = ended[a.failed[ended]]
    errors = a.error.take(failed).to_pylist()
    lacking = sum(
        domain == "resource" and _of_memory(error)
        for domain, error in zip(_domains(view.facts, failed), errors, strict=True)
    )
    short = measured(
        "attempts that failed for lack of memory", estimates.proportion(lacking, len(ended)), ">", thresholds.FAILED,
        bound="low", link=view.bulk,
    )  # fmt: skip
    holds: bool | None = True in (item.holds for item in (near, pressure, faults, gone, short))
    if not holds and near.holds is None and pressure.holds is None:
        holds = None  # neither how full memory was nor whether lack of it cost time
    text = (
        "Memory was not the limit."
        if holds is False
        else "Not known: neither how full memory was nor the time lost to lack of it was recorded."
    )
    if holds:
        text = "Memory is the limit: " + "; ".join(
            item.text for item in (near, pressure, faults, gone, short) if item.holds
        )
        if _fit(m) and not near.holds:
            text += f"; {_fit(m)}"
        text += "."
    return Finding("memory_limited", holds, text, (near, pressure, faults, gone, short))


def _fit(m: Memory) -> str:
    own = m.limits > 1
    count = m.fit_each if own else m.fit
    if count < 0:
        return ""
    shared = f" besides {wording.size(m.shared)} that they share" if m.shared else ""
    fit = "no worker" if count == 0 else wording.count(count, "worker")
    verb = "fits" if count < 2 else "fit"
    each = f"each of the {m.limits} memory limits" if own else "memory"
    ran = f"{wording.count(m.workers, 'worker')} ran"
    return f"{fit} of {wording.size(m.per_worker)} {verb} into {each}{shared}; {ran}"


def memory_bandwidth(view: View) -> Finding:
    """With more busy workers decoding slows, prefill does not, and cores are free: the memory bus is shared."""
    g = view.growth
    slow = _slowdown(view)
    parts = [
        _share_of_growth(
            "growth of prefill time / growth of decode time (logarithms)",
            g.prefill,
            g.decode,
            "<",
            thresholds.PREFILL_SCALES,
            view,
        ),
        _share_of_growth(
            "growth of CPU time / growth of the job's time (logarithms)",
            g.cpu,
            g.service,
            ">=",
            thresholds.CPU_GROWS,
            view,
        ),
    ]
    low = _low_pressure(view)
    holds = every(_either(*slow), *parts, low)
    text = "Memory bandwidth was not the limit." if holds is False else _untold(view)
    if holds and g.decode is not None:
        text = (
            f"The memory bus is the limit: with {wording.count(g.most, 'worker')} busy instead of "
            f"{wording.number(g.fewest)}, decoding a token takes {wording.times_as(g.decode.value, 'long')}, prefill "
            f"hardly longer, and cores were free{_gain(g)}. A smaller or more strongly quantised model reads fewer "
            "bytes a token."
        )
    return Finding("memory_bandwidth", holds, text, (*slow, *parts, low))


def _either(*evidence: Evidence) -> Evidence:
    """Fold alternatives into one."""
    return said("alternatives", "", some(*evidence))


def _slowdown(view: View) -> tuple[Evidence, Evidence]:
    """Return two pieces of evidence that workers slow each other; either is enough."""
    g = view.growth
    gain = measured("tokens/s with twice the busy workers, as a factor", g.gain, "<=", thresholds.GAIN, link=view.bulk)
    range_ = f"{wording.between(g.fewest, g.most)} busy" if np.isfinite(g.fewest) else ""
    slowed = measured(
        "time of a job with most workers busy / with fewest", g.service, ">=", thresholds.SLOWDOWN, detail=range_,
        link=view.bulk,
    )  # fmt: skip
    return _sure(gain, g.gain is not None and g.gain.high < thresholds.SURE_GAIN.value), _sure(
        slowed, g.service is not None and g.service.low > thresholds.SURE_SLOWDOWN.value
    )


def _sure(evidence: Evidence, sure: bool) -> Evidence:
    """Return what holds but may be chance as not known."""
    if not evidence.holds or sure:
        return evidence
    return dataclasses.replace(evidence, text=f"{evidence.text}; the interval is too wide to be sure", holds=None)


def _share_of_growth(
    label: str, part: Estimate | None, whole: Estimate | None, relation: str, threshold: Threshold, view: View
) -> Evidence:
    """Compare two factors of growth by their logarithms."""
    share = None
    if part is not None and whole is not None and whole.value > 1:
        share = float(np.log(part.value) / np.log(whole.value))
    return measured(label, share, relation, threshold, link=view.bulk)


def _low_pressure(view: View) -> Evidence:
    wait = measured(
        "inferences' time lost as their threads waited for a core",
        view.cpu.lost,
        "<",
        thresholds.CPU_WAIT,
        link=view.bulk,
    )
    pressure = measured(
        "time in which some program of the host waited for a core (PSI)",
        view.cpu.pressure,
        "<",
        thresholds.CPU_PRESSURE,
        link="/",
    )
    return wait if wait.holds is not None else pressure


def _refuted(g: Growth) -> bool:
    """Tell whether the gain of more workers is surely above what it could be if they slowed each other."""
    if g.gain is None or not g.most > g.fewest:
        return False
    return g.gain.low > 2 ** (1 - math.log(thresholds.SLOWDOWN.value) / math.log(g.most / g.fewest))


def contention(view: View) -> Finding:
    """Jobs take longer the more of them run, and none of the causes above explains it."""
    g = view.growth
    slow = _slowdown(view)
    holds = some(*slow)
    if holds and _refuted(g):
        holds = False
    text = "Workers hardly slow each other." if holds is False else _untold(view)
    if holds and g.service is not None:
        text = (
            f"Workers slow each other: with {wording.number(g.most)} busy instead of {wording.number(g.fewest)}, a job "
            f"takes {wording.times_as(g.service.value, 'long')}{_gain(g)}. "
        )
        known = (memory_limited, *CORES, memory_bandwidth)
        explained = [f for f in (look_at(view) for look_at in known) if f.holds]
        text += (
            f"Cause: {', '.join(TITLES[cause.code] for cause in explained)}."
            if explained
            else "Neither cores nor memory explain it: look for a lock, a shared disk, hyper-threads of one core, or a "
            "limit inside the engine."
        )
    return Finding("contention", holds, text, (*slow, _low_pressure(view)))


def _gain(g: Growth) -> str:
    """Say what more workers would bring."""
    if g.gain is None:
        return ""
    times = wording.number(max(1.0, g.gain.value))
    return f"; twice the workers bring {'no more' if times == '1' else f'{wording.estimate(times)} times the'} tokens/s"


_HARDLY_MORE = 1.05  # most busy workers over fewest: as many all the time


def _untold(view: View) -> str:
    g = view.growth
    if not np.isfinite(g.fewest):
        return "Whether workers slow each other is not known: too few inferences."
    if g.most <= _HARDLY_MORE * g.fewest:
        seen = f"always {wording.count(round(g.most), 'worker was', 'workers were')}"
    else:
        seen = f"{wording.between(g.fewest, g.most)} workers were"
    return (
        f"Whether workers slow each other is not known: {seen} busy. To find out, run the same prompts with another "
        "number of workers."
    )


def _more(view: View) -> str:
    """Say for how many more workers there are cores and memory."""
    c, m = view.cpu, view.memory
    parts = []
    if np.isfinite(c.busy) and np.isfinite(c.cores_per_place) and np.isfinite(c.cores) and c.cores_per_place > 0:
        more = int(max(0.0, (thresholds.CPU_BUSY.value - c.busy) * c.cores) // c.cores_per_place)
        parts.append(f"the cores allow {wording.estimate(f'{more:,}') if more else 'no'} more")
    if m.fit >= 0:
        parts.append(f"memory allows {wording.estimate(f'{m.fit - m.workers:,}') if m.fit > m.workers else 'no'} more")
    return f"; {', '.join(parts)}" if parts else ""


TITLES = {
    "data_unfit": "data unfit", "internal_failure": "internal failure", "overload": "overload",
    "memory_limited": "memory limited", "cores_taken": "cores taken by other programs",
    "at_capacity_cores": "at capacity: cores", "memory_bandwidth": "memory-bandwidth bound",
    "contention": "contention", "waiting_for_sender": "waiting for the sender", "slow_hand_out": "slow hand-out",
    "uneven_hand_out": "uneven hand-out", "one_long_job": "one long job", "slow_worker": "slow worker",
    "cold_start": "cold start", "slower_than_before": "slower than before",
    "at_capacity_workers_and_cores": "at capacity: workers and cores", "at_capacity_workers": "at capacity: workers",
    "headroom": "headroom",
}  # fmt: skip
# The order in which they are looked at. The first that holds of FIRST is the verdict: failures and overload come before
# resources that are full. Then the one of RANKED and CORES that would help most, by what it would save; where no cores
# are lacking, SLOWED before that. LAST are what is left.
FIRST = (unfit, internal_failure, overload, memory_limited)
SLOWED = (memory_bandwidth, contention)
RANKED = (
    causes.waiting_for_sender, causes.slow_hand_out, causes.uneven_hand_out, causes.one_long_job, causes.slow_worker,
    causes.cold_start, causes.slower_than_before,
)  # fmt: skip
CORES = (causes.cores_taken, causes.at_capacity_cores)
LAST = (causes.at_capacity_workers_and_cores, causes.at_capacity_workers, causes.headroom)
ORDER = (*FIRST, *CORES, *SLOWED, *RANKED, *LAST)


def look(facts: Facts, progress: Progress, timeline: Timeline, little: Little | None) -> View:
    """Measure all that the findings need."""
    came = arrivals.own(facts, timeline)
    time = breakdown.time(facts, timeline)
    growth, cpu, before = (
        measures.growth(facts, timeline),
        measures.cpu(facts, timeline),
        measures.before(facts, timeline),
    )
    open_ = arrivals.over_time(facts, timeline, came)
    return View(
        facts=facts,
        progress=progress,
        timeline=timeline,
        little=little,
        growth=growth,
        load=measures.load(facts, progress, timeline, thresholds.STALL_S.value),
        arrivals=came,
        open=open_,
        time=time,
        ahead=arrivals.ahead(facts, timeline) if time.for_others > thresholds.FOR_OTHERS.value else None,
        cpu=cpu,
        memory=measures.memory(facts, timeline, thresholds.MEMORY_NEAR.value),
        before=before,
        plays=plays.plays(facts, progress, timeline, growth, before, open_),
    )
