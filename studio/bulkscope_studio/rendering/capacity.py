"""A system's capacity (the JSON of the API) in words, as terminal text and as markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bulkscope_studio.rendering.output import Output
from bulkscope_studio.text.markdown import bullets, inline, table
from bulkscope_studio.text.wording import (
    ABSENT,
    LEGEND,
    agree,
    between,
    count,
    estimate,
    number,
    percent,
    seconds,
    size,
)

# Share of the best rate: more workers than those that reach it are not worth their memory.
ENOUGH = 0.95
Columns = tuple[str, ...]
LEVELS: Columns = ("slots", "jobs/s", "interval", "tokens/s", "time of an attempt", "measured over", "jobs")
STEPS: Columns = ("step", "workers", "jobs/s", "jobs", "wait p50", "wait p95", "expected p95", "interval")
BULKS: Columns = ("bulk", "slots", "jobs/s", "jobs", "wait p50", "wait p95", "wait mean")

# What a narrow terminal does without, the first of them first.
SPARE = (
    "measured over", "wait mean", "interval", "expected p95", "time of an attempt", "wait p50", "jobs", "tokens/s",
)  # fmt: skip


def text(found: Mapping[str, Any], console: Output) -> None:
    """Print a capacity, or what a sweep found."""
    for title, lines, tables in _parts(found):
        console.print(title, style="bold")
        for line in lines:
            console.print(line)
        for heading, columns, rows in tables:
            spare = [columns.index(name) for name in SPARE if name in columns]
            console.print_table(columns, rows, right=range(1, len(columns)), title=heading, spare=spare)
    console.print(LEGEND)


def markdown(found: Mapping[str, Any]) -> str:
    """Return the same as markdown."""
    out: list[str] = []
    for n, (title, lines, tables) in enumerate(_parts(found)):
        out += ["#" * min(n + 1, 2) + " " + inline(title), "", *bullets(lines), ""]
        for heading, columns, rows in tables:
            out += [f"### {inline(heading)}", "", *table(columns, rows, range(1, len(columns))), ""]
    return "\n".join([*out, LEGEND, ""])


Section = tuple[str, list[str], list[tuple[str, Columns, list[list[str]]]]]


def _parts(found: Mapping[str, Any]) -> Iterator[Section]:
    if "steps" in found:
        yield f"Sweep {found['name']}", [found["recommendation"], *found["notes"]], [("Steps", STEPS, steps(found))]
        found = found["capacity"]
    for pool in found["pools"]:
        tables = [
            (f"By number of concurrency slots: {name(model)}", LEVELS, levels(model))
            for model in pool["models"]
            if model["levels"]
        ]
        if len(pool["bulks"]) > 1:
            tables.append(("Measured by bulk", BULKS, bulks(pool)))
        yield title(pool), sentences(pool), tables


def curve_answer(found: Mapping[str, Any]) -> str:
    """Say in one sentence what a curve (the JSON of the API) tells of today's load, or of the rate asked for."""
    today, target = found["today"], found["asked"]["slo_s"]
    own = next(curve for curve in found["curves"] if curve["asked"])
    slots = _slots(own["places"])
    if own["problem"] is not None:
        return f"Queue waits are not predicted: {own['problem']}."
    keeps = "" if target is None or not own["target_known"] else _keeps(own, target)
    if today["rate_per_s"] is None:
        most = f"{slots} can do {estimate(number(own['most_per_s']))} jobs/s"
        return f"The jobs arrived in a few bursts, which have no steady rate; {keeps or most}."
    at = f"At {number(today['rate_per_s'])} jobs/s ({'as observed' if today['observed'] else 'as asked for'})"
    if today["wait"] is None:
        first = f"{at} more jobs arrive than {slots} can do ({estimate(number(own['most_per_s']))} jobs/s)"
    else:
        first = (
            f"{at} {slots} {agree(own['places'], 'is', 'are')} {percent(today['utilization']['value'])} busy, and "
            f"95 % of the jobs wait less than {_with(today['wait']['p95_s'], seconds)}"
        )
    more = next((curve for curve in found["curves"] if curve["places"] == own["places"] + 1), None)
    second = keeps
    if target is not None and more is not None and more["target_known"] and more["highest_rate_per_s"] is not None:
        second = f"{keeps}, {_slots(more['places'])} up to {number(more['highest_rate_per_s']['value'])}"
    return f"{first}; {second}." if second else f"{first}."


def _keeps(curve: Mapping[str, Any], target: float) -> str:
    """Say up to which rate so many slots keep the target."""
    slots, highest = _slots(curve["places"]), curve["highest_rate_per_s"]
    if highest is None:
        return f"no arrival rate keeps the p95 of the queue wait under {seconds(target)} with {slots}"
    kept = agree(curve["places"], "keeps", "keep")
    return f"{slots} {kept} the p95 of the queue wait under {seconds(target)} up to {_with(highest, number)} jobs/s"


