"""The end that is given for running bulks against when they then ended.

    python bench/endings.py [--bulks N] [--seed N] [--sizes FILE.csv] [--width]

Each bulk is played by a queue of this file's own, which shares no code with the studio: sizes with heavy tails, sizes
that drift and come in runs, cold starts, a slow worker, workers of several slots, workers that leave and come, retries,
other bulks before it, jobs that come in chunks. It is recorded up to the moment at which 25, 50 and 75 % of its jobs
have ended, and the studio is asked then. Held is the end of the jobs that had been put by then.
``--sizes``: prompts as in the Azure LLM inference traces (TIMESTAMP,ContextTokens,GeneratedTokens).
"""

from __future__ import annotations

import argparse
import csv
import heapq
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from bulkscope_studio.services.endings import bulk_ending  # noqa: E402
from bulkscope_studio.storage.store import Store  # noqa: E402
from tests import rows  # noqa: E402

SHARES = (0.25, 0.5, 0.75)
Sizes = Callable[[np.random.Generator, int], np.ndarray]


@dataclass
class Job:
    """One attempt after the other at one job; times in s."""

    name: str
    bulk: str
    put: float
    work: float
    fails: int = 0
    attempts: list[tuple[float, float, int]] = field(default_factory=list)  # start, end, worker


@dataclass(frozen=True)
class Shape:
    """A kind of system: what varies of it is drawn for each bulk."""

    name: str
    sizes: Sizes
    gap: float = 0.003
    cold: float = 0.0
    slow: float = 1.0
    threads: int = 1
    retries: float = 0.0
    before: int = 0
    chunks: int = 1
    leaves: bool = False
    comes: bool = False
    slowing: float = 0.0


def equal(random: np.random.Generator, jobs: int) -> np.ndarray:
    return np.ones(jobs) + random.normal(0, 0.02, jobs)


def lognormal(random: np.random.Generator, jobs: int) -> np.ndarray:
    return random.lognormal(0, random.uniform(0.3, 1.2), jobs)


def pareto(random: np.random.Generator, jobs: int) -> np.ndarray:
    return 0.4 * (1 + random.pareto(random.uniform(1.6, 3.0), jobs))


def two_kinds(random: np.random.Generator, jobs: int) -> np.ndarray:
    return np.where(random.random(jobs) < 0.15, random.normal(8, 1, jobs), random.normal(1, 0.15, jobs)).clip(0.05)


