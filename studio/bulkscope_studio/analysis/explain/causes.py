"""The verdicts on what would help most: each is a change that was played through (``plays``), and what it would save.

One function each; what it requires stands in ``docs/analysis.md``, its numbers in ``thresholds``.
"""

from __future__ import annotations

import math

import numpy as np

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.explain import plays
from bulkscope_studio.analysis.explain.evidence import Evidence, Finding, measured
from bulkscope_studio.analysis.explain.plays import Plays, Saving
from bulkscope_studio.analysis.explain.view import View
from bulkscope_studio.text import wording


def rough(value: float) -> str:
    """Return a played time in words: two digits, for the third is never true."""
    return wording.seconds(float(f"{value:.2g}")) if value > 0 else wording.seconds(0.0)


def then(found: Saving) -> str:
    """Return what a change comes to: a number, or a range where the interval is wide."""
    wide = found.then.high > 1.3 * max(found.then.low, 1e-9)
    if not wide:
        return wording.estimate(rough(found.then.value))
    return wording.estimate(wording.between(found.then.low, found.then.high, rough))


def instead(view: View, found: Saving) -> str:
    """Return what a change comes to, beside what was measured; of more workers no more than is known."""
    p = view.plays
    assert p is not None
    a_job = " a job" if p.stream else ""
    if found is p.savings.get(plays.WORKERS) and not p.bounded:
        best = wording.estimate(rough(found.then.value))
        return (
            f"{best} instead of {rough(p.time)}{a_job} at best; whether they slow each other is not known, so it may "
            "bring nothing"
        )
    return f"{then(found)} instead of {rough(p.time)}{a_job}"


def _saved(view: View, code: str, what: str) -> Evidence:
    """Hold what a change would save against the least that counts."""
    if view.plays is None:
        return measured(f"saved if {what}", None, ">=", thresholds.SAVED)
    found = view.plays.savings.get(code)
    return measured(f"saved if {what}", 0.0 if found is None else found.share, ">=", thresholds.SAVED, link=view.bulk)


def _finding(view: View, code: str, what: str, no: str, yes: str | None, *more: Evidence) -> Finding:
    """Return the finding of a change; ``yes`` is what is said where it counts; None: it does not."""
    saved = _saved(view, code, what)
    if view.plays is None:
        return Finding(code, None, "Not known: too little is recorded to play the bulk again.", (saved, *more))
    holds = bool(saved.holds) and yes is not None
    return Finding(code, holds, yes if holds and yes is not None else no, (saved, *more))


# --- cores ------------------------------------------------------------------------------------------------


def _lacking(view: View) -> tuple[tuple[Evidence, ...], bool | None]:
    """Return the evidence that threads waited for cores, and whether it cost time."""
    c = view.cpu
    lost = measured(
        "inferences' time lost as their threads waited for a core", c.lost, ">=", thresholds.CPU_WAIT, link=view.bulk,
    )  # fmt: skip
    quota = measured(
        "inferences' time throttled by a CPU quota", c.throttled, ">=", thresholds.CPU_WAIT, link=view.bulk
    )
    busy = measured(
        "utilisation of the cores" + (f" ({c.busy_source})" if c.busy_source else ""), c.busy, ">=",
        thresholds.CPU_BUSY, link="/",
    )  # fmt: skip
    pressure = measured(
        "time in which some program of the host waited for a core (PSI)", c.pressure, ">=", thresholds.CPU_PRESSURE,
        link="/",
    )  # fmt: skip
    if lost.holds is not None:
        # Whether other programs of the host waited says nothing where it is known what the inferences did.
        return (lost, quota, busy), bool(lost.holds or quota.holds)
    known = None if quota.holds is None and (busy.holds is None or pressure.holds is None) else False
    holds = True if quota.holds or (busy.holds and pressure.holds) else known
    return (lost, quota, busy, pressure), holds


