"""Point estimates and intervals, by rliable (Agarwal et al., NeurIPS 2021, https://arxiv.org/abs/2108.13264)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rliable import library, metrics

REPETITIONS = 2_000  # of the bootstrap
Scores = Sequence[float]


@dataclass(frozen=True)
class Estimate:
    """
    An estimate with its 95 % bootstrap interval.

    :param value: the estimate
    :param low: lower end of the interval, None if there is but one seed
    :param high: upper end of the interval
    :param seeds: seeds that it is made of, the fewest over environments
    """

    value: float
    low: float | None
    high: float | None
    seeds: int


def share_of_dense(scores: Scores, dense: Scores) -> Estimate:
    """
    Estimate the ratio of two mean scores; seeds of both are drawn anew, so the interval holds the spread of both.

    :param scores: of each seed
    :param dense: scores of each seed of the dense agent
    """
    return _estimate([scores, dense], lambda own, reference: own.mean() / reference.mean(), len(scores))


def mean(scores: Scores) -> Estimate:
    """
    Estimate a mean score.

    :param scores: of each seed
    """
    return _estimate([scores], np.mean, len(scores))


def interquartile_mean(shares: Sequence[Scores]) -> Estimate:
    """
    Estimate the interquartile mean over seeds and environments.

    :param shares: shares of dense of each seed, for each environment; their numbers of seeds may differ
    """
    return _estimate(shares, lambda *envs: metrics.aggregate_iqm(np.concatenate(envs)), min(map(len, shares)))


def performance_profile(shares: Sequence[Scores], thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Give the share of runs that do better than each threshold.

    :param shares: shares of dense of each seed, for each environment
    :param thresholds: shares of dense, ``[thresholds]``
    :return: shares of runs, ``[thresholds]``, and their 95 % intervals, ``[2, thresholds]``
    """
    return _bootstrap(shares, lambda *envs: library.score_distributions(np.concatenate(envs), thresholds))


def _estimate(strata: Sequence[Scores], function: Callable[..., float], seeds: int) -> Estimate:
    value, interval = _bootstrap(strata, lambda *parts: np.array([function(*parts)]))
    low, high = (None, None) if seeds < 2 else (float(interval[0, 0]), float(interval[1, 0]))
    return Estimate(float(value[0]), low, high, seeds)


def _bootstrap(strata: Sequence[Scores], function: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    # rliable draws from the global generator, whatever it is given as `random_state`.
    np.random.seed(0)  # noqa: NPY002
    arrays = [np.asarray(scores, float)[:, None] for scores in strata]
    points, intervals = library.get_interval_estimates({"": arrays}, function, reps=REPETITIONS)
    return points[""], intervals[""]