def in_runs(random: np.random.Generator, jobs: int) -> np.ndarray:
    """Files of a dataset one after the other: the level stays for a while, then is another."""
    level = np.repeat(random.lognormal(0, 0.4, jobs // 10 + 1), 10)[:jobs]
    return level * random.lognormal(0, 0.3, jobs)


def drifting(random: np.random.Generator, jobs: int) -> np.ndarray:
    return np.linspace(1, random.uniform(0.7, 1.4), jobs) * random.lognormal(0, 0.4, jobs)


SHAPES = [
    Shape("equal jobs", equal),
    Shape("lognormal", lognormal),
    Shape("Pareto", pareto),
    Shape("one in seven 8 times as long", two_kinds),
    Shape("sizes in runs of ten", in_runs),
    Shape("sizes drift by up to 40 %", drifting),
    Shape("cold starts of 5 jobs' time", lognormal, cold=5.0),
    Shape("one worker 3 times as slow", lognormal, slow=3.0),
    Shape("workers of 4 slots", lognormal, threads=4),
    Shape("one attempt in eight is made again", lognormal, retries=0.125),
    Shape("another bulk goes first", lognormal, before=40),
    Shape("put in chunks", lognormal, chunks=4),
    Shape("0.5 s between jobs", lognormal, gap=0.5),
    Shape("a worker leaves after a fifth", lognormal, leaves=True),
    Shape("a worker comes after a fifth", lognormal, comes=True),
    Shape("jobs slow each other down", lognormal, slowing=0.15),
]


def played(shape: Shape, random: np.random.Generator) -> tuple[list[Job], int]:
    """Play one bulk, and those before it, first come first served; return all jobs, and the slots of a worker."""
    jobs_of, workers = int(random.choice([20, 40, 100, 300])), int(random.integers(2, 9))
    unit = float(random.choice([0.3, 2.0, 15.0]))  # s
    works = unit * shape.sizes(random, jobs_of)
    mean = float(np.mean(works))
    puts = np.zeros(jobs_of)
    if shape.chunks > 1:
        rhythm = jobs_of * mean / workers / shape.chunks * random.uniform(0.6, 1.0)
        puts = (np.arange(jobs_of) * shape.chunks // jobs_of) * rhythm
    puts = puts + np.arange(jobs_of) * 0.002 + 100.0
    jobs = [Job(f"b{n}", "b", float(put), float(work)) for n, (put, work) in enumerate(zip(puts, works, strict=True))]
    for job in jobs:
        while random.random() < shape.retries and job.fails < 3:
            job.fails += 1
    jobs += [Job(f"o{n}", "o", 99.0 + 0.002 * n, unit * float(random.lognormal(0, 0.5))) for n in range(shape.before)]
    queue = [(job.put, n, job) for n, job in enumerate(jobs)]
    heapq.heapify(queue)
    slots = workers * shape.threads
    span = sum(job.work for job in jobs) / slots
    free = [(90.0 + n * 1e-6, n) for n in range(slots)]
    if shape.comes:
        free[-1] = (100.0 + span / 5, slots - 1)
    leaves = {slots - 1: 100.0 + span / 5} if shape.leaves else {}
    heapq.heapify(free)
    began: set[int] = set()
    ends: list[float] = []
    number = len(jobs)
    while queue:
        put, _, job = heapq.heappop(queue)
        at, slot = heapq.heappop(free)
        start = max(at, put)
        if start > leaves.get(slot, math.inf):
            heapq.heappush(queue, (put, number, job))
            number += 1
            continue
        worker = slot // shape.threads
        busy = sum(1 for end in ends if end > start)
        work = job.work * (shape.slow if worker == 0 else 1.0) * (1 + shape.slowing * busy / 2)
        if worker not in began:
            work += shape.cold * mean
            began.add(worker)
        end = start + work
        ends = [other for other in ends if other > start] + [end]
        job.attempts.append((start, end, worker))
        heapq.heappush(free, (end + shape.gap * float(random.uniform(0.5, 1.5)), slot))
        if len(job.attempts) <= job.fails:
            heapq.heappush(queue, (end, number, job))
            number += 1
    return jobs, shape.threads


def recorded(jobs: Sequence[Job], cut: float) -> rows.Tables:
    """Return what a store holds of the jobs at ``cut``: spans that have ended, and heartbeats of what goes on."""
    spans: list[dict[str, Any]] = []
    logs: list[dict[str, Any]] = []
    for n, job in enumerate(jobs):
        if job.put > cut:
            continue
        own = {"bulk_id": job.bulk, "job_id": job.name, "trace_id": f"{n:032x}", "queue": "q"}
        at = rows.ns(job.put)
        spans.append(rows.span("PRODUCER", at, at, span_id=f"p{n:015x}", **own))
        ready = job.put
        for number, (start, end, worker) in enumerate(job.attempts, 1):
            if start > cut:
                break
            who = {"host_name": "h", "pid": worker, "service_instance_id": f"i{worker}"}
            identity = f"{number:x}{n:015x}"
            if end <= cut:
                outcome = "retry" if number <= job.fails else "ok"
                spans.append(
                    rows.span(
                        "CONSUMER", rows.ns(start), rows.ns(end), span_id=identity, attempt=number, wait=start - ready,
                        outcome=outcome, **own, **who,
                    )
                )  # fmt: skip
                ready = end
                continue
            del own["queue"]
            for time in {start, start + math.floor(cut - start)}:  # one heartbeat a second: the first and the last
                event = "bulk.job.started" if time == start else "bulk.job.heartbeat"
                logs.append(
                    {"time_ns": rows.ns(time), "span_id": identity, "event_name": event,
                     "attributes": f'{{"bulk.job.attempt":{number}}}', **own, **who}
                )  # fmt: skip
            break
    return {"spans": rows.table("spans", spans), "logs": rows.table("logs", logs)}


@dataclass(frozen=True)
class Asked:
    """What was said at one moment of one bulk; ``off`` is the true time that was left over the one given."""

    shape: str
    share: float
    held: bool
    answered: bool
    low: float
    high: float
    off: float


def asked(shape: Shape, seed: int) -> list[Asked]:
    """Ask of one bulk at each share of its jobs."""
    jobs, _ = played(shape, np.random.default_rng(seed))
    mine = [job for job in jobs if job.bulk == "b"]
    ends = sorted(job.attempts[-1][1] for job in mine)
    found = []
    for share in SHARES:
        cut = ends[max(1, math.ceil(share * len(ends))) - 1] + 1e-6
        true = max(job.attempts[-1][1] for job in mine if job.put <= cut) - cut
        if true <= 0:
            continue
        store = Store(Path(":memory:"))
        try:
            cursor = store.connection()
            rows.insert(cursor, recorded(jobs, cut))
            cursor.close()
            said = bulk_ending(store, "b", rows.ns(cut))
        finally:
            store.close()
        left = said["left_s"]
        if left is None:
            found.append(Asked(shape.name, share, False, False, math.nan, math.nan, math.nan))
            continue
        value = max(left["value"], 1e-9)
        held = left["low"] - 1e-3 <= true <= left["high"] + 1e-3
        found.append(
            Asked(
                shape.name, share, held, True, left["low"] / value, left["high"] / value,
                true / value,
            )
        )  # fmt: skip
    return found


def of_trace(path: Path) -> Sizes:
    """Sizes of consecutive prompts of a trace: seconds at 2,000 tokens/s of prefill and 40 of decode."""
    with path.open() as file:
        table = [(float(row["ContextTokens"]), float(row["GeneratedTokens"])) for row in csv.DictReader(file)]
    seconds = np.array([prompt / 2000 + tokens / 40 for prompt, tokens in table])

    def sizes(random: np.random.Generator, jobs: int) -> np.ndarray:
        first = int(random.integers(0, len(seconds) - jobs))
        return seconds[first : first + jobs].clip(0.02)

    return sizes


def run(shapes: Sequence[Shape], bulks: int, seed: int) -> list[Asked]:
    """Ask of so many bulks, the shapes in turn."""
    return [one for n in range(bulks) for one in asked(shapes[n % len(shapes)], seed + n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bulks", type=int, default=208)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sizes", type=Path)
    parser.add_argument("--only", help="shapes whose names hold this")
    given = parser.parse_args()
    shapes = SHAPES
    if given.sizes is not None:
        shapes = [Shape(f"{given.sizes.stem}, {word}", of_trace(given.sizes), **more) for word, more in (
            ("at once", {}), ("cold starts", {"cold": 5.0}), ("another bulk first", {"before": 40}),
            ("in chunks", {"chunks": 4}),
        )]  # fmt: skip
    shapes = [shape for shape in shapes if (given.only or "") in shape.name]
    found = run(shapes, given.bulks, given.seed)
    of: dict[str, list[Asked]] = defaultdict(list)
    for one in found:
        of[one.shape].append(one)
        of[f"all, at {one.share:.0%}"].append(one)
        of["all"].append(one)
    print("| bulks | asked | held | no answer | true / given, median | interval / given, median |")
    print("|---|---:|---:|---:|---:|---|")
    for name, some in of.items():
        told = [one for one in some if one.answered]
        low, high, off = (np.median([getattr(one, what) for one in told]) for what in ("low", "high", "off"))
        held = sum(one.held for one in told)
        print(
            f"| {name} | {len(some)} | {held} ({held / len(told):.0%}) | {len(some) - len(told)} | {off:.2f} "
            f"| {low:.2f} to {high:.2f} |"
        )


if __name__ == "__main__":
    main()
