"""Two sides, number by number: how much B differs from A, whether that could be chance, and one sentence to take away.

Six numbers are tested at once. Each has an interval at 1 - 0.05/6, so that all six hold together in at least 95 % of
comparisons (Bonferroni), and a verdict only where its interval leaves out "no difference". Holm's steps would find a
little more, and have no intervals of the same level.

The intervals of one bulk a side are over jobs: they say what more jobs of these runs would show, not how much one run
differs from the next. So the answer is one on these runs; a recommendation takes three bulks a side, whose intervals
are over runs too. What is known to have differed beside model and prompts widens the interval by what it can explain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulkscope_studio.analysis.compare import effects
from bulkscope_studio.analysis.compare.effects import AtEqualTokens, Effect
from bulkscope_studio.analysis.compare.sides import Setting, Side
from bulkscope_studio.analysis.plain import plain
from bulkscope_studio.text import wording

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SCHEMA = "bulkscope.compare/1"
FAMILY = 0.95
TESTS = ("time", "decode_rate", "cpu", "memory", "failures", "output")
LEVEL = 1 - (1 - FAMILY) / len(TESTS)
# Five degrees of freedom are left to a fit of three weights; Student's quantile for fewer is no news to anybody.
LEAST_JOBS = 8
# Within it two sides are the same for practice: two processes of one program differ by as much.
SAME_WITHIN = 0.01
# Token counts of two tokenizers for the same prompts. By chance 8 pairs reach this once in 5,000 times.
LEAST_RANK_CORRELATION = 0.95
LEAST_RANKED = 8
# Of the time in which some task waited for a core (PSI), and of the inferences' time throttled by a quota.
PRESSURE_APART = 0.10
THROTTLED_APART = 0.05
# Three runs a side leave four degrees of freedom to the spread between runs.
LEAST_RUNS = 3
# Of the time in which threads could run, without a core: from here on it is said.
LACKED = 0.10
# A thread that has no core keeps the others of its inference waiting: time grows by more than its share without a core.
# Of 24 pairs of real runs of one model (tests/studio/test_compare_runs.py) the worst differed by 1.3 times the
# logarithm of what the shares explain.
LACKED_WEIGHS = 1.5
# Work on cores that others use too costs up to so much more or less CPU, as caches and hyperthreads are shared.
LACKED_COSTS = 0.05
# Beyond that a share is too near to all of the time to be divided by.
_MOST_LACKED = 0.95
# Mean tokens of the sides: where they differ by more, a law that is not quite linear passes for a difference of up to
# 6 % (30 % of the time in attention, which grows with the square); allowed for are 10 %.
TOKENS_APART = 1.5
BENT = 0.10
# Other programs had the cores where the inferences used less than this share of them, as `explain` says it.
OWN_CORES = 0.60
DRIFTED = 0.10
# Of the shorter run, in which both ran on one host.
TOGETHER = 0.10

# Of the times of one job: bins of one width of the logarithm, and percentiles.
BINS = 40
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

FASTER, SLOWER, MORE, LESS = "faster", "slower", "more", "less"
NO_DIFFERENCE = "no difference seen"
SAME = f"the same within {SAME_WITHIN:.0%}".replace("%", " %")
UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Row:
    """One number. ``verdict`` is B's, against A; ``a``, ``b`` in ``unit``; ``jobs`` that it was computed from.

    ``kind`` is ``ratio`` (B over A) or ``difference`` (B minus A). ``estimated``: measured or fitted with a
    reservation that ``note`` or the side's share of exact measurements tells.
    """

    name: str
    title: str
    kind: str
    unit: str
    a: float | None
    b: float | None
    effect: Effect | None
    verdict: str
    estimated: bool
    jobs: tuple[int, int]
    note: str


@dataclass(frozen=True, slots=True)
class Times:
    """How the times of a job are spread on both sides, in s: at ``equal_tokens`` as in the time's row, or as measured.

    ``a`` and ``b`` are shares of each side's jobs in ``len(edges) - 1`` bins of one width of the logarithm, the
    percentiles those of QUANTILES.
    """

    equal_tokens: bool
    edges: tuple[float, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]
    a_quantiles: tuple[float, ...]
    b_quantiles: tuple[float, ...]

    @classmethod
    def of(cls, equal_tokens: bool, a: Floats, b: Floats) -> Times | None:
        """Return how they are spread; None where a side has no time above 0."""
        sides = [each[each > 0] for each in (a, b)]
        if not all(map(len, sides)):
            return None
        both = np.concatenate(sides)
        low, high = float(both.min()), float(both.max())
        # Equal times are one bin, and not on the border of two.
        low, high = (low, high) if high > low * 1.001 else (low / 1.05, high * 1.06)
        edges = np.geomspace(low, high, BINS + 1)
        edges[0], edges[-1] = low, high
        shares = [np.histogram(each, edges)[0] / len(each) for each in sides]
        quantiles = [np.quantile(each, QUANTILES) for each in sides]
        lists = [tuple(map(float, each)) for each in (edges, *shares, *quantiles)]
        return cls(equal_tokens, *lists)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Whether the jobs were compared prompt by prompt, and why (not). ``tokens``: ``equal`` or ``ranked`` alike."""

    paired: bool
    pairs: int
    tokens: str | None
    rank_correlation: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Caution:
    """Why the numbers may not mean what they seem to; ``code`` is stable."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it; ``answer`` is the sentence that comes first."""

    answer: str
    a: Side
    b: Side
    pairing: Pairing
    equal_job: dict[str, float]
    rows: tuple[Row, ...]
    cautions: tuple[Caution, ...]
    times: Times | None = None


