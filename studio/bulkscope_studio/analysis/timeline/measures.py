"""The numbers that findings are made of, from the facts of a bulk; times in seconds, shares 0..1, absent is NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.statistics import estimates, stats
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.timeline.facts import Codes, Facts, Flags, Floats, Worker, by_code, firsts
from bulkscope_studio.analysis.timeline.progress import Progress
from bulkscope_studio.analysis.timeline.timeline import Timeline

# More rows make a regression no more precise, and 100,000 would cost the second that explain may take.
MOST_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Growth:
    """How times grow with the number of busy workers, at equal tokens and model; None: not known.

    ``gain`` is the throughput with twice the busy workers, as a factor (2: they do not slow each other, 1: more do not
    help), near the highest number; ``service``, ``decode``, ``prefill`` and ``cpu`` are times with most workers busy
    over times with fewest. ``fewest`` and ``most`` busy workers, over ``rows`` jobs.
    """

    gain: Estimate | None
    service: Estimate | None
    decode: Estimate | None
    prefill: Estimate | None
    cpu: Estimate | None
    fewest: float
    most: float
    rows: int


# Jobs with at least 80 % of the highest number of busy workers form the busy group, jobs with at most 150 % of the
# lowest the quiet group; the jobs in between (a ramp) are left out.
_MOST, _FEWEST = 0.8, 1.5
_OWN_MOST = 1.1  # times the busy workers of the bulk's own jobs: up to that the hour before counts
_SOON = 0.05  # of the usual job
_SLACK = 1e-6  # many jobs lie exactly at a limit: rounding must not choose between them


@dataclass(frozen=True, slots=True)
class _Jobs:
    """One row a job that ran a model once: what a regression needs."""

    beside: Floats
    model: Codes
    work: Floats
    prefill: Floats
    decode: Floats
    cpu: Floats
    generated: Floats
    prefilled: Floats


def growth(facts: Facts, timeline: Timeline) -> Growth:
    """Compare jobs with many busy workers to jobs with few, in the bulk and in the hour before it."""
    jobs = _jobs(facts, timeline)
    rows = len(jobs.beside)
    if rows < thresholds.ALIKE_ROWS.value:
        return Growth(None, None, None, None, None, np.nan, np.nan, rows)
    fewest, most = (float(level) for level in np.quantile(jobs.beside, (0.05, 0.95)))
    none = Growth(None, None, None, None, None, fewest, most, rows)
    if most < thresholds.BUSY_RANGE.value * fewest:
        return none
    crowded = jobs.beside >= (1 - _SLACK) * _MOST * most
    alone = jobs.beside <= (1 + _SLACK) * min(_FEWEST * fewest, 0.7 * most)
    tokens = [np.log1p(jobs.generated), np.log1p(jobs.prefilled)]

    def ratio(values: Floats, covariates: list[Floats]) -> Estimate | None:
        chosen = crowded | alone
        if min(np.sum(np.isfinite(values[crowded])), np.sum(np.isfinite(values[alone]))) < 3:
            return None
        # The factor is told of fewest and most. The groups' own means lie nearer to each other, by two fifths where
        # jobs arrive at random, and their times with them: 1.18 for a bus that truly cost 1.39.
        distance = max(most - fewest, float(jobs.beside[crowded].mean() - jobs.beside[alone].mean()))
        found = _effect(
            jobs.beside[chosen] / distance, np.log(values[chosen]), jobs.model[chosen], [c[chosen] for c in covariates]
        )
        return None if found is None else Estimate(*(float(np.exp(v)) for v in (found.value, found.low, found.high)))

    with np.errstate(divide="ignore", invalid="ignore"):
        # Near the highest number of workers: two workers do not notice a lock that is held half of the time.
        upper = jobs.beside >= (1 - _SLACK) * max(0.45 * most, fewest)
        narrow = np.quantile(jobs.beside[upper], 0.1) > most / thresholds.BUSY_RANGE.value
        if upper.sum() < thresholds.ALIKE_ROWS.value or narrow:
            upper = np.ones(rows, np.bool_)
        slope = _effect(
            np.log(np.maximum(jobs.beside[upper], 1.0)), np.log(jobs.work[upper]), jobs.model[upper],
            [c[upper] for c in tokens],
        )  # fmt: skip
        return Growth(
            gain=None
            if slope is None
            else Estimate(2 ** (1 - slope.value), 2 ** (1 - slope.high), 2 ** (1 - slope.low)),
            service=ratio(jobs.work, tokens),
            decode=ratio(jobs.decode / stats.after_first(jobs.generated), []),
            prefill=ratio(np.where(jobs.prefilled >= 4, jobs.prefill / jobs.prefilled, np.nan), []),
            cpu=ratio(jobs.cpu, tokens),
            fewest=fewest,
            most=most,
            rows=rows,
        )


def _jobs(facts: Facts, timeline: Timeline) -> _Jobs:
    a, i = facts.attempts, facts.inferences
    single = np.bincount(i.job[i.job >= 0], minlength=len(facts.job_ids)) == 1
    where = np.full(len(facts.job_ids), -1)
    where[i.job[i.job >= 0]] = np.flatnonzero(i.job >= 0)
    rows = np.flatnonzero(a.ended & (a.job >= 0) & (a.end > a.start))
    rows = rows[single[a.job[rows]] & (where[a.job[rows]] >= 0)]
    of = where[a.job[rows]]
    # The first of a worker and model reads the weights from disk.
    kept = i.ok[of] & (i.start[of] >= a.start[rows]) & ~firsts(i.start, i.worker, i.model)[of]
    beside = np.full(len(rows), np.nan)
    for host, here in by_code(a.host[rows], np.arange(len(rows))).items():
        busy, start, end = timeline.host_busy[host], a.start[rows[here]], a.end[rows[here]]
        # A little later: of jobs that come together the first finds nobody, and all have each other beside them.
        soon = _SOON * float(np.median(end - start))
        beside[here] = _as_at_the_start(busy.mean(start, end), busy.value(start + soon))
    kept &= beside >= 0.5  # a job counts as one busy worker itself: such records are wrong
    own = beside[kept & a.mine[rows]]
    if len(own):  # with more busy workers than this bulk ever had, the hour before says nothing about it
        kept &= beside <= _OWN_MOST * np.quantile(own, 0.95)
    kept = np.flatnonzero(kept)
    kept = kept[:: max(1, -(-len(kept) // MOST_ROWS))]
    rows, of = rows[kept], of[kept]
    with np.errstate(invalid="ignore"):
        prefilled = i.prefilled_tokens[of]
    return _Jobs(
        beside[kept], i.model[of], a.end[rows] - a.start[rows], i.prefill[of], i.decode[of], i.cpu_time[of],
        i.output_tokens[of], prefilled,
    )  # fmt: skip


def _as_at_the_start(mean: Floats, at_start: Floats) -> Floats:
    """Return for each job the mean number beside those that began beside as many: by the number at its start.

    A long job meets more others because it is long: of jobs that come at a steady pace and do not slow each other, the
    mean over their own time made contention in up to 95 % of draws. What is busy at its start knows nothing of its
    length (an instrument, Angrist and Imbens 1995).
    """
    found = np.full(len(mean), np.nan)
    good = np.isfinite(mean)
    _, level = np.unique(at_start[good], return_inverse=True)
    if len(level):
        found[good] = (np.bincount(level, mean[good]) / np.bincount(level))[level]
    return found


@dataclass(frozen=True, slots=True)
class Before:
    """How long an inference of the bulk takes over one of the hour before it, at equal model and tokens.

    ``rows`` earlier inferences, half of which ended more than ``ago`` s before the bulk's first job.
    """

    ratio: Estimate
    ago: float
    rows: int


_AS_CROWDED = 0.75  # of the busy workers of the bulk's own: fewer may be quicker for being fewer


def before(facts: Facts, timeline: Timeline) -> Before | None:
    """Compare them; None where too few ran before, or only with far fewer busy workers."""
    i = facts.inferences
    seconds = i.end - i.start
    kept = i.ok & (seconds > 0) & ~firsts(i.start, i.worker, i.model) & (i.mine | (i.end <= timeline.first))
    beside = np.full(len(seconds), np.nan)
    for host, here in by_code(i.host, np.flatnonzero(kept)).items():
        if host in timeline.host_busy:
            beside[here] = timeline.host_busy[host].mean(i.start[here], i.end[here])
    kept &= np.isfinite(beside)
    own = kept & i.mine
    if own.sum() < thresholds.ALIKE_ROWS.value:
        return None
    kept &= i.mine | (beside >= _AS_CROWDED * float(np.median(beside[own])))
    kept &= np.isin(i.model, i.model[own])
    earlier = kept & ~i.mine
    if earlier.sum() < thresholds.ALIKE_ROWS.value:
        return None
    rows = np.flatnonzero(kept)
    rows = rows[:: max(1, -(-len(rows) // MOST_ROWS))]
    with np.errstate(invalid="ignore"):
        tokens = [np.log1p(i.output_tokens[rows]), np.log1p(i.prefilled_tokens[rows])]
    found = _effect(i.mine[rows].astype(np.float64), np.log(seconds[rows]), i.model[rows], tokens)
    if found is None:
        return None
    ratio = Estimate(*(float(np.exp(value)) for value in (found.value, found.low, found.high)))
    return Before(ratio, timeline.first - float(np.median(i.end[earlier])), int(earlier.sum()))


def _effect(x: Floats, y: Floats, models: Codes, covariates: list[Floats]) -> Estimate | None:
    """Coefficient of x for y beside a level for each model and the covariates, of the rows that have all of them."""
    good = np.isfinite(x) & np.isfinite(y)
    told = [column for column in covariates if good.any() and np.isfinite(column[good]).mean() >= 0.9]
    for column in told:
        good &= np.isfinite(column)
    x, y, models = x[good], y[good], models[good]
    if len(x) < thresholds.ALIKE_ROWS.value or float(np.ptp(x)) == 0:
        return None
    levels = [(models == model).astype(np.float64) for model in np.unique(models)]
    varying = [column[good] for column in told if float(np.ptp(column[good])) > 0]
    found = estimates.coefficients(np.column_stack([x, *levels, *varying]), y)[0]
    return found if np.isfinite(found.low) else None


@dataclass(frozen=True, slots=True)
class Load:
    """How the workers were used from the first ready job to the last end.

    In slot-seconds. ``capacity``: there were so many; ``own``, ``others``: busy with this bulk, with others;
    ``stalled``: free while a job waited, for longer than ``stall_s`` at once (``stalls`` times, ``longest`` the
    longest); ``dispatch``: free while a job waited, all of it. ``hung``: inside ``hangs`` jobs but outside their
    inferences for as long at once (a broker that does not take the result, a disk). ``places``: most slots at once.
    """

    capacity: float
    own: float
    others: float
    dispatch: float
    stalled: float
    stalls: int
    longest: float
    longest_row: int
    hung: float
    hangs: int
    places: int

    @property
    def busy(self) -> float:
        """Share of the slots' time in which they worked."""
        return (self.own + self.others) / self.capacity if self.capacity > 0 else np.nan


