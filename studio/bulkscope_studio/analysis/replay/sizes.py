"""How long a job takes by its tokens, and what of its time has another reason: its worker, a cold start, no core."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from bulkscope_studio.analysis.thresholds import ALIKE_ROWS, COLD_SURE, SLOW_WORKER, SLOW_WORKER_SURE
from bulkscope_studio.analysis.timeline.facts import Codes, Facts, Flags, Floats, by_code, firsts
from bulkscope_studio.analysis.timeline.measures import lost_seconds

_LEAST_SCATTER = 0.02  # the same prompt again differs by as much: no factor below is told from chance
_MOST_SCATTER = 1.0
_SPREAD = 1.4826  # of a normal distribution: standard deviation over median absolute deviation


@dataclass(frozen=True, slots=True)
class Sizes:
    """By job: ``usual`` seconds at its model and tokens on a usual worker, ``cold`` seconds more of a worker's first
    job (0: none that is more than chance), ``lost`` seconds for want of a core (0 where not recorded), ``cores`` that
    it keeps busy (0 where not recorded).

    ``factor``: of workers that are slower than the others at equal tokens, by code, how many times as long a job
    takes; ``scatter`` is the standard deviation of the logarithm of a job's time over its usual one.
    """

    usual: Floats
    cold: Floats
    lost: Floats
    cores: Floats
    factor: dict[int, float]
    scatter: float


def sizes(facts: Facts, rows: Codes) -> Sizes:
    """Compute it for the attempts ``rows``, which have ended."""
    a = facts.attempts
    work = a.end[rows] - a.start[rows]
    of = _by_job(facts)
    jobs = a.job[rows]
    model = np.where(jobs >= 0, of.model[jobs], -1)
    first = _first_jobs(facts, of.model)[rows]
    good = work > 0
    usual = np.full(len(rows), np.nan)
    for _, members in by_code(model, np.arange(len(rows))).items():
        usual[members] = usual_seconds(
            work[members], of.prefilled[jobs[members]], of.output[jobs[members]], (good & ~first)[members]
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(good & (usual > 0), np.log(work / usual), np.nan)
    worker = a.worker[rows]
    scatter = _scatter(log[~first], worker[~first])
    factor = _slow(log, worker, first, scatter)
    with np.errstate(invalid="ignore"):
        log = log - np.log([factor.get(code, 1.0) for code in worker.tolist()]) if len(rows) else log
    # work less the usual time on that worker, which is work / exp(log)
    cold = np.where(_cold(log, first, scatter), -work * np.expm1(-np.maximum(np.nan_to_num(log), 0.0)), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(of.seconds[jobs] > 0, np.minimum(1.0, work / of.seconds[jobs]), 0.0)  # of several attempts
        lost = np.where(jobs >= 0, np.nan_to_num(of.lost[jobs]) * part, 0.0)
        cores = np.where(jobs >= 0, np.nan_to_num(of.cpu[jobs] * part / np.maximum(work - lost, 1e-9)), 0.0)
    return Sizes(usual, cold, lost, cores, factor, min(scatter, _MOST_SCATTER))


@dataclass(frozen=True, slots=True)
class _ByJob:
    """By code of a job, and for -1 (no job) at the end: NaN where nothing is known, model -1."""

    model: Codes
    prefilled: Floats
    output: Floats
    seconds: Floats
    cpu: Floats
    lost: Floats


def _by_job(facts: Facts) -> _ByJob:
    i, size = facts.inferences, len(facts.job_ids) + 1
    known = i.job >= 0
    model = np.full(size, -1, np.int64)
    model[i.job[known]] = i.model[known]

    def total(values: Floats) -> Floats:
        rows = known & np.isfinite(values)
        seen = np.bincount(i.job[rows], minlength=size)
        return np.where(seen > 0, np.bincount(i.job[rows], values[rows], size), np.nan)

    with np.errstate(invalid="ignore"):
        seconds = i.end - i.start
        lost = lost_seconds(seconds, i.cpu_time, i.cpu_wait)
        return _ByJob(
            model, total(i.prefilled_tokens), total(i.output_tokens), total(seconds), total(i.cpu_time), total(lost)
        )


def _first_jobs(facts: Facts, model: Codes) -> Flags:
    """Tell which attempts were the first of their worker with their model: they load it."""
    a = facts.attempts
    found = np.zeros(len(a.start), np.bool_)
    begun = np.flatnonzero(np.isfinite(a.start) & (a.worker >= 0))
    found[begun] = firsts(a.start[begun], a.worker[begun], model[a.job[begun]])
    return found


def usual_seconds(work: Floats, prefilled: Floats, output: Floats, good: Flags) -> Floats:
    """Return the usual seconds of each job: a constant and a price for each token, none below 0; by least relative
    squares, moved so that half of the jobs take longer."""
    if not good.any():
        good = work > 0
    if not good.any():
        return np.full(len(work), np.nan)
    middle = float(np.median(work[good]))
    told = np.isfinite(prefilled) & np.isfinite(output)
    if good.sum() < ALIKE_ROWS.value or not told.all():
        return np.full(len(work), middle)
    columns = np.column_stack([np.ones(len(work)), prefilled, output])
    scaled = columns[good] / work[good, None]
    best, least = None, math.inf
    for count in (1, 2, 3):
        for chosen in itertools.combinations(range(3), count):
            part = scaled[:, chosen]
            if count > 1 and np.linalg.matrix_rank(part) < count:
                continue
            price = np.linalg.lstsq(part, np.ones(len(part)), rcond=None)[0]
            error = float(np.sum((part @ price - 1) ** 2))
            if (price >= 0).all() and error < least * (1 - 1e-6):
                best, least = columns[:, chosen] @ price, error
    if best is None or not (best > 0).all():
        return np.full(len(work), middle)
    return np.asarray(best * np.median(work[good] / best[good]))


def _scatter(log: Floats, worker: Codes) -> float:
    """Return the robust standard deviation about each worker's own median."""
    about = []
    for rows in by_code(worker, np.flatnonzero(np.isfinite(log))).values():
        if len(rows) > 1:
            about.append(np.abs(log[rows] - np.median(log[rows])))
    if not about:
        return 0.2  # of a few jobs nothing is known
    return max(_LEAST_SCATTER, _SPREAD * float(np.median(np.concatenate(about))))