def compare(a: Side, b: Side) -> Comparison:
    """Compare two sides. The same jobs in any order, at any time of day, give the same result."""
    cautions = _cautions(a, b)
    if a.facts.bulks == b.facts.bulks and a.facts.models == b.facts.models:
        nothing = Pairing(False, 0, None, None, "Both sides are the same jobs.")
        return Comparison("A and B are the same jobs: there is nothing to compare.", a, b, nothing, {}, (), cautions)
    pairing = pair(a, b)
    time, equal_job, times = _time(a, b, pairing.paired)
    rows = (
        time, _rate(time, equal_job), _decode(a, b, pairing.paired), _cpu(a, b, pairing.paired),
        _memory(a, b, pairing.paired), _failures(a, b, pairing.paired), _output(a, b, pairing.paired),
    )  # fmt: skip
    return Comparison(_answer(a, b, rows, cautions), a, b, pairing, equal_job, rows, cautions, times)


def pair(a: Side, b: Side) -> Pairing:
    """Say whether job i of both sides is the same prompt. Prompts are not recorded; their order and lengths are.

    A wrong pairing costs nothing but width: pairs are drawn together, and unrelated ones vary as two samples do.
    """
    if len(a) != len(b):
        return Pairing(False, 0, None, None, f"Not paired: A has {_jobs(len(a))}, B {len(b):,}.")
    known = np.isfinite(a.input) & np.isfinite(b.input)
    left, right = a.input[known], b.input[known]
    if len(left) < 2:
        return Pairing(
            False,
            0,
            None,
            None,
            "Not paired: without input tokens on both sides it is not known whether the prompts are the same.",
        )
    if bool(np.all(left == right)):
        reason = f"Paired by the order of enqueueing: both sides sent {_jobs(len(a))} with equal input tokens."
        return Pairing(True, len(a), "equal", None, reason)
    found = effects.rank_correlation(left, right)
    told = None if np.isnan(found) else round(found, 6)
    if len(left) >= LEAST_RANKED and found >= LEAST_RANK_CORRELATION:
        reason = (
            f"Paired by the order of enqueueing: both sides sent {_jobs(len(a))}; their input tokens differ, as those "
            f"of two tokenizers do, but rank the same (rank correlation {found:.3f}, needed: {LEAST_RANK_CORRELATION})."
        )
        return Pairing(True, len(a), "ranked", told, reason)
    if len(left) < LEAST_RANKED:
        pairs = wording.count(len(left), "pair of input tokens that differs", "pairs of input tokens that differ")
        why = f"{pairs} {wording.agree(len(left), 'is', 'are')} too few (at least {LEAST_RANKED})"
    elif told is None:
        why = "the input tokens are all equal on one side and not on the other"
    else:
        why = f"their input tokens do not match (rank correlation {found:.3f}, needed: {LEAST_RANK_CORRELATION})"
    return Pairing(False, 0, None, told, f"Not paired: both sides sent {_jobs(len(a))}, but {why}.")


def _jobs(count: int) -> str:
    return wording.count(count, "job")


def _usable(a: Side, b: Side, paired: bool, *columns: str) -> tuple[Flags, Flags]:
    """Return which jobs ended well and have all ``columns``; of pairs, which have them on both sides."""
    found = []
    for side in (a, b):
        good = side.ok.copy()
        for name in columns:
            good &= np.isfinite(getattr(side, name))
        found.append(good)
    return (found[0] & found[1],) * 2 if paired else (found[0], found[1])


