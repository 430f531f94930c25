"""Intervals against scipy, and against what they promise: to hold the truth in about 95 of 100 draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bulkscope_studio.analysis.statistics import estimates
from bulkscope_studio.analysis.statistics.estimates import Estimate, Floats

DRAWS = 500


def covered(truth: float, draw: Callable[[np.random.Generator], Estimate | None]) -> float:
    """Share of seeded draws whose interval holds the truth."""
    found = [draw(np.random.default_rng(seed)) for seed in range(DRAWS)]
    assert all(one is not None for one in found)
    return sum(one.low <= truth <= one.high for one in found if one is not None) / DRAWS


@pytest.mark.parametrize("probability", [0.8, 0.975, 0.9958])
def test_student_is_that_of_scipy(probability: float) -> None:
    for degrees in (*range(1, 80), 120, 500, 10_000):
        expected = pytest.approx(stats.t.ppf(probability, degrees), abs=2e-5)
        assert estimates.student(degrees, probability) == expected, degrees


def test_no_degree_of_freedom_tells_nothing() -> None:
    assert estimates.student(0) == math.inf


def test_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).gamma(2, 3, 17)
    found = estimates.mean(values)
    low, high = stats.t.interval(0.95, 16, loc=np.mean(values), scale=stats.sem(values))
    assert found == Estimate(
        pytest.approx(np.mean(values)), pytest.approx(low, rel=1e-5), pytest.approx(high, rel=1e-5)
    )


def test_absent_values_do_not_count_and_one_value_tells_no_spread() -> None:
    values = np.array([1.0, 2.0, 4.0])
    assert estimates.mean(np.array([1.0, math.nan, 2.0, 4.0])) == estimates.mean(values)
    assert estimates.mean(np.array([math.nan])) is None
    assert estimates.mean(np.array([])) is None
    assert estimates.mean(np.array([3.0])) == Estimate(3.0, -math.inf, math.inf)


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (1, 1), (0, 40), (40, 40), (1, 7), (13, 29), (500, 1000)])
def test_proportion_is_wilsons_score_of_scipy(hits: int, of: int) -> None:
    found = estimates.proportion(hits, of)
    expected = stats.binomtest(hits, of).proportion_ci(0.95, method="wilson")
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))
    assert found.low <= found.value <= found.high


def test_proportion_of_none_is_none_and_of_the_impossible_an_error() -> None:
    assert estimates.proportion(0, 0) is None
    for hits, of in ((3, 2), (-1, 2), (0, -1), (1, 0)):
        with pytest.raises(ValueError, match="no share"):
            estimates.proportion(hits, of)


def test_slope_and_coefficients_are_least_squares_of_scipy() -> None:
    random = np.random.default_rng(2)
    x, other = random.normal(size=(2, 40))
    y = 2 + 3 * x - other + random.normal(size=40)
    found = estimates.slope(x, y)
    assert found is not None
    assert found.value == pytest.approx(stats.linregress(x, y).slope)
    design = np.column_stack([np.ones(40), x, other])
    exact = np.linalg.lstsq(design, y, rcond=None)[0]
    assert [one.value for one in estimates.coefficients(design, y)] == pytest.approx(exact.tolist())


def test_interval_of_a_slope_is_hc3_by_its_definition() -> None:
    random = np.random.default_rng(3)
    x = random.uniform(1, 9, 12)
    y = 5 + 2 * x + random.normal(size=12) * x
    design = np.column_stack([np.ones(12), x])
    bread = np.linalg.inv(design.T @ design)
    leave_one_out = []  # HC3 is the jackknife: each residual over 1 - h is its error without its own row
    for row in range(12):
        kept = np.arange(12) != row
        beta = np.linalg.lstsq(design[kept], y[kept], rcond=None)[0]
        leave_one_out.append(y[row] - design[row] @ beta)
    covariance = bread @ design.T @ np.diag(np.square(leave_one_out)) @ design @ bread
    found = estimates.slope(x, y)
    assert found is not None
    half = stats.t.ppf(0.975, 10) * math.sqrt(covariance[1, 1])
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-4)


def test_slope_keeps_its_digits_over_times_since_1970() -> None:
    seconds = np.arange(20.0)
    y = 0.5 * seconds + np.sin(seconds)
    near, far = estimates.slope(seconds, y), estimates.slope(1.7e9 + seconds, y)
    assert near is not None
    assert far is not None
    assert (far.value, far.low, far.high) == pytest.approx((near.value, near.low, near.high))


def test_coefficients_of_columns_of_very_unlike_size() -> None:
    random = np.random.default_rng(4)
    x, big = random.normal(size=30), random.normal(size=30) * 1e12
    y = 1 + 2 * x + 3e-12 * big
    found = estimates.coefficients(np.column_stack([np.ones(30), x, big]), y)
    assert [one.value for one in found] == pytest.approx([1, 2, 3e-12])


def test_what_the_data_do_not_determine_has_an_infinite_interval() -> None:
    x = np.arange(6.0)
    for one in estimates.coefficients(np.column_stack([x, 2 * x]), x):
        assert (one.low, one.high) == (-math.inf, math.inf)
    for one in estimates.coefficients(np.column_stack([np.ones(2), x[:2]]), x[:2]):
        assert (one.low, one.high) == (-math.inf, math.inf)
    assert estimates.slope(np.ones(5), x[:5]) is None
    assert estimates.slope(x[:2], x[:2]) is None


def test_slope_that_hangs_on_one_row_is_not_certain() -> None:
    found = estimates.slope(np.array([0.0, 0, 0, 0, 1]), np.array([1.0, 1.1, 0.9, 1, 5]))
    assert found is not None
    assert found.value == pytest.approx(4)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_rows_with_an_absent_value_are_left_out() -> None:
    x, y = np.array([0.0, 1, 2, 3, math.nan, 5]), np.array([1.0, 2.5, 2, math.nan, 3, 9])
    assert estimates.slope(x, y) == estimates.slope(x[[0, 1, 2, 5]], y[[0, 1, 2, 5]])
    design = np.column_stack([np.ones(6), x])
    assert estimates.coefficients(design, y) == estimates.coefficients(design[[0, 1, 2, 5]], y[[0, 1, 2, 5]])


def test_drift_is_the_rise_over_the_time() -> None:
    found = estimates.drift(np.array([3.0, 5, 4, 9]), 2.0)
    assert found is not None
    assert found.value == pytest.approx((9 - 3) / 6)
    assert estimates.drift(np.array([1.0, 2]), 1.0) is None
    with pytest.raises(ValueError, match="step above 0"):
        estimates.drift(np.array([1.0, 2, 3]), 0)


def test_percentiles_keep_infinity_out_of_means_and_the_value_inside() -> None:
    draws = np.r_[np.arange(95.0), np.full(5, np.inf)]
    assert estimates.percentiles(-1.0, draws) == Estimate(-1.0, -1.0, math.inf)
    assert estimates.percentiles(50.0, draws[:95]) == Estimate(50.0, 2.0, 92.0)


def test_mean_covers() -> None:
    assert 0.90 <= covered(3.0, lambda random: estimates.mean(random.normal(3, 2, 8))) <= 0.99


def test_proportion_covers() -> None:
    share = covered(0.1, lambda random: estimates.proportion(int(random.binomial(40, 0.1)), 40))
    assert 0.90 <= share <= 0.99


def test_slope_covers_where_the_scatter_grows_with_x() -> None:
    def draw(random: np.random.Generator) -> Estimate | None:
        x = random.uniform(1, 10, 30)
        return estimates.slope(x, 2 * x + random.normal(size=30) * x)

    assert 0.90 <= covered(2.0, draw) <= 0.99


def walk(random: np.random.Generator) -> Floats:
    return np.cumsum(random.poisson(3, 60) - random.poisson(3, 60)).astype(float)


def test_drift_of_a_random_walk_covers_where_a_line_through_it_does_not() -> None:
    assert 0.90 <= covered(0.0, lambda random: estimates.drift(walk(random), 1.0)) <= 0.99
    assert covered(0.0, lambda random: estimates.slope(np.arange(60.0), walk(random))) < 0.5
