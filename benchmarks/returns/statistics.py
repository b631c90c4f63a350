"""Point estimates and intervals, by rliable (Agarwal et al., NeurIPS 2021, https://arxiv.org/abs/2108.13264)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rliable import library, metrics

REPETITIONS = 2_000  # of the bootstrap
PERMUTATIONS = 10_000
SIMULATIONS = 1_000  # of runs that do not differ
Scores = Sequence[float]


Pair = tuple[Scores, Scores]  # scores of each seed, and of each seed of the dense agent in the same environment


@dataclass(frozen=True)
class Estimate:
    """
    An estimate with its 95 % bootstrap interval.

    :param value: the estimate
    :param low: lower end of the interval, None if there is but one seed
    :param high: upper end of the interval
    :param seeds: seeds that it is made of, the fewest over environments
    :param dense_seeds: seeds of the dense agent that it is relative to, the fewest over environments; None if to none
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    dense_seeds: int | None = None


def mean(scores: Scores) -> Estimate:
    """
    Estimate a mean score.

    :param scores: of each seed
    """
    return _estimate([scores], np.mean, len(scores))


def share_of_dense(scores: Scores, dense: Scores) -> Estimate:
    """
    Estimate the ratio of two mean scores; seeds of both are drawn anew, so the interval holds the spread of both.

    :param scores: of each seed
    :param dense: scores of each seed of the dense agent
    """
    return _estimate([scores, dense], lambda own, reference: own.mean() / reference.mean(), len(scores), len(dense))


def interquartile_mean(pairs: Sequence[Pair]) -> Estimate:
    """
    Estimate the interquartile mean of the shares of dense over seeds and environments; seeds of both are drawn anew.

    :param pairs: scores, for each environment; numbers of seeds may differ
    """
    own, dense = zip(*pairs, strict=True)
    iqm = lambda *strata: metrics.aggregate_iqm(_shares(strata))  # noqa: E731
    return _estimate([*own, *dense], iqm, min(map(len, own)), min(map(len, dense)))


