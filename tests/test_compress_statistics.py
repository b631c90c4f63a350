"""What returns say about a sparse agent, against slow and obvious references."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sb3_rlx2.compress.statistics import Scale, out_of_reach, pareto_front, within

RNG = np.random.default_rng(7)


def test_scores_order_negative_returns():
    scale = Scale(random=(-1250.0, -1150.0), dense=(-140.0, -160.0))
    assert scale.score(-1200.0) == 0.0
    assert scale.score(-150.0) == 1.0
    assert scale.score(-675.0) == pytest.approx(0.5)
    assert scale.score(-100.0) > 1.0 > 0.0 > scale.score(-1300.0)
    assert within(scale, [-160.0, -190.0], 0.03)  # 0.976 on this scale, though 17 % below dense
    assert not within(scale, [-160.0, -290.0], 0.03)


@pytest.mark.parametrize("dense", [(-10.0,), (-20.0, 0.0), (-11.0,)])
def test_dense_must_beat_random(dense):
    with pytest.raises(ValueError, match=r"must lie above the random policy's -10\.00"):
        Scale(random=(-10.0,), dense=dense)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_returns_must_be_finite(value):
    with pytest.raises(ValueError, match="finite"):
        Scale(random=(0.0,), dense=(value,))


def slow_interval(scale, returns):
    """Try many ratios, and keep those that a t-test does not reject."""
    random, dense, own = (np.array(values) for values in (scale.random, scale.dense, returns))

    def test(ratio):
        weights = [(1.0, own), (ratio, dense), (1 - ratio, random)]
        return own.mean() - ratio * dense.mean() - (1 - ratio) * random.mean(), [w**2 * stats.sem(x) ** 2 for w, x in weights]

    center = (own.mean() - random.mean()) / (dense.mean() - random.mean())
    variances = test(center)[1]
    freedom = sum(variances) ** 2 / sum(v**2 / (len(x) - 1) for v, x in zip(variances, (own, dense, random), strict=True))
    ratios = np.linspace(center - 3, center + 3, 60_001)
    difference, variances = test(ratios)
    kept = ratios[2 * stats.t.sf(abs(difference) / np.sqrt(sum(variances)), freedom) >= 0.05]
    return kept[0], kept[-1]


@pytest.mark.parametrize(("n", "n_dense", "noise"), [(2, 3, 1.0), (5, 5, 8.0), (5, 2, 0.5), (3, 8, 20.0)])
def test_interval(n, n_dense, noise):
    scale = Scale(tuple(RNG.normal(-100, 10, 20)), tuple(RNG.normal(0, noise, n_dense)))
    returns = list(RNG.normal(-5, noise, n))
    assert scale.interval(returns) == pytest.approx(slow_interval(scale, returns), abs=2e-4)


def test_interval_with_exact_references():
    returns = list(RNG.normal(90, 5, 6))
    expected = stats.ttest_1samp(returns, 0).confidence_interval(0.95)
    low, high = Scale((20.0,), (120.0,)).interval(returns)
    assert (20 + 100 * low, 20 + 100 * high) == pytest.approx((expected.low, expected.high))


def test_interval_covers_the_truth():
    hits = 0
    for _ in range(2000):
        scale = Scale(tuple(RNG.normal(0, 30, 50)), tuple(RNG.normal(100, 8, 5)))
        low, high = scale.interval(RNG.normal(95, 12, 5))
        hits += low <= 0.95 <= high
    assert hits / 2000 == pytest.approx(0.95, abs=0.02)


def test_interval_of_what_cannot_be_told_apart():
    scale = Scale(random=(-1000.0, 1000.0), dense=(-900.0, 1000.0))
    assert scale.interval([0.0, 10.0]) == (-math.inf, math.inf)


def test_interval_without_noise_is_a_point():
    assert Scale((0.0, 0.0), (2.0, 2.0)).interval([1.0, 1.0]) == pytest.approx((0.5, 0.5))


def test_one_return_has_no_interval():
    with pytest.raises(ValueError, match="two or more"):
        Scale((0.0,), (1.0,)).interval([1.0])


coarse = st.integers(0, 4)


@given(st.lists(st.tuples(coarse, coarse), max_size=12))
def test_pareto_front(points):
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    expected = [not any(beats(other, point) for other in points) for point in points]
    assert pareto_front([size for size, _ in points], [score for _, score in points]) == expected


@given(st.lists(st.sampled_from([0.2, 0.9, 0.97, 1.0, 1.1]), max_size=4))
def test_out_of_reach_never_stops_what_could_pass(scores):
    n_seeds, best = 4, 1.1
    scale = Scale((0.0,), (1.0,))
    missing = n_seeds - len(scores)
    could_pass = any(
        within(scale, [*scores, *rest], 0.03) for rest in itertools.product([0.2, 0.9, 0.97, 1.0, best], repeat=missing)
    )
    assert out_of_reach(scores, n_seeds, 0.03, best) == (not could_pass)