def _too_few(use: tuple[Flags, Flags]) -> str:
    counts = [int(each.sum()) for each in use]
    if min(counts) >= LEAST_JOBS:
        return ""
    return (
        f"Too few jobs: each side needs {LEAST_JOBS} successful ones with a recorded number above 0, and has "
        f"{counts[0]} and {counts[1]}."
    )


def _row(
    name: str,
    title: str,
    unit: str,
    values: tuple[float | None, float | None],
    effect: Effect | None,
    use: tuple[Flags, Flags],
    note: str = "",
    *,
    kind: str = "ratio",
    words: tuple[str, str] = (MORE, LESS),
    estimated: bool = False,
) -> Row:
    jobs = int(use[0].sum()), int(use[1].sum())
    verdict = _verdict(effect, kind, words)
    return Row(name, title, kind, unit, *values, effect, verdict, estimated, jobs, note)


def _verdict(effect: Effect | None, kind: str, words: tuple[str, str]) -> str:
    if effect is None:
        return UNKNOWN
    nothing = 1.0 if kind == "ratio" else 0.0
    if effect.low <= nothing <= effect.high:
        return NO_DIFFERENCE
    if kind == "ratio" and effect.low > 1 / (1 + SAME_WITHIN) and effect.high < 1 + SAME_WITHIN:
        return SAME
    return words[0] if effect.value > nothing else words[1]


_TOKENS = {"prefilled": "prefilled", "generated": "output"}


def _tokens(a: Side, b: Side) -> list[str]:
    """Return which token counts most good jobs of both sides have, and are not 0 throughout."""
    kept = []
    for name, column in _TOKENS.items():
        values = [getattr(side, column)[side.ok] for side in (a, b)]
        if all(len(v) and np.isfinite(v).mean() >= 0.5 for v in values) and any(np.nansum(v) > 0 for v in values):
            kept.append(name)
    return kept


def _fit(
    a: Side, b: Side, paired: bool, cost: str, tokens: list[str]
) -> tuple[AtEqualTokens | None, dict[str, float], tuple[Flags, Flags], str, str]:
    """Compare a cost at equal tokens: with a constant part where the data tell it apart, else without.

    Returns what was found, the job compared at, the jobs used, what makes it an estimate, and what it allows for.
    """
    use = _usable(a, b, paired, cost, *(_TOKENS[name] for name in tokens))
    few = _too_few(use)
    if few:
        return None, {}, use, few, ""
    laws = [["constant", *tokens], tokens, tokens[-1:]]
    costs = getattr(a, cost)[use[0]], getattr(b, cost)[use[1]]
    for number, law in enumerate(laws):
        designs = (_design(a, use[0], law), _design(b, use[1], law))
        found = effects.at_equal_tokens(designs, costs, paired, LEVEL, _drawn(a, b, use))
        if found is None or found.effect is None:
            continue
        by, why = _allowance(a, b, tokens)
        found = dataclasses.replace(found, effect=found.effect.allowing(by))
        at = {name: value for name, value in zip(law, found.at, strict=True) if name != "constant"}
        without = {1: "of a constant part", 2: f"of anything but {_TOKENS[tokens[-1]]} tokens"}
        note = (
            f"Token counts vary too little to estimate the cost {without[number]}: it is taken as 0." if number else ""
        )
        return found, at, use, note, why
    why = "The token counts of the two sides are too different to estimate what equal jobs would cost."
    return None, {}, use, why, ""


def _drawn(a: Side, b: Side, use: tuple[Flags, Flags]) -> tuple[effects.Drawn, effects.Drawn]:
    """Return when the jobs began and of which bulks they are; a bulk of both sides has one number."""
    names = {name: float(n) for n, name in enumerate(dict.fromkeys((*a.facts.bulks, *b.facts.bulks)))}
    codes = [np.array([names[name] for name in side.facts.bulks] or [0.0]) for side in (a, b)]
    drawn = [
        effects.Drawn(side.started[mask], codes[n][side.bulk[mask].astype(int)])
        for n, (side, mask) in enumerate(zip((a, b), use, strict=True))
    ]
    return drawn[0], drawn[1]