def _own(view: View, relation: str) -> Evidence:
    """Hold what the inferences used of the cores that were busy against what makes them their own limit."""
    c = view.cpu
    share = min(1.0, round(c.own / c.busy, 9)) if np.isfinite(c.busy) and c.busy > 0 else c.own
    return measured("busy cores used by the inferences", share, relation, thresholds.OWN_CORES, link=view.bulk)


def lack_of_cores(view: View) -> bool:
    """Tell whether inferences lost time for want of cores, whoever had these."""
    return bool(_lacking(view)[1])


def cores_taken(view: View) -> Finding:
    """Threads wait for cores, and it is not the inferences that have them."""
    evidence, lacking = _lacking(view)
    c, own = view.cpu, _own(view, "<")
    holds = lacking and own.holds if lacking else lacking
    text = "Other programs did not take the cores." if holds is False else "Not known: who had the cores."
    if holds:
        others = wording.percent((c.busy if np.isfinite(c.busy) else 1.0) - c.own)
        waited = wording.percent(c.lost) if np.isfinite(c.lost) else "much"
        text = (
            f"Other programs had {others} of the cores: the inferences got {wording.number(round(c.own * c.cores, 1))} "
            f"of {wording.number(c.cores)} and waited {waited} of their time."
        )
    return Finding("cores_taken", holds, text, (*evidence, own))


def at_capacity_cores(view: View) -> Finding:
    """Threads wait for cores that the inferences themselves keep busy."""
    evidence, lacking = _lacking(view)
    c, own = view.cpu, _own(view, ">=")
    holds = lacking and own.holds is not False if lacking else lacking
    text = "The cores were enough." if holds is False else "Not known: whether threads waited for cores."
    if holds:
        text = "The cores are full, and the inferences wait for them. More workers on these cores do not help."
        wanted, enough = c.wanted * view.load.places, _enough(view)
        if np.isfinite(wanted) and np.isfinite(c.cores) and wanted > c.cores:
            whose = wording.count(view.load.places, "worker")
            want = wording.agree(view.load.places, "wants", "want")
            text = (
                f"The bulk's own {whose} {want} {wording.count(round(wanted, 1), 'core')} and "
                f"{wording.agree(view.load.places, 'has', 'have')} {wording.number(c.cores)}"
            )
            if 0 < enough < view.load.places:
                text += f": {wording.count(enough, 'worker')} {wording.agree(enough, 'does', 'do')} as much"
            text += "."
    return Finding("at_capacity_cores", holds, text, (*evidence, own))


def _enough(view: View) -> int:
    """Return how many workers keep the cores busy."""
    c = view.cpu
    each = c.wanted
    return math.ceil(c.cores / each - 0.05) if np.isfinite(each) and each > 0 and np.isfinite(c.cores) else 0


# --- hand-out and order -----------------------------------------------------------------------------------


def waiting_for_sender(view: View) -> Finding:
    """The jobs come too slowly for the workers, from one request or a few."""
    p, found, yes = view.plays, _worth(view, plays.SENDER), None
    if p is not None and found is not None:
        idle = wording.percent(view.idle) if np.isfinite(view.idle) else "much"
        jobs = int(np.isfinite(p.bulk.sent).sum())
        yes = (
            f"The sender took {rough(p.bulk.sending)} to enqueue {wording.count(jobs, 'job')}; the workers had "
            f"nothing to do for {idle} of the time. All enqueued at once: {instead(view, found)}."
        )
    return _finding(view, plays.SENDER, "all jobs were enqueued at once", "The sender was quick enough.", yes)


