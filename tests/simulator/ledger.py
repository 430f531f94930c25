"""What truly held a bulk's jobs up, from the run itself: never from what its telemetry says.

The engine books, for every attempt, the seconds that each mechanism cost. From them, and from what was killed, failed
or lost, follows whether a scenario deserves the verdict that it claims.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.simulator.engine import CAUSES, Run
from tests.simulator.records import Lost

VERDICTS = (
    "data_unfit", "internal_failure", "overload", "memory_limited", "cpu_saturated", "memory_bandwidth", "contention",
    "headroom",
)  # fmt: skip
_OF_CAUSE = {"cpu": "cpu_saturated", "bandwidth": "memory_bandwidth", "lock": "contention", "memory": "memory_limited"}
# Of the time of the jobs that ran with most workers busy: up to HARMLESS a mechanism is none to speak of, from HARMFUL
# on it is the cause. What lies between is a matter of taste, and no scenario.
HARMLESS, HARMFUL = 0.05, 0.15
# Where workers slow each other more of them still bring more, until a fifth of their time is lost: the definition that
# `thresholds.SLOWDOWN` states.
SLOWED = {"memory_bandwidth": 0.2, "contention": 0.2}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Truth about one bulk. Shares are 0..1.

    ``cost``: by mechanism, the share of the time of the tenth of the attempts with most workers busy beside them;
    ``held`` the share of it in which a quota held them back. ``busy_low`` and ``busy_high``: 10th and 90th percentile
    of the busy workers beside which its model ran.
    ``failed``: share of jobs whose last attempt failed for other reasons than load; ``late`` of those that a limit on
    time ended. ``killed``, ``killed_by_memory``: attempts whose worker was killed by a signal, by the kernel.
    ``idle``: share of the time in which a worker stood idle while jobs waited.
    ``load``: arrival rate over capacity while jobs arrived, for ``arrivals_s``; ``backlog`` how many more jobs waited
    at its end than a quarter of the way in, over the workers; ``refused`` the share of jobs that the API refused.
    ``missing``: share of spans that never came; ``told`` the share of those inferences among them that their senders
    counted; ``negative`` of waits that came out negative; ``stepped``: a clock was set while jobs were under way.
    """

    cost: dict[str, float]
    failed: float
    late: float
    killed: int
    killed_by_memory: int
    idle: float
    load: float
    arrivals_s: float
    backlog: float
    busy_low: float
    busy_high: float
    missing: float
    told: float
    negative: float
    stepped: bool
    held: float
    refused: float


def ledger(run: Run, bulk: str, lost: Lost, among: bool = False) -> Ledger:
    """Book a run's truth about ``bulk``; ``lost`` is what ``records.write`` took away.

    ``among``: of what arrived for all bulks, up to this one's last job.
    """
    mine = [a for a in run.attempts if a.job.stream.bulk == bulk]
    if not mine:
        raise ValueError(f"nobody worked on a job of bulk {bulk!r}")
    ended = [a for a in mine if a.end is not None]
    crowded = float(np.quantile([a.beside for a in ended], 0.9)) - 1e-6 if ended else 0.0
    full = [a for a in ended if a.beside >= crowded and a.inferred is not None]
    seconds = sum(a.end - a.start for a in full if a.end is not None)
    cost = {cause: sum(a.lost[n] for a in full) / seconds if seconds else 0.0 for n, cause in enumerate(CAUSES)}
    last = {id(a.job): a for a in ended}
    failed = [a for a in last.values() if a.domain not in (None, "timeout") and a.outcome != "retry"]
    late = [a for a in last.values() if a.domain == "timeout"]
    killed = [a.process.killed for a in mine if a.end is None]
    model = {a.job.stream.model.name for a in mine}
    beside = [a.beside for a in run.attempts if a.job.stream.model.name in model and a.end is not None]
    low, high = np.quantile(beside, (0.1, 0.9)).tolist() if beside else (0.0, 0.0)
    arrivals = np.sort([put.at + put.delay for put in run.puts])
    own = np.sort([put.at for put in run.puts if put.job.stream.bulk == bulk and put.by is None])
    if among:
        own = np.sort([put.at for put in run.puts if put.by is None and put.at <= own[-1]])
    first = float(own[0]) if among else min(a.enqueued for a in mine)
    window = max(a.end for a in ended if a.end is not None) - first if ended else 0.0
    span = float(own[-1] - own[0]) if len(own) > 1 else 0.0
    workers = max(1.0, high)
    asked = sum(r.asked for r in run.requests if own[0] - 1 <= r.start <= own[-1])
    refused = sum(r.asked for r in run.requests if r.status != 202) / max(1, asked)
    service = [a.end - a.start for a in run.attempts if a.end is not None and (a.domain != "timeout" or not late)]
    load = asked / span * float(np.mean(service)) / _present(run, own) if span > 1 and service else 0.0
    begun = np.sort([a.start for a in run.attempts])

    def backlog(at: float) -> int:
        return int(np.searchsorted(arrivals, at, "right") - np.searchsorted(begun, at, "right"))

    grown = backlog(float(own[-1])) - backlog(float(own[0] + span / 4)) if span else 0
    steps = [when for host in run.system.hosts for when, _ in host.clock_steps]
    held = sum(a.throttled for a in full) / seconds if seconds else 0.0
    return Ledger(
        cost=cost,
        failed=len(failed) / max(1, len(last)),
        late=len(late) / max(1, len(last)),
        killed=killed.count("signal"),
        killed_by_memory=killed.count("memory"),
        idle=run.idle_while_waiting / window if window else 0.0,
        load=load,
        arrivals_s=span,
        backlog=grown / workers,
        busy_low=low,
        busy_high=high,
        missing=lost.missing / lost.spans,
        told=lost.told / lost.spans,
        negative=lost.negative / max(1, len(ended)),
        stepped=any(own[0] < when < run.end for when in steps),
        held=held,
        refused=refused,
    )