def _allowance(a: Side, b: Side, tokens: Sequence[str] = ()) -> tuple[float, str]:
    """Return by what logarithm the interval of a time is widened each way, and why.

    A host that others use is no property of a side. What its threads lacked is recorded, and explains a time of
    1 / (1 - share); tokens that differ much leave room for a law that is not linear.
    """
    by, whys = 0.0, []
    shares, what = _without_cores(a.facts, b.facts)
    if shares is not None:
        explained = LACKED_WEIGHS * abs(math.log((1 - shares[0]) / (1 - shares[1])))
        if max(shares) >= LACKED:
            explained += math.log1p(LACKED_COSTS)
        if explained > SAME_WITHIN:
            by += explained
            whys.append(f"{what} ({wording.percent(shares[0])} in A, {wording.percent(shares[1])} in B)")
    if any(_apart(a, b, _TOKENS[name]) for name in tokens):
        by += math.log1p(BENT)
        whys.append("different tokens per job")
    if not whys:
        return 0.0, ""
    return by, f"The interval is wider by {math.exp(by):.2f} times each way for {' and '.join(whys)}."


def _without_cores(a: Setting, b: Setting) -> tuple[tuple[float, float] | None, str]:
    """Return the share of time in which each side's threads had no core, by the best record of both, and its name."""
    if a.lacked is not None and b.lacked is not None:
        return (min(a.lacked, _MOST_LACKED), min(b.lacked, _MOST_LACKED)), "time of threads without a core"
    if a.pressure is not None and b.pressure is not None and abs(a.pressure - b.pressure) > PRESSURE_APART:
        return (min(a.pressure, _MOST_LACKED), min(b.pressure, _MOST_LACKED)), "CPU pressure"
    return None, ""


def _apart(a: Side, b: Side, column: str) -> bool:
    """Whether the mean tokens of the sides' good jobs differ by more than TOKENS_APART times."""
    means = [_mean(getattr(side, column)[side.ok]) for side in (a, b)]
    return None not in means and max(means) > TOKENS_APART * min(means)  # type: ignore[type-var,operator]


def _mean(values: Floats) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _design(side: Side, use: Flags, law: list[str]) -> Floats:
    columns = [np.ones(int(use.sum())) if name == "constant" else getattr(side, _TOKENS[name])[use] for name in law]
    return np.column_stack(columns)


def _time(a: Side, b: Side, paired: bool) -> tuple[Row, dict[str, float], Times | None]:
    tokens = _tokens(a, b)
    inferred = all(np.isfinite(side.seconds[side.ok]).any() for side in (a, b))
    if tokens and inferred:
        found, at, use, note, why = _fit(a, b, paired, "seconds", tokens)
        values = (None, None) if found is None else (found.a, found.b)
        effect = None if found is None else found.effect
        title = "inference time per job at equal tokens"
        return _row(
            "time", title, "s", values, effect, use, _both(note, why), words=(SLOWER, FASTER),
            estimated=bool(found and note),
        ), at, None if found is None else Times.of(True, *found.costs)  # fmt: skip
    column = "seconds" if inferred else "process"
    title = "inference time per job" if inferred else "process time per job"
    note = "As measured, not at equal tokens: no tokens were recorded"
    note += "." if inferred else " on both sides, and no inference on one."
    row = _logarithms("time", title, "s", a, b, paired, column, note, words=(SLOWER, FASTER), allowing=True)
    measured = [getattr(side, column)[mask] for side, mask in zip((a, b), _usable(a, b, False, column), strict=True)]
    return row, {}, Times.of(False, measured[0], measured[1])


def _logarithms(
    name: str,
    title: str,
    unit: str,
    a: Side,
    b: Side,
    paired: bool,
    column: str,
    note: str,
    words: tuple[str, str] = (MORE, LESS),
    estimated: bool = False,
    allowing: bool = False,
) -> Row:
    """Make a row of the ratio of geometric means of a positive column, ``allowing`` for what differed."""
    use = _usable(a, b, paired, column)
    positive = [mask & (getattr(side, column) > 0) for side, mask in zip((a, b), use, strict=True)]
    use = (positive[0] & positive[1],) * 2 if paired else (positive[0], positive[1])
    left, right = getattr(a, column)[use[0]], getattr(b, column)[use[1]]
    values = tuple(float(np.exp(np.log(each).mean())) if len(each) else None for each in (left, right))
    few = _too_few(use)
    effect = None if few else effects.of_logarithms(left, right, paired, LEVEL, _drawn(a, b, use))
    if effect is not None and allowing:
        by, why = _allowance(a, b)
        effect, note = effect.allowing(by), _both(note, why)
    return _row(name, title, unit, (values[0], values[1]), effect, use, few or note, words=words, estimated=estimated)


def _both(note: str, why: str) -> str:
    return " ".join(filter(None, (note, why)))


