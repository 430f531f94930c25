"""The sustained rate against truths: streams below and above saturation, bulks put at once, jobs that go on."""

from __future__ import annotations

import dataclasses

import ciw
import numpy as np
import pytest

from bulkscope_studio.analysis.capacity.saturation import LEAST_COMPLETIONS, _weights
from bulkscope_studio.services import capacities
from bulkscope_studio.services.capacities import Question
from tests.studio import loads
from tests.studio.made import Made
from tests.studio.queues import slowing
from tests.studio.queues import stream as crowded

ROUNDING = 1e-9


def checked(draws: list[loads.Played], truth: float) -> tuple[float, int, int]:
    """Return the bias of the mean, how many intervals hold the truth, and how many draws have an answer."""
    told = [rate for rate in (loads.sustained(draw).rate for draw in draws) if rate is not None]
    bias = float(np.mean([rate.value for rate in told])) / truth - 1
    hits = sum(rate.low <= truth * (1 + ROUNDING) and truth <= rate.high * (1 + ROUNDING) for rate in told)
    return bias, hits, len(told)


def test_half_a_load_tells_the_whole_rate() -> None:
    """By time in which jobs waited it was 28 % too low, and no interval held it."""
    bias, hits, told = checked([loads.stream(seed, 1000, 2, 0.5, "exponential") for seed in range(20)], 2.0)
    assert told == 20
    assert abs(bias) < 0.02
    assert hits >= 18


def queue_of_ciw(seed: int, jobs: int, slots: int, load: float) -> loads.Played:
    """A queue with gamma service times of a simulator that others wrote (Palmer et al. 2019)."""
    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(load * slots)],
        service_distributions=[ciw.dists.Gamma(0.5, 2.0)],
        number_of_servers=[slots],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(jobs, method="Finish")
    rows = sorted(simulation.get_all_records(), key=lambda row: row.arrival_date)
    put, start, end, slot = (
        np.array([getattr(row, name) for row in rows])
        for name in ("arrival_date", "service_start_date", "service_end_date", "server_id")
    )
    return loads.Played(put, start, end, slot.astype(np.int64) - 1, np.zeros(len(rows), np.int64), slots)


def test_a_queue_that_others_simulate_sustains_what_its_law_gives() -> None:
    bias, hits, told = checked([queue_of_ciw(seed, 1000, 3, 0.6) for seed in range(8)], 3.0)
    assert told == 8
    assert abs(bias) < 0.03
    assert hits >= 7


def test_through_the_store_it_is_the_same() -> None:
    drawn = loads.stream(1, 400, 2, 0.6, "lognormal")
    made = Made()
    made.run(drawn.put.tolist(), (drawn.end - drawn.start).tolist(), 2)
    store = made.store()
    try:
        (pool,) = capacities.system_capacity(store, Question(["b"]))["pools"]
    finally:
        store.close()
    told, known = pool["models"][0]["now"], loads.sustained(drawn)
    assert known.rate is not None
    assert told["rate_per_s"] == pytest.approx(dataclasses.asdict(known.rate), rel=1e-6)
    assert told["rate_per_s"]["value"] == pytest.approx(told["completions"] / told["saturated_s"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.9, 1.2])
@pytest.mark.parametrize("slots", [1, 2, 4, 16])
def test_streams_at_any_load(slots: int, load: float) -> None:
    for work in ("equal", "gamma 4", "exponential", "lognormal", "bimodal"):
        draws = [loads.stream(seed, 1000, slots, load, work) for seed in range(40)]
        bias, hits, told = checked(draws, slots)
        if slots == 16 and load == 0.3:  # all 16 are taken at one arrival in 10,000
            assert told == 0
            continue
        assert told >= 36 or (slots == 16 and load == 0.5)
        if told >= 36:
            # The mean of 40 draws scatters by a sixth of what one does.
            assert abs(bias) < 0.035, work
            assert hits >= 0.875 * told, work  # 95 % of 40 are 38, give or take 1.4


@pytest.mark.slow
@pytest.mark.parametrize("arrivals", ["paced", "bursty"])
@pytest.mark.parametrize("load", [0.5, 0.8, 1.1])
def test_arrivals_that_are_no_poisson_stream(arrivals: str, load: float) -> None:
    for work in ("exponential", "lognormal"):
        bias, hits, told = checked([loads.stream(seed, 1000, 4, load, work, arrivals) for seed in range(40)], 4.0)
        assert told >= 36
        assert abs(bias) < 0.035, work
        assert hits >= 0.875 * told, work


