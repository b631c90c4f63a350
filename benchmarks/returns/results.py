"""Reads what is stored: finished cells."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.returns.cells import PAPER, SETS, Cell
from benchmarks.returns.interplay import RUNS

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FINAL_SHARE = 0.05  # of the steps: a run's score is its mean return there, as over the last 150k of the paper's 3M
SMOKE = [*SETS["smoke"], *SETS["dense-first-smoke"]]
NOT_STORED = {"gradient_steps": 1, "batch_size": 256}  # by the first cells, which left defaults out


class Curve:
    """
    Evaluations of a run.

    :param steps: environment steps, ``[evaluations]``
    :param returns: mean returns, ``[evaluations]``
    """

    def __init__(self, steps: Iterable[int], returns: Iterable[float]) -> None:
        self.steps, self.returns = np.array(list(steps)), np.array(list(returns))

    def score(self, until: int | None = None, share: float = FINAL_SHARE) -> float:
        """
        Give the mean return over the last 5 % of the steps.

        :param until: the step up to which the run is looked at, by default its last
        :param share: another share of the steps
        """
        until = self.steps[-1] if until is None else until
        return float(self.returns[(self.steps > until * (1 - share)) & (self.steps <= until)].mean())

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
        self.curve = _curve({row["step"]: row["returns"] for row in about["curve"]})

    @property
    def score(self) -> float:
        """Mean return over the last 5 % of the steps."""
        return self.curve.score()

    @property
    def training(self) -> Curve:
        """Mean return of the last hundred training episodes, where there had been any."""
        rows = [row for row in self.about["curve"] if row.get("training") is not None]
        return Curve((row["step"] for row in rows), (row["training"] for row in rows))

    @property
    def deployed(self) -> dict[str, Curve]:
        """Evaluations of other policies than the current one, by name; those of the last steps, and nothing in older files."""
        rows = [row for row in self.about["curve"] if row.get("deployed")]
        names = rows[-1]["deployed"] if rows else {}
        return {
            name: _curve({row["step"]: row["deployed"][name] for row in rows if name in row["deployed"]}) for name in names
        }

    def hours_to(self, goal: float) -> float | None:
        """
        Give the hours after which the run first held a return, as the mean of the evaluations of 5 % of the steps; None if it
        never did. Files that do not say when each evaluation was are taken to have been as fast at any time.

        :param goal: return
        """
        step = self.curve.first_score(goal, round(FINAL_SHARE * self.steps))
        if step is None:
            return None
        seconds = {row["step"]: row.get("seconds") for row in self.about["curve"]}[step]
        return float(self.about["seconds"] * step / self.steps if seconds is None else seconds) / 3600

    @property
    def flops(self) -> float | None:
        """
        FLOPs of all gradient steps, of a distilled student those of its lessons; None if they were not recorded.
        """
        if "distillation" in self.about:
            return float(self.about["distillation"]["flops"])
        arguments, noted = NOT_STORED | self.about["arguments"], self.trace("flops")
        if noted is not None:
            each = noted[self.curve.steps > arguments["learning_starts"]].mean()
        elif any("start_sparsity" in name for name, value in arguments.items() if value is not None):
            each = None
        else:
            each = self.about.get("cost", {}).get("training_flops")
        if each is None:
            return None
        steps = (self.steps - arguments["learning_starts"]) * arguments["gradient_steps"]
        return float(steps * arguments["batch_size"] * each)

    def trace(self, name: str) -> np.ndarray | None:
        """
        Give what was noted at each evaluation, ``[evaluations]``, NaN where it had no value yet; None if it never was.

        :param name: ``"buffer"`` (live transitions), ``"policy_distance"``, ``"flops"`` (of a gradient step, per sample), or
            updates or churn of a network
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


def _curve(returns: dict[int, list[float]]) -> Curve:
    """Make a curve of the returns of each evaluation, by its step."""
    return Curve(returns, (float(np.mean(each)) for each in returns.values()))


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
    """Read a folder of finished cells, of the paper's algorithms, without those that only show whether it runs."""
    return Results([one for one in _read(folder, SMOKE) if one.algorithm in PAPER])


def load_algorithms(folder: Path = RESULTS) -> Results:
    """Read the finished cells of the algorithms that the paper does not have, without those of the Interplay suite."""
    return Results([one for one in _read(folder, ()) if one.algorithm not in PAPER and one.method not in RUNS])


def load_suite(folder: Path = RESULTS) -> Results:
    """Read the finished cells of the Interplay suite, without those that only show whether it runs."""
    return Results([one for one in _read(folder, SETS["interplay-smoke"]) if one.method in RUNS])


def _read(folder: Path, without: Iterable[Cell]) -> list[Result]:
    smoke = {cell.name for cell in without}
    return [Result(json.loads(path.read_text())) for path in sorted(folder.glob("*.json")) if path.stem not in smoke]
