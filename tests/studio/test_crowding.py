"""Places that slow each other: queues whose speed is known, against closed forms and an event-by-event simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bulkscope_studio.analysis.capacity import crowding
from bulkscope_studio.analysis.statistics import simulation
from bulkscope_studio.analysis.timeline.timeline import Steps, steps
from tests.studio.queues import Floats, played, slowing, stream


def surely(speeds: Floats) -> simulation.Slowing:
    """Speeds that are known, not estimated."""
    return simulation.Slowing(speeds, speeds[None], np.ones(1), len(speeds))


def seen(start: Floats, end: Floats, busy: Steps | None = None, within: bool = True) -> crowding.Speeds | None:
    """Speeds of jobs that are all alike."""
    return crowding.speeds(start, end, np.ones(len(start)), busy or steps(start, end), within=within)


@pytest.mark.parametrize(("places", "by"), [(1, 0.0), (2, 0.5), (5, 0.3)])
def test_waits_are_those_of_event_by_event(places: int, by: float) -> None:
    random = np.random.default_rng(places)
    speeds = slowing(places, by)
    arrivals, work = np.cumsum(random.exponential(1 / (0.8 * places), 500)), random.exponential(1, 500)
    found = simulation._crowded_waits(arrivals[:, None], work[:, None], np.zeros((1, places)), speeds[None])
    assert found[:, 0] == pytest.approx(played(arrivals, work, speeds)[0] - arrivals, abs=1e-9)


def test_as_fast_alone_as_beside_others_is_the_plain_queue() -> None:
    random = np.random.default_rng(3)
    arrivals, work = np.cumsum(random.exponential(0.3, (300, 4)), axis=0), random.exponential(1, (300, 4))
    plain = simulation.waits_of_runs(arrivals, work, np.zeros((4, 4)))
    assert simulation._crowded_waits(arrivals, work, np.zeros((4, 4)), np.ones((4, 4))) == pytest.approx(
        plain, abs=1e-9
    )


@pytest.mark.parametrize(("places", "load"), [(2, 0.4), (2, 0.8), (4, 0.7)])
def test_predicted_waits_are_those_of_the_birth_and_death_chain(places: int, load: float) -> None:
    """Exponential work: n places busy end n v_n jobs a second, and who waits does so for an exponential time."""
    speeds = slowing(places, 0.4)
    services = -np.log1p(-(np.arange(2000) + 0.5) / 2000)
    service = float(np.mean(services))
    rate = load * places / service
    weights = np.cumprod([1.0] + [rate * service / (n * speeds[n - 1]) for n in range(1, places + 1)])
    tail = weights[places] / (1 - load)
    waits = tail / (np.sum(weights[:places]) + tail)
    spare = places / service - rate
    found = simulation.predicted_waits(rate, services, places, slowing=surely(speeds))
    assert found.mean.value == pytest.approx(waits / spare, rel=0.06)
    assert found.p95.value == pytest.approx(max(0.0, math.log(waits / 0.05) / spare), rel=0.06)
    assert simulation.predicted_waits(rate, services, places).mean.value > found.mean.value


def test_the_highest_rate_is_that_whose_waits_are_just_kept() -> None:
    speeds = slowing(3, 0.6)
    services = np.random.default_rng(7).gamma(3, 1 / 3, 300)
    found = simulation.highest_rate(services, 3, 0.5, slowing=surely(speeds))
    assert found is not None
    assert simulation.predicted_waits(found.value * 0.97, services, 3, slowing=surely(speeds)).p95.value < 0.5
    assert simulation.predicted_waits(found.value * 1.03, services, 3, slowing=surely(speeds)).p95.value > 0.5
    plain = simulation.highest_rate(services, 3, 0.5)
    assert plain is not None
    assert plain.value < found.value


@pytest.mark.parametrize("wrong", [np.ones(1), np.array([0.0, 1.0])])
def test_speeds_that_are_none(wrong: Floats) -> None:
    with pytest.raises(ValueError, match="for each number of busy servers"):
        simulation.predicted_waits(0.5, [1.0, 2.0], 2, slowing=surely(wrong))


@pytest.mark.parametrize(("places", "by", "load"), [(2, 0.5, 0.6), (4, 0.3, 0.6), (8, 0.15, 0.7)])
def test_speeds_are_found(places: int, by: float, load: float) -> None:
    true = slowing(places, by)
    _, starts, ends = stream(4000, load, true, 5)
    busy = steps(starts, ends)
    speeds = seen(starts, ends, busy)
    assert speeds is not None
    found = speeds.slowing(starts, ends, busy, places)
    assert found is not None
    often = np.bincount(busy.value(starts).astype(np.int64), minlength=places + 1)[1:] >= 200
    assert found.speeds[often] == pytest.approx(true[often], rel=0.15)
    assert found.speeds[-1] == 1
    assert np.all(np.diff(found.speeds) <= 0)
    # The truth is within what is left open (but for neighbours that are taken together), and so is the work of a job.
    low, high = np.quantile(found.draws, (0.005, 0.995), axis=0)
    assert np.all((0.9 * low <= true) & (true <= 1.1 * high) | ~often)
    usual = float(np.mean(speeds.work(starts, ends, busy, places)))
    low, high = np.quantile(found.scale, (0.005, 0.995))
    assert low * usual <= 1 <= high * usual
    assert usual == pytest.approx(1.0, rel=0.05)


def test_speeds_from_jobs_put_at_once_with_several_numbers_of_workers() -> None:
    """Between the steps nothing says how fast a single one is, but the steps themselves do."""
    true = np.array([2.0, 1.6, 1.2, 1.0])
    starts, ends, begin = [], [], 0.0
    for places in (1, 2, 3, 4):
        work = np.random.default_rng(places).gamma(8, 1 / 8, 150 * places)
        one, other = played(np.full(len(work), begin), work, true[:places])
        starts.append(one)
        ends.append(other)
        begin = float(np.max(other)) + 10
    start, end = np.concatenate(starts), np.concatenate(ends)
    busy = steps(start, end)
    speeds = seen(start, end, busy, within=False)
    assert speeds is not None
    for places in (2, 3, 4):
        found = speeds.slowing(start, end, busy, places)
        assert found is not None
        assert found.speeds == pytest.approx(true[:places] / true[places - 1], rel=0.06)
        assert float(np.mean(speeds.work(start, end, busy, places))) == pytest.approx(1 / true[places - 1], rel=0.05)
    assert speeds.slowing(start, end, busy, 1) is None


@pytest.mark.parametrize("places", [1, 2, 4])
def test_places_that_do_not_slow_each_other_seldom_seem_to(places: int) -> None:
    seemed = []
    for seed in range(60):
        _, starts, ends = stream(600, 0.6, np.ones(places), seed)
        seemed.append(seen(starts, ends) is not None)
    assert sum(seemed) <= 4  # about 2 % by chance


def test_a_host_that_was_slow_for_a_while_is_no_slowing() -> None:
    """While it is, all are busy more often: compared with other times, 50 of 60 queues seemed slowed."""
    seemed = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        arrivals, work = np.cumsum(random.exponential(1 / 1.2, 1000)), random.gamma(8, 1 / 8, 1000)
        work[400:600] *= 2
        seemed.append(seen(*played(arrivals, work, np.ones(2))) is not None)
    assert sum(seemed) <= 2


def test_starts_cut_to_the_millisecond_hide_nothing() -> None:
    """Then half of the jobs seem to begin beside one more than there are places, for a millisecond."""
    _, starts, ends = stream(3000, 0.7, slowing(2, 0.5), 3)
    speeds = seen(np.floor(starts * 1000) / 1000, ends)
    assert speeds is not None
    assert speeds.found[0] == pytest.approx(1.5, rel=0.1)


def test_too_few_jobs_say_nothing() -> None:
    _, starts, ends = stream(30, 0.6, slowing(2, 1.0), 1)
    assert seen(starts, ends) is None
    assert seen(np.zeros(0), np.zeros(0)) is None
    one = np.arange(100.0)
    assert seen(one, one) is None  # jobs that took no time


def test_numbers_that_were_not_seen_are_as_the_nearest() -> None:
    true = slowing(2, 0.6)
    _, starts, ends = stream(3000, 0.6, true, 2)
    busy = steps(starts, ends)
    speeds = seen(starts, ends, busy)
    assert speeds is not None
    found = speeds.slowing(starts, ends, busy, 5)
    assert found is not None
    assert found.speeds[1:] == pytest.approx(np.ones(4))
    assert found.speeds[0] == pytest.approx(1.6, rel=0.08)