def load(facts: Facts, progress: Progress, timeline: Timeline, stall_s: float) -> Load:
    """Add it up; a stall that goes on is counted up to now."""
    window = timeline.first, timeline.last
    waits = timeline.waits
    gaps, rows = _worked_unseen(facts, progress, waits.dispatch), waits.rows
    # Prefetched jobs have no gap; jobs that nobody has taken yet wait while any slot is free.
    open_gaps = _open_gaps(facts, progress, timeline)
    every = np.concatenate([gaps, open_gaps])
    stalls = every > _long(gaps, stall_s)
    around = _around_inferences(facts)
    around = around[around > _long(around, stall_s)]
    longest = int(np.argmax(every)) if len(every) else -1
    return Load(
        # Slots are known up to their workers' last sign of life; one that is idle until now is still there.
        capacity=timeline.capacity.between(*window) + (0.0 if progress.running else float(open_gaps.sum())),
        own=timeline.mine.between(*window),
        others=_above(timeline.every.between(*window), timeline.mine.between(*window)),
        dispatch=float(every.sum()),
        stalled=float(every[stalls].sum()),
        stalls=int(stalls.sum()),
        longest=float(every[longest]) if longest >= 0 else 0.0,
        longest_row=int(rows[longest]) if 0 <= longest < len(rows) else -1,
        hung=float(around.sum()),
        hangs=len(around),
        places=timeline.capacity.highest(),
    )