@pytest.mark.slow
@pytest.mark.parametrize(("number", "size", "slots"), [(1, 60, 2), (20, 12, 2), (40, 8, 4), (5, 100, 8), (1, 400, 16)])
def test_bulks_put_at_once(number: int, size: int, slots: int) -> None:
    for work in ("gamma 4", "exponential", "lognormal", "bimodal"):
        draws = [loads.bulks(seed, number, size, slots, work) for seed in range(100)]
        bias, hits, told = checked(draws, slots)
        assert told >= 95
        assert abs(bias) < 0.04, work
        assert hits >= 0.90 * told, work


def test_long_jobs_at_the_end_of_a_bulk_count_as_the_others() -> None:
    """Of 40 bulks of 8 jobs none has a backlog for three service times."""
    bias, hits, told = checked([loads.bulks(seed, 40, 8, 4, "exponential") for seed in range(20)], 4.0)
    assert told == 20
    assert abs(bias) < 0.03
    assert hits >= 18


def test_jobs_that_go_on_are_not_left_out() -> None:
    """Looked at after a few jobs for each of 16 slots: those that still run are the long ones."""
    draws = [loads.stream(seed, 400, 16, 1.3, "gamma 4") for seed in range(20)]
    bias, hits, told = checked([dataclasses.replace(draw, until=5.0) for draw in draws], 16.0)
    assert told == 20
    assert abs(bias) < 0.03
    assert hits >= 18


def test_what_goes_on_stands_for_what_lasted_longer() -> None:
    assert _weights(np.array([1.0, 2.0, 3.0]), np.array([1.5])) == pytest.approx([1.0, 1.5, 1.5])
    assert _weights(np.array([1.0, 3.0]), np.array([5.0])) == pytest.approx([1.0, 2.0])
    assert _weights(np.array([2.0, 1.0]), np.zeros(0)) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("load", [0.6, 1.2])
def test_a_slot_that_rests_between_jobs_does_less(load: float) -> None:
    level = loads.sustained(loads.stream(3, 3000, 4, load, "gamma 4", gap=0.25))
    assert level.rate is not None
    assert level.gap == pytest.approx(0.25)
    assert level.busy == pytest.approx(0.8, abs=0.01)
    assert level.rate.low <= 4 / 1.25 <= level.rate.high


def test_slots_that_are_free_most_of_the_time_sustain_no_rate() -> None:
    """A limit of jobs a minute, say: each waits, and its slot with it. What they do so is a lower bound."""
    level = loads.sustained(loads.stream(3, 400, 2, 1.2, "gamma 4", gap=4.0))
    assert not level.reached
    assert level.rate is None
    assert level.bound is not None
    assert 0.25 < level.bound <= 2 / 5


def test_slots_of_which_all_were_never_taken_give_a_bound() -> None:
    level = loads.sustained(loads.stream(0, 600, 16, 0.3, "gamma 4"))
    assert not level.reached
    assert level.completions < LEAST_COMPLETIONS
    assert level.bound is not None
    assert 6 < level.bound < 16


def test_batches_have_what_was_done_in_the_time_as_their_mean() -> None:
    level = loads.sustained(loads.stream(2, 300, 1, 0.5, "exponential"))
    assert len(level.batches) == 20
    assert np.mean(level.batches) == pytest.approx(level.completions / level.seconds)


def test_of_few_jobs_the_rate_is_not_too_high() -> None:
    """The mean of 30 exponential times is as often too long as too short, but its inverse is not."""
    bias, hits, told = checked([loads.bulks(seed, 1, 30, 1, "exponential") for seed in range(200)], 1.0)
    assert told >= 195
    assert abs(bias) < 0.03  # without: 3.4 %, and what chance adds
    assert hits >= 186


def test_slots_that_slow_each_other_sustain_what_they_do_together() -> None:
    """At half of the load a job that begins beside all others ends beside fewer, where it is faster."""
    put, start, end = crowded(3000, 0.5, slowing(4, 0.3), 1)
    slot, free = np.zeros(len(put), np.int64), np.full(4, -1.0)
    for job in np.argsort(start, kind="stable"):
        slot[job] = int(np.argmin(free))
        free[slot[job]] = end[job]
    level = loads.sustained(loads.Played(put, start, end, slot, np.zeros(len(put), np.int64), 4))
    assert level.rate is not None
    assert level.rate.low <= 4.0 <= level.rate.high
    assert level.rate.value == pytest.approx(4.0, rel=0.06)
    # Without it they would be 13 % faster.
    assert 4 / float(np.mean(level.service)) > 4.4
