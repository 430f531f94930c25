"""Comparisons of runs: what one run a side can tell, several can, and what disturbs both. RAM of workers with a past.

``recorded/demo.parquet`` is a kept run of the demo: one model seven times, then the other three times, the same 26
prompts on the same two workers, on a machine of two cores that other programs kept busy (load 3 to 16).
What is generated here follows a law of its own in each test.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bulkscope_studio.analysis.compare.compare import NO_DIFFERENCE, SAME, UNKNOWN, Comparison, Row, compare
from bulkscope_studio.analysis.compare.sides import Side, side
from bulkscope_studio.rendering import comparison as rendering
from bulkscope_studio.services.sides import joined, tables
from bulkscope_studio.storage import saved_runs
from bulkscope_studio.storage.saved_runs import Tables
from bulkscope_studio.storage.store import Store
from tests.rows import BEGIN_NS, MIB, SECOND, add, span
from tests.studio.planted import INFERENCES, Law, bulk, table

LAW = Law()
HOUR_NS = 3600 * SECOND


def row(found: Comparison, name: str) -> Row:
    (only,) = (each for each in found.rows if each.name == name)
    return only


def codes(found: Comparison) -> set[str]:
    return {caution.code for caution in found.cautions}


def part(whole: Tables, bulk_id: str) -> Tables:
    kept = {
        name: getattr(whole, name).filter(pc.equal(getattr(whole, name)["bulk_id"], bulk_id))
        for name in ("attempts", "inferences", "requests")
    }
    return Tables(**kept)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Side]:
    db = tmp_path_factory.mktemp("recorded") / "s.duckdb"
    saved_runs.folder(db).mkdir()
    (saved_runs.folder(db) / "demo.parquet").write_bytes(
        (Path(__file__).parent / "recorded" / "demo.parquet").read_bytes()
    )
    whole = saved_runs.load(db, "demo")
    return {name: side(name, part(whole, name)) for name in dict.fromkeys(whole.attempts["bulk_id"].to_pylist())}


def test_two_real_runs_of_one_model_have_no_winner(recorded: dict[str, Side]) -> None:
    pairs = [
        (one, other)
        for one, other in itertools.combinations(recorded.values(), 2)
        if one.facts.models == other.facts.models
    ]
    took = [each.facts.makespan_s for each in recorded.values()]
    assert (len(pairs), max(took) > 5 * min(took)) == (24, True)  # type: ignore[type-var,operator]
    found = [compare(one, other) for one, other in pairs]
    none = [each for each in found if each.answer.startswith("No difference seen in these two runs between")]
    assert len(none) >= 0.95 * len(pairs), [each.answer for each in found if each not in none]
    assert all(codes(each) & {"foreign_load", "cpu_wait"} for each in found)
    for each in found:
        # The second of two bulks peaks higher, whatever ran: no worker was as young again.
        assert row(each, "memory").verdict == UNKNOWN
        assert "on fresh workers" in row(each, "memory").note


def test_two_real_models_on_one_worker_are_not_told_apart_by_which_came_first(recorded: dict[str, Side]) -> None:
    first = next(each for each in recorded.values() if each.facts.models == ("smollm2-135m-q4_1",))
    second = next(each for each in recorded.values() if each.facts.models == ("smollm2-135m-q8_0",))
    there, back = compare(first, second), compare(second, first)
    assert np.nanmax(second.memory) > 1.3 * np.nanmax(first.memory)  # it holds both
    assert row(there, "memory").note.startswith("The workers of B had run another model before, and keep it")
    assert row(back, "memory").note.startswith("The workers of A had run another model before")
    for left, right in zip(there.rows, back.rows, strict=True):
        if left.effect is not None and left.kind == "ratio":
            assert right.effect is not None
            assert left.effect.value == pytest.approx(1 / right.effect.value)
            assert left.effect.low == pytest.approx(1 / right.effect.high)


def worked(store: Store, bulk_id: str, model: str, instance: str, first_s: float, peaks: list[float]) -> None:
    """Store inferences of one process, one a second from ``first_s`` on, with peaks in MiB."""
    rows = []
    for n, peak in enumerate(peaks):
        start = BEGIN_NS + round((first_s + n) * SECOND)
        same: dict[str, Any] = {
            "bulk_id": bulk_id, "job_id": f"{bulk_id}-{instance}-{n}", "trace_id": f"{bulk_id}-{instance}-{n}",
            "service_instance_id": instance, "host_name": "h", "pid": 7,
        }  # fmt: skip
        rows.append(span("CONSUMER", start, start + 9 * SECOND // 10, span_id=f"a{start}{instance}", wait=0.1, **same))
        rows.append(
            span(
                "INTERNAL", start + 1000, start + SECOND // 2, span_id=f"i{start}{instance}", model=model,
                input_tokens=10 + n, output_tokens=5, memory_peak=round(peak * MIB), memory_exact=True, **same,
            )
        )  # fmt: skip
    add(store.connection(), "spans", rows)


def stored(store: Store, name: str) -> Side:
    found = tables(store, name)
    assert found is not None
    return side(name, found)


def grown(first: float, each: float, jobs: int, before: int = 0) -> list[float]:
    return [first + each * (before + n) for n in range(jobs)]


@pytest.mark.parametrize("order", ["A first", "B first"])
def test_ram_is_of_fresh_workers_and_of_workers_as_old(tmp_path: Path, order: str) -> None:
    """Truth: 250 MiB against 300 MiB (1.2 times), and 1 MiB more with each job; a worker keeps what it has loaded."""
    models = {"a": ("m", 250.0), "b": ("n", 300.0)}
    first, second = ("a", "b") if order == "A first" else ("b", "a")
    store = Store(tmp_path / "s.duckdb")
    for worker in ("one", "two"):
        worked(store, f"{first}-old", models[first][0], worker, 0, grown(models[first][1], 1, 10))
        worked(store, f"{second}-old", models[second][0], worker, 100, grown(550, 1, 10, 10))
        worked(store, f"{first}-again", models[first][0], worker, 200, grown(550, 1, 10, 20))
    for name, (model, mib) in models.items():
        for worker in ("three", "four"):
            worked(store, f"{name}-new", model, f"{name}-{worker}", 300, grown(mib, 1, 10))
    fresh = compare(stored(store, "a-new"), stored(store, "b-new"))
    effect = row(fresh, "memory").effect
    assert effect is not None
    assert effect.low < 1.2 < effect.high
    assert effect.low > 1.1
    assert "needed less RAM (the other 1.20 times as much, " in fresh.answer
    mixed = compare(stored(store, "a-old"), stored(store, "b-old"))
    which = "B" if order == "A first" else "A"
    assert row(mixed, "memory").note.startswith(f"The workers of {which} had run another model before")
    assert "RAM" not in mixed.answer
    # The first bulk of a worker and one of another worker with the same model: as old, the same.
    same = compare(stored(store, f"{first}-old"), stored(store, f"{first}-new"))
    assert row(same, "memory").verdict in (NO_DIFFERENCE, SAME)
    store.close()


def test_ram_of_an_unknown_past_is_unknown() -> None:
    old = bulk(LAW, 20, 1, name="a")
    kept = Tables(old.attempts, old.inferences.drop_columns(["process", "ran_before", "ran_other"]), old.requests)
    found = compare(side("a", kept), side("b", bulk(Law(memory=600 * MIB), 20, 2, name="b", model="n")))
    assert row(found, "memory").note == "It is not known what the workers had run before."
    assert row(found, "memory").verdict == UNKNOWN


def with_columns(made: Tables, **columns: Any) -> Tables:
    rows = [
        each | {name: value[n] for name, value in columns.items()} for n, each in enumerate(made.inferences.to_pylist())
    ]
    return dataclasses.replace(made, inferences=table(INFERENCES, rows))


def slowed(made: Tables, factors: np.ndarray[Any, Any]) -> Tables:
    rows = made.inferences.to_pylist()
    return with_columns(
        made,
        seconds=[each["seconds"] * by for each, by in zip(rows, factors, strict=True)],
        decode=[each["decode"] * by for each, by in zip(rows, factors, strict=True)],
    )


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_what_a_foreign_load_explains_is_no_difference(share: float) -> None:
    """Threads of B had no core for a share of the time in which they could run, and took 1 / (1 - share) as long."""
    one, other = bulk(LAW, 40, 1, name="a"), bulk(LAW, 40, 2, name="b", at_ns=BEGIN_NS + HOUR_NS)
    cpu = other.inferences["cpu_time"].to_pylist()
    busy = slowed(other, np.full(40, 1 / (1 - share)))
    busy = with_columns(busy, cpu_wait=[each * share / (1 - share) for each in cpu])
    found = compare(side("a", one), side("b", busy))
    time = row(found, "time")
    assert time.verdict == NO_DIFFERENCE
    assert f"time of threads without a core (0 % in A, {100 * share:.0f} % in B)" in time.note
    assert found.answer.startswith("No difference seen")
    assert codes(found) & {"foreign_load", "cpu_wait"}
    # A model that takes three times as long beside the same load is slower all the same.
    slow = bulk(LAW.times(3 / (1 - share)), 40, 3, name="c", model="n", at_ns=BEGIN_NS + 2 * HOUR_NS)
    cpu = slow.inferences["cpu_time"].to_pylist()
    slow = with_columns(slow, cpu_wait=[each * share / (1 - share) for each in cpu])
    assert row(compare(side("b", busy), side("c", slow)), "time").verdict == "slower"


def test_who_has_the_cores_is_said() -> None:
    """Two workers of one core each got 0.4 of 8 cores, since others had them."""
    made = bulk(LAW, 30, 1, name="a")
    seconds = made.inferences["seconds"].to_pylist()
    made = with_columns(
        made, cpus=[8.0] * 30, cpu_time=[0.2 * each for each in seconds], cpu_wait=[0.8 * each for each in seconds]
    )
    found = compare(side("a", made), side("b", bulk(LAW, 30, 2, name="b", at_ns=BEGIN_NS + HOUR_NS)))
    (caution,) = (each for each in found.cautions if each.code == "foreign_load")
    assert caution.text.startswith("Other programs had the cores in A: its inferences got 0.")
    assert caution.text.endswith("of 8, and their threads were without one for 80 % of the time they could run.")


def test_a_drift_is_said_and_makes_the_interval_wider() -> None:
    one, other = bulk(LAW, 60, 1, name="a"), bulk(LAW, 60, 2, name="b", at_ns=BEGIN_NS + HOUR_NS)
    drifted = slowed(other, np.linspace(0.7, 1.3, 60))
    still, found = compare(side("a", one), side("b", other)), compare(side("a", one), side("b", drifted))
    assert "drift" not in codes(still)
    assert "drift" in codes(found)
    widths = [math.log(effect.high / effect.low) for each in (still, found) if (effect := row(each, "time").effect)]
    shuffled = slowed(other, np.random.default_rng(4).permutation(np.linspace(0.7, 1.3, 60)))
    mixed = row(compare(side("a", one), side("b", shuffled)), "time").effect
    assert mixed is not None
    assert widths[1] > 1.5 * widths[0]
    assert widths[1] > 1.3 * math.log(mixed.high / mixed.low)


@pytest.mark.slow
def test_a_machine_that_drifts_makes_no_winner() -> None:
    """Speed of the machine: a random walk of 8 % a job that returns to its mean within about three jobs."""
    winners = 0
    for draw in range(40):
        sides = []
        for n, name in enumerate("ab"):
            random = np.random.default_rng([5, draw, n])
            level, levels = random.normal(0, 0.08 / math.sqrt(1 - 0.36)), []
            for step in random.normal(0, 0.08, 40):
                level = 0.6 * level + step
                levels.append(level)
            made = bulk(LAW, 40, 2 * draw + n, prompts=draw, name=name, at_ns=BEGIN_NS + n * HOUR_NS)
            sides.append(side(name, slowed(made, np.exp(levels))))
        winners += not compare(*sides).answer.startswith("No difference")
    assert winners <= 4


def test_short_prompts_against_long_ones_are_cautioned() -> None:
    """Attention makes 30 % of the time of a long prompt, which grows with the square of its tokens."""
    winners = 0
    for draw in range(20):
        sides = []
        for n, (name, times) in enumerate((("a", 1.0), ("b", 3.0))):
            made = bulk(Law(tokenizer=times), 100, 2 * draw + n, prompts=2 * draw + n, name=name)
            tokens = np.array(made.inferences["input_tokens"].to_pylist())
            long = slowed(made, 1 + 0.3 * tokens / 400 / (1 + tokens / 400))
            sides.append(side(name, long))
        found = compare(*sides)
        assert "tokens" in codes(found)
        assert "different tokens per job" in row(found, "time").note
        winners += row(found, "time").verdict not in (NO_DIFFERENCE, SAME)
    assert winners <= 2


def runs(law: Law, names: str, apart: float, draw: int, model: str) -> Side:
    """Several bulks of one law, each of which is faster or slower as a whole by a log-normal factor."""
    random = np.random.default_rng([7, draw])
    made = [
        slowed(
            bulk(law, 26, 100 * draw + n, prompts=n, name=name, model=model, at_ns=BEGIN_NS + n * HOUR_NS),
            np.full(26, math.exp(random.normal(0, apart))),
        )
        for n, name in enumerate(names)
    ]
    return side(names, joined(made))


def test_one_run_a_side_tells_of_these_runs_and_three_recommend() -> None:
    one = compare(runs(LAW, "a", 0, 1, "m"), runs(LAW.times(1.5), "b", 0, 2, "n"))
    assert one.answer.startswith("In these two runs A (m) was faster (the other took 1.")
    three = compare(runs(LAW, "abc", 0.03, 1, "m"), runs(LAW.times(1.5), "def", 0.03, 2, "n"))
    assert three.answer.startswith("Take A (m): in 3 runs a side it was faster (the other took 1.")
    two = compare(runs(LAW, "ab", 0.03, 1, "m"), runs(LAW.times(1.5), "cd", 0.03, 2, "n"))
    assert not two.answer.startswith("Take")
    found = {
        "intervals": {"each": 0.99, "family": 0.95, "tests": ["time"]},
        "a": {"bulks": ["a"]},
        "b": {"bulks": ["b"]},
    }
    assert "keep three runs of each" in rendering.method(found)
    assert "over runs" in rendering.method(found | {"a": {"bulks": ["a", "c"]}})


@pytest.mark.slow
def test_runs_that_differ_as_a_whole_are_no_difference_of_the_sides() -> None:
    """Runs differ by 10 %: of one a side nothing can know that, of three a side the interval holds it."""
    held = {1: 0, 3: 0}
    for draw in range(60):
        for count in held:
            sides = [runs(LAW, names[:count], 0.1, 2 * draw + n, "m") for n, names in enumerate(("abc", "def"))]
            effect = row(compare(*sides), "time").effect
            assert effect is not None
            held[count] += effect.low <= 1 <= effect.high
    assert held[3] >= 57
    assert held[1] < 50


def test_models_of_one_bulk_share_its_run() -> None:
    first = bulk(LAW, 30, 1, name="a")
    second = bulk(LAW.times(1.5), 30, 2, name="a", model="n")
    second = dataclasses.replace(
        second,
        attempts=second.attempts.set_column(0, "bulk_id", pa.array(["a"] * 30)),
    )
    one, other = side("a@m", first, "m"), side("a@n", second, "n")
    assert compare(one, other).answer.startswith("In this one run A (m) was faster")