def slow_hand_out(view: View) -> Finding:
    """Time passes between the jobs of a worker though others wait."""
    p, found, yes = view.plays, _worth(view, plays.HAND_OUT), None
    if p is not None and found is not None:
        gap = float(np.mean(p.bulk.gap[p.bulk.mine]))
        share = view.load.dispatch / view.load.capacity if view.load.capacity > 0 else math.nan
        of = f", {wording.percent(share)} of its time" if np.isfinite(share) else ""
        yes = (
            f"Jobs are handed out slowly: {rough(gap)} pass between a worker's jobs though others wait{of}. "
            f"Without that: {instead(view, found)}."
        )
    return _finding(
        view, plays.HAND_OUT, "there were no gaps between a worker's jobs", "Jobs were handed out fast.", yes
    )


def uneven_hand_out(view: View) -> Finding:
    """A worker stands idle while another holds jobs that it has reserved."""
    p, found, yes = view.plays, _worth(view, plays.UNEVEN), None
    if p is not None and found is not None:
        yes = (
            f"Jobs are handed out unevenly{_who_stood_idle(view, p)}. If each worker reserved no job beyond its own "
            f"(prefetch 1): {instead(view, found)}."
        )
    return _finding(
        view, plays.UNEVEN, "a free worker took the next job, whoever reserved it", "Jobs were handed out evenly.", yes
    )


def _who_stood_idle(view: View, p: Plays) -> str:
    """Name the worker that was done first, and the one that then still had jobs."""
    bulk = p.bulk
    ends = {code: float(np.max(bulk.end[bulk.worker == code])) for code in np.unique(bulk.worker).tolist()}
    if len(ends) < 2:
        return ""
    idle, last = min(ends, key=lambda code: ends[code]), max(ends, key=lambda code: ends[code])
    held = int(np.sum(bulk.mine & (bulk.worker == last) & (bulk.start > ends[idle])))
    names = view.facts.worker_names
    if not held:
        return ""
    return (
        f": worker {names[idle]} stood idle for {rough(ends[last] - ends[idle])} while {names[last]} still had "
        f"{wording.count(held, 'job')} to begin"
    )


def one_long_job(view: View) -> Finding:
    """One job is so long that the bulk waits for it."""
    p, found = view.plays, _worth(view, plays.LONG)
    alone = p is not None and not p.stream and p.longest >= thresholds.ROOM.value and p.time >= thresholds.IDLE_S.value
    share = measured("the longest job's share of the makespan", None if p is None else p.longest, ">=", thresholds.ROOM)
    saved = _saved(view, plays.LONG, "the longest jobs began first")
    if p is None:
        return _finding(view, plays.LONG, "the longest jobs began first", "", None, share)
    holds = found is not None or alone
    text = "No job was so long that the others waited for it."
    if holds:
        took = rough(float(view.facts.attempts.end[p.longest_job] - view.facts.attempts.start[p.longest_job]))
        text = (
            f"Job {view.facts.job_name(p.longest_job)}{_tokens(view, p.longest_job)} alone took {took} of "
            f"{rough(p.time)}"
        )
        text += f"; the longest jobs first: {instead(view, found)}." if found else "; nothing but a shorter job helps."
        if found and p.longest < 2 / 3:
            text = f"The longest jobs began last, and workers stood idle at the end; first: {instead(view, found)}."
    return Finding(plays.LONG, holds, text, (saved, share))


def _tokens(view: View, row: int) -> str:
    i, job = view.facts.inferences, view.facts.attempts.job[row]
    mine = (i.job == job) & i.mine if job >= 0 else np.zeros(len(i.job), np.bool_)
    tokens = float(np.nansum(i.input_tokens[mine]) + np.nansum(i.output_tokens[mine])) if mine.any() else 0.0
    return f" ({wording.count(tokens, 'token')})" if tokens > 0 else ""


# --- workers ----------------------------------------------------------------------------------------------