def _worked_unseen(facts: Facts, progress: Progress, gaps: Floats) -> Floats:
    """Return the gaps without the work that was done in them and not recorded, as far as it is known how much that is.

    Jobs whose end did not come were worked on while their worker seems to have been free: in the longest gaps first.
    """
    a = facts.attempts
    own = a.mine & a.ended
    unseen = len(progress.missing) + progress.unknown
    if not unseen or not own.any() or not len(gaps):
        return gaps
    left = unseen * float(np.mean((a.end - a.start)[own]))
    found = gaps.copy()
    for row in np.argsort(-gaps)[: 2 * unseen].tolist():
        taken = min(found[row], left)
        found[row] -= taken
        left -= taken
    return found


def _long(times: Floats, least: float) -> float:
    """Return above which length a gap is unusual: queues that are polled, or slow, have gaps of their own, which may
    well be six times the usual one."""
    return max(least, 10 * float(np.median(times))) if len(times) else least


def _around_inferences(facts: Facts) -> Floats:
    """Return of each own attempt that ran a model the seconds outside it; a worker's first loads the model in them."""
    a, i = facts.attempts, facts.inferences
    mine = i.mine & (i.job >= 0) & np.isfinite(i.end)
    inside = np.bincount(i.job[mine], (i.end - i.start)[mine], len(facts.job_ids))
    loads = np.zeros(len(facts.job_ids), np.bool_)
    loads[i.job[firsts(i.start, i.worker, i.model) & (i.job >= 0)]] = True
    # Nothing is known of what ran in a process when it was killed.
    rows = np.flatnonzero(a.mine & a.ended & ~a.killed & (a.job >= 0))
    rows = rows[(inside[a.job[rows]] > 0) & ~loads[a.job[rows]]]
    # All inferences of a retried job count: the rest is the least time outside them.
    return np.maximum(a.end[rows] - a.start[rows] - inside[a.job[rows]], 0.0)


