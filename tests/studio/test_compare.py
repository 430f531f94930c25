"""Comparisons against effects that were planted, and what they must not change with."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from bulkscope_studio.analysis.compare import effects
from bulkscope_studio.analysis.compare.compare import NO_DIFFERENCE, SAME, UNKNOWN, Comparison, Row, compare, to_json
from bulkscope_studio.analysis.compare.sides import side
from bulkscope_studio.cli import compare as commands
from bulkscope_studio.server import api
from bulkscope_studio.services import comparisons
from bulkscope_studio.services.sides import StoredSides
from bulkscope_studio.storage import views
from bulkscope_studio.storage.saved_runs import Tables
from bulkscope_studio.storage.store import Store
from tests.chance import draws
from tests.rows import BEGIN_NS, SECOND
from tests.studio.planted import ATTEMPTS, INFERENCES, Law, bulk, table
from tests.studio.sample import fill
from tests.studio.serving import studio

DRAWS = 60
LAW = Law()


def sides_of(a: Law, b: Law, draw: int, paired: bool, jobs: int = 26, **more: Any) -> Comparison:
    one = bulk(a, jobs, 2 * draw, prompts=2 * draw, name="a", **more)
    other = bulk(b, jobs, 2 * draw + 1, prompts=2 * draw if paired else 2 * draw + 1, name="b", model="n", **more)
    return compare(side("a", one), side("b", other))


def row(found: Comparison, name: str) -> Row:
    (only,) = (each for each in found.rows if each.name == name)
    return only


def test_rank_correlation_against_scipy() -> None:
    random = np.random.default_rng(3)
    a, b = random.integers(0, 9, 50).astype(float), random.integers(0, 9, 50).astype(float)
    assert effects.rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_differences_of_shares_are_those_that_newcombe_printed() -> None:
    def column(*counts: tuple[bool, int]) -> Any:
        return np.concatenate([np.full(count, value) for value, count in counts])

    two = effects.difference_of_shares(column((True, 48), (False, 32)), column((True, 56), (False, 14)), False, 0.95)
    assert two is not None
    assert (two.low, two.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    pairs = column((True, 36), (False, 12), (True, 2)), column((True, 48), (False, 2))
    of_pairs = effects.difference_of_shares(*pairs, True, 0.95)
    assert of_pairs is not None
    assert (of_pairs.low, of_pairs.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_a_fit_without_noise_gives_the_law_itself() -> None:
    found = compare(
        side("a", bulk(Law(noise=0), 20, 1, name="a")),
        side("b", bulk(Law(0.02, 0.008, 0.01, noise=0), 20, 2, name="b", model="n")),
    )
    job = found.equal_job
    cost = [0.02 + p * job["prefilled"] + d * job["generated"] for p, d in ((0.004, 0.02), (0.008, 0.01))]
    time = row(found, "time")
    assert (time.a, time.b) == pytest.approx(cost, rel=1e-6)
    assert time.effect is not None
    assert time.effect.value == pytest.approx(cost[1] / cost[0], rel=1e-6)
    decode = row(found, "decode_rate")
    # All tokens take as long here, and decode yields all but the first.
    share = 1 - 1 / job["generated"]
    assert (decode.a, decode.b) == pytest.approx((50 * share, 100 * share), rel=1e-6)


def test_times_are_spread_as_the_law_says_once_tokens_are_equal() -> None:
    """Half of A's answers are short; at equal tokens all that is left is the noise, and B's times are 1.5 times A's."""
    found = compare(
        side("a", bulk(Law(noise=0.1), 400, 1, name="a", skew=1.5)),
        side("b", bulk(Law(noise=0.1).times(1.5), 400, 2, name="b", model="n", skew=1.5)),
    )
    times = found.times
    assert times is not None
    assert times.equal_tokens
    assert len(times.edges) == len(times.a) + 1 == len(times.b) + 1 == 41
    assert sum(times.a) == pytest.approx(1)
    assert sum(times.b) == pytest.approx(1)
    assert np.ptp(np.diff(np.log(times.edges))) == pytest.approx(0, abs=1e-9)
    time = row(found, "time")
    assert time.a is not None
    assert times.a_quantiles[2] == pytest.approx(time.a, rel=0.03)
    assert times.b_quantiles[2] / times.a_quantiles[2] == pytest.approx(1.5, rel=0.05)
    # A noise of 10 %: half of the jobs within 0.67 of that.
    for quantiles in (times.a_quantiles, times.b_quantiles):
        assert quantiles[3] / quantiles[1] == pytest.approx(np.exp(2 * 0.6745 * 0.1), rel=0.05)
    middles = np.sqrt(np.array(times.edges[:-1]) * times.edges[1:])
    assert np.exp(np.sum(times.a * np.log(middles))) == pytest.approx(time.a, rel=0.03)
    told = to_json(found)["times"]
    assert told["edges_s"] == list(times.edges)
    assert told["b"]["p95_s"] == times.b_quantiles[4]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_times_without_tokens_or_all_alike_are_spread_too() -> None:
    alike = compare(side("a", bulk(Law(noise=0), 20, 1, name="a")), side("b", bulk(Law(noise=0), 20, 2, name="b")))
    assert alike.times is not None
    assert max(alike.times.a) == max(alike.times.b) == 1
    same = bulk(LAW, 20, 1, name="a")
    assert compare(side("a", same), side("a", same)).times is None


