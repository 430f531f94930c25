"""Queues played through against ciw, closed forms, and what must hold for any queue."""

from __future__ import annotations

import math
from collections.abc import Callable

import ciw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from bulkscope_studio.analysis.statistics import queueing, simulation
from bulkscope_studio.analysis.statistics.estimates import Estimate, Floats
from bulkscope_studio.analysis.statistics.simulation import replay
from tests.chance import draws

# Whole numbers of 1/64 s: sums of them are exact, so that laws hold to the last bit.
TICKS = st.integers(0, 2000).map(lambda ticks: ticks / 64)
JOBS = st.lists(st.tuples(TICKS, TICKS), min_size=1, max_size=40)


def columns(jobs: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    put, work = np.array(jobs).T
    return put, work


def by_events(put: Floats, work: Floats, servers: int) -> list[float]:
    """Starts by stepping a set of busy servers and a line from event to event: another way than the replay's."""
    line = sorted(range(len(put)), key=lambda job: (put[job], job))
    busy: list[float] = []
    starts = [math.nan] * len(put)
    now = -math.inf
    while line:
        now = max(now, put[line[0]])
        busy = [end for end in busy if end > now]
        if len(busy) < servers:
            job = line.pop(0)
            starts[job] = now
            busy.append(now + work[job])
        else:
            now = min(busy)
    return starts


@given(jobs=JOBS, servers=st.integers(1, 6))
def test_replay_is_what_stepping_from_event_to_event_gives(jobs: list[tuple[float, float]], servers: int) -> None:
    put, work = columns(jobs)
    found = replay(put, work, servers)
    assert found.starts.tolist() == by_events(put, work, servers)
    assert np.array_equal(found.ends, found.starts + work)
    assert np.array_equal(found.waits, found.starts - put)
    assert found.makespan == np.max(found.ends) - np.min(put)
    assert found.unserved == 0


@given(jobs=JOBS, servers=st.integers(1, 6), random=st.randoms(use_true_random=False))
def test_order_given_does_not_matter_beyond_equal_arrivals(
    jobs: list[tuple[float, float]], servers: int, random: object
) -> None:
    jobs = list(dict(jobs).items())  # one job for each arrival
    order = list(range(len(jobs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    put, work = columns(jobs)
    plain, mixed = replay(put, work, servers), replay(put[order], work[order], servers)
    assert np.array_equal(mixed.waits, plain.waits[order])
    assert mixed.makespan == plain.makespan


@given(jobs=st.lists(st.tuples(TICKS, TICKS.filter(bool)), min_size=1, max_size=40), servers=st.integers(1, 6))
def test_equal_jobs_at_one_time_may_change_places(jobs: list[tuple[float, float]], servers: int) -> None:
    put, work = columns(jobs * 2)
    half = len(jobs)
    order = np.r_[half : 2 * half, :half]
    one, other = replay(put, work, servers), replay(put[order], work[order], servers)
    assert np.array_equal(np.sort(one.waits), np.sort(other.waits))


@given(jobs=JOBS, servers=st.integers(1, 6), shift=st.integers(-(10**6), 10**6), factor=st.sampled_from([0.25, 2, 8]))
def test_shifting_time_changes_no_wait_and_scaling_it_scales_them(
    jobs: list[tuple[float, float]], servers: int, shift: int, factor: float
) -> None:
    put, work = columns(jobs)
    plain = replay(put, work, servers)
    shifted, scaled = replay(put + shift, work, servers), replay(put * factor, work * factor, servers)
    assert np.array_equal(shifted.waits, plain.waits)
    assert shifted.makespan == plain.makespan
    assert np.array_equal(scaled.waits, plain.waits * factor)


@given(jobs=JOBS, servers=st.integers(1, 6))
def test_no_server_idles_while_a_job_waits(jobs: list[tuple[float, float]], servers: int) -> None:
    put, work = columns(jobs)
    found = replay(put, work, servers)
    for moment in np.unique(np.r_[found.starts, found.ends, put]):
        busy = np.sum((found.starts <= moment) & (found.ends > moment))
        waiting = np.sum((put <= moment) & (found.starts > moment))
        assert busy <= servers
        assert busy == servers or waiting == 0
    assert found.makespan is not None
    assert found.makespan >= np.sum(work) / servers - 1e-9


@given(
    jobs=JOBS,
    joined=st.lists(TICKS, min_size=2, max_size=6),
    lost=st.integers(0, 5),
)
def test_no_wait_falls_when_a_server_is_taken_away(
    jobs: list[tuple[float, float]], joined: list[float], lost: int
) -> None:
    put, work = columns(jobs)
    servers = [(start, math.inf) for start in joined]
    fewer = [one for place, one in enumerate(servers) if place != lost % len(servers)]
    assert np.all(replay(put, work, fewer).waits >= replay(put, work, servers).waits)
    if len(joined) > 1:
        assert np.all(replay(put, work, len(joined) - 1).waits >= replay(put, work, len(joined)).waits)


@given(jobs=JOBS, servers=st.integers(1, 6))
def test_servers_that_are_always_there_are_servers(jobs: list[tuple[float, float]], servers: int) -> None:
    put, work = columns(jobs)
    always, counted = replay(put, work, [(-math.inf, math.inf)] * servers), replay(put, work, servers)
    assert np.array_equal(always.waits, counted.waits)


@given(
    jobs=JOBS,
    servers=st.lists(st.tuples(TICKS, TICKS).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=5),
)
def test_servers_there_for_part_of_the_time_begin_jobs_only_then(
    jobs: list[tuple[float, float]], servers: list[tuple[float, float]]
) -> None:
    put, work = columns(jobs)
    found = replay(put, work, servers)
    served = ~np.isnan(found.starts)
    assert found.unserved == np.sum(~served)
    assert (found.makespan is None) == (found.unserved > 0)
    for start in found.starts[served]:
        assert any(begin <= start < end for begin, end in servers)
    for moment in found.starts[served]:
        running = np.sum((found.starts[served] <= moment) & (found.ends[served] > moment))
        assert running <= sum(begin <= moment for begin, _ in servers)
    if not np.all(served):  # first come, first served: those left over came last
        assert np.min(put[~served]) >= np.max(put[served], initial=-math.inf)


def test_servers_join_drain_and_leave() -> None:
    put, work = np.zeros(5), np.full(5, 4.0)
    found = replay(put, work, [(0, 5), (6, math.inf)])
    # The first takes a job at 4 and finishes it after its end; the second joins at 6.
    assert found.starts.tolist() == [0, 4, 6, 10, 14]
    assert found.makespan == 18
    cut = replay(put, work, [(0, 5)])
    assert cut.waits[:2].tolist() == [0, 4]
    assert np.isnan(cut.waits[2:]).all()
    assert (cut.unserved, cut.makespan) == (3, None)


@pytest.mark.parametrize(("jobs", "servers"), [(8, 2), (12, 3), (4, 4)])
def test_jobs_put_at_once_meet_the_closed_form(jobs: int, servers: int) -> None:
    found, expected = replay(np.zeros(jobs), np.full(jobs, 3.0), servers), queueing.put_at_once(jobs, servers, 3.0)
    assert expected is not None
    assert np.mean(found.waits) == pytest.approx(expected.mean_wait)
    assert found.makespan == pytest.approx(expected.makespan)


def test_no_jobs() -> None:
    found = replay([], [], 2)
    assert (len(found.waits), found.makespan, found.unserved) == (0, None, 0)


def test_a_long_queue_is_played_through_whole() -> None:
    random = np.random.default_rng(1)
    put, work = np.cumsum(random.exponential(1 / 7.2, 100_000)), random.exponential(1, 100_000)
    found = replay(put, work, 8)
    inside = np.sum(found.waits + work)  # Little: area under the number in the system is the sum of the times in it
    at = np.argsort(np.r_[put, found.ends], kind="stable")
    number = np.cumsum(np.r_[np.ones(100_000), -np.ones(100_000)][at])
    area = np.sum(number[:-1] * np.diff(np.r_[put, found.ends][at]))
    assert area == pytest.approx(inside)


# -- against ciw -------------------------------------------------------------------------------------------------------


def of_ciw(rate: float, service: object, servers: int, until: float, seed: int = 1) -> Floats:
    """Arrival, service time and wait (columns) of the jobs that a ciw simulation served, in order of arrival."""
    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=rate)],
        service_distributions=[service],
        number_of_servers=[servers],
    )
    run = ciw.Simulation(network)
    run.simulate_until_max_time(until)
    found = sorted((one.arrival_date, one.service_time, one.waiting_time) for one in run.get_all_records())
    return np.array(found)


# Mean service 1 s each: what ciw draws, and the same law drawn by numpy.
LAWS: dict[str, tuple[Callable[[], object], Callable[[np.random.Generator, int], Floats]]] = {
    "M/M": (lambda: ciw.dists.Exponential(rate=1.0), lambda random, n: random.exponential(1, n)),
    "M/D": (lambda: ciw.dists.Deterministic(value=1.0), lambda _, n: np.ones(n)),
    "M/G": (lambda: ciw.dists.Gamma(shape=0.5, scale=2.0), lambda random, n: random.gamma(0.5, 2, n)),
}


@pytest.mark.parametrize("law", LAWS)
def test_replay_gives_each_job_the_wait_that_ciw_gave_it(law: str) -> None:
    put, work, waits = of_ciw(2.6, LAWS[law][0](), 3, 1500).T
    # Jobs still there at the end have no record, and may have been served before the last ones that do.
    found = replay(put[:3000], work[:3000], 3)
    assert len(put) > 3000
    assert found.waits == pytest.approx(waits[:3000], abs=1e-6)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("servers", "busy"), [(1, 0.6), (4, 0.8)])
