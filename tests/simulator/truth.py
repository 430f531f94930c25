"""Which verdicts of ``explain`` a scenario deserves: by what the engine books, and by running it with a thing changed.

What was saved is measured on the simulated systems themselves, the changed beside the unchanged; nothing is asked of
the studio's replay. Savings from ``SURELY_NOT`` to ``SURELY`` are a matter of chance: with and without are then right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tests.simulator.engine import Run, simulate
from tests.simulator.scenarios import Scenario
from tests.simulator.system import System

SURELY_NOT, SURELY = 0.08, 0.13
LEAST_S = 1.0  # saved in all: less is no matter
STREAM_REQUESTS = 5
_FULL = 0.85  # of the cores, used by the inferences
# Kinds of the ledger that are verdicts of explain too.
_SAME = {"data_unfit", "internal_failure", "overload", "memory_limited", "memory_bandwidth", "contention"}


def right(scenario: Scenario, run: Run) -> frozenset[str]:
    """Return the verdicts that are right."""
    kind = scenario.verdict
    if "/dispatch/" in scenario.name:
        return frozenset({"slow_hand_out"})
    if kind in _SAME:
        return frozenset({kind})
    if kind == "cpu_saturated":
        taken = any(host.burners for host in scenario.system.hosts)
        return frozenset({"cores_taken" if taken else "at_capacity_cores"})
    saved = savings(scenario, run)
    capacity = "at_capacity_workers_and_cores" if _cores_used(scenario, run) >= _FULL else "at_capacity_workers"
    causes = {name: share for name, share in saved.items() if name != "workers"}
    sure = {name for name, share in causes.items() if share >= SURELY}
    maybe = {name for name, share in causes.items() if share >= SURELY_NOT}
    if sure:
        best = max(causes.values())
        return frozenset(name for name in maybe if causes[name] >= best - 0.05)
    last = (
        {capacity} if saved["workers"] >= SURELY else {"headroom"} if saved["workers"] < SURELY_NOT else
        {capacity, "headroom"}
    )  # fmt: skip
    return frozenset(maybe | last)


def savings(scenario: Scenario, run: Run) -> dict[str, float]:
    """Return what share of the bulk's time each change saves."""
    before = _time(scenario, run)
    changes: dict[str, Callable[[System], System]] = {
        "workers": _twice,
        "cold_start": lambda system: replace(
            system,
            streams=tuple(replace(one, model=replace(one.model, load_s=0.0)) for one in system.streams),
        ),
        "slow_hand_out": lambda system: replace(system, broker=replace(system.broker, dispatch=0.0, poll=0.0)),
        "uneven_hand_out": lambda system: replace(system, broker=replace(system.broker, prefetch=0)),
    }
    if not _stream(scenario):
        changes["waiting_for_sender"] = lambda system: replace(
            system,
            streams=tuple(
                replace(one, requests=((one.requests[0][0], sum(size for _, size in one.requests)),))
                if one.bulk == scenario.bulk else one
                for one in system.streams
            ),
        )  # fmt: skip
    jobs = sum(attempt.job.stream.bulk == scenario.bulk for attempt in run.attempts)
    found = {}
    for name, change in changes.items():
        system = change(scenario.system)
        after = before if system == scenario.system else _time(scenario, simulate(system, scenario.seed))
        lost = (before - after) * (jobs if _stream(scenario) else 1)
        found[name] = (before - after) / before if before > 0 and lost >= LEAST_S else 0.0
    return found


def _twice(system: System) -> System:
    """Return it with twice the workers, on hosts of twice the size: whether these are there is another question."""

    def double(amount: float | None) -> float | None:
        return None if amount is None else 2 * amount

    pools = tuple(
        replace(
            pool, present=pool.present + pool.present, cpus=double(pool.cpus), memory_limit=double(pool.memory_limit),
            quota=pool.quota if pool.quota_each else double(pool.quota),
        )
        for pool in system.pools
    )  # fmt: skip
    hosts = tuple(
        replace(host, cores=2 * host.cores, physical=2 * host.physical, memory=2 * host.memory) for host in system.hosts
    )
    return replace(system, pools=pools, hosts=hosts)


def _stream(scenario: Scenario) -> bool:
    requests = [r for one in scenario.system.streams if one.bulk == scenario.bulk for r in one.requests]
    return len(requests) >= STREAM_REQUESTS or any(
        one.closed_jobs for one in scenario.system.streams if one.bulk == scenario.bulk
    )


def _time(scenario: Scenario, run: Run) -> float:
    """Return the makespan, or of jobs that arrive over time the mean from ready to end, in s."""
    mine = [a for a in run.attempts if a.job.stream.bulk == scenario.bulk and a.end is not None]
    ready = np.array([a.enqueued + a.delay for a in mine])
    end = np.array([a.end for a in mine], np.float64)
    return float(np.mean(end - ready)) if _stream(scenario) else float(end.max() - ready.min())


def _cores_used(scenario: Scenario, run: Run) -> float:
    """Return the share of the workers' cores that the inferences kept busy while all of them worked."""
    most = max(a.beside for a in run.attempts)
    full = [a for a in run.attempts if a.end is not None and a.inferred is not None and a.beside > 0.9 * most]
    seconds = sum((a.decoded or a.end or 0.0) - (a.inferred or 0.0) for a in full)
    cores = 0.0
    for host in scenario.system.hosts:
        pools = [pool for pool in scenario.system.pools if pool.host == host.name]
        cores += min(float(host.cores), sum(float(pool.cpus or host.cores) for pool in pools))
    return most * sum(a.cpu for a in full) / seconds / cores if seconds > 0 and cores > 0 else 0.0