def title(pool: Mapping[str, Any]) -> str:
    """Name a set of workers by its queues."""
    queues = ", ".join(pool["queues"]) or "of unknown name"
    seen = count(pool["workers"], "worker process", "worker processes")
    return (
        f"{agree(len(pool['queues']) or 1, 'Queue', 'Queues')} {queues}: {seen} seen, {_slots(pool['places'])} at last"
    )


def _slots(number_of: int) -> str:
    return count(number_of, "concurrency slot")


def sentences(pool: Mapping[str, Any]) -> list[str]:
    """Say what is sustained, the waits to expect, the best load, what more workers bring, and how many fit."""
    lines = [_rate(model, pool["places"]) for model in pool["models"]]
    lines += list(_waits(pool))
    lines += [line for model in pool["models"] for line in _scaling(model)]
    return [*lines, _memory(pool["memory"]), *pool["notes"]]


def _rate(model: Mapping[str, Any], places: int) -> str:
    now = model["now"]
    if now is None:
        return f"{name(model)}: no job ran with {_slots(places)}."
    beside = " Jobs of other models ran at the same time; each model counts with its share of the slots' time."
    beside = beside if now["mixed"] else ""
    if now["reached"]:
        tokens = "" if now["tokens_per_s"] is None else f", {number(now['tokens_per_s']['value'])} output tokens/s"
        return (
            f"{name(model)}: sustains {_with(now['rate_per_s'], number)} jobs/s with {_slots(places)}"
            f"{tokens}; measured on {count(round(now['completions']), 'job')} that began when no other slot was free."
            f"{beside}"
        )
    bound = "" if not now["lower_bound_per_s"] else f", but at least {number(now['lower_bound_per_s'])} jobs/s"
    ceiling = "" if now["ceiling_per_s"] is None else (
        f"; {estimate(number(now['ceiling_per_s']))} jobs/s if more busy slots do not slow each other"
    )  # fmt: skip
    return (
        f"{name(model)}: the sustained rate with {_slots(places)} is not known ({now['problem']}){bound}{ceiling}."
        f"{beside}"
    )


def _waits(pool: Mapping[str, Any]) -> Iterator[str]:
    f, measured = pool["forecast"], pool["measured_wait"]
    if f["wait"] is None:
        yield f"Queue waits are not predicted: {f['problem'].removesuffix('.')}."
    else:
        source = "the observed rate" if f["observed"] else "the rate asked for"
        yield (
            f"At {number(f['rate_per_s'])} jobs/s ({source}) {_slots(f['places'])} {agree(f['places'], 'is', 'are')} "
            f"{percent(f['utilization']['value'])} busy; expected queue wait: {_of(f['wait'])}."
        )
        missed = [condition["text"] for condition in f["conditions"] if not condition["holds"]]
        if missed:
            yield "Simulated, because the formula (Erlang C) does not apply: " + "; ".join(missed) + "."
        if f["other"] is not None:
            yield f"The other method gives another answer, and the intervals do not overlap: {_of(f['other'])}."
    if measured is not None and f["observed"]:
        yield (
            f"Measured queue wait of {count(measured['jobs'], 'job')}: p50 {seconds(measured['p50_s'])}, "
            f"p95 {seconds(measured['p95_s'])}, mean {seconds(measured['mean_s'])}."
        )
    if (best := pool["highest_rate"]) is not None:
        goal = f"{percent(best['quantile'])} of the queue waits under {seconds(best['slo_s'])}"
        if best["rate_per_s"] is None:
            yield f"No arrival rate keeps {goal} with {_slots(best['places'])}."
        else:
            yield (
                f"Up to {_with(best['rate_per_s'], number)} jobs/s {_slots(best['places'])} "
                f"{agree(best['places'], 'keeps', 'keep')} {goal} "
                f"(simulated; {percent(best['utilization'])} busy)."
            )


def _of(wait: Mapping[str, Any]) -> str:
    parts = (
        f"{name} {_with(wait[key], seconds)}" for name, key in (("p50", "p50_s"), ("p95", "p95_s"), ("mean", "mean_s"))
    )
    how = {"formula": "by the formula Erlang C", "simulation": "simulated"}[wait["method"]]
    return ", ".join(parts) + f" ({how})"