def _slow(log: Floats, worker: Codes, first: Flags, scatter: float) -> dict[int, float]:
    """Return how many times as long a job takes on each worker that is slower than the median one."""
    level: dict[int, tuple[float, int]] = {}
    for code, rows in by_code(worker, np.flatnonzero(np.isfinite(log))).items():
        warm = rows[~first[rows]]
        if len(warm):
            level[code] = float(np.median(log[warm])), len(warm)
    if len(level) < 2:
        return {}
    # Of two the faster is the usual one; of an even number the lower median.
    usual = sorted(middle for middle, _ in level.values())[(len(level) - 1) // 2]
    found = {}
    for code, (middle, count) in level.items():
        over = middle - usual
        if over >= math.log(SLOW_WORKER.value) and over > SLOW_WORKER_SURE.value * scatter * 1.25 / math.sqrt(count):
            found[code] = math.exp(over)
    return found


def _cold(log: Floats, first: Flags, scatter: float) -> Flags:
    """Tell which first jobs took longer than chance explains: all of them where most of them did."""
    mine = np.flatnonzero(first & np.isfinite(log))
    none = np.zeros(len(log), np.bool_)
    if not len(mine) or not (~first & np.isfinite(log)).any():
        return none
    middle = float(np.sort(log[mine])[(len(mine) - 1) // 2])
    if middle <= COLD_SURE.value * scatter * 1.25 / math.sqrt(len(mine)):
        return none
    return first & (log > 0)
