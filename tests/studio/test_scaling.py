"""The scaling law against published figures, scipy's least squares and known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from bulkscope_studio.analysis.statistics import scaling
from bulkscope_studio.analysis.statistics.estimates import Estimate, Floats

# SPEC SDM91, from the literature on the law (Gunther 2007): users and scripts/h.
SDM91 = ([1, 18, 36, 72, 108, 144, 216], [64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2])


def law(workers: Floats, rate: float, sigma: float, kappa: float) -> Floats:
    return rate * workers / (1 + sigma * (workers - 1) + kappa * workers * (workers - 1))


def fitted(workers: object, throughput: object) -> scaling.Law:
    found = scaling.fit(np.asarray(workers, dtype=float), np.asarray(throughput, dtype=float))
    assert isinstance(found, scaling.Law)
    return found


def test_published_data_give_the_published_law() -> None:
    found = fitted(*SDM91)
    assert found.rate.value == pytest.approx(89.995, abs=5e-4)
    assert found.contention.value == pytest.approx(0.02773, abs=5e-6)
    assert found.coherency.value == pytest.approx(1.044e-4, abs=5e-8)
    assert found.peak.value == pytest.approx(96.5, abs=0.05)
    assert found.peak_throughput.value == pytest.approx(1883.9, abs=0.1)
    assert found.r_squared == pytest.approx(0.9896, abs=1e-4)
    assert not found.extrapolated


@pytest.mark.parametrize(
    ("sigma", "kappa"), [(0.08, 0.004), (0.0, 0.002), (0.2, 0.0), (0.0, 0.0), (1.0, 0.0), (1.4, 0.01)]
)
def test_a_law_without_scatter_is_found_again(sigma: float, kappa: float) -> None:
    workers = np.array([1.0, 2, 3, 5, 8, 13])
    found = fitted(workers, law(workers, 2.5, sigma, kappa))
    assert found.rate.value == pytest.approx(2.5, rel=1e-6)
    assert found.contention.value == pytest.approx(sigma, abs=1e-6)
    assert found.coherency.value == pytest.approx(kappa, abs=1e-7)
    assert found.r_squared is None or found.r_squared == pytest.approx(1)


def test_no_price_of_pairs_has_no_peak() -> None:
    workers = np.array([1.0, 2, 3, 4, 5])
    straight = fitted(workers, 3 * workers)
    assert straight.extrapolated
    assert straight.peak.high == math.inf
    found, limit = scaling._peaks(np.array([[3.0, 0, 0], [3, 0.5, 0], [3, 1, 0], [3, 2, 0.1], [3, 0.19, 0.01]]))
    assert found.tolist() == pytest.approx([math.inf, math.inf, 1, 1, 9])
    assert limit[:4].tolist() == [math.inf, 6, 3, 3]
    grid = np.linspace(1, 30, 29_001)
    values = law(grid, 3, 0.19, 0.01)
    assert grid[np.argmax(values)] == pytest.approx(9, abs=1e-3)
    assert limit[4] == pytest.approx(np.max(values))


def test_least_squares_are_those_of_scipy() -> None:
    workers = np.array([1.0, 2, 4, 6, 8, 12, 16])
    for seed in range(60):
        random = np.random.default_rng(seed)
        sigma, kappa = random.uniform(0, 0.5) * (seed % 3 > 0), random.uniform(0, 0.02) * (seed % 2)
        measured = law(workers, 1.0, sigma, kappa) * random.normal(1, 0.08, len(workers))
        found = fitted(workers, measured)

        def residuals(p: Floats, y: Floats = measured) -> Floats:
            return law(workers, *p) - y

        starts = [(measured[0], s, k) for s in (1e-6, 0.05, 0.5) for k in (1e-8, 1e-3, 0.02)]
        best = min(
            2 * optimize.least_squares(residuals, start, bounds=([0, 0, 0], np.inf), x_scale="jac", xtol=1e-14).cost
            for start in starts
        )
        mine = (found.rate.value, found.contention.value, found.coherency.value)
        assert min(mine) >= 0
        assert np.sum(residuals(np.array(mine)) ** 2) <= best * (1 + 1e-6)


def test_units_of_throughput_only_scale_the_result() -> None:
    a, b = fitted(*SDM91), fitted(SDM91[0], np.array(SDM91[1]) / 3600)
    for one, other, factor in (
        (a.rate, b.rate, 3600), (a.contention, b.contention, 1), (a.coherency, b.coherency, 1),
        (a.peak_throughput, b.peak_throughput, 3600),
    ):  # fmt: skip
        assert (one.value, one.low, one.high) == pytest.approx(
            (other.value * factor, other.low * factor, other.high * factor), rel=1e-4
        )


def test_order_of_measurements_does_not_change_the_fit_and_the_same_data_repeat() -> None:
    found = fitted(*SDM91)
    assert fitted(*SDM91) == found
    turned = fitted(SDM91[0][::-1], SDM91[1][::-1])
    assert turned.rate.value == pytest.approx(found.rate.value, rel=1e-6)
    assert turned.peak.value == pytest.approx(found.peak.value, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("grows", ["not", "as counts do"])
@pytest.mark.parametrize("workers", [[1, 2, 4, 6, 8, 12, 16], [1, 1, 2, 2, 4, 4, 8, 8, 16, 16]])
def test_intervals_cover(monkeypatch: pytest.MonkeyPatch, workers: list[int], grows: str) -> None:
    monkeypatch.setattr(scaling, "_RESAMPLES", 300)  # of 1000: rougher ends, a third of the time
    n = np.array(workers, dtype=float)
    truth = (2.0, 0.08, 0.004)
    exact = law(n, *truth)
    scatter = 0.03 * (np.mean(exact) if grows == "not" else np.sqrt(exact * np.mean(exact)))
    peak = math.sqrt((1 - 0.08) / 0.004)
    expected = (*truth, peak, float(law(np.array([peak]), *truth)[0]), float(law(np.array([20.0]), *truth)[0]))
    draws, hits = 500, np.zeros(6)
    for seed in range(draws):
        found = fitted(n, exact + np.random.default_rng(seed).normal(size=len(n)) * scatter)
        told: tuple[Estimate, ...] = (
            found.rate, found.contention, found.coherency, found.peak, found.peak_throughput, found.throughput(20),
        )  # fmt: skip
        hits += [one.low <= value <= one.high for one, value in zip(told, expected, strict=True)]
    assert np.all((hits / draws >= 0.90) & (hits / draws <= 0.995)), hits / draws


def test_part_of_a_sweep_predicts_the_rest() -> None:
    found = fitted(SDM91[0][:5], SDM91[1][:5])
    for workers, measured in zip(SDM91[0][5:], SDM91[1][5:], strict=True):
        told = found.throughput(workers)
        assert told.low <= measured <= told.high


def test_throughput_of_a_count_is_the_law_there() -> None:
    found = fitted(*SDM91)
    expected = law(np.array([50.0]), found.rate.value, found.contention.value, found.coherency.value)[0]
    assert found.throughput(50).value == pytest.approx(expected)


def test_four_counts_give_bounds_however_often_they_are_measured() -> None:
    found = scaling.fit([2, 2, 4, 8, 8, 1], [4.0, 3.0, 5.0, 6.0, 4.0, 2.0])
    assert found == scaling.Bounds((1, 2, 4, 8), (2.0, 3.5, 5.0, 5.0), 5.0, 4)
    assert (found.ceiling(1), found.ceiling(3), found.ceiling(16)) == (2.0, 6.0, 32.0)


def test_bounds_never_contradict_a_measurement_and_say_nothing_below_the_lowest_count() -> None:
    found = scaling.fit([2, 3], [2.0, 6.0])  # faster than linear: the second worker count had a warm cache
    assert isinstance(found, scaling.Bounds)
    assert found.ceiling(1) is None
    assert (found.ceiling(2), found.ceiling(3), found.ceiling(4)) == (2.0, 6.0, 8.0)


@pytest.mark.parametrize("seed", range(20))
def test_true_laws_stay_under_the_ceiling(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = (1.0, random.uniform(0, 0.5), random.uniform(0, 0.02))
    counts = np.sort(random.choice(np.arange(1, 12), 3, replace=False)).astype(float)
    found = scaling.fit(counts, law(counts, *truth))
    assert isinstance(found, scaling.Bounds)
    for n in range(int(counts[0]), 40):
        ceiling = found.ceiling(n)
        assert ceiling is not None
        assert law(np.array([float(n)]), *truth)[0] <= ceiling * (1 + 1e-12)


@pytest.mark.parametrize(
    ("workers", "throughput", "message"),
    [
        ([], [], "at least one"), ([0], [1.0], "1 or more"), ([math.nan], [1.0], "1 or more"), ([1], [0.0], "above 0"),
        ([1], [math.nan], "above 0"), ([1, 2], [1.0], "one throughput per worker count"),
    ],
)  # fmt: skip
def test_wrong_input_says_what_to_do(workers: list[float], throughput: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scaling.fit(workers, throughput)