TRUTHS = {"time": 1.0, "rate": 1.0, "decode_rate": 1.0, "cpu": 1.0, "memory": 1.0, "failures": 0.0, "output": 1.0}
SLOWER = TRUTHS | {"time": 1.5, "rate": 1 / 1.5, "decode_rate": 1 / 1.5, "cpu": 1.5}


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
@pytest.mark.parametrize(
    ("b", "truth", "more"),
    [
        pytest.param(LAW, TRUTHS, {}, id="same"),
        pytest.param(LAW, TRUTHS, {"jobs": 8}, id="same, 8 jobs"),
        pytest.param(LAW, TRUTHS, {"skew": 1.5}, id="same, skewed tokens"),
        pytest.param(Law(noise=0.3), TRUTHS, {}, id="same, much noise on one side"),
        pytest.param(LAW.times(1.5), SLOWER, {}, id="1.5 times slower"),
        pytest.param(LAW.times(1.5), SLOWER, {"skew": 1.5}, id="1.5 times slower, skewed tokens"),
        pytest.param(
            Law(length=3), {n: v for n, v in TRUTHS.items() if n != "output"}, {}, id="answers 3 times as long"
        ),
    ],
)
def test_intervals_hold_what_was_planted(b: Law, truth: dict[str, float], more: dict[str, Any], paired: bool) -> None:
    held = dict.fromkeys(truth, 0)
    all_held = 0
    for draw in range(DRAWS):
        found = sides_of(LAW, b, draw, paired, **more)
        assert found.pairing.paired is paired
        inside = {}
        for name, value in truth.items():
            effect = row(found, name).effect
            assert effect is not None
            inside[name] = effect.low <= value <= effect.high
            held[name] += inside[name]
        all_held += all(inside.values())
    assert min(held.values()) >= 0.9 * DRAWS, held
    # Six intervals at once: this is what the family's level promises.
    assert all_held >= 0.9 * DRAWS


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
def test_chance_is_not_taken_for_a_difference_and_a_difference_not_for_chance(paired: bool) -> None:
    nothing = [sides_of(LAW, LAW, draw, paired) for draw in range(DRAWS)]
    quiet = sum(all(each.verdict in (NO_DIFFERENCE, SAME) for each in found.rows) for found in nothing)
    assert quiet >= 0.9 * DRAWS
    assert sum(found.answer.startswith("No difference seen") for found in nothing) >= 0.9 * DRAWS
    slower = [sides_of(LAW, LAW.times(1.5), draw, paired) for draw in range(DRAWS)]
    assert all(row(found, "time").verdict == "slower" for found in slower)
    assert all(row(found, "rate").verdict == "less" for found in slower)
    assert all(
        found.answer.startswith(
            ("In these two runs A (m) was faster", "It depends: in these two runs A (m) was faster")
        )
        for found in slower
    )