def slow_worker(view: View) -> Finding:
    """A worker takes longer than the others for the same tokens."""
    p, found, yes = view.plays, _worth(view, plays.SLOW), None
    if p is not None and found is not None:
        factors = p.bulk.sizes.factor
        worst = max(factors, key=lambda code: factors[code])
        more = f" (and {wording.count(len(factors) - 1, 'other')})" if len(factors) > 1 else ""
        yes = (
            f"Worker {view.facts.worker_names[worst]}{more} needs {wording.number(float(f'{factors[worst]:.2g}'))} "
            f"times as long as the others for the same tokens; like the others: {instead(view, found)}."
        )
    no = "No worker was slower than the others."
    return _finding(view, plays.SLOW, "every worker were as fast as the others", no, yes)


def cold_start(view: View) -> Finding:
    """Each worker's first job takes much longer: it loads the model."""
    p, found, yes = view.plays, _worth(view, plays.COLD), None
    if p is not None and found is not None:
        each = rough(p.bulk.cold_usual)
        yes = (
            f"A worker's first job took {each} longer than the same job later, which is loading the model. "
            f"Loaded beforehand: {instead(view, found)}."
        )
    return _finding(
        view, plays.COLD, "first jobs took no longer than others", "First jobs took no longer than others.", yes
    )


def slower_than_before(view: View) -> Finding:
    """The same model takes longer for the same tokens than it did earlier."""
    b, found, yes = view.before, _worth(view, plays.SLOWER), None
    ratio = measured(
        "time of an inference over that of earlier ones, at equal tokens", None if b is None else b.ratio, ">",
        thresholds.SURE_SLOWDOWN, bound="low", link=view.bulk,
    )  # fmt: skip
    if b is not None and found is not None and ratio.holds:
        explained = [f for f in (slow_worker(view), cold_start(view)) if f.holds]
        if not explained and not lack_of_cores(view):
            yes = (
                f"An inference takes {wording.number(float(f'{b.ratio.value:.2g}'))} times what it took "
                f"{wording.seconds(float(f'{max(1.0, b.ago):.1g}'))} before, at the same model and tokens."
            )
    no = "Inferences are not slower than before." if b is not None else "Nothing comparable ran in the hour before."
    return _finding(view, plays.SLOWER, "inferences took what they took before", no, yes, ratio)


# --- at capacity, or not ----------------------------------------------------------------------------------


def _at_capacity(view: View) -> tuple[tuple[Evidence, ...], bool | None]:
    """Return whether more workers would help, by the replay; by their busy share where it cannot be played."""
    busy = measured("workers busy", view.load.busy, ">=", thresholds.ROOM, link=view.bulk)
    if view.plays is None:
        return (busy,), busy.holds
    count = len(view.plays.bulk.slot_worker)
    saved = _saved(view, plays.WORKERS, f"there were {2 * count} workers instead of {count}")
    return (saved, busy), bool(saved.holds)


def _full(view: View) -> Evidence:
    return measured("cores used by the inferences", view.cpu.own, ">=", thresholds.CORES_FULL, link=view.bulk)


def at_capacity_workers_and_cores(view: View) -> Finding:
    """More workers would help, if there were more cores for them."""
    evidence, more = _at_capacity(view)
    full = _full(view)
    holds = more and full.holds is True
    text = "Workers and cores were not both full."
    if holds:
        both = _places(view)
        text = (
            f"{both}{_while_waiting(view)}, and with them {_all_of(view.cpu.own)} "
            f"{wording.count(view.cpu.cores, 'core')}. More workers need more cores; fewer tokens or a cheaper model "
            "shorten it."
        )
    return Finding("at_capacity_workers_and_cores", bool(holds), text, (*evidence, full))