def test_predicted_waits_hold_those_of_ciw(law: str, servers: int, busy: float) -> None:
    rate = busy * servers
    waits = of_ciw(rate, LAWS[law][0](), servers, 30_000 / rate, seed=3)[2000:-100, 2]
    seen = LAWS[law][1](np.random.default_rng(4), 1000)
    found = simulation.predicted_waits(rate, seen, servers)
    assert found.mean.low <= np.mean(waits) <= found.mean.high
    assert found.p50.low <= np.quantile(waits, 0.5) <= found.p50.high
    assert found.p95.low <= np.quantile(waits, 0.95) <= found.p95.high


@pytest.mark.parametrize(("law", "error"), [("M/M", 0.1), ("M/D", 0.1), ("M/G", 0.15)])
def test_corrected_erlang_c_is_near_ciw(law: str, error: float) -> None:
    """Allen and Cunneen's mean at 4 servers, 80 % busy: their error and that of 30,000 jobs together."""
    waits = of_ciw(3.2, LAWS[law][0](), 4, 30_000 / 3.2, seed=5)[2000:-100, 2]
    scv = {"M/M": 1.0, "M/D": 0.0, "M/G": 2.0}[law]
    assert queueing.mean_wait(3.2, 1.0, 4, 1.0, scv) == pytest.approx(np.mean(waits), rel=error)