def _rate(time: Row, equal_job: dict[str, float]) -> Row:
    """Tokens per second at equal tokens: the other face of the time, with its verdict; not tested once more."""
    generated = equal_job.get("generated")
    title = "output tokens/s at equal tokens"
    if generated is None or time.effect is None or time.a is None or time.b is None:
        note = time.note if time.effect is None else "No output tokens were recorded."
        return Row("rate", title, "ratio", "1/s", None, None, None, UNKNOWN, False, time.jobs, note)
    verdict = {SLOWER: LESS, FASTER: MORE}.get(time.verdict, time.verdict)
    values = generated / time.a, generated / time.b
    return Row(
        "rate", title, "ratio", "1/s", *values, time.effect.inverse(), verdict, time.estimated, time.jobs,
        "Derived from the inference time.",
    )  # fmt: skip


def _decode(a: Side, b: Side, paired: bool) -> Row:
    title = "decode tokens/s at equal tokens"
    if "generated" not in _tokens(a, b):
        use = _usable(a, b, paired, "decode", "output")
        return _row("decode_rate", title, "1/s", (None, None), None, use, "No output tokens were recorded.")
    found, at, use, note, why = _fit(a, b, paired, "decode", ["generated"])
    if found is None or found.effect is None:
        return _row("decode_rate", title, "1/s", (None, None), None, use, note)
    # The first token is prefill's: of a job of one inference, which the typical job is, as in the report.
    steps = at["generated"] - 1
    values = (steps / found.a, steps / found.b) if steps >= 1 else (None, None)
    return _row(
        "decode_rate", title, "1/s", values, found.effect.inverse(), use, _both(note, why), words=(FASTER, SLOWER),
        estimated=bool(note),
    )  # fmt: skip


def _cpu(a: Side, b: Side, paired: bool) -> Row:
    inexact = any(side.facts.cpu_exact is not None and side.facts.cpu_exact < 1 for side in (a, b))
    tokens = _tokens(a, b)
    if not tokens:
        note = "As measured, not at equal tokens: no tokens were recorded."
        return _logarithms("cpu", "CPU time per job", "s", a, b, paired, "cpu", note, estimated=inexact, allowing=True)
    found, at, use, note, why = _fit(a, b, paired, "cpu", tokens)
    per = at.get("generated", 1.0)
    title = "CPU time per output token at equal tokens" if "generated" in tokens else "CPU time per job at equal tokens"
    if found is None or found.effect is None:
        return _row("cpu", title, "s", (None, None), None, use, note)
    values = found.a / per, found.b / per
    estimated = bool(note) or inexact
    return _row("cpu", title, "s", values, found.effect, use, _both(note, why), estimated=estimated)


def _memory(a: Side, b: Side, paired: bool) -> Row:
    """Compare peaks of RAM of processes that had run no other model, over the same numbers of inferences.

    A process keeps the models that it has loaded, and its heap grows with what it has done: the second of two bulks on
    one worker peaks higher whatever ran there.
    """
    inexact = any(side.facts.memory_exact is not None and side.facts.memory_exact < 1 for side in (a, b))
    recorded = [side.ok & (side.memory > 0) for side in (a, b)]
    alone = [mask & (side.mixed == 0) for side, mask in zip((a, b), recorded, strict=True)]
    use, why = (alone[0], alone[1]), ""
    if min(int(mask.sum()) for mask in recorded) < LEAST_JOBS:
        use = recorded[0], recorded[1]
        why = _too_few(use)
    elif any(not np.isfinite(side.mixed[mask]).any() for side, mask in zip((a, b), recorded, strict=True)):
        use, why = (recorded[0], recorded[1]), "It is not known what the workers had run before."
    elif not all(mask.any() for mask in alone):
        names = " and ".join(name for name, mask in zip("AB", alone, strict=True) if not mask.any())
        why = f"The workers of {names} had run another model before, and keep it: run each model on fresh workers."
    else:
        use, why = _of_one_age(a, b, alone)
    peaks = [_of_processes(side, mask) for side, mask in zip((a, b), use, strict=True)]
    values = tuple(float(np.exp(np.log(each).mean())) if len(each) else None for each in peaks)
    effect = None if why else effects.of_processes(peaks[0], peaks[1], LEVEL)
    left_out = sum(int(mask.sum()) for mask in recorded) - sum(int(mask.sum()) for mask in use)
    note = why or "Geometric mean over the workers' processes of the mean of their jobs' peaks."
    if effect is not None and left_out:
        note += (
            f" {_jobs(left_out)} left out, before which the workers had run another model or another number of jobs."
        )
    return _row("memory", "peak RAM", "By", (values[0], values[1]), effect, use, note, estimated=inexact)


