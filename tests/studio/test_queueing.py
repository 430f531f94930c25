"""The laws of queues against tables, closed forms, exact arithmetic and scipy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from bulkscope_studio.analysis.statistics import queueing
from bulkscope_studio.analysis.statistics.estimates import Estimate


def exact_erlang_c(load: Fraction, servers: int) -> Fraction:
    """By its definition with factorials, in fractions."""
    last = load**servers / math.factorial(servers) * Fraction(servers) / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(
    ("load", "servers", "expected"),
    [  # printed tables of the Erlang C formula
        (0.5, 1, 0.5), (1.0, 2, 0.3333), (2.0, 3, 0.4444), (3.0, 4, 0.5094), (4.0, 5, 0.5541), (8.0, 10, 0.4092),
        (10.0, 12, 0.4494), (18.0, 20, 0.5508),
    ],
)  # fmt: skip
def test_erlang_c_of_the_tables(load: float, servers: int, expected: float) -> None:
    assert queueing.erlang_c(load, servers) == pytest.approx(expected, abs=5e-5)


@given(servers=st.integers(1, 60), busy=st.fractions(Fraction(1, 1000), Fraction(999, 1000), max_denominator=1000))
def test_erlang_c_is_its_definition(servers: int, busy: Fraction) -> None:
    load = busy * servers
    assert queueing.erlang_c(float(load), servers) == pytest.approx(float(exact_erlang_c(load, servers)), rel=1e-9)


@pytest.mark.parametrize("busy", [0.2, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("servers", [100, 500, 1000])
def test_erlang_c_to_a_thousand_servers(servers: int, busy: float) -> None:
    load = busy * servers
    blocked = stats.poisson.pmf(servers, load) / stats.poisson.cdf(servers, load)  # Erlang B without its recursion
    assert queueing.erlang_c(load, servers) == pytest.approx(blocked / (1 - busy * (1 - blocked)), rel=1e-9, abs=0)


def test_all_of_a_curve_at_once_and_no_number_from_saturation_on() -> None:
    loads = np.array([0, 2.0, 8, 10, 12])
    found = queueing.erlang_c(loads, 10)
    assert found[0] == 0
    assert found[2] == queueing.erlang_c(8.0, 10)
    assert np.isnan(found).tolist() == [False, False, False, True, True]
    assert np.isnan(queueing.mean_wait(loads, 1.0, 10)).tolist() == [False, False, False, True, True]
    assert np.isnan(queueing.wait_quantile(0.5, loads, 1.0, 10)).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("busy", [0.1, 0.5, 0.9, 0.99])
def test_one_server_meets_its_closed_forms(busy: float) -> None:
    service = 2.5
    rate = busy / service
    assert queueing.mean_wait(rate, service, 1) == pytest.approx(busy * service / (1 - busy))  # M/M/1
    fixed = busy * service / (2 * (1 - busy))  # M/D/1, Pollaczek and Khinchine
    assert queueing.mean_wait(rate, service, 1, service_scv=0) == pytest.approx(fixed)
    second_moment = service**2 * (1 + 3.7)  # M/G/1
    expected = rate * second_moment / (2 * (1 - busy))
    assert queueing.mean_wait(rate, service, 1, service_scv=3.7) == pytest.approx(expected)
    p95 = max(0.0, math.log(busy / 0.05) * service / (1 - busy))  # M/M/1: P(W > t) = rho exp(-(mu - lambda) t)
    assert queueing.wait_quantile(0.95, rate, service, 1) == pytest.approx(p95)


@given(
    servers=st.integers(1, 40), busy=st.floats(0.05, 0.98), service=st.floats(0.01, 100),
    arrivals=st.floats(0, 4), services=st.floats(0, 4),
)  # fmt: skip
def test_the_mean_is_the_area_under_the_tail_that_the_quantiles_give(
    servers: int, busy: float, service: float, arrivals: float, services: float
) -> None:
    shape = (busy * servers / service, service, servers, arrivals, services)
    waiting = float(queueing.erlang_c(busy * servers, servers))
    assume(waiting > 1e-6)
    of_those = (np.arange(100_000) + 0.5) / 100_000
    waits = queueing.wait_quantile(1 - waiting * (1 - of_those), *shape)
    assert waiting * np.mean(waits) == pytest.approx(float(queueing.mean_wait(*shape)), rel=1e-4)
    assert queueing.wait_quantile((1 - waiting) * 0.999, *shape) == 0


def test_nothing_varies_nobody_waits() -> None:
    assert queueing.mean_wait(0.9, 1.0, 1, 0.0, 0.0) == 0
    assert queueing.wait_quantile(0.99, 0.9, 1.0, 1, 0.0, 0.0) == 0


def test_expected_waits_are_the_formulas_of_the_sample() -> None:
    random = np.random.default_rng(1)
    services, gaps = random.gamma(2, 1.5, 400), random.gamma(0.5, 4, 300)
    found = queueing.expected_waits(1.0, services, 4, gaps)
    shape = (
        1.0, np.mean(services), 4, np.var(gaps, ddof=1) / np.mean(gaps) ** 2,
        np.var(services, ddof=1) / np.mean(services) ** 2,
    )  # fmt: skip
    assert found.utilization.value == pytest.approx(np.mean(services) / 4)
    assert found.mean.value == pytest.approx(queueing.mean_wait(*shape))
    assert found.p50.value == pytest.approx(queueing.wait_quantile(0.5, *shape))
    assert found.p95.value == pytest.approx(queueing.wait_quantile(0.95, *shape))
    assert found == queueing.expected_waits(1.0, services, 4, gaps)
    assert queueing.expected_waits(1.0, services, 4).mean.value == pytest.approx(
        queueing.mean_wait(1.0, np.mean(services), 4, 1.0, shape[4])
    )


def test_a_sample_that_does_not_exclude_saturation_has_no_upper_end() -> None:
    services = np.random.default_rng(2).exponential(1, 30)
    found = queueing.expected_waits(0.97 * 2 / np.mean(services), services, 2)
    assert math.isfinite(found.mean.value)
    assert (found.mean.high, found.p95.high) == (math.inf, math.inf)
    assert found.utilization.low < 1 < found.utilization.high < 2


def test_one_service_time_tells_nothing_on_its_spread() -> None:
    assert queueing.expected_waits(0.5, [1.0], 1).mean == Estimate(pytest.approx(0.5), 0, math.inf)


@pytest.mark.slow
def test_expected_waits_cover() -> None:
    truth = float(queueing.mean_wait(1.4, 1.0, 2)), float(queueing.wait_quantile(0.95, 1.4, 1.0, 2))
    hits = np.zeros(2)
    for seed in range(500):
        found = queueing.expected_waits(1.4, np.random.default_rng(seed).exponential(1, 200), 2)
        told = (found.mean, found.p95)
        hits += [one.low <= value <= one.high for one, value in zip(told, truth, strict=True)]
    assert np.all((hits >= 450) & (hits <= 495)), hits


def test_saturation_is_refused_and_says_by_how_much() -> None:
    with pytest.raises(
        queueing.Saturated, match=r"1\.5 times as much as 4 .*grows by 1 jobs/s.*at least 7 slots"
    ) as found:
        queueing.expected_waits(3.0, [1.0, 3.0], 4)
    assert (found.value.utilization, found.value.growth) == (1.5, 1.0)
    with pytest.raises(queueing.Saturated, match=r"below 2 jobs/s, or use at least 5 slots"):
        queueing.expected_waits(2.0, [2.0, 2.0], 4)


def test_wrong_input_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="servers must be 1 or more"):
        queueing.erlang_c(0.5, 0)
    with pytest.raises(ValueError, match="load must not be negative"):
        queueing.erlang_c(-1.0, 2)
    for probability in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"such as 0\.95"):
            queueing.wait_quantile(probability, 1.0, 0.5, 1)
    for services in ([1.0, math.nan], [-1.0, 2.0], [[1.0]]):
        with pytest.raises(ValueError, match="services must be finite seconds"):
            queueing.expected_waits(0.1, services, 1)  # type: ignore[arg-type]
    for services in ([], [0.0]):
        with pytest.raises(ValueError, match="at least one value above 0"):
            queueing.expected_waits(0.1, services, 1)
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="arrival rate must be finite and above 0"):
            queueing.expected_waits(rate, [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="servers must be 1 or more"):
        queueing.expected_waits(0.1, [1.0, 2.0], 0)


def test_the_jobs_of_a_long_queue_are_counted_though_their_times_add_up_beyond_64_bits() -> None:
    """300,000 jobs put at once and done one after the other, 1 s each: on average one waits 42 h, half of all there."""
    jobs = 300_000
    arrivals, departures = np.zeros(jobs, np.int64), np.arange(1, jobs + 1, dtype=np.int64) * 10**9
    assert sum(departures.tolist()) > 2**64
    found = queueing.little(arrivals, departures, departures / 1e9, (0, jobs * 10**9))
    assert found is not None
    assert found.in_system == pytest.approx((jobs + 1) / 2, rel=1e-12)
    assert found.ok
