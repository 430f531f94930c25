"""A few hundred systems with the verdict that each deserves."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from tests.rows import BEGIN_NS
from tests.simulator.engine import Run, simulate
from tests.simulator.system import (
    GIB,
    KIB,
    MIB,
    Broker,
    Failures,
    Host,
    Model,
    Pool,
    Stream,
    System,
    Telemetry,
    Tokens,
    always,
    joining,
    leaving,
)

BULK = "bulk"
# Who asks does so a minute after the last job: silent workers are known to be lost by then.
ASKED_AFTER_S = 60.0
Requests = tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One system and seed. ``parameters`` say what was varied; ``border`` that it stands just across the border.

    ``bulk`` is the one that is asked for; ``among``: what arrived before it for others counts as what arrived for it.
    """

    name: str
    seed: int
    verdict: str
    system: System
    parameters: str = ""
    border: bool = False
    bulk: str = BULK
    among: bool = False

    def run(self) -> Run:
        return simulate(self.system, self.seed)

    def now_ns(self, run: Run) -> int:
        """When the verdict is asked for, in ns since the epoch."""
        return BEGIN_NS + round((run.end + ASKED_AFTER_S) * 1e9)


def scenarios(series: int = 0) -> Iterable[Scenario]:
    """Return every scenario; the same ones, in the same order, each time.

    Another ``series`` draws lengths, noise, failures and losses anew; by that chance a few of its scenarios may not be
    what they claim, which ``ledger.complaints`` tells. Those of series 0 all are.
    """
    made = itertools.chain(
        _unfit(),
        _failures(),
        _overloads(),
        _memory(),
        _cpu(),
        _bandwidth(),
        _contention(),
        _headroom(),
        _slowed(),
        _among(),
    )
    return [replace(scenario, seed=1000 + n + 10_000 * series) for n, scenario in enumerate(made)]


# --- building blocks ----------------------------------------------------------------------------


def at_once(jobs: int, at: float = 0.0) -> Requests:
    """One request."""
    return ((at, jobs),)


def poisson(rate: float, seconds: float, seed: int, start: float = 0.0, size: int = 1) -> Requests:
    """Requests of ``size`` jobs at ``rate`` jobs/s, independent of each other, for ``seconds``."""
    random = np.random.default_rng([seed, 4])
    gaps = random.exponential(size / rate, max(1, int(rate / size * seconds * 1.5) + 50))
    times = start + np.cumsum(gaps)
    return tuple((float(at), size) for at in times if at < start + seconds)


def paced(rate: float, seconds: float, start: float = 0.0) -> Requests:
    """One job at a time, at equal distances."""
    return tuple((start + n / rate, 1) for n in range(int(rate * seconds)))


def capacity(system: System) -> float:
    """Jobs/s of ``system`` with all workers busy: a bulk put at once, its first and last rounds left out."""
    pools = tuple(replace(pool, present=always(len(pool.present))) for pool in system.pools)
    workers = sum(len(pool.present) for pool in pools)
    stream = replace(system.streams[-1], requests=at_once(24 * workers), closed_jobs=0, failures=())
    return _sustained(replace(system, streams=(stream,), pools=pools, kills=(), telemetry=Telemetry()))


@cache
def _sustained(system: System) -> float:
    # Of the 332 systems that are asked for many are alike: without the cache they were half of a process's time.
    run = simulate(system, 5)
    ends = sorted(attempt.end for attempt in run.attempts if attempt.end is not None)
    first, last = len(ends) // 12, len(ends) * 11 // 12
    return (last - first) / (ends[last] - ends[first])


SHAPES = ("join", "leave", "poisson", "history", "other", "walk")


