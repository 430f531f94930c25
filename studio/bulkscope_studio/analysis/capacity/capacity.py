"""What a system sustains, from what it did: rates by model and number of concurrency slots (slots, ``places`` in the
JSON), queue waits, the best load.

Times in seconds since the facts' origin, rates per second. The thresholds are those of ``saturation`` and ``forecast``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bulkscope_studio.analysis import thresholds
from bulkscope_studio.analysis.capacity import crowding
from bulkscope_studio.analysis.capacity import forecast as waits
from bulkscope_studio.analysis.capacity.saturation import LEAST_COMPLETIONS, Jobs, Level, Saturation
from bulkscope_studio.analysis.plain import plain
from bulkscope_studio.analysis.statistics import scaling
from bulkscope_studio.analysis.statistics.estimates import Estimate
from bulkscope_studio.analysis.statistics.simulation import Slowing
from bulkscope_studio.analysis.timeline import measures, timeline
from bulkscope_studio.analysis.timeline.facts import Codes, Facts, Flags, Floats
from bulkscope_studio.text import wording

SCHEMA = "bulkscope.capacity/1"
CURVE_SCHEMA = "bulkscope.capacity_curve/1"
# Numbers of slots for which the fitted curve or its bounds are reported: up to twice the measured maximum, at most 64.
_MOST_COUNTS = 64
# Numbers of slots for which a measured rate is reported.
_MOST_LEVELS = 64
_FEWEST_WAITS = 5
# Least share of a full host's work that must be the inferences' own. Below it other programs fill the host, and more
# workers would take from them: one worker with a quarter of a host did a third of what two did.
_OWN = 0.75
_FEWEST_SAMPLES = 5
# Utilisation of a host from which it bounds how much more can be done; below it, load that is there without any job
# counts for too much.
_NEARLY_FULL = 0.85
_TOLERANCE = 0.001  # s by which an inference may begin before its attempt: the two come from different clocks
_LEAST_SHARE = 0.05  # of a model's mean time: the shortest time that is expected of a job
_OTHER_WORK = 0.05  # share of the work without a recorded inference from which it gets a row of its own


@dataclass(frozen=True, slots=True)
class Seen:
    """What is read: facts in which every attempt is ``mine``, each one's queue and bulk, and the times looked at.

    ``queue`` and ``bulk`` are codes (-1: none) into the names; ``windows`` are (first, last).
    """

    facts: Facts
    queue: Codes
    queue_names: tuple[str, ...]
    bulk: Codes
    bulk_names: tuple[str, ...]
    windows: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What to predict. ``rate`` in jobs/s (None: the observed one), ``slo`` the wait in s that ``quantile`` of the jobs
    keep, ``model`` (None: all), ``workers`` the number of places (None: as many as there were last)."""

    rate: float | None = None
    slo: float | None = None
    quantile: float = 0.95
    model: str | None = None
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Waits that were measured, in s: of how many attempts, their mean and percentiles."""

    jobs: int
    mean: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Model:
    """One model's rates by number of places (rising), and the law they follow. ``name`` None: no inference seen.

    ``cores`` are those that its workers may use (NaN: not known), ``host_cpu`` how busy all cores of their host were at
    each level, whoever used them (share; NaN: not sampled, or several hosts).
    """

    name: str | None
    levels: tuple[Level, ...]
    scaling: scaling.Law | scaling.Bounds | None
    cores: float
    host_cpu: tuple[float, ...]

    def cpu_ceiling(self, places: int) -> float:
        """Most that the cores can do in jobs/s with so many places; infinite where it is not known.

        By the utilization law, from the most places measured up to that many: cores over the CPU-seconds of a job's
        inferences, which with more others beside it need as many or more; and where the host was nearly full, mostly by
        these inferences, the rate over its busy share, in which everything is that is done for a job.
        """
        most = math.inf
        for level, host in zip(self.levels, self.host_cpu, strict=True):
            if level.places > places:
                break
            by_job = self.cores / level.cpu if level.cpu > 0 and self.cores > 0 else math.inf
            most = by_job
            if level.rate is not None and host >= _NEARLY_FULL:
                own = level.rate.value * level.cpu / self.cores
                most = min(most, level.rate.value / host) if own >= _OWN * host else most
        return most


@dataclass(frozen=True, slots=True)
class Bulk:
    """One bulk: its attempts that began, most places while it ran, arrivals per second, waits."""

    id: str
    jobs: int
    places: int
    rate: float | None
    wait: Measured | None


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers that share queues. ``places`` are those that there were last, of which the rates are told first."""

    queues: tuple[str, ...]
    workers: int
    places: int
    models: tuple[Model, ...]
    forecast: waits.Forecast
    measured: Measured | None
    highest: waits.Highest | None
    memory: measures.Memory
    bulks: tuple[Bulk, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Capacity:
    """All of it: one entry for each set of workers that share no queue."""

    windows: tuple[tuple[float, float], ...]
    asked: Asked
    pools: tuple[Pool, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """The waits of one number of places over the arrival rate, and the highest rate that keeps the wait asked for.

    ``highest`` is None where no wait was asked for, or where it was left out: with slots that slow each other it takes
    seconds, and is looked for with the number of places asked for alone.
    """

    curve: waits.Curve
    highest: waits.Highest | None


@dataclass(frozen=True, slots=True)
class Curves:
    """What ``curves`` found of one pool; ``others`` are the queues of each other one.

    ``places`` there were at last; ``forecast`` and ``measured`` are as of ``Pool``, for the number asked for.
    """

    windows: tuple[tuple[float, float], ...]
    asked: Asked
    queues: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]
    places: int
    forecast: waits.Forecast
    measured: Measured | None
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


class UnknownQueue(ValueError):
    """No job of such a queue; ``known`` are those that there are."""

    def __init__(self, queue: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no job of queue {queue!r} here; known queues: {', '.join(known) or 'none'}")
        self.known = known


class UnknownModel(ValueError):
    """No attempt of such a model; ``known`` are those that there are."""

    def __init__(self, model: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no job of model {model!r} here; known models: {', '.join(known) or 'none'}")
        self.known = known


def capacity(seen: Seen, asked: Asked) -> Capacity:
    """Compute it; ``UnknownModel`` when the model asked for did nothing here."""
    if asked.model is not None and asked.model not in seen.facts.models:
        raise UnknownModel(asked.model, seen.facts.models)
    pools = [_pool(part, asked) for part in _parts(seen)]
    return Capacity(seen.windows, asked, tuple(pool for pool in pools if pool is not None))


def curves(seen: Seen, asked: Asked, queue: str | None = None) -> Curves | None:
    """Compute waits over the arrival rate with as many places as there were last, one less, one more, and those asked
    for: of the workers of ``queue``, or of those with most jobs. None where no job ended.

    Raises ``UnknownModel``, ``UnknownQueue``.
    """
    if asked.model is not None and asked.model not in seen.facts.models:
        raise UnknownModel(asked.model, seen.facts.models)
    found = [pool for part in _parts(seen) if (pool := _Observed.of(part, asked)) is not None]
    chosen = next((pool for pool in found if queue is None or queue in pool.queues), None)
    if chosen is None:
        if queue is not None and found:
            raise UnknownQueue(queue, tuple(sorted(name for pool in found for name in pool.queues)))
        return None
    own = asked.workers or chosen.places
    numbers = sorted({own, *(n for n in range(chosen.places - 1, chosen.places + 2) if n >= 1)})
    lines = []
    for n in numbers:
        of = dataclasses.replace(asked, workers=None if n == chosen.places else n)
        # Beside the curve of the present number the others are of the same jobs: with one worker killed there were 63
        # for a moment, with short jobs, and one less then seemed to sustain half as much again.
        workload = chosen.workload(of, as_now=n != asked.workers)
        told = n == own or workload.slowing is None
        lines.append(Line(workload.curve(), workload.highest(of) if told else None))
    workload = chosen.workload(asked)
    notes = _notes(chosen.seen, chosen.facts, chosen.jobs, chosen.found, chosen.places, asked, workload.beside)
    others = tuple(pool.queues for pool in found if pool is not chosen)
    return Curves(
        seen.windows, asked, chosen.queues, others, chosen.places, workload.forecast(asked), workload.measured(),
        tuple(lines), notes,
    )  # fmt: skip


def _parts(seen: Seen) -> Iterator[Seen]:
    """Yield what belongs together: workers that took from the same queues, with the jobs of these queues."""
    a = seen.facts.attempts
    workers = len(seen.facts.worker_names)
    member = list(range(workers + len(seen.queue_names)))

    def root(of: int) -> int:
        while member[of] != of:
            member[of] = member[member[of]]
            of = member[of]
        return of

    both = (a.worker >= 0) & (seen.queue >= 0)
    for worker, queue in np.unique(np.column_stack([a.worker[both], seen.queue[both]]), axis=0).tolist():
        member[root(workers + queue)] = root(worker)
    roots = np.array([root(of) for of in range(len(member))] + [-1])
    pool = np.where(a.worker >= 0, roots[a.worker], roots[np.where(seen.queue >= 0, workers + seen.queue, -1)])
    known = np.unique(pool[(pool >= 0) & (a.worker >= 0)])
    if len(known) == 1:
        pool = np.full(len(pool), known[0])
    for one in sorted(known.tolist(), key=lambda code: -int(np.sum(pool == code))):
        rows = pool == one
        codes = np.unique(a.worker[rows & (a.worker >= 0)])
        inferences = np.isin(seen.facts.inferences.worker, codes)
        facts = dataclasses.replace(
            seen.facts,
            attempts=_rows(a, rows),
            inferences=_rows(seen.facts.inferences, inferences),
            workers=tuple(worker for worker in seen.facts.workers if worker.code in codes),
        )
        yield dataclasses.replace(seen, facts=facts, queue=seen.queue[rows], bulk=seen.bulk[rows])


def _rows(table: Any, chosen: Flags) -> Any:
    """Return the chosen rows of a dataclass of columns."""
    columns = {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}
    mask = pa.array(chosen)
    return type(table)(
        **{
            name: column.filter(mask) if isinstance(column, pa.ChunkedArray) else column[chosen]
            for name, column in columns.items()
        }
    )


@dataclass(frozen=True, slots=True)
class _Observed:
    """A pool as it was seen: its facts and slots, its jobs with their rows, and the number of places at last."""

    seen: Seen
    facts: Facts
    line: timeline.Timeline
    jobs: Jobs
    rows: Codes
    found: Saturation
    told: tuple[int, ...]
    places: int
    of_model: Flags
    crowd: crowding.Crowd | None

    @classmethod
    def of(cls, seen: Seen, asked: Asked) -> _Observed | None:
        """Observe it; None where nothing of the model asked for ended, or with no number of places that was kept."""
        facts = _taken(seen)
        line = timeline.build(facts, running=True)
        jobs, rows = _jobs(facts, line.places)
        if not len(rows) or (asked.model is not None and not np.any(jobs.model == facts.models.index(asked.model))):
            return None
        found = Saturation(jobs, facts.attempts, line, seen.windows)
        counts = found.counts()
        if not counts:
            return None
        at, last = _begun(found, jobs)
        enough = [n for n in counts if at.get(n, 0) >= LEAST_COMPLETIONS]
        places = max(enough, key=lambda n: last[n]) if enough else max(counts, key=lambda n: (at.get(n, 0), n))
        of_model = np.ones(len(rows), np.bool_)
        if asked.model is not None:
            of_model = jobs.model == facts.models.index(asked.model)
        crowd = _crowd(facts, line, jobs, found, of_model)
        told = _told(at, counts, places)
        return cls(seen, facts, line, jobs, rows, found, told, places, of_model, crowd)

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(self.seen.queue_names[code] for code in np.unique(self.seen.queue[self.seen.queue >= 0]).tolist())

    def workload(self, asked: Asked, as_now: bool = False) -> _Workload:
        """Return what waits are predicted from; ``as_now``: for any number the jobs of the present one."""
        speeds = None if self.crowd is None else self.crowd.speeds
        basis = self.places if as_now or asked.workers is None else _nearest(self.found, self.jobs, asked.workers)
        return _Workload.of(
            self.seen, self.facts, self.line, self.jobs, self.rows, self.found, self.places, basis, asked,
            self.of_model, speeds,
        )  # fmt: skip


def _pool(seen: Seen, asked: Asked) -> Pool | None:
    observed = _Observed.of(seen, asked)
    if observed is None:
        return None
    facts, line, jobs, found = observed.facts, observed.line, observed.jobs, observed.found
    told, places = observed.told, observed.places
    codes = _models(facts, jobs, asked.model)
    models = tuple(_model(facts, line, found, code, told, places, observed.crowd) for code in codes)
    workload = observed.workload(asked)
    notes = _notes(seen, facts, jobs, found, places, asked, workload.beside)
    counts = found.counts()
    if len(told) < len(counts):
        notes += (f"Of {len(counts):,} numbers of concurrency slots only the {len(told)} with most jobs are reported.",)
    return Pool(
        queues=observed.queues,
        workers=len(np.unique(facts.attempts.worker[facts.attempts.worker >= 0])),
        places=places,
        models=models,
        forecast=workload.forecast(asked),
        measured=workload.measured(),
        highest=workload.highest(asked),
        memory=measures.memory(facts, line, thresholds.MEMORY_NEAR.value),
        bulks=_bulks(seen, facts, line),
        notes=notes,
    )


def _begun(found: Saturation, jobs: Jobs) -> tuple[dict[int, int], dict[int, float]]:
    """Return by number of places how many jobs began with it, and when the last of them did."""
    there = np.isfinite(found.begun)
    numbers, where, counted = np.unique(found.begun[there], return_inverse=True, return_counts=True)
    latest = np.full(len(numbers), -math.inf)
    np.maximum.at(latest, where, jobs.start[there])
    names = [int(number) for number in numbers]
    return dict(zip(names, counted.tolist(), strict=True)), dict(zip(names, latest.tolist(), strict=True))


def _told(at: dict[int, int], counts: tuple[int, ...], places: int) -> tuple[int, ...]:
    """Return the numbers of places that are looked at one by one: each takes a pass over all jobs."""
    if len(counts) <= _MOST_LEVELS:
        return counts
    most = sorted(counts, key=lambda n: (n != places, -at.get(n, 0), n))[:_MOST_LEVELS]
    return tuple(sorted(most))


def _taken(seen: Seen) -> Facts:
    """Return the facts without jobs that will not be taken: enqueued before others that were, and not begun.

    A job whose spans were lost would otherwise be a backlog for ever.
    """
    a = seen.facts.attempts
    begun = np.isfinite(a.start)
    latest = float(np.max(a.ready[begun], initial=-math.inf, where=np.isfinite(a.ready[begun])))
    left = ~begun & (a.ready < latest)
    return seen.facts if not left.any() else dataclasses.replace(seen.facts, attempts=_rows(a, ~left))


def _jobs(facts: Facts, slots: timeline.Slots) -> tuple[Jobs, Codes]:
    """Return the attempts that ended, each with the model that took most of its time, and their rows."""
    a, i = facts.attempts, facts.inferences
    rows = np.flatnonzero(a.ended)
    order = rows[np.lexsort((a.start[rows], a.job[rows]))]
    model = np.full(len(a.start), -1, np.int64)
    given, tokens, cpu = (np.full(len(a.start), np.nan) for _ in range(3))
    if len(order) and len(i.start):
        # The last attempt at the inference's job that began before it.
        first = min(float(np.min(a.start[order])), float(np.min(i.start)))
        span = max(float(np.max(a.start[order])), float(np.max(i.start))) - first + 1.0
        keys = a.job[order] * span + (a.start[order] - first)
        index = np.searchsorted(keys, i.job * span + (i.start + _TOLERANCE - first), "right") - 1
        known = (index >= 0) & (i.job >= 0)
        attempt = order[np.maximum(index, 0)]
        known &= (a.job[attempt] == i.job) & (i.start <= a.end[attempt] + _TOLERANCE)
        chosen = np.flatnonzero(known)
        by_length = chosen[np.argsort((i.end - i.start)[chosen], kind="stable")]
        model[attempt[by_length]] = i.model[by_length]
        for total, each in ((given, i.prefilled_tokens), (tokens, i.output_tokens), (cpu, i.cpu_time)):
            total[attempt[chosen]] = 0.0
            np.add.at(total, attempt[chosen], each[chosen])
    return Jobs(
        start=a.start[rows],
        end=a.end[rows],
        ready=a.ready[rows],
        # The first job of a slot: its worker has started, which is no gap between two jobs.
        free=np.where(slots.before[rows] >= 0, slots.free[rows], np.nan),
        worker=a.worker[rows],
        model=model[rows],
        given=given[rows],
        tokens=tokens[rows],
        cpu=cpu[rows],
        ok=a.ok[rows] & ~a.retried[rows],
        failed=a.failed[rows],
    ), rows


def _models(facts: Facts, jobs: Jobs, wanted: str | None) -> list[int]:
    """Return the models, the one that took most time first; -1 for attempts without a recorded inference."""
    if wanted is not None:
        return [facts.models.index(wanted)]
    length = jobs.end - jobs.start
    took = {code: float(np.sum(length[jobs.model == code])) for code in np.unique(jobs.model).tolist()}
    if len(took) > 1 and took.get(-1, 0.0) < _OTHER_WORK * sum(took.values()):
        took.pop(-1, None)
    return sorted(took, key=lambda code: (-took[code], code))


def _model(
    facts: Facts, line: timeline.Timeline, found: Saturation, code: int, counts: tuple[int, ...], places: int,
    crowd: crowding.Crowd | None,
) -> Model:  # fmt: skip
    seen = tuple(found.level(code, n, crowd) for n in counts)
    # While workers come and go there are other numbers of them for moments.
    levels = tuple(level for level in seen if len(level.service) >= LEAST_COMPLETIONS or level.places == places)
    levels = tuple(level for level in levels if len(level.service))
    reached = [level for level in levels if level.reached]
    law = None
    if reached:
        n = np.concatenate([np.full(len(level.batches), float(level.places)) for level in reached])
        x = np.concatenate([level.batches for level in reached])
        law = scaling.fit(n[x > 0], x[x > 0]) if np.any(x > 0) else None
    busy = tuple(_host_cpu(facts, line, found, level.places) for level in levels)
    return Model(facts.models[code] if code >= 0 else None, levels, law, _cores(facts), busy)


def _worker_hosts(facts: Facts) -> Codes:
    return np.unique(facts.attempts.host[facts.attempts.worker >= 0])


def _host_cpu(facts: Facts, line: timeline.Timeline, found: Saturation, places: int) -> float:
    """Return how busy the workers' host was while all places worked beside a backlog."""
    h, hosts = facts.hosts, _worker_hosts(facts)
    if len(hosts) != 1:
        return math.nan
    full = (line.every.value(h.time) >= places) & (line.backlog.value(h.time) > 0)
    share = h.cpu[(h.host == hosts[0]) & np.isfinite(h.cpu) & full & found.at(places, h.time)]
    return float(np.mean(share)) if len(share) >= _FEWEST_SAMPLES else math.nan


def _cores(facts: Facts) -> float:
    """Return the cores that the workers may use; those that share a set of a host count once."""
    sets = {
        (worker.host, worker.cpu_set, None if worker.shares_set() else worker.container): worker.cpus
        for worker in facts.workers
        if np.isfinite(worker.cpus)
    }
    return sum(sets.values()) if sets else math.nan


@dataclass(frozen=True, slots=True)
class _Workload:
    """What waits are predicted from: jobs with the number of places asked for, or the nearest there was.

    ``services`` are as with all places busy; ``slowing`` tells how much faster places are beside fewer. ``beside`` is
    up to how many busy places slowing was seen (0: none was).
    """

    places: int
    starts: Floats
    services: Floats
    slowing: Slowing | None
    beside: int
    waited: Floats
    arrivals: waits.Arrivals
    dispatch: float

    @classmethod
    def of(
        cls, seen: Seen, facts: Facts, line: timeline.Timeline, jobs: Jobs, rows: Codes, found: Saturation, last: int,
        basis: int, asked: Asked, of_model: Flags, speeds: crowding.Speeds | None,
    ) -> _Workload:  # fmt: skip
        places = asked.workers or last
        there = found.usual(basis) & of_model
        gap = found.gap(basis)
        services, slowing = (jobs.end - jobs.start)[there], None
        if speeds is not None and there.any():
            times = (jobs.start[there], jobs.end[there], line.every, places)
            services = speeds.work(*times)
            slowing = speeds.slowing(*times)
        a = facts.attempts
        every = np.zeros(len(a.start), np.bool_)
        every[rows[of_model]] = True
        if asked.model is None:
            every |= ~a.ended  # those that wait or are worked on have arrived as well
        ready = a.ready[every & np.isfinite(a.ready)]
        ready = np.sort(ready[found.at(basis, ready)])
        within = np.zeros(len(ready), np.int64)
        for number, (first, until) in enumerate(seen.windows):
            within[(ready >= first) & (ready <= until)] = number
        gaps = np.diff(ready)[np.diff(within) == 0]
        waited = jobs.start[there] - jobs.ready[there]
        alone = (line.every.value(jobs.ready) < basis) & (line.backlog.value(jobs.ready) <= 1)
        found_free = (jobs.start - jobs.ready)[there & alone]
        found_free = found_free[np.isfinite(found_free)]
        return cls(
            places=places,
            starts=jobs.start[there],
            services=services + (gap if math.isfinite(gap) else 0.0),
            slowing=slowing,
            beside=0 if speeds is None else speeds.most,
            waited=np.maximum(waited[np.isfinite(waited)], 0.0),
            arrivals=waits.Arrivals(ready, gaps),
            dispatch=max(0.0, float(np.median(found_free))) if len(found_free) >= _FEWEST_WAITS else 0.0,
        )

    @property
    def _rate(self) -> float | None:
        return self.arrivals.rate(float(np.mean(self.services))) if len(self.services) else None

    def _pattern(self) -> waits.Arrivals | None:
        return self.arrivals if self._rate is not None else None

    def forecast(self, asked: Asked) -> waits.Forecast:
        rate = self._rate if asked.rate is None else asked.rate
        return waits.forecast(
            rate, asked.rate is None, self.places, self.starts, self.services, self._pattern(), self.dispatch,
            self.slowing,
        )  # fmt: skip

    def highest(self, asked: Asked) -> waits.Highest | None:
        if asked.slo is None:
            return None
        return waits.highest(
            asked.slo, asked.quantile, self.places, self.services, self._pattern(), self.dispatch, self.slowing
        )  # fmt: skip

    def curve(self) -> waits.Curve:
        return waits.curve(
            self.places, self.starts, self.services, self._pattern(), self.dispatch, self.slowing
        )  # fmt: skip

    def measured(self) -> Measured | None:
        return _measured(self.waited)


def _crowd(
    facts: Facts, line: timeline.Timeline, jobs: Jobs, found: Saturation, of_model: Flags
) -> crowding.Crowd | None:
    """Return what slowing of slots by each other is looked for in: all jobs of a known model that were done.

    Over several hosts it is not looked for: slots of one do not slow those of another.
    """
    if len(_worker_hosts(facts)) != 1:
        return None
    begun = found.usually()
    chosen = np.isin(begun, found.counts()) & of_model & jobs.ok & (jobs.model >= 0)
    varied = int(np.sum(np.unique(begun[chosen], return_counts=True)[1] >= crowding.LEAST_BEGUN)) > 1
    start, end = jobs.start[chosen], jobs.end[chosen]
    return crowding.Crowd.of(start, end, _expected(jobs, chosen), line.every, within=not varied)


def _expected(jobs: Jobs, chosen: Flags) -> Floats:
    """Return what a job with so many tokens usually takes of its model, by least squares (chosen jobs,), in s."""
    length, model = (jobs.end - jobs.start)[chosen], jobs.model[chosen]
    found = np.ones(len(length))
    for code in np.unique(model).tolist():
        rows = model == code
        told = [tokens[chosen][rows] for tokens in (jobs.given, jobs.tokens)]
        columns = [np.ones(int(rows.sum())), *(tokens for tokens in told if np.isfinite(tokens).all())]
        design = np.column_stack(columns)
        fitted = design @ np.linalg.lstsq(design, length[rows], rcond=None)[0]
        # A line may pass below 0 where there are few tokens.
        found[rows] = np.maximum(fitted, _LEAST_SHARE * float(np.mean(length[rows])))
    return found


def _nearest(found: Saturation, jobs: Jobs, wanted: int) -> int:
    """Return the number of places nearest to ``wanted`` with enough jobs; the higher of two."""
    counts = found.counts()
    begun = found.usually()
    numbers, jobs_of = np.unique(begun[np.isfinite(begun)], return_counts=True)
    enough = sorted(set(counts) & set(numbers[jobs_of >= waits.LEAST_JOBS].astype(int).tolist())) or list(counts)
    return min(enough, key=lambda n: (abs(n - wanted), -n))


def _measured(waited: Floats) -> Measured | None:
    if not len(waited):
        return None
    p50, p95 = np.quantile(waited, (0.5, 0.95))
    return Measured(len(waited), float(np.mean(waited)), float(p50), float(p95))


def _bulks(seen: Seen, facts: Facts, line: timeline.Timeline) -> tuple[Bulk, ...]:
    """Return what was measured of each bulk that was named; a job's wait is that of its first attempt."""
    if not seen.bulk_names:
        return ()
    a = seen.facts.attempts
    found = []
    for code, name in enumerate(seen.bulk_names):
        rows = (seen.bulk == code) & (a.attempt <= 1) & np.isfinite(a.start) & np.isfinite(a.ready)
        if not rows.any():
            continue
        ready = np.sort(a.ready[rows])
        times = np.linspace(float(ready[0]), float(np.max(a.start[rows])), 200)
        worked = (a.end - a.start)[rows & a.ended]
        service = float(np.mean(worked)) if len(worked) else math.inf
        found.append(
            Bulk(
                name, int(rows.sum()), int(np.max(line.capacity.value(times))),
                waits.Arrivals(ready, np.diff(ready)).rate(service),
                _measured(np.maximum(a.start[rows] - a.ready[rows], 0.0)),
            )
        )  # fmt: skip
    return tuple(found)


def _notes(
    seen: Seen, facts: Facts, jobs: Jobs, found: Saturation, places: int, asked: Asked, beside: int
) -> tuple[str, ...]:
    notes = []
    failed = int(np.sum(jobs.failed))
    if failed > thresholds.FAILED.value * len(jobs.ok):
        notes.append(
            f"{wording.part(failed, len(jobs.ok), 'attempt')} failed; "
            f"{wording.agree(failed, 'it counts', 'they count')} as use of a slot, not as completed work."
        )
    if found.warm_ups:
        notes.append(
            f"Left out, with their time, because they loaded a model: {wording.count(found.warm_ups, 'attempt')}."
        )
    left = len(seen.facts.attempts.start) - len(facts.attempts.start)
    if left:
        notes.append(
            f"Left out of the backlog, because they were not taken though later jobs were: "
            f"{wording.count(left, 'job')}."
        )
    if asked.workers is not None and asked.workers != places:
        basis = _nearest(found, jobs, asked.workers)
        if basis != asked.workers:
            how = "was not observed and is not included"
            if beside:
                how = f"is included as far as it was observed, up to {wording.count(beside, 'busy slot')}"
            notes.append(
                f"The queue waits for {wording.count(asked.workers, 'concurrency slot')} are estimates from service "
                f"times with {basis}; slowing of slots by each other {how}."
            )
    return tuple(notes)


def to_json(found: Capacity, origin_ns: int) -> dict[str, Any]:
    """Return plain values with stable keys; absent is null, units stand in the names."""
    return {
        "schema": SCHEMA,
        "windows": _windows_json(found.windows, origin_ns),
        "asked": _asked_json(found.asked),
        "pools": plain([_pool_json(pool) for pool in found.pools]),
    }


def curves_json(found: Curves, origin_ns: int) -> dict[str, Any]:
    """Return plain values with stable keys; absent is null, units stand in the names."""
    forecast = found.forecast
    return {
        "schema": CURVE_SCHEMA,
        "windows": _windows_json(found.windows, origin_ns),
        "asked": _asked_json(found.asked),
        "queues": list(found.queues),
        "other_queues": [list(queues) for queues in found.others],
        "places": found.places,
        "today": plain(_forecast_json(forecast) | {"measured_wait": _measured_json(found.measured)}),
        "curves": plain([_line_json(line, found) for line in found.lines]),
        "notes": list(found.notes),
    }


def _line_json(line: Line, found: Curves) -> dict[str, Any]:
    curve, service = line.curve, line.curve.service
    return {
        "places": curve.places,
        "present": curve.places == found.places,
        "asked": curve.places == found.forecast.places,
        "service_s": service,
        "most_per_s": None if service is None else curve.places / service,
        "method": curve.method,
        "problem": curve.problem,
        "points": [
            {"rate_per_s": rate, "utilization_share": rate * (service or 0) / curve.places, "p95_s": _estimate(p95)}
            for rate, p95 in zip(curve.rates, curve.p95, strict=True)
        ],
        "highest_rate_per_s": None if line.highest is None else _estimate(line.highest.rate),
        "target_known": line.highest is not None,
    }


def _windows_json(windows: tuple[tuple[float, float], ...], origin_ns: int) -> list[dict[str, int]]:
    return [
        {"first_ns": origin_ns + round(first * 1e9), "last_ns": origin_ns + round(last * 1e9)}
        for first, last in windows
    ]


def _asked_json(asked: Asked) -> dict[str, Any]:
    return {
        "rate_per_s": asked.rate, "slo_s": asked.slo, "quantile": asked.quantile, "model": asked.model,
        "workers": asked.workers,
    }  # fmt: skip


def _pool_json(pool: Pool) -> dict[str, Any]:
    memory = pool.memory
    return {
        "queues": list(pool.queues),
        "workers": pool.workers,
        "places": pool.places,
        "models": [_model_json(model, pool.places) for model in pool.models],
        "forecast": _forecast_json(pool.forecast),
        "measured_wait": _measured_json(pool.measured),
        "highest_rate": None if pool.highest is None else {
            "slo_s": pool.highest.slo, "quantile": pool.highest.quantile, "places": pool.highest.places,
            "rate_per_s": _estimate(pool.highest.rate), "utilization": pool.highest.utilization,
        },
        "memory": {
            "workers_that_fit": None if memory.fit < 0 else memory.fit, "workers_seen": memory.workers,
            "per_worker_bytes": memory.per_worker or None, "shared_bytes": memory.shared or None,
            "limit_bytes": _number(memory.limit), "limits": memory.limits,
            "workers_per_limit": None if memory.fit_each < 0 else memory.fit_each,
        },
        "bulks": [
            {"id": bulk.id, "jobs": bulk.jobs, "places": bulk.places, "rate_per_s": bulk.rate,
             "wait": _measured_json(bulk.wait)}
            for bulk in pool.bulks
        ],
        "notes": list(pool.notes),
    }  # fmt: skip


def _model_json(model: Model, places: int) -> dict[str, Any]:
    levels = [
        _level_json(level) | {"host_cpu_share": _number(host)}
        for level, host in zip(model.levels, model.host_cpu, strict=True)
    ]
    return {
        "model": model.name,
        "now": next((level for level in levels if level["places"] == places), None),
        "levels": levels,
        "cores": _number(model.cores),
        "scaling": _scaling_json(model),
    }


def _level_json(level: Level) -> dict[str, Any]:
    return {
        "places": level.places, "reached": level.reached, "rate_per_s": _estimate(level.rate),
        "problem": level.problem, "lower_bound_per_s": level.bound, "ceiling_per_s": level.ceiling,
        "tokens_per_s": _estimate(level.tokens),
        "completions": round(level.completions, 6), "saturated_s": level.seconds, "busy_share": _number(level.busy),
        "gap_s": _number(level.gap), "mixed": level.mixed, "attempts": len(level.service),
        "service_s": float(np.mean(level.service)), "cpu_s": _number(level.cpu),
    }  # fmt: skip


def _scaling_json(model: Model) -> dict[str, Any] | None:
    found = model.scaling
    if found is None:
        return None
    if isinstance(found, scaling.Bounds):
        most = min(_MOST_COUNTS, 2 * int(found.counts[-1]))
        return {
            "kind": "bounds",
            "counts": [int(n) for n in found.counts],
            "throughputs_per_s": list(found.throughputs),
            "best_count": int(found.best_count),
            "best_per_s": found.best,
            "ceilings": [
                {"places": n, "most_per_s": min(ceiling, most_of_cores), "by_cores": most_of_cores < ceiling}
                for n in range(1, most + 1)
                for most_of_cores in [model.cpu_ceiling(n)]
                if (ceiling := found.ceiling(n)) is not None
            ],
        }
    most = min(_MOST_COUNTS, 2 * int(found.highest_count))
    return {
        "kind": "law", "lambda_per_s": _estimate(found.rate), "sigma": _estimate(found.contention),
        "kappa": _estimate(found.coherency), "peak_places": _estimate(found.peak),
        "peak_per_s": _estimate(found.peak_throughput), "r_squared": found.r_squared,
        "extrapolated": found.extrapolated,
        "curve": [{"places": n, "rate_per_s": _estimate(found.throughput(n))} for n in range(1, most + 1)],
    }  # fmt: skip


def _forecast_json(found: waits.Forecast) -> dict[str, Any]:
    return {
        "rate_per_s": found.rate, "observed": found.observed, "places": found.places, "service_s": found.service,
        "dispatch_s": found.dispatch, "utilization": _estimate(found.utilization),
        "conditions": [dataclasses.asdict(condition) for condition in found.conditions],
        "wait": _wait_json(found.wait), "other": _wait_json(found.other), "problem": found.problem,
    }  # fmt: skip


def _wait_json(wait: waits.Wait | None) -> dict[str, Any] | None:
    if wait is None:
        return None
    return {
        "method": wait.method, "mean_s": _estimate(wait.mean), "p50_s": _estimate(wait.p50),
        "p95_s": _estimate(wait.p95),
    }  # fmt: skip


def _measured_json(found: Measured | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"jobs": found.jobs, "mean_s": found.mean, "p50_s": found.p50, "p95_s": found.p95}


def _estimate(found: Estimate | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {"value": _number(found.value), "low": _number(found.low), "high": _number(found.high)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