def _above(whole: float, part: float) -> float:
    """Return their difference, and no rounding error for nothing."""
    return whole - part if whole - part > 1e-9 * whole else 0.0


def _open_gaps(facts: Facts, progress: Progress, timeline: Timeline) -> Floats:
    """Return for how long each free slot has been free while jobs wait, up to now."""
    if not len(progress.waiting):
        return np.zeros(0)
    a = facts.attempts
    since = float(np.min(a.ready[progress.waiting]))
    until = facts.now
    idle = []
    said = {worker.code: worker.last for worker in facts.workers}
    dead = set(a.worker[progress.lost_attempts].tolist()) | set(a.worker[a.killed].tolist())
    for code, rows in by_code(a.worker, np.flatnonzero(timeline.ours)).items():
        sign = said.get(code, np.nan)
        if code in dead or sign < facts.now - thresholds.QUIET_S.value:
            continue  # it is gone: its slots are not free
        busy = int(np.sum(~a.ended[rows] & ~a.silent[rows] & np.isfinite(a.start[rows])))
        free = timeline.places.places.get(code, 1) - busy
        freed = float(np.max(timeline.end[rows]))
        idle += [max(0.0, until - max(since, freed))] * max(0, free)
    if not idle and not timeline.ours.any():
        idle = [max(0.0, until - since)]  # no worker has ever taken a job
    return np.array(idle, np.float64)


