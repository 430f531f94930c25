"""Sentences with numbers of things, above all where there is one of them, or a range of one number."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from bulkscope_studio.analysis.capacity.forecast import Arrivals, conditions
from bulkscope_studio.text import wording
from tests.studio.by_chance import answers, told
from tests.studio.explaining import SILLY, Job, explain, sentences, stored


@pytest.mark.parametrize(
    ("value", "said"),
    [(1, "1 core"), (1.0, "1 core"), (0, "0 cores"), (2, "2 cores"), (1.5, "1.5 cores"), (0.9999, "1 core"),
     (1e6, "1,000,000 cores")],
)  # fmt: skip
def test_a_number_of_things(value: float, said: str) -> None:
    assert wording.count(value, "core") == said


@pytest.mark.parametrize(
    ("low", "high", "words", "said"),
    [
        (2, 4, wording.number, "2 to 4"), (2, 2, wording.number, "2"), (2.001, 2.002, wording.number, "2"),
        (0.5, 0.504, wording.percent, "50 %"), (60, 90, wording.seconds, "60 s to 90 s"),
    ],
)  # fmt: skip
def test_a_range(low: float, high: float, words: Callable[[float], str], said: str) -> None:
    assert wording.between(low, high, words) == said


def test_a_factor_and_a_part() -> None:
    assert [wording.times_as(factor, "long") for factor in (1, 1.001, 1.5)] == [
        "as long",
        "as long",
        "1.5 times as long",
    ]
    assert [wording.part(*of, "job") for of in ((1, 1), (2, 1200))] == ["1 of 1 job", "2 of 1,200 jobs"]
    assert wording.unended(1, 3) == "1 of 3 jobs has not ended"


@pytest.mark.parametrize(
    "sentence",
    ["1 cores each", "with 1 output tokens", "2 to 2 were busy", "0.98 to 0.98", "50 % to 50 %", "2 s to 2 s",
     "1 slots", "two  spaces", "nan jobs", "None", "of ten together – times that", "+1.0 to +1.0"],
)  # fmt: skip
def test_what_is_silly_is_found(sentence: str) -> None:
    assert SILLY.search(sentence)


@pytest.mark.parametrize(
    "sentence",
    ["1 core each", "11 cores", "0.1 cores", "2 to 2.5", "2 to 20", "2 s to 2 min", "1 of 3 jobs has not ended",
     "1.1 jobs/s", "1 jobs/s", "1 concurrency slot keeps 95 % of the waits", "2,1 to 1"],
)  # fmt: skip
def test_what_is_not_silly_is_not_found(sentence: str) -> None:
    assert not SILLY.search(sentence)


def bulk(jobs: int, workers: int, seed: int) -> list[Job]:
    """Return jobs of two bulks on few workers, first come first served, with tokens and cores."""
    rolled = random.Random(seed)
    free = [1.0] * workers
    made = []
    for number in range(2 * jobs):
        who = free.index(min(free))
        start = max(1.0, free[who])
        free[who] = start + rolled.choice([0.5, 1.0, 1.0, 4.0])
        tokens = {"model": "m", "input_tokens": rolled.choice([1, 1, 3]), "output_tokens": rolled.choice([1, 1, 5])}
        made.append(Job(f"j{number}", 1.0, start, free[who], who + 1, ("bulk", "other")[number % 2], inference=tokens))
    return made


@pytest.mark.parametrize(("jobs", "workers"), [(1, 1), (2, 1), (12, 2)])
def test_of_small_numbers_no_sentence_is_silly(jobs: int, workers: int) -> None:
    made = bulk(jobs, workers, 10 * jobs + workers)
    tables = told(made, workers)
    with stored(tables) as store:
        said = answers(store)
    said += sentences(explain(tables))
    assert len(said) > 30
    assert not [line for line in said if SILLY.search(line)]


def test_what_is_not_known_of_arrivals_is_said_so() -> None:
    at = np.arange(8.0)
    few = {each.name: each.text for each in conditions(at, np.ones(8), Arrivals(at, np.diff(at)), None)}
    assert "index of dispersion at lag 10 not known" in few["poisson"]
    assert few["jobs"].startswith("8 jobs ")
    one = {each.name: each.text for each in conditions(at[:1], np.ones(1), None, None)}
    assert one["jobs"].startswith("1 job ")
    assert not [text for text in (*few.values(), *one.values()) if SILLY.search(text)]