def _of_one_age(a: Side, b: Side, alone: Sequence[Flags]) -> tuple[tuple[Flags, Flags], str]:
    """Return the jobs whose processes had run as many inferences before as some of the other side's, or why none."""
    ages = [side.age[mask] for side, mask in zip((a, b), alone, strict=True)]
    low, high = max(float(each.min()) for each in ages), min(float(each.max()) for each in ages)
    masks = [mask & (side.age >= low) & (side.age <= high) for side, mask in zip((a, b), alone, strict=True)]
    few = min(int(mask.sum()) for mask in masks)
    if few >= LEAST_JOBS:
        return (masks[0], masks[1]), ""
    before = [f"{int(each.min())} to {int(each.max())}" for each in ages]
    why = (
        f"The workers had run {before[0]} inferences before a job of A, {before[1]} before one of B, and a process "
        "grows with what it has done: run each side on fresh workers."
    )
    return (alone[0], alone[1]), why


def _of_processes(side: Side, use: Flags) -> Floats:
    """Return the geometric mean of the peaks of each process (p,)."""
    if not use.any():
        return np.array([])
    _, place = np.unique(side.process_code[use], return_inverse=True)
    means = np.bincount(place, np.log(side.memory[use])) / np.bincount(place)
    found: Floats = np.exp(means)
    return found


def _failures(a: Side, b: Side, paired: bool) -> Row:
    use = (a.final & b.final,) * 2 if paired else (a.final, b.final)
    left, right = ~a.ok[use[0]], ~b.ok[use[1]]
    effect = None
    if min(len(left), len(right)) >= LEAST_JOBS:
        effect = effects.difference_of_shares(left, right, paired, LEVEL)
    note = (
        ""
        if effect
        else f"Too few jobs: each side needs {LEAST_JOBS} that have ended, and has {len(left)} and {len(right)}."
    )
    values = tuple(float(each.mean()) if len(each) else None for each in (left, right))
    return _row("failures", "failed jobs", "share", (values[0], values[1]), effect, use, note, kind="difference")


def _output(a: Side, b: Side, paired: bool) -> Row:
    # Of totals one long answer of a skewed bulk decides, and the interval held the truth in 97 % instead of 99 %.
    note = "Geometric mean over the jobs. The length of the answers does not count as speed."
    return _logarithms("output", "output tokens per job", "1", a, b, paired, "output", note)


def _cautions(a: Side, b: Side) -> tuple[Caution, ...]:
    found: list[Caution] = []

    def say(code: str, text: str) -> None:
        found.append(Caution(code, text))

    for name, side in (("A", a), ("B", b)):
        facts = side.facts
        if facts.ended < facts.sent:
            say("partial", f"{name} is partial: {wording.unended(facts.sent - facts.ended, facts.sent)}.")
        if len(facts.models) > 1:
            say(
                "mixed_models",
                f"{name} mixes {len(facts.models)} models ({', '.join(facts.models)}); add @MODEL to take one.",
            )
        if not facts.models:
            say("no_inferences", f"{name} has no recorded inferences, so there are no numbers on its model.")
        if facts.outside:
            say(
                "outside",
                f"{name}: {wording.count(facts.outside, 'inference')} outside of jobs, not counted.",
            )
        found.extend(_disturbed(name, facts))
    one, other = a.facts, b.facts
    if set(one.bulks) & set(other.bulks) and set(one.models) & set(other.models):
        say("shared_jobs", "A and B share jobs, so they seem more similar than they are.")
    found += _conditions(one, other)
    for column, what in (("input", "input"), ("output", "output")):
        if _apart(a, b, column):
            means = [wording.number(_mean(getattr(side, column)[side.ok]) or 0.0) for side in (a, b)]
            say(
                "tokens",
                f"Different {what} tokens per job: A {means[0]}, B {means[1]}. 'At equal tokens' takes cost as linear.",
            )
    return tuple(found)