@pytest.mark.slow
def test_the_smallest_difference_is_seen_about_four_times_in_five() -> None:
    smallest = np.median([row(sides_of(LAW, LAW, d, True), "time").effect.smallest for d in range(20)])  # type: ignore[union-attr]
    seen = sum(
        row(sides_of(LAW, LAW.times(1 + float(smallest)), draw, True), "time").verdict == "slower"
        for draw in range(DRAWS)
    )
    assert 0.65 * DRAWS <= seen <= 0.97 * DRAWS


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
def test_longer_answers_do_not_pass_for_speed(paired: bool) -> None:
    found = sides_of(LAW, Law(length=3), 1, paired, jobs=60)
    assert row(found, "output").verdict == "more"
    assert row(found, "time").verdict == NO_DIFFERENCE
    # The raw rate of B is higher, since a longer answer spreads the prefill over more tokens.
    raw = [np.nansum(each.output) / np.nansum(each.seconds) for each in (found.a, found.b)]
    assert raw[1] > 1.1 * raw[0]
    assert row(found, "rate").verdict == NO_DIFFERENCE
    assert found.answer.startswith("No difference seen")


def test_another_tokenizer_is_paired_by_the_order_of_lengths() -> None:
    found = sides_of(LAW, Law(tokenizer=1.3), 1, True)
    assert (found.pairing.paired, found.pairing.tokens) == (True, "ranked")
    assert "two tokenizers" in found.pairing.reason


def test_memory_and_failures_speak_for_a_side() -> None:
    found = sides_of(Law(failures=0.5), dataclasses.replace(LAW, memory=2 * LAW.memory), 3, True, jobs=60)
    assert row(found, "failures").verdict == "less"
    assert row(found, "memory").verdict == "more"
    assert found.answer.startswith("It depends: in these two runs A (m) needed less RAM")
    assert "B (n) had fewer failed jobs (0 % against " in found.answer


def numbers(found: Comparison) -> list[dict[str, Any]]:
    return to_json(found)["rows"]  # type: ignore[no-any-return]


def shuffled(tables: Tables, seed: int) -> Tables:
    def mixed(each: pa.Table) -> pa.Table:
        return each.take(np.random.default_rng(seed).permutation(len(each)))

    return Tables(mixed(tables.attempts), mixed(tables.inferences), mixed(tables.requests))


@draws(15)
@given(seed=st.integers(0, 10**6), later=st.integers(0, 10**6), paired=st.booleans())
def test_order_of_rows_and_time_of_day_change_nothing(seed: int, later: int, paired: bool) -> None:
    one = bulk(LAW, 20, 1, name="a")
    other = bulk(LAW.times(1.2), 20, 2, prompts=0 if paired else 1, name="b", model="n")
    plain = compare(side("a", one), side("b", other))
    mixed = compare(side("a", shuffled(one, seed)), side("b", shuffled(other, seed + 1)))
    assert to_json(mixed) == to_json(plain)
    moved = bulk(LAW, 20, 1, name="a", at_ns=BEGIN_NS + later * SECOND)
    assert numbers(compare(side("a", moved), side("b", other))) == numbers(plain)


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
def test_swapping_the_sides_turns_every_effect_around(paired: bool) -> None:
    one = side("a", bulk(Law(failures=0.2), 40, 1, name="a"))
    other = side("b", bulk(LAW.times(1.4), 40, 2, prompts=0 if paired else 1, name="b", model="n"))
    there, back = compare(one, other), compare(other, one)
    turned = {"more": "less", "less": "more", "faster": "slower", "slower": "faster"}
    for left, right in zip(there.rows, back.rows, strict=True):
        assert (left.a, left.b) == pytest.approx((right.b, right.a))
        assert right.verdict == turned.get(left.verdict, left.verdict)
        assert left.effect is not None
        assert right.effect is not None
        value, low, high = right.effect.value, right.effect.low, right.effect.high
        inverse = (1 / value, 1 / high, 1 / low) if left.kind == "ratio" else (-value, -high, -low)
        assert (left.effect.value, left.effect.low, left.effect.high) == pytest.approx(inverse)
        assert left.effect.smallest == pytest.approx(right.effect.smallest)


