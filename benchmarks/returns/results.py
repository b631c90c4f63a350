"""Reads what is stored: finished cells."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.returns.cells import SETS

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FINAL_SHARE = 0.05  # of the steps: a run's score is its mean return there, as over the last 150k of the paper's 3M


class Curve:
    """
    Evaluations of a run.

    :param steps: environment steps, ``[evaluations]``
    :param returns: mean returns, ``[evaluations]``
    """

    def __init__(self, steps: Iterable[int], returns: Iterable[float]) -> None:
        self.steps, self.returns = np.array(list(steps)), np.array(list(returns))

    def score(self, until: int | None = None) -> float:
        """
        Give the mean return over the last 5 % of the steps.

        :param until: the step up to which the run is looked at, by default its last
        """
        until = self.steps[-1] if until is None else until
        return float(self.returns[(self.steps > until * (1 - FINAL_SHARE)) & (self.steps <= until)].mean())

    def first_score(self, goal: float, window: int) -> int | None:
        """
        Give the first step at which the mean return over some steps has come to a goal, None if it never has.

        :param goal: return
        :param window: environment steps
        """
        for step in self.steps[self.steps >= window]:
            if self.returns[(self.steps > step - window) & (self.steps <= step)].mean() >= goal:
                return int(step)
        return None


class Result:
    """
    A finished cell.

    :param about: its file
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.method, self.algorithm, self.env = about["method"], about["algorithm"], about["env"]
        self.seed, self.steps, self.sparsity = about["seed"], about["steps"], about["sparsity"]
        self.curve = Curve((row["step"] for row in about["curve"]), (float(np.mean(row["returns"])) for row in about["curve"]))

    @property
    def score(self) -> float:
        """Mean return over the last 5 % of the steps."""
        return self.curve.score()

    def trace(self, name: str) -> np.ndarray | None:
        """
        Give what was noted at each evaluation, ``[evaluations]``, NaN where it had no value yet; None if it never was.

        :param name: ``"buffer"`` (live transitions), ``"policy_distance"``, or updates or churn of a network
        """
        values = [row.get(name) for row in self.about["curve"]]
        return None if all(value is None for value in values) else np.array(values, dtype=float)

    def relative_cost(self, name: str) -> float | None:
        """
        Give a cost relative to the dense agent of this environment, None if it was not recorded.

        :param name: field of ``metrics.Cost``
        """
        cost, dense = (self.about.get(key, {}).get(name) for key in ("cost", "dense_cost"))
        return cost / dense if cost is not None and dense else None


class Results:
    """
    All finished cells of a folder.

    :param found: the cells
    """

    def __init__(self, found: list[Result]) -> None:
        self.found = found

    def where(self, **values: Any) -> list[Result]:
        """Give those whose fields have these values, by seed."""
        chosen = [one for one in self.found if all(getattr(one, name) == value for name, value in values.items())]
        return sorted(chosen, key=lambda one: one.seed)

    def keys(self, key: Callable[[Result], Any]) -> list[Any]:
        """Give the different values of a key, sorted."""
        return sorted({key(one) for one in self.found})


def load(folder: Path = RESULTS) -> Results:
    """Read a folder of finished cells, without those that only show whether it runs."""
    smoke = {cell.name for cell in SETS["smoke"]}
    return Results([Result(json.loads(path.read_text())) for path in sorted(folder.glob("*.json")) if path.stem not in smoke])