# -- predictions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("servers", "busy"), [(1, 0.3), (1, 0.9), (3, 0.8), (16, 0.9), (100, 0.97)])
def test_predicted_waits_are_those_of_erlang_c(servers: int, busy: float) -> None:
    # The sample is the exponential law itself, cut into 2,000 quantiles.
    services = -np.log1p(-(np.arange(2000) + 0.5) / 2000)
    shape = (busy * servers / np.mean(services), float(np.mean(services)), servers)
    found = simulation.predicted_waits(shape[0], services, servers)
    assert found.utilization.value == pytest.approx(busy)
    assert found.mean.value == pytest.approx(float(queueing.mean_wait(*shape)), rel=0.06)
    assert found.p95.value == pytest.approx(float(queueing.wait_quantile(0.95, *shape)), rel=0.06)
    assert found.mean.low < found.mean.value < found.mean.high


@pytest.mark.parametrize("servers", [1, 4, 16])
def test_a_curve_is_that_of_erlang_c_and_never_falls(servers: int) -> None:
    """P(wait > t) of M/M/c by factorials, as in textbooks; the sample is the law itself, cut into 2,000 quantiles."""
    services = -np.log1p(-(np.arange(2000) + 0.5) / 2000)
    service, busy = float(np.mean(services)), np.array([0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
    rates = (busy * servers / service).tolist()
    found = simulation.p95_at(rates, services, servers)
    for rho, of_rate in zip(busy.tolist(), found, strict=True):
        load = rho * servers
        full = load**servers / math.factorial(servers) / (1 - rho)
        waits = full / (sum(load**k / math.factorial(k) for k in range(servers)) + full)
        exact = max(0.0, math.log(waits / 0.05) * service / (servers * (1 - rho)))
        assert of_rate.value == pytest.approx(exact, rel=0.1 if rho < 0.95 else 0.2, abs=0.02)
        assert of_rate.low <= of_rate.value <= of_rate.high
    values = [each.value for each in found]
    assert values == sorted(values)
    by_formula = [each.p95 for each in queueing.waits_at(rates, services, servers, None)]
    assert by_formula == [queueing.expected_waits(rate, services, servers).p95 for rate in rates]
    with pytest.raises(queueing.Saturated):
        simulation.p95_at([servers / service], services, servers)


@pytest.mark.parametrize(("busy", "error"), [(0.5, 0.02), (0.9, 0.05), (0.98, 0.1)])
def test_predicted_waits_of_equal_service_times_are_pollaczek_and_khinchines(busy: float, error: float) -> None:
    found = simulation.predicted_waits(busy / 2, [2.0, 2.0], 1)
    assert found.mean.value == pytest.approx(busy * 2 / (2 * (1 - busy)), rel=error)


def test_bursts_stay_whole() -> None:
    # 20 jobs at once each 100 s: the k-th of a burst waits for those before it, and none waits for another burst.
    gaps = np.tile(np.r_[100.0, np.zeros(19)], 30)
    found = simulation.predicted_waits(0.2, [1.0, 1.0], 1, gaps)
    assert found.mean.value == pytest.approx(np.mean(np.arange(20)), rel=0.15)
    poisson = simulation.predicted_waits(0.2, [1.0, 1.0], 1)
    assert poisson.mean.value == pytest.approx(0.2 / (2 * 0.8), rel=0.06)


def test_only_the_pattern_of_the_gaps_counts_not_their_unit() -> None:
    gaps = np.random.default_rng(5).gamma(0.4, 1, 200)
    one, other = (simulation.predicted_waits(0.5, [1.0, 1.5], 1, g, 20) for g in (gaps, gaps * 1024))
    assert one.mean.value == pytest.approx(other.mean.value)


def test_the_same_data_give_the_same_prediction() -> None:
    services = np.random.default_rng(6).exponential(1, 50)
    one, other = (simulation.predicted_waits(0.5, services, 1, replications=20) for _ in range(2))
    assert one == other
    assert simulation.highest_rate(services, 2, 1.0, replications=20) == simulation.highest_rate(
        services, 2, 1.0, replications=20
    )


def test_prediction_refuses_saturation_and_a_single_time_leaves_all_open() -> None:
    with pytest.raises(queueing.Saturated, match=r"1\.5 times"):
        simulation.predicted_waits(3.0, [1.0, 3.0], 4)
    found = simulation.predicted_waits(0.5, [1.0], 1, replications=5)
    assert (found.mean.low, found.mean.high) == (0, math.inf)


def test_a_sample_that_does_not_exclude_saturation_has_no_upper_end() -> None:
    services = np.random.default_rng(2).exponential(1, 30)
    found = simulation.predicted_waits(0.97 * 2 / np.mean(services), services, 2)
    assert math.isfinite(found.p95.value)
    assert found.p95.high == math.inf


@pytest.mark.slow
def test_predicted_waits_cover() -> None:
    truth = float(queueing.mean_wait(1.4, 1.0, 2)), float(queueing.wait_quantile(0.95, 1.4, 1.0, 2))
    hits = np.zeros(2)
    for seed in range(300):
        found = simulation.predicted_waits(1.4, np.random.default_rng(seed).exponential(1, 200), 2, replications=60)
        told = (found.mean, found.p95)
        hits += [one.low <= value <= one.high for one, value in zip(told, truth, strict=True)]
    assert np.all((hits >= 270) & (hits <= 298)), hits


def rate_by_erlang_c(service: float, servers: int, slo: float, quantile: float) -> float:
    def excess(rate: float) -> float:
        return float(queueing.wait_quantile(quantile, rate, service, servers)) - slo

    return float(optimize.brentq(excess, 1e-6, servers / service - 1e-9))


@pytest.mark.parametrize(
    ("servers", "slo", "quantile"),
    [(1, 2.0, 0.95), (3, 0.5, 0.95), pytest.param(4, 20.0, 0.95, marks=pytest.mark.slow), (2, 1.0, 0.5)],
)
def test_highest_rate_is_that_of_erlang_c(servers: int, slo: float, quantile: float) -> None:
    services = -np.log1p(-(np.arange(2000) + 0.5) / 2000)
    service = float(np.mean(services))
    found = simulation.highest_rate(services, servers, slo, quantile)
    expected = rate_by_erlang_c(service, servers, slo, quantile)
    assert found is not None
    assert found.value == pytest.approx(expected, rel=0.02)
    assert found.low <= expected <= found.high


def test_highest_rate_keeps_the_wait_and_one_a_little_higher_does_not() -> None:
    services = np.random.default_rng(7).gamma(3, 1, 300)
    found = simulation.highest_rate(services, 3, 4.0)
    assert found is not None
    assert simulation.predicted_waits(found.value * 0.97, services, 3).p95.value < 4.0
    assert simulation.predicted_waits(found.value * 1.03, services, 3).p95.value > 4.0


@pytest.mark.slow
def test_highest_rate_covers() -> None:
    expected = rate_by_erlang_c(1.0, 2, 2.0, 0.95)
    hits = 0
    for seed in range(100):
        found = simulation.highest_rate(np.random.default_rng(seed).exponential(1, 200), 2, 2.0, replications=40)
        assert found is not None
        hits += found.low <= expected <= found.high
    assert 89 <= hits <= 99


def test_a_wait_within_bursts_is_kept_by_no_rate() -> None:
    gaps = np.tile(np.r_[1.0, np.zeros(9)], 20)
    assert simulation.highest_rate([1.0, 1.0], 1, 3.0, gaps=gaps, replications=10) is None
    assert simulation.highest_rate([1.0, 1.0], 1, 30.0, gaps=gaps, replications=10) is not None


@draws(25)
@given(seed=st.integers(0, 10**6), servers=st.integers(1, 9))
def test_many_runs_at_once_are_replays(seed: int, servers: int) -> None:
    random = np.random.default_rng(seed)
    put, work = np.cumsum(random.exponential(1, (80, 3)), axis=0), random.exponential(servers, (80, 3))
    found = simulation.waits_of_runs(put, work, np.zeros((3, servers)))
    for run in range(3):
        assert found[:, run] == pytest.approx(replay(put[:, run], work[:, run], servers).waits, abs=1e-9)


def test_no_wait_falls_when_the_rate_rises() -> None:
    services = np.random.default_rng(8).exponential(1, 40)
    samples = simulation._Samples.of(services, 3, None)
    runs = simulation._Runs.draw(samples, 1.0, 5)
    capacity = 3 / runs.service
    before = np.zeros_like(runs.waits(0.1 * capacity))
    for busy in (0.1, 0.3, 0.6, 0.9, 0.97):
        waits = runs.waits(busy * capacity)
        assert np.all(waits >= before - 1e-9)
        before = waits


def test_wrong_input_says_what_to_do() -> None:
    for arrivals, services in (([0.0, 1.0], [1.0]), ([[0.0]], [[1.0]])):
        with pytest.raises(ValueError, match="one arrival and one service time per job"):
            replay(arrivals, services, 1)  # type: ignore[arg-type]
    for put, work in ((math.nan, 1.0), (0.0, math.nan), (0.0, -1.0), (math.inf, 1.0)):
        with pytest.raises(ValueError, match="leave jobs without them out"):
            replay([put], [work], 1)
    for servers in (0, -1):
        with pytest.raises(ValueError, match="servers must be 1 or more"):
            replay([0.0], [1.0], servers)
    for windows in ([], [(2.0, 1.0)], [(math.nan, 1.0)]):
        with pytest.raises(ValueError, match="at least one server"):
            replay([0.0], [1.0], windows)
    with pytest.raises(ValueError, match="servers must be 1 or more"):
        simulation.predicted_waits(0.1, [1.0, 2.0], 0)
    with pytest.raises(ValueError, match="at least 2 replications"):
        simulation.predicted_waits(0.1, [1.0, 2.0], 1, replications=1)
    with pytest.raises(ValueError, match="gaps must hold at least one value above 0"):
        simulation.predicted_waits(0.1, [1.0, 2.0], 1, [0.0, 0.0])
    for slo in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="the wait allowed"):
            simulation.highest_rate([1.0, 2.0], 1, slo)
    for quantile in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            simulation.highest_rate([1.0, 2.0], 1, 1.0, quantile)


def test_highest_rate_of_a_single_time_leaves_all_open() -> None:
    found = simulation.highest_rate([1.0], 1, 1.0, replications=5)
    assert found is not None
    assert found == Estimate(found.value, 0, math.inf)
