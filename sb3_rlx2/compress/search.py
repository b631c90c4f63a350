"""The search: its studies in Optuna, what they hold, and the procedure that the package's docstring argues for."""

import dataclasses
import json
import math
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from sb3_rlx2.compress import statistics
from sb3_rlx2.compress.sampling import DensitySampler, HopelessPruner
from sb3_rlx2.compress.statistics import Scale
from sb3_rlx2.compress.training import Budget, Sparsities, Task, keywords, random_returns, step_seconds, train
from sb3_rlx2.studies.storage import join_study
from sb3_rlx2.studies.workers import first_attempt, run_trials
from sb3_rlx2.zoo.trials import forget, trial_folder

FRESH_SEEDS = 1_000  # seeds below it are the finalists' and the dense reference's, those from it on the search's
LADDER = 1.15  # a finalist is at least so many times as large as the one that failed before it
GROWTH = 1.25  # of both densities, where the search nominated nothing larger


@dataclasses.dataclass(frozen=True)
class Plan:
    """
    What is searched, how far and how long.

    :param task: what all trainings share
    :param hyperparams: as written, without the sparsities
    :param tolerance: share of the dense agent's score that may be lost
    :param n_trials: trainings of the search
    :param n_seeds: trainings of the dense reference and of each finalist
    :param n_finalists: finalists at most
    :param densities: lowest and highest
    :param seed: first seed
    :param dense_returns: of the dense reference, empty to train it
    :param study_name: prefix of the studies' names
    :param models: folder for the finalists' models
    :param budget: bytes that an agent may have, None for as many as it takes
    """

    task: Task
    hyperparams: dict[str, Any]
    tolerance: float
    n_trials: int
    n_seeds: int
    n_finalists: int
    densities: tuple[float, float]
    seed: int
    dense_returns: tuple[float, ...]
    study_name: str
    models: Path
    budget: Budget | None = None

    def estimate(self) -> str:
        """Say how many trainings there will be at most, and how long they take one after the other."""
        dense = 0 if self.dense_returns else self.n_seeds
        finalists = self.n_finalists * self.n_seeds
        total, steps = dense + self.n_trials + finalists, self.task.n_timesteps
        sparse = Sparsities.from_densities(self.task.algo, [float(np.mean(self.densities))] * len(keywords(self.task.algo)))
        took = step_seconds(self.task, sparse) * (self.n_trials + finalists)
        took += step_seconds(self.task, None) * dense if dense else 0.0
        return (
            f"At most {total:,} trainings of {steps:,} steps: {dense} dense, {self.n_trials} of the search, {finalists} of "
            f"finalists (often fewer). At the speed of some hundred steps just now that is {took * steps / 3600:,.1f} "
            "hours without evaluations, shared by all workers; those that have ended are kept."
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change while a search goes on, because trainings would no longer compare."""
        task = dataclasses.asdict(self.task)
        shared = {name: task[name] for name in ("algo", "env", "n_timesteps", "eval_episodes", "n_evaluations", "env_kwargs")}
        shared |= {} if self.task.objective == "all" else {"objective": self.task.objective}
        shared |= {"deployed": True} if self.task.deployed else {}
        return {**shared, "hyperparams": self.hyperparams, "densities": list(self.densities), "seed": self.seed}


@dataclasses.dataclass(frozen=True)
class Point:
    """
    One agent of the result.

    :param kind: ``dense``, ``search`` or ``finalist``
    :param sparsities: None for dense
    :param size: bytes of its parameters, with targets
    :param dense_size: what they would be if it were dense
    :param returns: mean return of each seed's evaluation after training; of a stopped one, its last evaluation
    :param seeds: of its trainings
    :param stopped: whether training was stopped as hopeless
    :param models: where its models are, ``host:path``
    """

    kind: str
    sparsities: Sparsities | None
    size: int
    dense_size: int
    returns: tuple[float, ...]
    seeds: tuple[int, ...]
    stopped: bool = False
    models: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Its size relative to dense."""
        return self.size / self.dense_size

    @property
    def mean_return(self) -> float:
        """Over its seeds."""
        return float(np.mean(self.returns))


@dataclasses.dataclass(frozen=True)
class Findings:
    """
    What came out.

    :param scale: of the scores
    :param points: dense, then the search's, then the finalists in the order in which they were tried
    :param chosen: the smallest agent within tolerance, the last of the finalists; None if all failed
    """

    scale: Scale
    points: list[Point]
    chosen: Point | None


class Search:
    """
    One worker of a search. Any number of workers share its studies, in which each training is a trial and happens once.

    :param plan: what to do
    :param storage: from :func:`sb3_rlx2.storage.open_storage`
    """

    def __init__(self, plan: Plan, storage: BaseStorage) -> None:
        self.plan, self.storage = plan, storage
        self.dense = self._open("dense", "maximize")
        pruner = HopelessPruner(plan.task.n_evaluations, self._successful_curves, lambda value: self.scale.score(value))
        self.parameters = [keyword.replace("sparsity", "density") for keyword in keywords(plan.task.algo)]
        self.search = self._open("search", "minimize", sampler=DensitySampler(self.parameters), pruner=pruner)
        self.scale: Scale

    def run(self) -> Findings:
        """
        Do all trainings that are missing.

        :return: the dense agent, all agents tried, and the smallest within tolerance
        """
        plan = self.plan
        if "random_returns" not in self.dense.user_attrs:
            self.dense.set_user_attr("random_returns", random_returns(plan.task, plan.seed))
        if not plan.dense_returns:
            _say(f"Dense reference: {plan.n_seeds} seeds")
            run_trials(self.dense, self._train_dense, plan.n_seeds)
        returns = plan.dense_returns or [point.mean_return for point in self._points(self.dense)]
        self.scale = Scale(tuple(self.dense.user_attrs["random_returns"]), tuple(returns))
        _say(f"Search: {plan.n_trials} trainings")
        run_trials(self.search, self._train_candidate, plan.n_trials)
        return self._judge_finalists()

    def _judge_finalists(self) -> Findings:
        """Judge finalists on fresh seeds, smallest first, until one is within tolerance."""
        searched = self._points(self.search)
        finalists: list[Point] = []
        chosen = None
        for _ in range(self.plan.n_finalists):
            sparsities = self._next_finalist(searched, finalists[-1] if finalists else None)
            if sparsities is None:
                break
            finalists.append(self._judge(sparsities))
            if len(finalists[-1].seeds) >= self.plan.n_seeds and self._within(finalists[-1]):
                chosen = finalists[-1]
                break
        size = searched[0].dense_size
        dense = Point("dense", None, size, size, self.scale.dense, self._seeds(self.dense))
        return Findings(self.scale, [dense, *searched, *finalists], chosen)

    def _next_finalist(self, searched: Sequence[Point], failed: Point | None) -> Sparsities | None:
        """
        Give the smallest agent of the search that was within tolerance on its one seed and lies a rung above the last failure.
        Where the search has none left, the failed agent grows.
        """
        nominees = [point for point in searched if not point.stopped and self._within(point) and self._is_held(point)]
        larger = [point for point in nominees if failed is None or point.size >= LADDER * failed.size]
        if larger or failed is None:
            return min(larger, key=lambda point: point.size).sparsities if larger else None
        assert failed.sparsities is not None
        grown = [min(GROWTH * (1 - share), self.plan.densities[1]) for _, share in failed.sparsities.arguments]
        sparsities = Sparsities.from_densities(self.plan.task.algo, grown)
        can_grow = self.plan.budget is None or self.plan.budget.holds(sparsities)
        return sparsities if can_grow and sparsities != failed.sparsities else None

    def _is_held(self, point: Point) -> bool:
        """Say whether an agent fits, of a search that may have been begun with another budget."""
        return self.plan.budget is None or point.size <= self.plan.budget.max_bytes

    def _judge(self, sparsities: Sparsities) -> Point:
        """Train a finalist on all fresh seeds, or on fewer if it cannot pass any more."""
        study = self._open(sparsities.label("{network} {share}", ", "), "maximize")

        def objective(trial: Trial) -> float:
            if self._out_of_reach(study):
                raise optuna.TrialPruned
            seed = self.plan.seed + _place(trial)
            path = self.plan.models / f"{sparsities.label('{network}{share}', '-')}-seed{seed}.zip"
            trial.set_user_attr("model", f"{socket.gethostname()}:{path.resolve()}")
            return self._train(trial, "finalist", seed, sparsities, path)

        if not self._out_of_reach(study):
            _say(f"Finalist: {sparsities}, {self.plan.n_seeds} seeds")
            # Slots that an earlier, stricter tolerance left untrained do not count.
            untrained = sum(trial.state == TrialState.PRUNED for trial in study.get_trials(deepcopy=False))
            run_trials(study, objective, untrained + self.plan.n_seeds)
        trials = [trial.user_attrs for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
        return Point(
            "finalist",
            sparsities,
            trials[0]["size"],
            trials[0]["dense_size"],
            returns=tuple(attributes["mean_return"] for attributes in trials),
            seeds=tuple(attributes["seed"] for attributes in trials),
            models=tuple(attributes["model"] for attributes in trials),
        )

    def _out_of_reach(self, study: optuna.Study) -> bool:
        searched, scores = ([self.scale.score(one.mean_return) for one in self._points(it)] for it in (self.search, study))
        return statistics.out_of_reach(scores, self.plan.n_seeds, self.plan.tolerance, max([1.0, *searched, *scores]))

    def _within(self, point: Point) -> bool:
        return statistics.within(self.scale, point.returns, self.plan.tolerance)

    def _train_dense(self, trial: Trial) -> float:
        return self._train(trial, "dense", self.plan.seed + _place(trial), None)

    def _train_candidate(self, trial: Trial) -> float:
        sparsities = self._suggest(trial)
        trial.set_user_attr("densities", [1 - share for _, share in sparsities.arguments])
        try:
            value = self._train(trial, "search", self.plan.seed + FRESH_SEEDS + _place(trial), sparsities)
        except optuna.TrialPruned:
            value = _last_return(trial.storage.get_trial(trial._trial_id))
            trial.set_constraint("within tolerance", 1.0 - self.plan.tolerance - self.scale.score(value))
            _say(f"search {trial.number}: stopped as hopeless, score {self.scale.score(value):.3f}")
            raise
        trial.set_constraint("within tolerance", 1.0 - self.plan.tolerance - self.scale.score(value))
        return float(trial.user_attrs["size"] / trial.user_attrs["dense_size"])

    def _suggest(self, trial: Trial) -> Sparsities:
        """Choose densities, as high as the budget leaves them."""
        (low, high), budget = self.plan.densities, self.plan.budget
        highest = [high] * len(self.parameters) if budget is None else budget.highest
        densities = [
            trial.suggest_float(name, low, most, log=True) for name, most in zip(self.parameters, highest, strict=True)
        ]
        sparsities = Sparsities.from_densities(self.plan.task.algo, densities)
        return sparsities if budget is None else budget.fit(sparsities)

    def _train(self, trial: Trial, kind: str, seed: int, sparsities: Sparsities | None, save_to: Path | None = None) -> float:
        """Train for a trial. An agent whose training breaks down is worth what the random policy is."""
        trial.set_user_attr("seed", seed)
        folder = trial_folder(self.plan.models.parent, trial.study, trial)
        try:
            mean_return = train(self.plan.task, seed, sparsities, trial, save_to, folder)
        except optuna.TrialPruned:
            forget(folder)
            raise
        forget(folder)
        if mean_return is None:
            mean_return = float(np.mean(self.dense.user_attrs["random_returns"]))
        trial.set_user_attr("mean_return", mean_return)
        share = trial.user_attrs["size"] / trial.user_attrs["dense_size"]
        score = f", score {self.scale.score(mean_return):.3f}" if sparsities is not None else ""
        _say(
            f"{kind} {trial.number}: {sparsities or 'dense'}, {share:.2%} of the dense size, return {mean_return:,.2f}{score}"
        )
        return mean_return

    def _open(self, name: str, direction: Literal["minimize", "maximize"], **kwargs: Any) -> optuna.Study:
        """Open a study, which must belong to this search."""
        full_name = f"{self.plan.study_name}/{name}"
        study = join_study(self.storage, full_name, direction, **{"pruner": optuna.pruners.NopPruner(), **kwargs})
        identity, held = json.loads(json.dumps(self.plan.identity)), study.user_attrs.get("identity")
        if held is None and not study.get_trials(deepcopy=False):
            study.set_user_attr("identity", identity)
        elif held != identity:
            known = held or {}
            other = [
                f"{key}={known.get(key)!r} and not {value!r}" for key, value in identity.items() if known.get(key) != value
            ]
            raise ValueError(
                f"--study-name {self.plan.study_name} is another search in this storage, with {'; '.join(other)}: choose "
                "another name (and another --log-folder), or give the arguments that it was begun with"
            )
        return study

    def _points(self, study: optuna.Study) -> list[Point]:
        """Give what a study's ended trials found."""
        kind = "search" if study is self.search else "finalist"
        points = []
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            value = trial.user_attrs.get("mean_return", _last_return(trial))
            if math.isnan(value):  # a finalist's seed that was left out
                continue
            densities = trial.user_attrs.get("densities") or [trial.params[name] for name in self.parameters if trial.params]
            sparsities = Sparsities.from_densities(self.plan.task.algo, densities) if densities else None
            sizes = trial.user_attrs["size"], trial.user_attrs["dense_size"]
            stopped = trial.state == TrialState.PRUNED
            points.append(Point(kind, sparsities, *sizes, (value,), (trial.user_attrs["seed"],), stopped))
        return points

    def _seeds(self, study: optuna.Study) -> tuple[int, ...]:
        return tuple(seed for point in self._points(study) for seed in point.seeds)

    def _successful_curves(self) -> list[dict[int, float]]:
        trials = self.dense.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for trial in self.search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if statistics.within(self.scale, [trial.user_attrs["mean_return"]], self.plan.tolerance):
                trials.append(trial)
        return [trial.intermediate_values for trial in trials]


def _place(trial: Trial) -> int:
    """Number a trial among those that retry no other, so that an interruption changes no seed."""
    first = first_attempt(trial)
    earlier = [other for other in trial.study.get_trials(deepcopy=False) if other.number < first]
    return sum(first_attempt(other) == other.number for other in earlier)


def _last_return(trial: FrozenTrial) -> float:
    """Give a trial's last intermediate value, NaN without any."""
    return math.nan if trial.last_step is None else trial.intermediate_values[trial.last_step]


def _say(text: str) -> None:
    tqdm.write(text)