def _disturbed(name: str, facts: Setting) -> list[Caution]:
    """Say what disturbed one side by itself: others on its cores, a rate that drifted."""
    found = []
    cores = facts.cores[-1] if facts.cores and len(facts.hosts) == 1 else None
    if facts.lacked is not None and facts.lacked >= LACKED:
        share = wording.percent(facts.lacked)
        if cores is not None and facts.own_cores is not None and facts.own_cores < OWN_CORES * cores:
            text = (
                f"Other programs had the cores in {name}: its inferences got {wording.number(facts.own_cores)} of "
                f"{wording.number(cores)}, and their threads were without one for {share} of the time they could run."
            )
            found.append(Caution("foreign_load", text))
        else:
            text = f"In {name} the inferences' threads were without a core for {share} of the time they could run."
            found.append(Caution("cpu_wait", text))
    if facts.drift is not None and abs(math.log(facts.drift)) > math.log1p(DRIFTED):
        how = "fell" if facts.drift < 1 else "rose"
        text = (
            f"In {name} the decode rate {how} by {wording.percent(abs(facts.drift - 1))} from its first jobs to its "
            "last: something beside the model changed meanwhile."
        )
        found.append(Caution("drift", text))
    return found


def _conditions(a: Setting, b: Setting) -> list[Caution]:
    """Say what beside model and prompts differed between the sides."""
    found: list[Caution] = []

    def differ(code: str, what: str, left: str, right: str, more: str = "") -> None:
        found.append(Caution(code, f"{what}: A {left}, B {right}.{more}"))

    def names(values: Sequence[object]) -> str:
        return ", ".join(map(str, values))

    def far(left: float | None, right: float | None, by: float) -> bool:
        return left is not None and right is not None and abs(left - right) > by

    if a.hosts and b.hosts and a.hosts != b.hosts:
        differ("hosts", "Different hosts", names(a.hosts), names(b.hosts))
    if a.cores and b.cores and a.cores != b.cores:
        cores = [names([wording.number(value) for value in values]) for values in (a.cores, b.cores)]
        differ("cores", "Different numbers of cores a worker may use", *cores)
    if a.workers and b.workers and a.workers != b.workers:
        more = ""
        if a.makespan_s is not None and b.makespan_s is not None:
            took = f"{wording.seconds(a.makespan_s)} and {wording.seconds(b.makespan_s)}"
            more = f" The makespans were {took}; the time per job does not show that."
        differ("workers", "Different numbers of workers", str(a.workers), str(b.workers), more)
    if (a.lacked is None or b.lacked is None) and far(a.pressure, b.pressure, PRESSURE_APART):
        shares = [wording.percent(value or 0.0) for value in (a.pressure, b.pressure)]
        differ("cpu_pressure", "CPU pressure during inferences", *shares)
    if far(a.throttled, b.throttled, THROTTLED_APART):
        shares = [wording.percent(value or 0.0) for value in (a.throttled, b.throttled)]
        differ("throttled", "Time throttled by a CPU quota", *shares)
    together = _together(a, b)
    if together > TOGETHER and set(a.hosts) & set(b.hosts) and not set(a.bulks) & set(b.bulks):
        share = wording.percent(together)
        text = f"Both ran at the same time on one host for {share} of the shorter run, and may have slowed each other."
        found.append(Caution("same_time", text))
    return found


def _together(a: Setting, b: Setting) -> float:
    if a.start_ns is None or a.end_ns is None or b.start_ns is None or b.end_ns is None:
        return 0.0
    shared = min(a.end_ns, b.end_ns) - max(a.start_ns, b.start_ns)
    return max(0, shared) / max(1, min(a.end_ns - a.start_ns, b.end_ns - b.start_ns))


def _answer(a: Side, b: Side, rows: Sequence[Row], cautions: Sequence[Caution]) -> str:
    by = {row.name: row for row in rows}
    time = by["time"]
    so_far = " so far" if any(each.code == "partial" for each in cautions) else ""
    if all(row.effect is None for row in rows):
        return f"No answer{so_far}: {time.note or by['failures'].note}"
    # A decode rate says nothing more where the whole time tells who is faster, and output length speaks for nobody.
    heard = [row for row in rows if row.name != "decode_rate" or time.verdict not in (FASTER, SLOWER)]
    wins = {side: [text for row in heard if (text := _win(row, side))] for side in ("A", "B")}
    names = _names(a, b)
    for name, other in (("A", "B"), ("B", "A")):
        if wins[name] and not wins[other]:
            for_it = f"{_list(wins[name])}; no number favours {other}."
            if _repeated(a, b):
                return f"Take {names[name]}{so_far}: in {_runs(a, b)} it {for_it}"
            return f"In {_runs(a, b)}{so_far} {names[name]} {for_it}"
    if wins["A"]:
        both = f"{names['A']} {_list(wins['A'])}; {names['B']} {_list(wins['B'])}."
        return f"It depends{so_far}: in {_runs(a, b)} {both}"
    text = f"No difference seen{so_far} in {_runs(a, b)} between {names['A']} and {names['B']}"
    if time.verdict == SAME:
        return f"{text}: their time per job is {SAME}."
    if time.effect is None:
        return f"{text}; their inference times are not known: {time.note}"
    return f"{text}: {wording.percent(time.effect.smallest)} more time per job would be detected in 4 of 5 cases."