def enough(levels: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the level with the fewest slots that does ``ENOUGH`` of the best rate, and the best; all have a rate."""
    best = max(levels, key=lambda level: level["rate_per_s"]["value"])
    return next(x for x in levels if x["rate_per_s"]["value"] >= ENOUGH * best["rate_per_s"]["value"]), best


def _scaling(model: Mapping[str, Any]) -> Iterator[str]:
    found = model["scaling"]
    if found is None or (found["kind"] == "bounds" and len(found["counts"]) < 2):
        return
    if found["kind"] == "bounds":
        most = found["ceilings"][-1]
        chosen, best = enough([level for level in model["levels"] if level["rate_per_s"] is not None])
        fewer = ""
        if chosen is not best:
            fewer = f"; {number(chosen['rate_per_s']['value'])} jobs/s with {_slots(chosen['places'])}"
        yield (
            f"{name(model)}: the highest of {len(found['counts'])} measured rates is {number(found['best_per_s'])} "
            f"jobs/s with {_slots(found['best_count'])}{fewer}; {_slots(most['places'])} can do at most "
            f"{estimate(number(most['most_per_s']))} jobs/s{_cores(model, most)}. A scaling curve needs "
            "five numbers of slots."
        )
        return
    peak, top = found["peak_places"], found["peak_per_s"]
    where = "it has no peak" if peak["value"] is None else f"its peak is at {_with(peak, number)} slots"
    beyond = " (extrapolated beyond what was measured)" if found["extrapolated"] else ""
    yield (
        f"{name(model)}: universal scalability law, λ {_with(found['lambda_per_s'], number)} jobs/s, "
        f"σ {_with(found['sigma'], number)}, κ {_with(found['kappa'], number)}; {where}{beyond}, "
        f"with {_with(top, number)} jobs/s."
    )


def _cores(model: Mapping[str, Any], most: Mapping[str, Any]) -> str:
    return f", limited by {count(model['cores'], 'core')}" if most["by_cores"] else ""


def _memory(memory: Mapping[str, Any]) -> str:
    own = memory["limits"] > 1
    fit = memory["workers_per_limit"] if own else memory["workers_that_fit"]
    if fit is None:
        return "How many workers fit into memory is not known: no inference recorded its memory and a memory limit."
    shared = f", and {size(memory['shared_bytes'])} that they share" if memory["shared_bytes"] else ""
    workers = count(fit, "worker fits", "workers fit") if fit else "No worker fits"
    each, limit = size(memory["per_worker_bytes"]), size(memory["limit_bytes"])
    if not own:
        return f"{workers} into {limit} of memory: {each} a worker{shared}."
    whole = memory["workers_that_fit"]
    hosts = "" if whole is None else f" Their hosts hold {whole:,} in all."
    return f"{workers} into each of {memory['limits']:,} memory limits of {limit}: {each} a worker{shared}.{hosts}"


def levels(model: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of ``LEVELS``."""
    rows = []
    for level in model["levels"]:
        rate = level["rate_per_s"]
        bound = level["lower_bound_per_s"]
        rows.append(
            [
                str(level["places"]),
                number(rate["value"]) if rate else ABSENT if not bound else f"≥ {number(bound)}",
                interval(rate, number) if rate else "not reached",
                ABSENT if level["tokens_per_s"] is None else number(level["tokens_per_s"]["value"]),
                seconds(level["service_s"]),
                seconds(level["saturated_s"]),
                f"{level['attempts']:,}",
            ]
        )
    return rows


def bulks(pool: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of ``BULKS``."""
    return [
        [
            bulk["id"], str(bulk["places"]), "at once" if bulk["rate_per_s"] is None else number(bulk["rate_per_s"]),
            f"{bulk['jobs']:,}",
            *(ABSENT if bulk["wait"] is None else seconds(bulk["wait"][key]) for key in ("p50_s", "p95_s", "mean_s")),
        ]
        for bulk in pool["bulks"]
    ]  # fmt: skip


def steps(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of ``STEPS``."""
    rows = []
    for step in found["steps"]:
        wait, expected = step["wait"], step["expected_p95_s"]
        rows.append(
            [
                step["bulk"], str(step["workers"]),
                "at once" if step["rate_per_s"] is None else number(step["rate_per_s"]), f"{step['jobs']:,}",
                *(ABSENT if wait is None else seconds(wait[key]) for key in ("p50_s", "p95_s")),
                ABSENT if expected is None or expected["value"] is None else seconds(expected["value"]),
                "" if expected is None else interval(expected, seconds),
            ]
        )  # fmt: skip
    return rows


def name(model: Mapping[str, Any]) -> str:
    """Return what a pool's jobs of one model are called."""
    return model["model"] or "Jobs without a recorded inference"


def _with(found: Mapping[str, Any], words: Callable[[float], str]) -> str:
    value = "∞" if found["value"] is None else words(found["value"])
    return value + (f" [{ends}]" if (ends := interval(found, words)) not in ("", value) else "")


def interval(found: Mapping[str, Any], words: Callable[[float], str]) -> str:
    """Return the ends of an estimate's interval, empty where neither is known."""
    if found["low"] is None and found["high"] is None:
        return ""
    low, high = (math.inf if found[end] is None else found[end] for end in ("low", "high"))
    return between(low, high, lambda value: words(value) if math.isfinite(value) else "∞")