def at_capacity_workers(view: View) -> Finding:
    """More workers would help, and there are cores for them."""
    evidence, more = _at_capacity(view)
    full = _full(view)
    holds = bool(more and not full.holds)
    text = "More workers would hardly help."
    if holds:
        text = f"{_places(view)}{_while_waiting(view)}."
        if view.plays is not None and view.plays.stream and view.load.busy < thresholds.BUSY_LOW.value:
            text = (
                f"Jobs come in bursts: {wording.count(max(view.load.places, 1), 'worker')} "
                f"{wording.agree(max(view.load.places, 1), 'was', 'were')} busy {wording.percent(view.load.busy)} of "
                f"the time, and yet jobs waited {rough(view.wait)}."
            )
        if view.time.for_others > thresholds.FOR_OTHERS.value or view.load.others > view.load.own:
            share = wording.percent(view.load.others / view.load.capacity)
            text = f"Jobs of other bulks took {share} of the workers' time. More workers would serve both sooner."
        found = _worth(view, plays.WORKERS)
        if found is not None:
            text += f" Twice as many: {instead(view, found)}."
    return Finding("at_capacity_workers", holds, text, (*evidence, full))


def _all_of(share: float) -> str:
    return "all" if share > 0.98 else f"{wording.percent(share)} of the"


def _places(view: View) -> str:
    count = max(view.load.places, 1)
    if count == 1:
        return f"The only worker was busy {wording.percent(view.load.busy)} of the time"
    whole = "Both" if count == 2 else f"All {count:,}"
    return f"{whole} workers were busy {wording.percent(view.load.busy)} of the time"


def _while_waiting(view: View) -> str:
    waits = view.waits_over_work
    if not np.isfinite(waits) or waits < 0.1:
        return ""
    return f" while jobs waited ({wording.count(float(f'{waits:.2g}'), 'service time')})"


def headroom(view: View) -> Finding:
    """No change that was played would help: how much more load fits."""
    load, came = view.load, view.arrivals
    _, more = _at_capacity(view)
    tried = {} if view.plays is None else view.plays.savings
    apart = (plays.CORES, plays.OTHERS, plays.SLOWER)  # these hold, or not, by more than what they save
    shares = [saving.share for code, saving in tried.items() if code not in apart]
    best = None if view.plays is None else max(shares, default=0.0)
    little = measured("most that any change would save", best, "<", thresholds.SAVED, link=view.bulk)
    busy = measured("workers busy", load.busy, "<=", thresholds.ROOM, link=view.bulk)
    text = "No change that was played would save a tenth of the time."
    if view.progress.complete and not view.facts.attempts.mine.any():
        said = wording.unbegun(view.progress, view.facts.unbegun.called_off, view.facts.unbegun.not_sent)
        text = f"No job was begun: {'; '.join(said)}."
    elif load.capacity <= 0:
        text = "Nothing can be said about load: no job took any time."
    elif view.progress.sent == 1:
        text = "Nothing can be said about load: the bulk has one job."
    elif view.open and np.isfinite(came.busy):
        wait = f"Jobs waited {rough(view.wait)}, " if np.isfinite(view.wait) else ""
        verb = "were" if max(load.places, 1) > 1 else "was"
        text = (
            f"{wait}{wording.count(max(load.places, 1), 'worker')} {verb} busy {wording.percent(came.busy)}: "
            f"{_fits(came.busy)}."
        )
        text = text[0].upper() + text[1:]
    elif view.plays is not None and int(view.plays.bulk.mine.sum()) <= load.places:
        text = f"All {view.progress.sent:,} jobs ran at once: more workers do not help, shorter jobs do."
    elif view.plays is None and more:
        text = f"{_places(view)}; too little is recorded to say what would help."
    return Finding("headroom", True, text, (little, busy) if best is not None else (busy,))


def _fits(busy: float) -> str:
    """Say how much more load fits where so large a share of the workers is busy: a rule of thumb, so of one digit."""
    if busy <= 0:
        return "far more load fits"
    times = thresholds.ROOM.value / busy
    if times > 20:
        return "far more load fits"
    written = wording.number(float(f"{times:.1g}") if times >= 3 else round(times, 1))
    return "hardly more load fits" if times < 1.05 else f"about {written} times the load fits"


def _worth(view: View, code: str) -> Saving | None:
    return None if view.plays is None else view.plays.worth(code)