def _present(run: Run, own: NDArray[np.float64]) -> float:
    """Mean number of workers that were there while the bulk's jobs arrived."""
    first, last = float(own[0]), float(own[-1])
    alive = sum(max(0.0, min(p.died, last) - max(p.born, first)) for p in run.processes)
    return max(0.1, alive / (last - first))


def complaints(truth: Ledger, verdict: str) -> list[str]:
    """Return why ``truth`` does not bear ``verdict`` out; nothing when it does."""
    found: list[str] = []

    def need(ok: bool, what: str) -> None:
        if not ok:
            found.append(what)

    order = VERDICTS.index(verdict)
    # A few inferences that are known to be missing leave all that is known of the jobs; many are a gap all the same.
    unknown = truth.missing - truth.told
    unfit = unknown > 0.015 or truth.told > 0.05 or truth.negative > 0.015 or truth.stepped
    fit = unknown < 0.008 and truth.told < 0.03 and truth.negative < 0.005 and not truth.stepped
    need(unfit if order == 0 else fit,
         f"missing {truth.missing:.3f}, of these told {truth.told:.3f}, negative {truth.negative:.3f}, "
         f"stepped {truth.stepped}")  # fmt: skip
    if order == 0:
        return found
    broken = truth.failed > 0.03 or truth.killed > 0 or truth.idle > 0.1
    need(broken if order == 1 else truth.failed == 0 and truth.killed == 0 and truth.idle < 0.03,
         f"failed {truth.failed:.3f}, killed {truth.killed}, idle {truth.idle:.3f}")  # fmt: skip
    if order == 1:
        return found
    rising = truth.arrivals_s >= 30 and truth.load > 1.08 and (truth.backlog >= 2 or truth.refused > 0.1)
    steady = truth.refused == 0 and (truth.arrivals_s < 30 or truth.load < 0.92 or truth.backlog < 1)
    need(rising if order == 2 else steady,
         f"load {truth.load:.2f} over {truth.arrivals_s:.0f} s, backlog {truth.backlog:+.1f} a worker")  # fmt: skip
    if order == 2:
        return found
    need(truth.late == 0, f"late {truth.late:.3f}")
    harmed = {verdict_: truth.cost[cause] for cause, verdict_ in _OF_CAUSE.items()}
    if verdict == "memory_limited":
        need(truth.killed_by_memory > 0 or harmed[verdict] >= HARMFUL,
             f"killed {truth.killed_by_memory}, cost {harmed[verdict]:.3f}")  # fmt: skip
        return found
    need(truth.killed_by_memory == 0, f"killed by memory {truth.killed_by_memory}")
    for name in VERDICTS[3:]:
        if name == verdict and name != "headroom":
            need(harmed[name] >= SLOWED.get(name, HARMFUL), f"{name} costs only {harmed[name]:.3f}")
            # A quota's throttling is seen at any number of workers; the others only against fewer.
            seen = truth.busy_high >= 1.4 * truth.busy_low or truth.held > 0.03
            need(seen, f"busy workers {truth.busy_low:.1f} to {truth.busy_high:.1f}")
            return found
        if name in harmed:
            need(harmed[name] <= HARMLESS, f"{name} costs {harmed[name]:.3f}")
    return found
