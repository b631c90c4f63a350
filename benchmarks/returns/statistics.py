"""Point estimates and intervals, by rliable (Agarwal et al., NeurIPS 2021, https://arxiv.org/abs/2108.13264)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rliable import library, metrics

REPETITIONS = 2_000  # of the bootstrap
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