def performance_profile(pairs: Sequence[Pair], thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Give the share of runs whose share of dense is above each threshold; seeds of both are drawn anew.

    :param pairs: scores, for each environment
    :param thresholds: shares of dense, ``[thresholds]``
    :return: shares of runs, ``[thresholds]``, and their 95 % intervals, ``[2, thresholds]``
    """
    own, dense = zip(*pairs, strict=True)
    return _bootstrap([*own, *dense], lambda *strata: library.score_distributions(_shares(strata), thresholds))


def structure_test(groups: Sequence[Scores]) -> float:
    """
    Test whether groups have one mean: the share of permutations of the scores over groups with an F statistic at least as
    large.

    :param groups: scores of each group
    :return: p-value
    """
    group = np.repeat(np.arange(len(groups)), [len(scores) for scores in groups])
    indicator = np.eye(len(groups))[group]
    return _permutation_test(
        np.concatenate([np.asarray(scores, float) for scores in groups]), np.ones((len(group), 1)), indicator
    )


def interaction_test(pairs: Sequence[Pair]) -> float:
    """
    Test whether the difference between two regimes is the same for all structures: the share of permutations of the additive
    model's residuals with an F statistic of the interaction at least as large.

    :param pairs: scores in one regime and in the other, for each structure
    :return: p-value
    """
    scores = [np.asarray(each, float) for pair in pairs for each in pair]
    cell = np.repeat(np.arange(len(scores)), [len(each) for each in scores])
    additive = np.concatenate([np.eye(len(pairs))[cell // 2], (cell % 2)[:, None]], axis=1)
    values = np.concatenate(scores)
    return _permutation_test(values - _projection(additive) @ values, additive, np.eye(len(scores))[cell])


def _permutation_test(values: np.ndarray, small: np.ndarray, large: np.ndarray) -> float:
    """Compare two linear models, ``[runs, columns]``, the large one of which contains the small one."""
    order = np.random.default_rng(0).permuted(np.tile(np.arange(len(values)), (PERMUTATIONS, 1)), axis=1)
    drawn = np.concatenate([values[None], values[order]])
    rest = [np.square(drawn - drawn @ _projection(model)).sum(axis=1) for model in (small, large)]
    gains = (rest[0] - rest[1]) / np.maximum(rest[1], 1e-12)
    return float((gains >= gains[0] * (1 - 1e-9) - 1e-9).mean())


def _projection(columns: np.ndarray) -> np.ndarray:
    return columns @ np.linalg.pinv(columns)


def best_differs(pairs: Sequence[Pair]) -> float:
    """
    Give the bootstrap probability that another structure is best in one regime than in the other.

    :param pairs: scores in one regime and in the other, for each structure
    """
    generator = np.random.default_rng(0)
    regimes = [[_resampled_means(scores, generator) for scores in regime] for regime in zip(*pairs, strict=True)]
    best = [np.stack(means).argmax(axis=0) for means in regimes]
    return float((best[0] != best[1]).mean())


def difference(scores: Scores, others: Scores) -> Estimate:
    """
    Estimate the difference of two mean scores.

    :param scores: of each seed
    :param others: of each seed of what they are compared with
    """
    return best_against([scores], others)


def difference_over(environments: Sequence[tuple[Scores, Scores, Scores]]) -> Estimate:
    """
    Estimate the difference of two methods in shares of dense, averaged over environments; seeds of all three are drawn anew.

    :param environments: scores of each seed of the one, of the other and of the dense agent, for each environment
    """
    strata = [scores for environment in environments for scores in environment]

    def average(*parts: np.ndarray) -> float:
        triples = zip(*(parts[at::3] for at in range(3)), strict=True)
        return float(np.mean([(own.mean() - other.mean()) / dense.mean() for own, other, dense in triples]))

    return _estimate(strata, average, min(len(own) for own, _, _ in environments))


def best_against(groups: Sequence[Scores], others: Scores) -> Estimate:
    """
    Estimate the difference of the best mean score of several groups to another; each bootstrap draw has a best of its own.

    :param groups: scores of each group
    :param others: of each seed of what they are compared with
    """
    value = max(map(np.mean, groups)) - np.mean(others)
    generator = np.random.default_rng(0)
    drawn = np.stack([_resampled_means(scores, generator) for scores in groups]).max(axis=0)
    drawn -= _resampled_means(others, generator)
    seeds = min(map(len, [*groups, others]))
    low, high = (None, None) if seeds < 2 else (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    return Estimate(float(value), low, high, seeds)


@dataclass(frozen=True)
class Chance:
    """
    What comes out where nothing differs: all scores are drawn from one normal distribution.

    :param best_is_above: how often the interval of :func:`best_against` lies above 0
    :param best_differs: the mean of :func:`best_differs`
    """

    best_is_above: float
    best_differs: float


@lru_cache
def chance(groups: int, seeds: int) -> Chance:
    """
    Say what choosing the best does where nothing differs.

    :param groups: number of groups
    :param seeds: number of seeds of each group, and of what the best is compared with
    """
    scores = np.random.default_rng(0).standard_normal((SIMULATIONS, 2 * groups + 1, seeds))
    lows = [best_against(drawn[:groups], drawn[-1]).low for drawn in scores]
    differs = [best_differs(list(zip(drawn[:groups], drawn[groups:-1], strict=True))) for drawn in scores]
    return Chance(float(np.mean([low is not None and low > 0 for low in lows])), float(np.mean(differs)))


def _resampled_means(scores: Scores, generator: np.random.Generator) -> np.ndarray:
    """Give mean scores of seeds drawn anew, ``[repetitions]``."""
    values = np.asarray(scores, float)
    return generator.choice(values, (REPETITIONS, len(values))).mean(axis=1)


def _shares(strata: Sequence[np.ndarray]) -> np.ndarray:
    """Give each run's share of its environment's mean dense score; the second half of the strata is the dense agents'."""
    half = len(strata) // 2
    return np.concatenate([own / dense.mean() for own, dense in zip(strata[:half], strata[half:], strict=True)])


def _estimate(
    strata: Sequence[Scores], function: Callable[..., float], seeds: int, dense_seeds: int | None = None
) -> Estimate:
    value, interval = _bootstrap(strata, lambda *parts: np.array([function(*parts)]))
    low, high = (None, None) if seeds < 2 else (float(interval[0, 0]), float(interval[1, 0]))
    return Estimate(float(value[0]), low, high, seeds, dense_seeds)


def _bootstrap(strata: Sequence[Scores], function: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    # rliable draws from the global generator, whatever it is given as `random_state`.
    np.random.seed(0)  # noqa: NPY002
    arrays = [np.asarray(scores, float)[:, None] for scores in strata]
    points, intervals = library.get_interval_estimates({"": arrays}, function, reps=REPETITIONS)
    return points[""], intervals[""]