def edited(tables: Tables, name: str, change: Callable[[int, dict[str, Any]], dict[str, Any] | None]) -> Tables:
    types = {"attempts": ATTEMPTS, "inferences": INFERENCES}[name]
    rows = [change(n, row) for n, row in enumerate(getattr(tables, name).to_pylist())]
    made = table(types, [row for row in rows if row is not None])
    return dataclasses.replace(tables, **{name: views.decided(made) if name == "attempts" else made})


def test_a_retried_job_counts_by_its_last_attempt() -> None:
    plain = bulk(LAW, 10, 1, name="a")
    (first,) = plain.attempts.slice(0, 1).to_pylist()
    (inference,) = plain.inferences.slice(0, 1).to_pylist()
    tried = first | {
        "start_ns": first["start_ns"] - 5 * SECOND,
        "end_ns": first["start_ns"] - SECOND,
        "retried": True,
        "ok": False,
    }
    slow = inference | {"start_ns": tried["start_ns"] + 1, "seconds": 4.0, "span_id": "again", "input_tokens": 9999}
    attempts = [tried, *plain.attempts.to_pylist()]
    attempts[1] = attempts[1] | {"attempt": 2, "enqueue_ns": tried["end_ns"]}
    inferences = table(INFERENCES, [slow, *plain.inferences.to_pylist()])
    tables = Tables(views.decided(table(ATTEMPTS, attempts)), inferences, plain.requests)
    wanted, found = side("a", plain), side("a", tables)
    assert found.facts.sent == 10
    assert found.facts.failed == 0
    for name in ("seconds", "input", "output", "cpu", "ok"):
        assert list(getattr(found, name)) == list(getattr(wanted, name))


def test_a_model_answers_for_its_own_inferences_only() -> None:
    first = bulk(LAW, 10, 1, name="a")
    second = edited(first, "inferences", lambda n, row: row | {"model": "n", "span_id": f"n{n}", "ok": n > 2})
    both = dataclasses.replace(first, inferences=pa.concat_tables([first.inferences, second.inferences]))
    assert side("a@m", both, "m").facts.failed == 0
    assert side("a@n", both, "n").facts.failed == 3
    assert list(side("a@m", both, "m").seconds) == list(side("a", first).seconds)


def reason(a: Tables, b: Tables) -> str:
    found = compare(side("a", a), side("b", b)).pairing
    assert not found.paired
    return found.reason


def test_what_is_not_paired_says_why() -> None:
    plain = bulk(LAW, 20, 1, name="a")
    assert "A has 20 jobs, B 12" in reason(plain, bulk(LAW, 12, 2, name="b"))
    assert "do not match" in reason(plain, bulk(LAW, 20, 2, prompts=5, name="b"))
    untold = edited(bulk(LAW, 20, 2, name="b"), "inferences", lambda _, row: row | {"input_tokens": None})
    assert "without input tokens" in reason(plain, untold)
    few = bulk(LAW, 3, 1, name="a"), bulk(Law(tokenizer=2), 3, 2, name="b")
    assert "too few" in reason(*few)
    alike = edited(bulk(LAW, 20, 2, name="b"), "inferences", lambda _, row: row | {"input_tokens": 50})
    assert "all equal on one side" in reason(plain, alike)


def codes(found: Comparison) -> list[str]:
    return [caution.code for caution in found.cautions]