def _repeated(a: Side, b: Side) -> bool:
    """Whether there are runs enough of each side to recommend one of them."""
    return min(len(a.facts.bulks), len(b.facts.bulks)) >= LEAST_RUNS


def _runs(a: Side, b: Side) -> str:
    one, other = len(a.facts.bulks), len(b.facts.bulks)
    if _repeated(a, b):
        return f"{one} runs a side" if one == other else f"{one} runs of A and {other} of B"
    count = len({*a.facts.bulks, *b.facts.bulks})
    return {1: "this one run", 2: "these two runs"}.get(count, f"these {count} runs")


def _names(a: Side, b: Side) -> dict[str, str]:
    """Return what to call the sides: by their models where these tell them apart, else as they were asked for."""
    one, other = a.facts.models, b.facts.models
    if len(one) == len(other) == 1 and one != other:
        return {"A": f"A ({one[0]})", "B": f"B ({other[0]})"}
    return {"A": f"A ({a.label})", "B": f"B ({b.label})"}


# What makes a side the better one, and whether a high number does. ``times`` is the other side's number over its own.
_BETTER = {
    "time": ("was faster (the other took {times} as long{equal}, {range})", False),
    "decode_rate": ("decoded faster (the other's rate was {times} as high, {range})", True),
    "cpu": ("cost less CPU (the other took {times} as much{equal}, {range})", False),
    "memory": ("needed less RAM (the other {times} as much, {range})", False),
    "failures": ("had fewer failed jobs ({own} against {other})", False),
}


def _win(row: Row, side: str) -> str:
    """Return why ``row`` speaks for ``side``; empty when it does not."""
    effect = row.effect
    if effect is None or row.name not in _BETTER or row.verdict in (NO_DIFFERENCE, SAME):
        return ""
    phrase, high_is_good = _BETTER[row.name]
    b_higher = effect.value > (1 if row.kind == "ratio" else 0)
    if ("B" if b_higher == high_is_good else "A") != side:
        return ""
    own, other = (row.a, row.b) if side == "A" else (row.b, row.a)
    turned = effect if side == "A" or row.kind != "ratio" else effect.inverse()
    return phrase.format(
        times=f"{turned.value:.2f} times",
        range=wording.between(turned.low, turned.high, "{:.2f}".format),
        equal=" at equal tokens" if "at equal tokens" in row.title else "",
        own=wording.percent(own or 0.0),
        other=wording.percent(other or 0.0),
    )


def _list(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]


def to_json(found: Comparison) -> dict[str, Any]:
    """Return plain values with stable keys; absent is null. ``effect`` is of B against A."""
    tree: dict[str, Any] = plain(
        {
            "schema": SCHEMA,
            "answer": found.answer,
            "a": _side(found.a),
            "b": _side(found.b),
            "pairing": dataclasses.asdict(found.pairing),
            "equal_job": found.equal_job,
            "intervals": {"family": FAMILY, "tests": list(TESTS), "each": LEVEL, "method": "Bonferroni"},
            "rows": [dataclasses.asdict(row) | {"jobs": list(row.jobs)} for row in found.rows],
            "times": None if found.times is None else _times(found.times),
            "cautions": [dataclasses.asdict(caution) for caution in found.cautions],
        }
    )
    return tree


def _times(found: Times) -> dict[str, Any]:
    def side(shares: Sequence[float], quantiles: Sequence[float]) -> dict[str, Any]:
        named = {f"p{round(100 * at)}_s": value for at, value in zip(QUANTILES, quantiles, strict=True)}
        return {"share": list(shares), **named}

    return {
        "equal_tokens": found.equal_tokens,
        "edges_s": list(found.edges),
        "a": side(found.a, found.a_quantiles),
        "b": side(found.b, found.b_quantiles),
    }


def _side(side: Side) -> dict[str, Any]:
    facts = dataclasses.asdict(side.facts)
    lists = {name: list(value) for name, value in facts.items() if isinstance(value, tuple)}
    means = {
        f"{name}_tokens_mean": float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else None
        for name, values in (("input", side.input), ("output", side.output))
    }
    return {"label": side.label, **facts, **lists, **means}