@dataclass(frozen=True, slots=True)
class Cpu:
    """Cores while most workers were busy: ``busy`` of those that they may use (the fullest host or set), ``pressure``
    (PSI), and of the time in which the inferences' threads could run the share ``wait`` without a core and, of the
    inferences' time, ``throttled`` by a quota.

    ``lost``: of the inferences' own time, what they would have ended sooner with a core whenever they wanted one.
    ``cores_per_place``: cores that one inference keeps busy, ``wanted`` with what it waited for; ``cores``: the cores
    that the workers may use, ``own`` the share of them that the inferences used.
    """

    busy: float
    busy_source: str
    pressure: float
    wait: float
    throttled: float
    cores_per_place: float
    cores: float
    lost: float
    wanted: float
    own: float


def lost_seconds(seconds: Floats, cpu: Floats, wait: Floats) -> Floats:
    """Return how much sooner an inference of so many ``seconds`` had ended if its threads had never waited for a core.

    ``cpu`` and ``wait`` are core-seconds of all its threads. Of threads that run side by side the waits pass at the
    same time: with p of them runnable on average, a p-th of all waits. NaN where not recorded.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        beside = np.where(seconds > 0, (cpu + wait) / seconds, np.nan)
        return np.asarray(np.minimum(wait / np.maximum(1.0, beside), seconds))


def cpu(facts: Facts, timeline: Timeline) -> Cpu:
    """Compute it for the time with most workers busy: the rest would hide that the cores are too few for all."""
    h, i = facts.hosts, facts.inferences
    crowd = timeline.crowd
    crowded = (h.time >= timeline.first) & (h.time <= timeline.last) & (crowd.value(h.time) > 0)
    busy, source, pressure = np.nan, "", np.nan
    for host in sorted(set(facts.attempts.host[timeline.ours].tolist())):
        share = _mean(h.cpu[crowded & (h.host == host)])
        if not busy >= share and np.isfinite(share):
            busy, source = share, f"host {facts.host_names[host]}"
        pressure = np.fmax(pressure, _mean(h.cpu_pressure[crowded & (h.host == host)]))
    for label, share in _sets(facts, timeline):
        if not busy >= share - 0.001:  # the host's own account goes first where the two agree
            busy, source = share, label
    seconds = i.end - i.start
    weight = np.where(i.mine, crowd.integral(i.end) - crowd.integral(i.start), 0.0)
    told = (weight > 0) & np.isfinite(i.cpu_pressure)
    if told.any() and not np.isfinite(pressure):
        pressure = float(np.average(i.cpu_pressure[told], weights=weight[told]))
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(seconds > 0, weight / seconds, 0.0)  # of each inference, what fell into that time
    waited = (part > 0) & np.isfinite(i.cpu_wait) & np.isfinite(i.cpu_time)
    used, lacked = float(np.sum((i.cpu_time * part)[waited])), float(np.sum((i.cpu_wait * part)[waited]))
    quota = (part > 0) & np.isfinite(i.cpu_throttled)
    timed = i.mine & np.isfinite(i.cpu_time) & (seconds > 0)
    cores = [worker.cpus for worker in _own(facts, timeline) if np.isfinite(worker.cpus)]
    with np.errstate(invalid="ignore"):
        lost = lost_seconds(seconds, i.cpu_time, i.cpu_wait)
    wall = float(np.sum((seconds * part)[waited]))
    ran = crowd.between(timeline.first, timeline.last)
    there, parts = _cores(facts, timeline), _parts_of_all(facts, timeline)
    spent = (parts > 0) & np.isfinite(i.cpu_time)
    own = float(np.sum((i.cpu_time * parts)[spent]))
    return Cpu(
        busy=busy,
        busy_source=source,
        pressure=float(pressure),
        wait=lacked / (used + lacked) if used + lacked > 0 else np.nan,
        throttled=float(np.sum((i.cpu_throttled * part)[quota]) / np.sum(weight[quota])) if quota.any() else np.nan,
        cores_per_place=float(i.cpu_time[timed].sum() / seconds[timed].sum()) if timed.any() else np.nan,
        cores=there if cores else np.nan,
        lost=float(np.sum((lost * part)[waited])) / wall if wall > 0 else np.nan,
        wanted=(used + lacked) / wall if wall > 0 else np.nan,
        own=own / (there * ran) if spent.any() and there > 0 and ran > 0 else np.nan,
    )


def _parts_of_all(facts: Facts, timeline: Timeline) -> Floats:
    """Return of each inference, the bulk's or another's, the share of its time that fell into the crowded time."""
    i, crowd = facts.inferences, timeline.crowd
    inside = crowd.integral(np.minimum(i.end, timeline.last)) - crowd.integral(np.maximum(i.start, timeline.first))
    seconds = i.end - i.start
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((seconds > 0) & (inside > 0), inside / seconds, 0.0)


def _cores(facts: Facts, timeline: Timeline) -> float:
    """Return how many cores all workers of the bulk may use."""
    groups: dict[tuple[int, str | None, str], float] = {}
    for worker in _own(facts, timeline):
        if np.isfinite(worker.cpus):
            key = _shared(worker)
            groups[key] = max(groups.get(key, 0.0), worker.cpus)
    return sum(groups.values())


def _shared(worker: Worker) -> tuple[int, str | None, str]:
    """Return what workers that share their cores have in common: without a quota what they are allowed, with one each
    container has its own."""
    apart = "" if worker.cpu_set is None or worker.shares_set() else worker.container or ""
    return worker.host, worker.cpu_set, apart


def _sets(facts: Facts, timeline: Timeline) -> list[tuple[str, float]]:
    """Return how busy the inferences alone kept each set of cores that workers share, while most workers were busy."""
    i = facts.inferences
    sets: dict[tuple[int, str, str, float], set[int]] = {}
    for worker in facts.workers:
        if worker.cpu_set is not None and np.isfinite(worker.cpus):
            host, _, apart = _shared(worker)
            sets.setdefault((host, worker.cpu_set, apart, worker.cpus), set()).add(worker.code)
    found = []
    for (_, cpu_set, _, cores), members in sorted(sets.items()):
        rows = np.isin(i.worker, list(members)) & np.isfinite(i.cpu_time) & (i.end > i.start)
        rows &= (i.end > timeline.first) & (i.start < timeline.last)
        start, end, spent = i.start[rows], i.end[rows], i.cpu_time[rows]
        total = timeline.crowd.between(timeline.first, timeline.last) * cores
        part = (timeline.crowd.integral(end) - timeline.crowd.integral(start)) / (end - start)
        if total > 0 and np.isfinite(crowded := float(np.sum(spent * part)) / total):
            found.append((f"cores {cpu_set} by inferences alone", crowded))
    return found


@dataclass(frozen=True, slots=True)
class Memory:
    """``near``: the highest share of a limit that was reached, of what, from where; ``pressure`` (PSI) and ``faults``
    (major, median a second) of the hosts; ``fit``: how many workers fit, of how many there were (-1: not known).

    Workers of several containers or hosts have ``limits`` of their own; ``fit_each`` is how many fit into one.
    """

    near: float
    near_of: str
    pressure: float
    faults: float
    fit: int
    workers: int
    per_worker: float
    shared: float
    limit: float
    limits: int
    fit_each: int


def memory(facts: Facts, timeline: Timeline, room: float) -> Memory:
    """Compute it; ``room`` is the share of a limit up to which workers are said to fit."""
    h, i = facts.hosts, facts.inferences
    near, near_of, pressure, faults = np.nan, "", np.nan, np.nan
    hosts = sorted(set(facts.attempts.host[timeline.ours].tolist()))
    window = (h.time >= timeline.first) & (h.time <= timeline.last)
    used: dict[int, float] = {}
    total: dict[int, float] = {}
    for host in hosts:
        rows = window & (h.host == host)
        peak = _max(h.memory[rows])
        if np.isfinite(peak) and not near >= peak:
            near, near_of = peak, f"memory of host {facts.host_names[host]}"
        pressure = np.fmax(pressure, _mean(h.memory_pressure[rows]))
        faults = np.fmax(faults, _rate(h.time[rows], h.major_faults[rows]))
        total[host], used[host] = _max(h.memory_total[rows]), _max(h.memory_used[rows])
    for worker in _own(facts, timeline):
        if np.isfinite(worker.memory_utilization) and not near >= worker.memory_utilization:
            near, near_of = worker.memory_utilization, f"memory limit of worker {worker.name}"
    for item in (
        facts.lost
    ):  # a process that lived for less than one export interval has told its memory only in its job's events
        share = item["share"]
        if isinstance(share, float) and np.isfinite(share) and not near >= share:
            near, near_of = share, f"memory limit of worker {item['worker']}"
    mine = i.mine & np.isfinite(i.memory_peak)
    file = _max(i.memory_file[mine])
    file = 0.0 if np.isnan(file) else file
    anonymous = np.zeros(len(facts.worker_names) + 1)
    np.maximum.at(anonymous, i.worker[mine], i.memory_peak[mine] - np.nan_to_num(i.memory_file[mine]))
    codes = np.flatnonzero(anonymous > 0)
    sizes, limit = anonymous[codes], _min(i.memory_limit[mine])
    workers, each = len(sizes), float(np.max(sizes, initial=0.0))
    fit, fit_each, limits = -1, -1, 0
    if workers and np.isfinite(limit):
        fit_each = max(0, int((room * limit - file) // each))
        fits = []
        for host, members in _by_host(facts, mine, codes).items():
            whole = limit >= total.get(host, np.nan)
            own = 1 if whole else len({members[code] for code in members})
            limits += own
            # Memory that other programs hold stays theirs; mapped weights are one copy for all workers.
            held = used.get(host, np.nan) - float(anonymous[list(members)].sum())
            beside = max(0.0, held) if np.isfinite(held) and (whole or own > 1) else 0.0
            # Where containers have limits of their own, all of them together are limited by the host.
            there = total.get(host, np.nan) if own > 1 else limit
            fits.append((room * there - file - beside) // each)
        fit = max(0, int(sum(fits))) if np.isfinite(fits).all() else -1
    return Memory(
        near, near_of, float(pressure), float(faults), fit, workers, each, file, limit, limits, fit_each
    )  # fmt: skip


def _by_host(facts: Facts, rows: Flags, codes: Codes) -> dict[int, dict[int, str | None]]:
    """Return the workers ``codes`` by their hosts, as the inferences ``rows`` say, each with its container."""
    i = facts.inferences
    container = {worker.code: worker.container for worker in facts.workers}
    host = np.full(len(facts.worker_names) + 1, -1)
    host[i.worker[rows]] = i.host[rows]
    found: dict[int, dict[int, str | None]] = {}
    for code in codes.tolist():
        found.setdefault(int(host[code]), {})[code] = container.get(code)
    return found


def _own(facts: Facts, timeline: Timeline) -> list[Worker]:
    """Return the workers that the bulk had; the facts have those of the hour before too."""
    own = set(np.unique(facts.attempts.worker[timeline.ours]).tolist())
    return [worker for worker in facts.workers if worker.code in own]


def _rate(at: Floats, counter: Floats) -> float:
    """Return the median increase a second: loading a model's weights once is a peak, not a rate."""
    good = np.isfinite(counter)
    if good.sum() < 3:
        return np.nan
    return float(np.median(np.diff(counter[good]) / np.diff(at[good])))


def _mean(values: Floats) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else np.nan


def _max(values: Floats) -> float:
    good = values[np.isfinite(values)]
    return float(good.max()) if len(good) else np.nan


def _min(values: Floats) -> float:
    good = values[np.isfinite(values)]
    return float(good.min()) if len(good) else np.nan