def test_sides_without_inferences_are_compared_by_their_process_times() -> None:
    one, other = bulk(LAW, 30, 1, name="a"), bulk(LAW.times(2), 30, 2, name="b", model="n")
    bare = dataclasses.replace(other, inferences=other.inferences.slice(0, 0))
    found = compare(side("a", one), side("b", bare))
    time = row(found, "time")
    assert time.title == "process time per job"
    assert time.verdict == "slower"
    assert "no_inferences" in codes(found)
    assert row(found, "memory").verdict == UNKNOWN
    assert row(found, "rate").effect is None
    assert "equal tokens" not in found.answer


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_few_jobs_give_no_verdict(count: int) -> None:
    found = compare(side("a", bulk(LAW, count, 1, name="a")), side("b", bulk(LAW.times(3), count, 2, name="b")))
    assert all(each.verdict == UNKNOWN for each in found.rows)
    assert found.answer.startswith("No answer: Too few jobs: each side needs 8 ")
    json.dumps(to_json(found), allow_nan=False)


def test_zero_tokens_and_lengths_that_never_vary() -> None:
    def silent(_: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"output_tokens": 0}

    none = compare(
        side("a", edited(bulk(LAW, 20, 1, name="a"), "inferences", silent)),
        side("b", edited(bulk(LAW.times(2), 20, 2, name="b", model="n"), "inferences", silent)),
    )
    assert list(none.equal_job) == ["prefilled"]
    assert row(none, "time").effect is not None
    assert row(none, "output").effect is None
    json.dumps(to_json(none), allow_nan=False)

    def fixed(tokens: int) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
        def change(_: int, row: dict[str, Any]) -> dict[str, Any]:
            cost = 0.004 * (row["input_tokens"] - row["cached_tokens"]) + 0.02 * tokens
            return row | {"output_tokens": tokens, "seconds": cost, "decode": 0.02 * tokens}

        return change

    # Of answers that are all as long as their limit the constant part cannot be told: it is taken as none, marked.
    found = compare(
        side("a", edited(bulk(LAW, 20, 1, name="a"), "inferences", fixed(64))),
        side("b", edited(bulk(LAW, 20, 2, name="b", model="n"), "inferences", fixed(128))),
    )
    time = row(found, "time")
    assert time.estimated
    assert "constant part" in time.note
    assert time.effect is not None
    assert time.effect.value == pytest.approx(1, abs=1e-6)
    assert row(found, "output").effect.value == pytest.approx(2)  # type: ignore[union-attr]


def test_without_an_id_each_attempt_is_a_job_and_no_inference_is_its_own() -> None:
    def nameless(n: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"job_id": None} if n < 5 else row

    tables = edited(edited(bulk(LAW, 20, 1, name="a"), "attempts", nameless), "inferences", nameless)
    facts = side("a", tables).facts
    assert (facts.sent, facts.ended, facts.outside) == (20, 20, 5)


def test_inferences_without_a_queue_are_jobs_of_their_own() -> None:
    def free(_: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"job_id": None}

    tables = [
        edited(bulk(law, 20, n, name=str(n), workers=1), "inferences", free) for n, law in ((1, LAW), (2, LAW.times(2)))
    ]
    bare = [dataclasses.replace(each, attempts=each.attempts.slice(0, 0)) for each in tables]
    found = compare(side("a", bare[0]), side("b", bare[1]))
    assert found.pairing.paired
    assert row(found, "time").verdict == "slower"
    assert compare(side("a", tables[0]), side("b", bare[1])).a.facts.outside == 20


def test_the_same_jobs_twice_are_no_comparison() -> None:
    one = bulk(LAW, 10, 1)
    found = compare(side("b", one), side("b@m", one, "m"))
    assert found.rows == ()
    assert "nothing to compare" in found.answer


