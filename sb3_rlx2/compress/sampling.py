"""Which densities the search tries next, and which of its trainings it stops."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial

N_STARTUP_TRIALS = 10
HOPELESS = 0.5  # of the score that the slowest successful training had at the same evaluation


def even_steps(dimensions: int) -> list[float]:
    """
    Give the steps of Roberts' additive recurrence, whose points are evenly spread after any number of them: the golden ratio's
    in one dimension, the plastic number's in two
    (https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/).

    :param dimensions: number of dimensions
    """
    root = 2.0  # of x^(d + 1) = x + 1
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    return [root**-number for number in range(1, dimensions + 1)]


class DensitySampler(TPESampler):
    """
    TPE, after a start that spreads evenly. The start depends on nothing but a trial's number, so workers share it.

    :param parameters: names of the densities
    :param seed: of TPE
    """

    def __init__(self, parameters: Sequence[str], seed: int | None = None) -> None:
        super().__init__(n_startup_trials=N_STARTUP_TRIALS, seed=seed)
        self.steps = dict(zip(parameters, even_steps(len(parameters)), strict=True))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """
        Sample one parameter, see Optuna.

        :param study: the study
        :param trial: the trial
        :param param_name: name of a density
        :param param_distribution: log-uniform
        """
        if trial.number >= N_STARTUP_TRIALS:
            return super().sample_independent(study, trial, param_name, param_distribution)
        low, high = math.log(param_distribution.low), math.log(param_distribution.high)  # type: ignore[attr-defined]
        share = (0.5 + (trial.number + 1) * self.steps[param_name]) % 1.0
        return math.exp(low + share * (high - low))


class HopelessPruner(BasePruner):
    """
    Stops a training that has not come half as far as the slowest successful one had at the same evaluation, the first third
    of training apart. Successful are the dense runs and the sparse ones that ended within tolerance.

    It does not compare with the median of all trials, as Optuna's pruners do: half of all trials are worse than that, and a
    small agent that learns slowly is just what is looked for.

    :param n_evaluations: of one training
    :param successful: gives the scores of each successful training, by number of the evaluation from 1
    :param score: places a return on the scale
    """

    def __init__(
        self, n_evaluations: int, successful: Callable[[], Iterable[dict[int, float]]], score: Callable[[float], float]
    ) -> None:
        self.n_evaluations, self.successful, self.score = n_evaluations, successful, score

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """
        Judge a training after its latest evaluation.

        :param study: the search
        :param trial: its running trial
        """
        step = trial.last_step
        if step is None or 3 * step < self.n_evaluations or step >= self.n_evaluations:
            return False
        own = self._best(trial.intermediate_values, step)
        slowest = min((self._best(curve, step) for curve in self.successful()), default=-math.inf)
        return slowest > 0.0 and own < HOPELESS * slowest

    def _best(self, curve: dict[int, float], step: int) -> float:
        """Give the best score up to an evaluation."""
        return max((self.score(value) for number, value in curve.items() if number <= step), default=-math.inf)
