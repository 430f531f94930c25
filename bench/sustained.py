"""How far the sustained rate of ``bulkscope capacity`` is off, and how often its 95 % interval holds the truth.

    python bench/sustained.py [--draws N] [--only TEXT]

Streams and bulks of ``tests/studio/loads.py`` on slots that do not slow each other, whose long-run rate is known from
the law of their works; each setting is drawn ``--draws`` times. A row is of several numbers of slots and laws: bias is
that of the mean of the draws, coverage the share of the intervals that hold the truth, of the draws with an answer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tests.studio import loads  # noqa: E402

LOADS = (0.3, 0.5, 0.7, 0.9, 1.2)
SLOTS, FEW_SLOTS = (2, 4, 16), (4,)
WORKS = ("gamma 4", "exponential", "lognormal", "bimodal")
FEW_WORKS = ("exponential", "lognormal")
JOBS = 1000
# Bulks put at once: how many, of how many jobs, on how many slots.
BULKS = ((1, 60, 2), (3, 26, 2), (20, 12, 2), (40, 8, 4), (5, 100, 8), (1, 400, 16))
EQUAL = 1e-9  # of the truth: rounding, where all works are alike


@dataclass(frozen=True, slots=True)
class Setting:
    """One kind of draw: the row it belongs to, the truth in jobs/s, and what makes a draw from a seed."""

    row: str
    truth: float
    draw: Callable[[int], loads.Played]


def settings() -> Iterator[Setting]:
    for arrivals, counts, works in (
        ("poisson", SLOTS, WORKS), ("paced", FEW_SLOTS, FEW_WORKS), ("bursty", FEW_SLOTS, FEW_WORKS),
    ):  # fmt: skip
        for load in LOADS:
            for slots in counts:
                for work in works:
                    draw = partial(loads.stream, jobs=JOBS, slots=slots, load=load, work=work, arrivals=arrivals)
                    yield Setting(f"{arrivals}, load {load}", float(slots), draw)
    for number, size, slots in BULKS:
        for work in WORKS:
            name = f"at once, {number} of {size} jobs on {slots}"
            yield Setting(name, float(slots), partial(loads.bulks, number=number, size=size, slots=slots, work=work))


@dataclass(frozen=True, slots=True)
class Found:
    """Of one setting: share of the draws with an answer, bias, coverage (NaN: no answer)."""

    answered: float
    bias: float
    coverage: float


def measured(setting: Setting, draws: int) -> Found:
    rates = [loads.sustained(setting.draw(seed)).rate for seed in range(draws)]
    told = [rate for rate in rates if rate is not None]
    if not told:
        return Found(0.0, np.nan, np.nan)
    bias = float(np.mean([rate.value for rate in told])) / setting.truth - 1
    hits = sum(rate.low <= setting.truth * (1 + EQUAL) and setting.truth <= rate.high * (1 + EQUAL) for rate in told)
    return Found(len(told) / draws, bias, hits / len(told))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--only", default="", help="rows that hold this text")
    given = parser.parse_args()
    print("| | settings | answered | bias, lowest to highest | coverage, mean | lowest |")
    print("|---|---:|---:|---|---:|---:|", flush=True)
    rows: dict[str, list[Setting]] = {}
    for setting in settings():
        if given.only in setting.row:
            rows.setdefault(setting.row, []).append(setting)
    for row, of in rows.items():
        found = [measured(setting, given.draws) for setting in of]
        answered = float(np.mean([one.answered for one in found]))
        told = [one for one in found if one.answered]
        if not told:
            print(f"| {row} | {len(of)} | 0 % | – | – | – |", flush=True)
            continue
        biases, hits = [one.bias for one in told], [one.coverage for one in told]
        print(
            f"| {row} | {len(of)} | {answered:.0%} | {min(biases):+.1%} to {max(biases):+.1%} | {np.mean(hits):.1%} | "
            f"{min(hits):.1%} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