def test_other_conditions_are_cautioned() -> None:
    def elsewhere(_: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"host_name": "other"}

    def squeezed(_: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"host_name": "other", "cpus": 8.0, "cpu_pressure": 0.5, "cpu_throttled": row["seconds"] / 2}

    one = bulk(LAW, 20, 1, name="a")
    other = edited(edited(bulk(LAW, 20, 2, name="b", workers=4), "attempts", elsewhere), "inferences", squeezed)
    found = compare(side("a", one), side("b", other))
    assert set(codes(found)) == {"hosts", "cores", "workers", "throttled"}
    unmeasured = [edited(each, "inferences", lambda _, row: row | {"cpu_wait": None}) for each in (one, other)]
    assert "cpu_pressure" in codes(compare(side("a", unmeasured[0]), side("b", unmeasured[1])))
    at_once = compare(side("a", one), side("b", bulk(LAW, 20, 2, name="b")))
    assert codes(at_once) == ["same_time"]
    later = compare(side("a", one), side("b", bulk(LAW, 20, 2, name="b", at_ns=BEGIN_NS + 3600 * SECOND)))
    assert codes(later) == []


def test_cores_are_told_by_utilisation_where_the_resource_does_not() -> None:
    tables = edited(
        bulk(LAW, 10, 1), "inferences",
        lambda _, row: row | {"cpus": None, "cpu_time": row["seconds"] * 3, "cpu_utilization": 0.75},
    )  # fmt: skip
    assert side("a", tables).facts.cores == (4.0,)


