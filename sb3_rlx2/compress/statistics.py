"""What a sparse agent's returns say about it: its score, the score's confidence interval, the decision, the Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Scale:
    """
    The scale of scores: 0 is the random policy, 1 is the dense agent. It also orders negative returns.

    :param random: returns of the random policy, one per episode
    :param dense: returns of the dense agent, one per seed; a single one is taken as exact
    """

    random: tuple[float, ...]
    dense: tuple[float, ...]

    def __post_init__(self) -> None:
        if not np.isfinite((*self.random, *self.dense)).all():
            raise ValueError(f"the dense returns {self.dense} and the random policy's {self.random} must be finite numbers")
        low, high = float(np.mean(self.random)), float(np.mean(self.dense))
        if not high > low:
            raise ValueError(
                f"the dense agent's mean return is {high:,.2f} and must lie above the random policy's {low:,.2f}: on this "
                "scale no agent can be judged; train longer (--n-timesteps), or check --dense-return"
            )

    def score(self, value: float) -> float:
        """
        Place a return on the scale.

        :param value: a return, or a mean of returns
        """
        low, high = float(np.mean(self.random)), float(np.mean(self.dense))
        return (value - low) / (high - low)

    def interval(self, returns: Sequence[float]) -> tuple[float, float]:
        """
        Give the 95 % confidence interval of the score of a mean return, by Fieller's theorem: it holds the ratios ``r`` for
        which ``mean(returns) - r mean(dense) - (1 - r) mean(random)`` does not differ from 0 in a t-test (degrees of freedom
        by Welch and Satterthwaite, at the point estimate). So the noise of all three means counts.

        :param returns: one per seed, two or more
        :return: lower and upper end; infinite where the dense and the random returns cannot be told apart
        :raises ValueError: if there are fewer
        """
        if len(returns) < 2:
            raise ValueError(f"returns={tuple(returns)!r} must hold two or more: one return has no confidence interval")
        mean, low, high = (float(np.mean(values)) for values in (returns, self.random, self.dense))
        center = (mean - low) / (high - low)
        terms = [(_variance_of_mean(returns), len(returns))]
        terms += [(center**2 * _variance_of_mean(self.dense), len(self.dense))]
        terms += [((1 - center) ** 2 * _variance_of_mean(self.random), len(self.random))]
        t2 = float(stdtrit(_degrees_of_freedom(terms), 0.5 + CONFIDENCE / 2)) ** 2
        own, dense, random = (t2 * _variance_of_mean(values) for values in (returns, self.dense, self.random))
        # (A - rB)^2 <= own + r^2 dense + (1 - r)^2 random, as a r^2 + 2 b r + c <= 0
        a = (high - low) ** 2 - dense - random
        b = random - (mean - low) * (high - low)
        c = (mean - low) ** 2 - own - random
        if a <= 0:
            return -math.inf, math.inf
        root = math.sqrt(max(b * b - a * c, 0.0))
        return (-b - root) / a, (-b + root) / a


def _variance_of_mean(values: Sequence[float]) -> float:
    return float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0


def _degrees_of_freedom(terms: Sequence[tuple[float, int]]) -> float:
    """Welch and Satterthwaite: of a sum of variances of means, each with its sample size."""
    spread = sum(variance**2 / (n - 1) for variance, n in terms if n > 1)
    return sum(variance for variance, _ in terms) ** 2 / spread if spread > 0 else 1.0  # any, if nothing varies


def within(scale: Scale, returns: Sequence[float], tolerance: float) -> bool:
    """
    Decide: an agent is within tolerance if the mean over its seeds scores at least ``1 - tolerance``.

    :param scale: what returns are measured against
    :param returns: one per seed
    :param tolerance: share of the dense agent's score that may be lost
    """
    return scale.score(float(np.mean(returns))) >= 1.0 - tolerance


def out_of_reach(scores: Sequence[float], n_seeds: int, tolerance: float, best: float) -> bool:
    """
    Tell whether a mean over all seeds would miss even if each seed still to come did as well as the best run so far.

    :param scores: of the seeds that are done
    :param n_seeds: number of seeds in all
    :param tolerance: share of the dense agent's score that may be lost
    :param best: the best score that any run reached
    """
    missing = max(n_seeds - len(scores), 0)
    return bool(scores) and (sum(scores) + missing * best) / (len(scores) + missing) < 1.0 - tolerance


def pareto_front(sizes: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """
    Mark the points that no other point beats: none is as small with a better score, or smaller with a score as good.

    :param sizes: less is better
    :param scores: more is better
    :return: one mark per point; of equal points all are marked
    """
    marks = [False] * len(sizes)
    best, size_of_best = -math.inf, math.nan
    for i in sorted(range(len(sizes)), key=lambda i: (sizes[i], -scores[i])):
        if scores[i] > best:
            best, size_of_best = scores[i], sizes[i]
        marks[i] = scores[i] == best and sizes[i] == size_of_best
    return marks