def shaped(shape: str, system: System, jobs: int, seed: int, load: float = 0.72, rate: float | None = None) -> System:
    """Let the number of busy workers vary, so that its effect can be seen.

    ``join`` and ``leave``: workers come, or go, while a bulk put at once is worked on. ``poisson``: jobs arrive at
    ``load`` of the capacity. ``history``: an earlier bulk of the same model ran on a quarter of the workers, ten
    minutes before. ``other``: another bulk trickles in first, on the same workers. ``walk``: small bursts. ``rate`` is
    the capacity in jobs/s where ``capacity`` would not find it.
    """
    (stream,), (pool,) = system.streams, system.pools
    count = len(pool.present)
    rate = capacity(system) if rate is None else rate
    every = jobs / rate / count * 0.7
    if shape == "join":
        return replace(
            system,
            streams=(replace(stream, requests=at_once(jobs)),),
            pools=(replace(pool, present=joining(count, every)),),
        )
    if shape == "leave":
        return replace(
            system,
            streams=(replace(stream, requests=at_once(jobs)),),
            pools=(replace(pool, present=leaving(count, every)),),
        )
    if shape == "poisson":
        return replace(system, streams=(replace(stream, requests=poisson(load * rate, jobs / load / rate, seed)),))
    if shape == "walk":
        random = np.random.default_rng([seed, 6])
        sizes = random.integers(1, 2 * count, max(1, jobs // count)).tolist()
        gaps = [size / rate / load for size in sizes]
        times = np.concatenate([[0.0], np.cumsum(gaps[:-1])]).tolist()
        return replace(system, streams=(replace(stream, requests=tuple(zip(times, sizes, strict=True))),))
    few = max(1, count // 4)
    past = max(40, jobs // 3)
    if shape == "history":
        took = past / (rate / count * few)
        start = took + 600.0
        present = tuple((0.0 if n < few else took + 300.0, float("inf")) for n in range(count))
        earlier = replace(stream, bulk="earlier", requests=at_once(past), failures=())
        return replace(
            system,
            streams=(earlier, replace(stream, requests=at_once(jobs, start))),
            pools=(replace(pool, present=present),),
        )
    slow = poisson(0.25 * rate, past / (0.25 * rate), seed)
    other = replace(stream, bulk="other", requests=slow, failures=())
    return replace(system, streams=(other, replace(stream, requests=at_once(jobs, slow[-1][0]))))


def _base(workers: int = 4, **of_pool: object) -> System:
    pool = Pool(present=always(workers), **of_pool)  # type: ignore[arg-type]
    return System((Stream(BULK, at_once(120)),), (Host(),), (pool,))


# --- verdicts -------------------------------------------------------------------------------------


def _cpu() -> Iterator[Scenario]:
    verdict = "cpu_saturated"
    for shape, (threads, workers, cpus) in itertools.product(
        SHAPES, ((1, 4, 2), (2, 4, 4), (4, 4, 8), (1, 8, 4), (8, 2, 8))
    ):
        seed = workers * 10 + threads
        system = replace(_base(workers, threads=threads, cpus=cpus), hosts=(Host(cores=max(8, cpus)),))
        yield Scenario(
            f"cpu/threads/{shape}/{workers}x{threads}on{cpus}",
            0,
            verdict,
            shaped(shape, system, 40 * workers, seed, 0.5 if workers == 2 else 0.72),
            f"{workers} workers x {threads} threads, {cpus} cores",
        )
    for shape, (threads, workers, cpus) in itertools.product(("join", "history", "walk"), ((1, 5, 4), (2, 5, 8))):
        yield Scenario(
            f"cpu/border/{shape}/{workers}x{threads}on{cpus}",
            0,
            verdict,
            shaped(shape, _base(workers, threads=threads, cpus=cpus), 40 * workers, workers),
            f"{workers * threads} threads on {cpus} cores",
            border=True,
        )
    for burners, when in itertools.product((4, 8), ("whole", "late")):
        host = Host(cores=4, burners=((0.0 if when == "whole" else 40.0, 1e6, burners),))
        for shape in ("join", "poisson") if when == "whole" else ("join",):
            system = replace(_base(4), hosts=(host,))
            yield Scenario(
                f"cpu/burners/{shape}/{burners}/{when}",
                0,
                verdict,
                shaped(shape, system, 160, burners),
                f"{burners} burners on 4 cores, {when}",
            )
    for quota, each in ((2.0, False), (3.0, False), (0.5, True), (1.5, True)):
        for shape in ("join", "history", "poisson"):
            system = _base(4, quota=quota, quota_each=each, threads=2 if quota == 1.5 else 1)
            yield Scenario(
                f"cpu/quota/{shape}/{quota:g}{'each' if each else ''}",
                0,
                verdict,
                shaped(shape, system, 160, 9),
                f"quota of {quota:g} cores{' each' if each else ''}",
            )
    for tokens, noise in ((Tokens(spread=0.8), 0.15), (Tokens(growth=1.5), 0.08)):
        for shape in ("join", "leave", "history"):
            system = _base(8, cpus=4)
            system = replace(system, streams=(replace(system.streams[0], tokens=tokens, noise=noise),))
            yield Scenario(
                f"cpu/noisy/{shape}/{noise:g}", 0, verdict, shaped(shape, system, 320, 11), "uneven lengths, noise"
            )

    for shape in ("join", "history"):
        host = Host(cores=8, bandwidth=3.0 * Model().traffic)
        system = replace(_base(8, cpus=4), hosts=(host,))
        yield Scenario(f"cpu/mix/bandwidth/{shape}", 0, verdict, shaped(shape, system, 320, 12), "and little bandwidth")
        host = Host(cores=8, lock_share=0.15)
        yield Scenario(
            f"cpu/mix/lock/{shape}", 0, verdict, shaped(shape, replace(system, hosts=(host,)), 320, 13), "and a lock"
        )
    for threads in (1, 2):
        pools = tuple(Pool(f"node-{n}", joining(4, 14.0), threads, 2) for n in (1, 2))
        system = replace(_base(4), hosts=(Host(), Host("node-2", near=False)), pools=pools)
        yield Scenario(
            f"cpu/hosts/{threads}",
            0,
            verdict,
            system=replace(system, streams=(replace(system.streams[0], requests=at_once(300)),)),
            parameters="two hosts",
        )


def _bandwidth() -> Iterator[Scenario]:
    verdict = "memory_bandwidth"
    model = Model()
    for shape, (workers, threads, fits) in itertools.product(
        SHAPES, ((4, 1, 1.7), (4, 2, 1.4), (8, 1, 3.0), (6, 1, 2.5), (8, 1, 3.8))
    ):
        system = replace(_base(workers, threads=threads), hosts=(Host(cores=16, bandwidth=fits * model.traffic),))
        yield Scenario(
            f"bandwidth/{shape}/{workers}/{fits:g}",
            0,
            verdict,
            shaped(shape, system, 40 * workers, workers),
            f"bandwidth for {fits:g} of {workers} decoders",
        )
    for shape, workers in itertools.product(("join", "history", "leave"), (5, 8)):
        fits = workers * 0.62 / 1.4  # decoding takes 62 % of an inference's time: so many decode at once
        system = replace(_base(workers), hosts=(Host(cores=16, bandwidth=fits * model.traffic),))
        yield Scenario(
            f"bandwidth/border/{shape}/{workers}",
            0,
            verdict,
            shaped(shape, system, 60 * workers, workers),
            f"bandwidth for {fits:.1f} of {workers} decoders",
            border=True,
        )
    for shape, tokens in itertools.product(("join", "history"), (Tokens(120, 80), Tokens(800, 30), Tokens(spread=0.8))):
        system = replace(_base(8), hosts=(Host(cores=16, bandwidth=2.2 * model.traffic),))
        system = replace(system, streams=(replace(system.streams[0], tokens=tokens, noise=0.1),))
        yield Scenario(
            f"bandwidth/lengths/{shape}/{tokens.input:g}in{tokens.output:g}out/{tokens.spread:g}",
            0,
            verdict,
            shaped(shape, system, 320, 3),
            "lengths",
        )

    for shape in ("join", "history"):
        system = replace(_base(8), hosts=(Host(cores=16, bandwidth=2.2 * model.traffic, lock_share=0.04),))
        yield Scenario(f"bandwidth/mix/lock/{shape}", 0, verdict, shaped(shape, system, 320, 14), "and a light lock")


def _contention() -> Iterator[Scenario]:
    verdict = "contention"
    for shape, (workers, part) in itertools.product(SHAPES, ((4, 0.5), (8, 0.3), (6, 0.4))):
        for phases in (("prefill", "decode"), ("decode",)):
            host = Host(cores=16, lock_share=part, lock_phases=phases)
            yield Scenario(
                f"contention/lock/{shape}/{workers}/{part:g}/{'+'.join(phases)}",
                0,
                verdict,
                shaped(shape, replace(_base(workers), hosts=(host,)), 40 * workers, workers),
                f"{part:.0%} of {' and '.join(phases)} under one lock",
            )
    for shape, (workers, part) in itertools.product(("join", "history", "leave", "walk"), ((4, 0.6), (8, 0.35))):
        host = Host(cores=16, lock_share=part, lock_spins=True)
        yield Scenario(
            f"contention/spin/{shape}/{workers}/{part:g}",
            0,
            verdict,
            shaped(shape, replace(_base(workers), hosts=(host,)), 40 * workers, workers),
            f"{part:.0%} under a spinning lock",
        )
    for shape, (workers, locked) in itertools.product(("join", "history", "leave", "other"), ((4, 0.8), (8, 0.4))):
        system = replace(_base(workers), hosts=(Host(cores=16),))
        system = replace(system, streams=(replace(system.streams[0], locked=locked),))
        yield Scenario(
            f"contention/outside/{shape}/{workers}/{locked:g}",
            0,
            verdict,
            shaped(shape, system, 40 * workers, workers),
            f"{locked:g} s of each job under a shared lock",
        )
    for shape, threads in itertools.product(("join", "history", "leave"), (1, 2)):
        workers = 8 // threads
        host = Host(cores=8, physical=4, smt_yield=0.2)
        yield Scenario(
            f"contention/smt/{shape}/{workers}x{threads}",
            0,
            verdict,
            shaped(shape, replace(_base(workers, threads=threads), hosts=(host,)), 40 * workers, threads),
            "4 cores with two threads each",
        )
    for shape, workers in itertools.product(("join", "history", "leave"), (4, 8)):
        host = Host(cores=16, lock_share=1.25 / workers)
        yield Scenario(
            f"contention/border/{shape}/{workers}",
            0,
            verdict,
            shaped(shape, replace(_base(workers), hosts=(host,)), 60 * workers, workers),
            f"{1.25 / workers:.0%} under one lock",
            border=True,
        )


def _memory() -> Iterator[Scenario]:
    verdict = "memory_limited"
    model = Model()

    def limited(shape: str, system: System, jobs: int, seed: int) -> System:
        # With too little memory there is no steady rate that workers could join at: they do at that of enough.
        roomy = replace(
            system,
            hosts=(replace(system.hosts[0], memory=64 * GIB),),
            pools=(replace(system.pools[0], memory_limit=None),),
        )
        return shaped(shape, system, jobs, seed, rate=capacity(roomy) if shape in ("join", "leave") else None)

    for shape, (workers, short) in itertools.product(SHAPES, ((4, 12), (8, 20))):
        need = workers * (60 * MIB + model.anonymous + 10 * MIB) + model.weights
        system = _base(workers, memory_limit=need - short * MIB * 2)
        yield Scenario(
            f"memory/cgroup/{shape}/{workers}",
            0,
            verdict,
            limited(shape, system, 40 * workers, workers),
            f"limit {2 * short} MiB under the need of all",
        )
    for shape, workers in itertools.product(("join", "history", "walk"), (4, 8)):
        need = GIB + workers * (60 * MIB + model.anonymous + 10 * MIB) + model.weights
        system = replace(_base(workers), hosts=(Host(memory=need - 60 * MIB),))
        yield Scenario(
            f"memory/host/{shape}/{workers}",
            0,
            verdict,
            limited(shape, system, 40 * workers, workers),
            "host 60 MiB short",
        )
    for workers, redeliver, restart in itertools.product((4, 6), (None, 5.0), (3.0, None)):
        limit = (workers - 1) * (60 * MIB + model.anonymous) + 60 * MIB + 60 * MIB
        system = _base(workers, memory_limit=limit, restart=restart)
        system = replace(system, broker=Broker(redeliver=redeliver))
        for shape in ("join", "once"):
            made = system if shape == "once" else limited("join", system, 30 * workers, workers)
            yield Scenario(
                f"memory/killed/{shape}/{workers}/{redeliver}/{restart}",
                0,
                verdict,
                made,
                f"{workers - 1} of {workers} workers fit",
            )
    for shape, workers in itertools.product(("join", "history"), (4, 6)):
        long = replace(model, context=256 * KIB)
        need = workers * (60 * MIB + model.anonymous + 75 * MIB) + model.weights
        system = _base(workers, memory_limit=need - 60 * MIB)
        system = replace(system, streams=(replace(system.streams[0], model=long, tokens=Tokens(300, 40, 0.5)),))
        yield Scenario(
            f"memory/context/{shape}/{workers}",
            0,
            verdict,
            limited(shape, system, 40 * workers, workers),
            "long contexts near the limit",
        )

    for shape, short in itertools.product(("join", "history", "leave"), (12, 16)):
        need = 4 * (60 * MIB + model.anonymous + 10 * MIB) + model.weights
        system = replace(_base(4, memory_limit=need - short * MIB), hosts=(Host(disk=6e9),))
        yield Scenario(
            f"memory/border/{shape}/{short}",
            0,
            verdict,
            limited(shape, system, 160, short),
            f"limit {short} MiB under the need of all, fast disk",
            border=True,
        )
    for shape, workers in itertools.product(("join", "history"), (4, 8)):
        need = workers * (60 * MIB + model.anonymous + 10 * MIB) + model.weights
        system = _base(workers, memory_limit=need - 40 * MIB, cpus=workers // 2)
        yield Scenario(
            f"memory/mix/cpu/{shape}/{workers}",
            0,
            verdict,
            limited(shape, system, 40 * workers, workers),
            "and too few cores",
        )


def _overloads() -> Iterator[Scenario]:
    verdict = "overload"

    def arrive(
        name: str, system: System, rho: float, seconds: float, size: int = 1, even: bool = False, border: bool = False
    ) -> Scenario:
        rate = rho * capacity(system)
        requests = paced(rate, seconds) if even else poisson(rate, seconds, len(name), size=size)
        stream = replace(system.streams[0], requests=requests)
        return Scenario(
            f"overload/{name}",
            0,
            verdict,
            replace(system, streams=(stream,)),
            f"{rho:g} times the capacity for {seconds:g} s",
            border,
        )

    for rho, workers in itertools.product((1.5, 2.0, 3.0, 6.0), (2, 4, 8)):
        yield arrive(f"poisson/{rho:g}/{workers}", _base(workers), rho, max(35.0, min(120.0, 400 / rho / workers)))
    for rho, workers in itertools.product((1.5, 3.0), (2, 4)):
        yield arrive(f"batches/{rho:g}/{workers}", _base(workers), rho, 60.0, size=4)
        yield arrive(f"paced/{rho:g}/{workers}", _base(workers), rho, 60.0, even=True)
    for workers in (2, 4):
        yield arrive(f"border/paced/{workers}", _base(workers), 1.2, 120.0, even=True, border=True)
        yield arrive(f"border/poisson/{workers}", _base(workers), 1.3, 150.0, border=True)
        yield arrive(f"border/short/{workers}", _base(workers), 2.0, 34.0, even=True, border=True)
    for rho in (1.6, 2.5):
        yield arrive(f"cpu/{rho:g}", _base(8, cpus=4), rho, 60.0)
        yield arrive(f"quota/{rho:g}", _base(4, quota=2.0), rho, 60.0)
        yield arrive(
            f"bandwidth/{rho:g}", replace(_base(8), hosts=(Host(cores=16, bandwidth=2.5 * Model().traffic),)), rho, 60.0
        )
        yield arrive(f"lock/{rho:g}", replace(_base(6), hosts=(Host(cores=16, lock_share=0.4),)), rho, 60.0)
    for status, rho in itertools.product((429, 503), (2.5, 5.0)):
        yield arrive(f"refused/{status}/{rho:g}", replace(_base(4), queue_limit=40, refusal=status), rho, 60.0)
    for rho in (2.0, 4.0):
        yield arrive(f"expired/{rho:g}", replace(_base(4), expires=12.0), rho, 60.0)
    for rho in (1.5, 3.0):
        hosts = (Host(), Host("node-2"))
        pools = (Pool(present=always(2)), Pool("node-2", present=always(2)))
        yield arrive(f"hosts/{rho:g}", replace(_base(4), hosts=hosts, pools=pools), rho, 60.0)


def _slowed() -> Iterator[Scenario]:
    """Jobs take longer in the end, so that the service time is not flat; they are too many from the first on."""
    base = _base(4)
    base = replace(base, streams=(replace(base.streams[0], tokens=Tokens(growth=0.8)),))
    for rho in (2.0, 3.0):
        stream = replace(base.streams[0], requests=poisson(rho * capacity(base), 60.0, 9))
        yield Scenario(f"overload/longer/{rho:g}", 0, "overload", replace(base, streams=(stream,)), "longer in the end")


def _among() -> Iterator[Scenario]:
    """Many small bulks, each put at once, and the one that is asked for is the last: what came before it counts."""
    base = _base(4)
    full = capacity(base)

    def last(name: str, verdict: str, came: Requests, parameters: str, among: bool = True) -> Scenario:
        bulks = [f"b{n:03d}" for n in range(len(came))]
        streams = tuple(Stream(bulk, (request,)) for bulk, request in zip(bulks, came, strict=True))
        system = replace(base, streams=streams)
        return Scenario(f"{verdict}/many/{name}", 0, verdict, system, parameters, bulk=bulks[-1], among=among)

    for verdict, seed, rates in (("overload", 20, (1.6, 2.5)), ("headroom", 30, (0.4, 0.8))):
        for size, rho in itertools.product((1, 3), rates):
            came = poisson(rho * full, 90.0, seed + size, size=size)
            yield last(f"{size}/{rho:g}", verdict, came, f"bulks of {size}, {rho:g} times the capacity for 90 s")
    for size in (40, 400):
        came = ((0.0, size), *poisson(0.5 * full, 60.0, 40))
        yield last(f"behind/{size}", "headroom", came, f"a bulk of {size} at once, then half of the capacity", False)


def _failures() -> Iterator[Scenario]:
    verdict = "internal_failure"

    def failing(name: str, failure: Failures, jobs: int = 160, load: float = 0.0, border: bool = False) -> Scenario:
        system = _base(4)
        requests = poisson(load * capacity(system), jobs / load / 3, len(name)) if load else at_once(jobs)
        stream = replace(system.streams[0], requests=requests, failures=(failure,))
        return Scenario(
            f"failure/{name}",
            0,
            verdict,
            replace(system, streams=(stream,)),
            f"{failure.share:.0%} fail: {failure.error}",
            border,
        )

    kinds = (
        ("model", "EngineError", "decode"),
        ("code", "KeyError", "after"),
        ("input", "ContextLengthError", "prefill"),
        ("infra", "ConnectionError", "before"),
        ("model", "GenerationError", "prefill"),
    )
    for (domain, error, where), share, load in itertools.product(kinds, (0.1, 0.3, 0.7), (0.0, 0.5)):
        yield failing(f"{error}/{share:g}/{load:g}", Failures(share, domain, error, where), load=load)
    for domain, error, where in kinds:
        yield failing(f"border/{error}", Failures(0.06, domain, error, where), jobs=300, border=True)
    for retries in (1, 3):
        yield failing(f"retried/{retries}", Failures(0.6, "infra", "ConnectionError", "before", True, retries))
    for begin in (10.0, 25.0):
        yield failing(
            f"outage/{begin:g}",
            Failures(1.0, "infra", "ConnectionError", "before", True, 0, 2.0, (begin, begin + 15)),
            load=0.6,
        )
    for workers, redeliver, restart in itertools.product((2, 4), (None, 10.0), (3.0, None)):
        system = replace(_base(workers, restart=restart), kills=((14.3, 0),), broker=Broker(redeliver=redeliver))
        yield Scenario(f"failure/killed/{workers}/{redeliver}/{restart}", 0, verdict, system, "a worker is killed")
    system = replace(_base(4, restart=4.0), kills=((8.1, 0), (15.2, 2), (30.3, 1)), broker=Broker(redeliver=6.0))
    yield Scenario("failure/killed/often", 0, verdict, system, "three workers are killed")
    for length, workers in itertools.product((20.0, 45.0), (2, 4)):
        jobs = 40 * workers
        system = replace(_base(workers), broker=Broker(stalls=((12.0, 12.0 + length),)))
        system = replace(system, streams=(replace(system.streams[0], requests=at_once(jobs)),))
        yield Scenario(f"failure/stall/{workers}/{length:g}", 0, verdict, system, f"the broker stalls for {length:g} s")
        stream = replace(system.streams[0], requests=poisson(0.6 * capacity(_base(workers)), 90.0, workers))
        yield Scenario(
            f"failure/stall/poisson/{workers}/{length:g}",
            0,
            verdict,
            replace(system, streams=(stream,)),
            f"the broker stalls for {length:g} s",
        )
    for workers in (2, 4):
        system = replace(_base(workers), broker=Broker(stalls=((10.0, 20.0),)))
        system = replace(system, streams=(replace(system.streams[0], requests=at_once(20 * workers)),))
        yield Scenario(f"failure/border/stall/{workers}", 0, verdict, system, "the broker stalls for 10 s", True)

    for workers in (2, 4):
        system = replace(_base(workers), broker=Broker(dispatch=7.0))
        system = replace(system, streams=(replace(system.streams[0], requests=at_once(15 * workers)),))
        yield Scenario(f"failure/dispatch/{workers}", 0, verdict, system, "7 s between a worker's jobs")
    # A fault is named before the load that it happens under.
    broken = (Failures(0.3, "model", "EngineError"),)
    saturated = shaped("join", _base(8, cpus=4), 240, 1)
    overloaded = replace(_base(4).streams[0], requests=poisson(2 * capacity(_base(4)), 60.0, 3))
    for name, system in (("cpu", saturated), ("overload", replace(_base(4), streams=(overloaded,)))):
        stream = replace(system.streams[0], failures=broken)
        yield Scenario(f"failure/mix/{name}", 0, verdict, replace(system, streams=(stream,)), f"and {name}")


def _unfit() -> Iterator[Scenario]:
    verdict = "data_unfit"

    def observed(name: str, telemetry: Telemetry, system: System | None = None, border: bool = False) -> Scenario:
        system = _base(4) if system is None else system
        return Scenario(f"unfit/{name}", 0, verdict, replace(system, telemetry=telemetry), str(telemetry), border)

    for share, batches, counted in itertools.product((0.06, 0.25), (False, True), (False, True)):
        yield observed(
            f"consumers/{share:g}/{batches:d}{counted:d}", Telemetry(consumers=share, batches=batches, counted=counted)
        )
        yield observed(
            f"producers/{share:g}/{batches:d}{counted:d}", Telemetry(producers=share, batches=batches, counted=counted)
        )
        yield observed(
            f"jobs/{share:g}/{batches:d}{counted:d}", Telemetry(jobs=share, batches=batches, counted=counted)
        )
        if counted:
            lost = Telemetry(inferences=share, batches=batches, counted=counted)
            name = f"inferences/{share:g}/{batches:d}{counted:d}"
            # 2 % of all spans, and known: the verdict stands. Here, since a scenario's place is its seed.
            known = replace(observed(name, lost), name=f"headroom/{name}", verdict="headroom")
            yield known if share < 0.1 else observed(name, lost)
    for share in (0.05, 0.15, 0.4):
        yield observed(f"refused/{share:g}", Telemetry(refused=share))
    yield observed("border/consumers", Telemetry(consumers=0.05, counted=True), border=True)
    yield observed("border/refused", Telemetry(refused=0.03), border=True)
    yield observed("border/producers", Telemetry(producers=0.05), border=True)
    yield observed("border/jobs", Telemetry(jobs=0.03), border=True)
    for skew, load in itertools.product((-0.3, -2.0, -20.0), (0.4, 0.6)):
        system = replace(_base(4), hosts=(Host(clock=skew, near=False),))
        rate = load * capacity(system)
        stream = replace(system.streams[0], requests=poisson(rate, 150 / rate, 7))
        yield observed(f"skew/{skew:g}/{load:g}", Telemetry(), replace(system, streams=(stream,)))
    for skew in (-1.0, -30.0):
        hosts = (Host(), Host("node-2", clock=skew, near=False))
        pools = (Pool(present=always(2)), Pool("node-2", present=always(2)))
        system = replace(_base(4), hosts=hosts, pools=pools)
        stream = replace(system.streams[0], requests=poisson(0.5 * capacity(system), 60.0, 8))
        yield observed(f"skew/hosts/{skew:g}", Telemetry(), replace(system, streams=(stream,)))
    for step in (60.0, 300.0, -45.0):
        system = replace(_base(4), hosts=(Host(clock_steps=((20.0, step),)),))
        yield observed(f"step/{step:g}", Telemetry(), system)
    for cut in ((10.0, 1e9), (25.0, 1e9)):
        yield observed(f"cut/{cut[0]:g}", Telemetry(cut=cut))
    # What else is wrong does not count before the data does.
    yield observed("mix/cpu", Telemetry(consumers=0.2), shaped("join", _base(8, cpus=4), 200, 1))
    yield observed(
        "mix/bandwidth",
        Telemetry(jobs=0.15, batches=True),
        shaped("join", replace(_base(8), hosts=(Host(cores=16, bandwidth=2 * Model().traffic),)), 200, 1),
    )
    overload = _base(4)
    stream = replace(overload.streams[0], requests=poisson(2 * capacity(overload), 60.0, 2))
    yield observed("mix/overload", Telemetry(refused=0.2), replace(overload, streams=(stream,)))
    failing = replace(_base(4).streams[0], failures=(Failures(0.3, "model", "EngineError"),))
    yield observed(
        "mix/failures", Telemetry(consumers=0.2, batches=True, counted=True), replace(_base(4), streams=(failing,))
    )


def _headroom() -> Iterator[Scenario]:
    verdict = "headroom"

    def calm(name: str, system: System, parameters: str = "", border: bool = False) -> Scenario:
        return Scenario(f"headroom/{name}", 0, verdict, system, parameters, border)

    def with_stream(system: System, **changes: object) -> System:
        return replace(system, streams=(replace(system.streams[0], **changes),))  # type: ignore[arg-type]

    for workers, jobs in itertools.product((1, 2, 4, 8), (60, 240)):
        yield calm(f"once/{workers}/{jobs}", with_stream(_base(workers), requests=at_once(jobs)))
    for load, workers in itertools.product((0.15, 0.4, 0.6), (2, 4, 8)):
        rate = load * capacity(_base(workers))
        yield calm(
            f"poisson/{load:g}/{workers}",
            with_stream(_base(workers), requests=poisson(rate, 150 / rate, workers)),
            f"{load:g} of the capacity",
        )
    for load, workers in itertools.product((0.5, 0.85), (2, 4)):
        rate = load * capacity(_base(workers))
        yield calm(
            f"paced/{load:g}/{workers}",
            with_stream(_base(workers), requests=paced(rate, 150 / rate)),
            f"{load:g} of the capacity, evenly",
            border=load > 0.8,
        )
    for workers in (2, 4):
        yield calm(
            f"closed/{workers}",
            with_stream(_base(workers), requests=at_once(workers), closed_jobs=120),
            "a client that waits for its answers",
        )
    for shape in SHAPES:
        yield calm(f"shape/{shape}", shaped(shape, _base(4), 160, 5), "nothing is shared")
        tokens = Tokens(spread=0.8, growth=1.0)
        yield calm(
            f"lengths/{shape}", shaped(shape, with_stream(_base(4), tokens=tokens, noise=0.12), 160, 6), "lengths grow"
        )
    for shape in ("join", "history", "leave"):
        yield calm(
            f"border/cores/{shape}",
            shaped(shape, _base(4, threads=2, cpus=8), 160, 7),
            "as many threads as cores",
            border=True,
        )
        host = Host(cores=16, bandwidth=3.5 * Model().traffic)
        yield calm(
            f"border/bandwidth/{shape}",
            shaped(shape, replace(_base(4), hosts=(host,)), 160, 8),
            "bandwidth for 3.5 of 4 decoders, which are seldom four at once",
            border=True,
        )
        host = Host(cores=16, lock_share=0.1)
        yield calm(
            f"border/lock/{shape}",
            shaped(shape, replace(_base(4), hosts=(host,)), 160, 9),
            "10 % under one lock",
            border=True,
        )
        need = 5 * (60 * MIB + Model().anonymous + 25 * MIB) + Model().weights
        yield calm(
            f"border/memory/{shape}",
            shaped(shape, _base(4, memory_limit=need), 160, 10),
            "one more worker would fit",
            border=True,
        )
    for threads in (1, 2):
        hosts = (Host(cores=16, burners=((0.0, 1e6, 8),), burners_apart=True),)
        system = replace(_base(4, threads=threads, cpus=8), hosts=hosts)
        yield calm(f"neighbours/{threads}", shaped("join", system, 160, 11), "burners on other cores")
    stream = Stream(BULK, at_once(80, 20.0))
    other = Stream("other", poisson(0.8, 90.0, 12), Model("llama3-1b-q8", 350, 30, 900 * MIB))
    yield calm("mixed", replace(_base(4), streams=(other, stream)), "another bulk of another model between")
    streams = (
        Stream(BULK, at_once(60)),
        Stream(BULK, at_once(60, 0.5), Model("smollm2-135m-q8", 1500, 120, 145 * MIB)),
    )
    yield calm("models", replace(_base(4), streams=streams), "two models in one bulk")
    yield calm("delayed", with_stream(_base(4), delay=30.0), "jobs wanted 30 s later")
    yield calm("app", with_stream(_base(4), app_work=0.4), "work outside the inference")
    yield calm(
        "prefetch",
        with_stream(replace(_base(4), broker=Broker(prefetch=1)), requests=at_once(240)),
        "a worker reserves one job more",
    )
    retried = Failures(0.04, "infra", "ConnectionError", "before", False, 1, 2.0, (0.0, 20.0))
    yield calm("retried", with_stream(_base(4), failures=(retried,)), "a few attempts made again")
    pair = (Host(), Host("node-2", clock=0.004, near=False))
    pools = (Pool(present=always(2)), Pool("node-2", present=always(2)))
    yield calm("hosts", replace(_base(4), hosts=pair, pools=pools), "two hosts")
    yield calm("logs", replace(_base(4), telemetry=Telemetry(dropped_logs=20)), "log records lost")
    yield calm(
        "border/refused",
        with_stream(replace(_base(4), telemetry=Telemetry(refused=0.004)), requests=at_once(300)),
        "one attempt refused",
        border=True,
    )
    for seconds in (10.0, 20.0):
        rate = 3 * capacity(_base(4))
        yield calm(f"burst/{seconds:g}", with_stream(_base(4), requests=paced(rate, seconds)), "a short burst")