def test_a_running_bulk_is_partial_and_says_so() -> None:
    def open_end(n: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | ({"end_ns": None, "ok": None, "retried": None} if n >= 15 else {})

    running = edited(bulk(LAW.times(2), 20, 2, name="b", at_ns=BEGIN_NS + 3600 * SECOND), "attempts", open_end)
    found = compare(side("a", bulk(LAW, 20, 1, name="a")), side("b", running))
    assert [caution.text for caution in found.cautions] == ["B is partial: 5 of 20 jobs have not ended."]
    assert " so far" in found.answer
    assert row(found, "time").jobs == (15, 15)


def test_the_json_keeps_its_keys() -> None:
    found = json.loads(json.dumps(to_json(sides_of(LAW, LAW.times(2), 1, True)), allow_nan=False))
    assert found["schema"] == "bulkscope.compare/1"
    assert list(found) == [
        "schema",
        "answer",
        "a",
        "b",
        "pairing",
        "equal_job",
        "intervals",
        "rows",
        "times",
        "cautions",
    ]
    assert [each["name"] for each in found["rows"]] == [
        "time", "rate", "decode_rate", "cpu", "memory", "failures", "output",
    ]  # fmt: skip
    for each in found["rows"]:
        assert list(each) == [
            "name", "title", "kind", "unit", "a", "b", "effect", "verdict", "estimated", "jobs", "note",
        ]  # fmt: skip
        assert list(each["effect"]) == ["value", "low", "high", "smallest"]
        assert all(math.isfinite(value) for value in each["effect"].values())
    assert list(found["pairing"]) == ["paired", "pairs", "tokens", "rank_correlation", "reason"]
    assert list(found["a"]) == [
        "label", "bulks", "models", "sent", "ended", "failed", "workers", "hosts", "cores", "pressure", "throttled",
        "lacked", "own_cores", "drift", "cpu_exact", "memory_exact",
        "memory_peak_bytes", "start_ns", "end_ns", "makespan_s", "outside",
        "input_tokens_mean", "output_tokens_mean",
    ]  # fmt: skip


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "s.duckdb"
    store = Store(path)
    fill(store.connection(), start_ns=BEGIN_NS)
    store.connection().execute(
        "INSERT INTO spans BY NAME SELECT * REPLACE ('team@x/1' AS bulk_id, CASE WHEN model IS NULL THEN NULL WHEN"
        " right(job_id, 1) < '5' THEN 'a@b' ELSE 'c' END AS model) FROM spans WHERE bulk_id = 'sample-001'"
    )
    store.close()
    return path


def run(*words: str, db: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = commands.command([*words, "--db", str(db)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_file_and_running_studio_say_the_same(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        ("sample-001", "latest", "--format", "json"),
        ("team@x/1@a@b", "sample-002", "--format", "json"),
        ("team@x/1", "--models", "--format", "json"),
        ("sample-001", "sampel-002"),
        ("sample-001@nobody", "sample-002"),
        ("sample-001", "--models"),
        ("sample-001", "sample-002", "--models"),
        ("sample-001",),
    ]
    from_file = [run(*words, db=db, capsys=capsys) for words in asked]
    with studio(db, "--no-host", "--retention", "9000d"):
        assert [run(*words, db=db, capsys=capsys) for words in asked] == from_file
    assert [code for code, _, _ in from_file] == [0, 0, 0, 2, 2, 2, 2, 0]
    first, second, third = (json.loads(out) for _, out, _ in from_file[:3])
    assert (first["a"]["models"], first["b"]["bulks"]) == (["smollm2-135m-q4_1"], ["sample-002"])
    assert second["a"]["models"] == ["a@b"]
    assert (third["a"]["label"], third["b"]["label"]) == ("team@x/1@a@b", "team@x/1@c")
    errors = [err for _, _, err in from_file[3:]]
    assert "no bulk or run 'sampel-002'" in errors[0]
    assert "Nearest: sample-002" in errors[0]
    assert "no model in 'sample-001': 'nobody'" in errors[1]
    assert "smollm2-135m-q4_1" in errors[1]
    assert "has not two models but 1: smollm2-135m-q4_1" in errors[2]
    assert "name one" in errors[3]
    # One side is held against the newest bulk.
    with_latest = run("sample-001", "latest", db=db, capsys=capsys)
    assert from_file[7] == with_latest


def test_text_and_markdown_begin_with_the_answer(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("sample-001", "sample-002", db=db, capsys=capsys)
    assert code == 0
    assert out.startswith("In these two runs A (smollm2-135m-q4_1) was faster (the other took 1.")
    assert "detectable from" in out
    _, out, _ = run("sample-001", "sample-002", "--format", "md", db=db, capsys=capsys)
    assert out.startswith("# Comparison\n\n**In these two runs A (smollm2-135m-q4_1) was faster")
    assert "| peak RAM | " in out


def test_names_from_outside_are_shown_as_they_are(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(db)
    store.connection().execute("UPDATE spans SET model = '[red]m|' || chr(27) WHERE bulk_id = 'sample-002'")
    store.connection().execute("UPDATE spans SET model = NULL WHERE kind <> 'INTERNAL'")
    store.close()
    code, out, _ = run("sample-001", "sample-002", db=db, capsys=capsys)
    assert code == 0
    assert "\x1b" not in out
    assert "[red]m|\ufffd" in out


async def test_the_route_tells_unknown_from_wrong(db: Path) -> None:
    store = Store(db)
    app = FastAPI()
    api.install(app, store)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://studio") as http:
        unknown = await http.get("/api/compare", params={"a": "sample-001", "b": "nobody"})
        wrong = await http.get("/api/compare", params={"a": "sample-001"})
        good = await http.get("/api/compare", params={"a": "sample-001", "b": "sample-002"})
    store.close()
    assert (unknown.status_code, wrong.status_code, good.status_code) == (404, 400, 200)
    assert "sample-001" in unknown.json()["nearest"]
    assert good.json()["answer"].startswith("In these two runs A")


def test_a_side_is_read_the_same_from_a_store_and_from_planted_tables(db: Path) -> None:
    store = Store(db)
    found = comparisons.side(StoredSides(store), "sample-001")
    spans = store.query(
        "SELECT job_id, output_tokens, (end_ns - start_ns) / 1e9 AS seconds FROM spans"
        " WHERE bulk_id = 'sample-001' AND kind = 'INTERNAL' AND status <> 'ERROR' ORDER BY job_id"
    ).to_pylist()
    cores = found.facts.cores
    store.close()
    assert cores == (1.0,)
    assert (found.facts.sent, found.facts.ended, found.facts.failed) == (24, 24, 1)
    assert [tokens for tokens in found.output if np.isfinite(tokens)] == [row["output_tokens"] for row in spans]
    assert np.nansum(found.seconds) == pytest.approx(sum(row["seconds"] for row in spans))
