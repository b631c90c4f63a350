"""One training as ``rlx2 train`` does it, of a sparse agent or of its dense reference, which reports to an Optuna trial."""

import argparse
import contextlib
import io
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from rl_zoo3 import ALGOS
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import sync_envs_normalization
from tqdm import tqdm

from sb3_rlx2 import metrics
from sb3_rlx2.algorithms.policies import SparsePolicy
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.deploy import ATTRIBUTE, deployed_policy
from sb3_rlx2.files import replacing
from sb3_rlx2.patching import patched
from sb3_rlx2.plan import steps_of
from sb3_rlx2.zoo.dense_twin import stock_name
from sb3_rlx2.zoo.experiment import ExperimentManager
from sb3_rlx2.zoo.trials import TrialEvaluation, trial_checkpoints, trial_evaluation

RANDOM_EPISODES = 50
FIRST, TIMED = 300, 500  # steps before the speed is measured, and while it is
SILENCE = 60.0  # seconds between two lines of progress where there is no terminal
OBJECTIVES: dict[str, Callable[[Any], Any]] = {
    "all": lambda policy: policy,
    "actor": metrics.acting_network,
}  # what is weighed


@dataclass(frozen=True)
class Sparsities:
    """
    What is searched.

    :param arguments: name of the algorithm's argument and share of zeros, for each sparse network
    """

    arguments: tuple[tuple[str, float], ...]

    @classmethod
    def from_densities(cls, algo: str, densities: Sequence[float]) -> "Sparsities":
        """
        Round to what is readable in a YAML file; all else works with the rounded ones.

        :param algo: the algorithm
        :param densities: share of live weights of each of its sparse networks
        """
        shares = [round(1.0 - density, 5) for density in densities]
        return cls(tuple(zip(keywords(algo), shares, strict=True)))

    def label(self, template: str, separator: str) -> str:
        """
        Write them down, for people and for files.

        :param template: of one of them, with ``{network}``, its ``{share}`` of zeros or its ``{density}``
        :param separator: stands between two
        """
        networks = [(keyword.removesuffix("sparsity").rstrip("_") or "network", share) for keyword, share in self.arguments]
        return separator.join(template.format(network=name, share=share, density=1 - share) for name, share in networks)

    def __str__(self) -> str:
        return self.label("{network} {density:.2%}", ", ")


def keywords(algo: str) -> list[str]:
    """
    Name the arguments that say how sparse an algorithm's networks are.

    :param algo: its name in the zoo
    """
    return list(ALGORITHMS[algo].sparse_policy_class.networks.values())


@dataclass(frozen=True)
class Task:
    """
    What all trainings of a search share.

    :param algo: our name in the zoo, as ``rlx2td3``
    :param env: id of the environment
    :param n_timesteps: environment steps of one training, 0 for those of the hyper-parameter file
    :param eval_episodes: episodes of one evaluation
    :param n_evaluations: evaluations of one training
    :param config: hyper-parameter file
    :param hyperparams: replace what the file says
    :param env_kwargs: for the environment
    :param vec_env: ``dummy`` or ``subproc``
    :param device: for PyTorch
    :param deployed: whether what counts is the policy that a callback of ``sb3_rlx2.deploy`` has chosen
    :param objective: of ``OBJECTIVES``, what an agent's size is
    """

    algo: str
    env: str
    n_timesteps: int
    eval_episodes: int
    n_evaluations: int
    config: str
    hyperparams: dict[str, Any] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    vec_env: str = "dummy"
    device: str = "auto"
    deployed: bool = False
    objective: str = "all"


@dataclass(frozen=True)
class Budget:
    """
    Bytes that what is weighed may have.

    :param task: what would be trained
    :param max_bytes: how many, of the parameters alone
    :param lowest: density of all networks of the sparsest agent
    :param least: bytes of the sparsest agent
    :param highest: density of each network at which the agent still fits if the others are as sparse as can be
    """

    task: Task
    max_bytes: int
    lowest: float
    least: int
    highest: tuple[float, ...]

    @classmethod
    def of(cls, task: Task, max_bytes: int, densities: tuple[float, float]) -> "Budget":
        """
        Find out what densities it leaves: bytes follow them in straight lines, but for rounding.

        :param task: what would be trained
        :param max_bytes: bytes
        :param densities: lowest and highest of a network
        :raises ValueError: if not even the sparsest agent fits
        """
        low, high = densities
        count = len(keywords(task.algo))
        least = weigh(task, Sparsities.from_densities(task.algo, [low] * count))
        if least > max_bytes:
            raise ValueError(
                f"--max-bytes {max_bytes:,} must be at least {least:,}, the bytes of --objective {task.objective} at "
                f"--min-density {low:g}; lower that, or choose a narrower net_arch"
            )
        highest = []
        for number in range(count):
            most = weigh(task, Sparsities.from_densities(task.algo, [high if number == one else low for one in range(count)]))
            highest.append(low + (high - low) * min((max_bytes - least) / max(most - least, 1), 1.0))
        return cls(task, max_bytes, low, least, tuple(highest))

    def holds(self, sparsities: Sparsities) -> bool:
        """
        Say whether an agent fits.

        :param sparsities: of the agent
        """
        return weigh(self.task, sparsities) <= self.max_bytes

    def fit(self, sparsities: Sparsities) -> Sparsities:
        """
        Make an agent fit: all networks lose links in one proportion, down to the lowest density.

        :param sparsities: of the agent
        """
        attempts = 0
        while (size := weigh(self.task, sparsities)) > self.max_bytes:
            share = 0.99**attempts * (self.max_bytes - self.least) / (size - self.least)
            attempts += 1
            densities = [self.lowest + share * (1 - zeros - self.lowest) for _, zeros in sparsities.arguments]
            sparsities = Sparsities.from_densities(self.task.algo, densities)
        return sparsities


class Experiment:
    """
    One training as ``rlx2 train`` does it, without files: the zoo reads and makes everything.

    :param task: what is trained
    :param seed: as of ``rlx2 train``
    :param sparsities: None for the dense reference: SB3's own algorithm with the same hyper-parameters
    """

    def __init__(self, task: Task, seed: int, sparsities: Sparsities | None) -> None:
        own = {} if sparsities is None else dict(sparsities.arguments)
        algo, args = task.algo, argparse.Namespace()
        if sparsities is None:
            algo, args = stock_name(algo), argparse.Namespace(dense_twin=algo)
        self.seed = seed
        self.zoo = zoo = ExperimentManager(
            args,
            algo,
            task.env,
            log_folder=os.devnull,  # nothing is written there
            n_timesteps=task.n_timesteps,
            n_eval_episodes=task.eval_episodes,
            hyperparams=deepcopy(task.hyperparams) | own,
            env_kwargs=deepcopy(task.env_kwargs),
            n_evaluations=task.n_evaluations,
            seed=seed,
            verbose=0,
            vec_env_type=task.vec_env,
            device=task.device,
            config=task.config,
        )
        set_random_seed(seed)
        with _quiet():
            hyperparams, written = zoo.read_hyperparameters()
            self.written = deepcopy(written)  # preprocessing changes nested ones
            self.hyperparams, zoo.env_wrapper, zoo.callbacks, zoo.vec_env_wrapper = zoo._preprocess_hyperparams(hyperparams)

    @contextlib.contextmanager
    def model(self) -> Iterator[Any]:
        """Give the untrained model, and close its environments after use."""
        zoo = self.zoo
        with contextlib.closing(zoo.create_envs(zoo.n_envs, no_log=True)) as env:
            with _quiet():
                hyperparams = zoo._preprocess_action_noise(self.hyperparams, self.written, env)
            # An agent without a path breaks down when it is to learn, as a candidate that has a size.
            with patched(SparsePolicy, check_connected=lambda _: None):
                model = ALGOS[zoo.algo](env=env, seed=self.seed, verbose=0, device=zoo.device, **hyperparams)
            yield model

    def evaluation(self, trial: optuna.Trial) -> contextlib.AbstractContextManager[TrialEvaluation]:
        """
        Give what evaluates a training as the zoo's tuning does, and close its environments after use.

        :param trial: gets the evaluations and may end the training
        """
        return trial_evaluation(self.zoo, trial)


def train(
    task: Task,
    seed: int,
    sparsities: Sparsities | None,
    trial: optuna.Trial,
    save_to: Path | None = None,
    checkpoints: Path | None = None,
) -> float | None:
    """
    Train and evaluate.

    :param task: what is trained
    :param seed: of ``rlx2 train``, which then does the same training
    :param sparsities: None for the dense reference
    :param trial: gets the agent's size and the evaluations, and may end the training, by Optuna's ``TrialPruned``
    :param save_to: the model's file, beside which the statistics of ``VecNormalize`` go
    :param checkpoints: what :func:`sb3_rlx2.zoo.trials.trial_folder` gave, None for none
    :return: mean return of the evaluation after training, None if training broke down: NaN in a gradient, an observation or
        a reward
    :raises TrialPruned: if Optuna's pruner ends the training
    """
    try:
        mean_return = _train(Experiment(task, seed, sparsities), task, trial, save_to, checkpoints)
    except ValueError as error:
        if sparsities is None:
            raise
        tqdm.write(f"training with {sparsities} and seed {seed} broke down: {error}")
        return None
    return mean_return if math.isfinite(mean_return) else None


def _train(experiment: Experiment, task: Task, trial: optuna.Trial, save_to: Path | None, checkpoints: Path | None) -> float:
    with experiment.evaluation(trial) as evaluation, experiment.model() as model:
        size, dense_size = _bytes(task, model)
        trial.set_user_attr("size", size)
        trial.set_user_attr("dense_size", dense_size)
        steps = experiment.zoo.n_timesteps
        # The bar is below that of the trials.
        with tqdm(total=steps, unit="step", position=1, leave=False, disable=None) as bar:
            resumed = trial_checkpoints(checkpoints, trial, model, every=evaluation.eval_freq * experiment.zoo.n_envs)
            model.learn(steps, callback=[*experiment.zoo.callbacks, evaluation, _Steps(bar), *resumed])
        evaluation.catch_up()
        if evaluation.is_pruned:
            raise optuna.TrialPruned
        mean_return = evaluate(deployed_policy(model) if task.deployed else model, model, evaluation)
        if save_to is not None:
            _save(model, save_to)
        return mean_return


def evaluate(player: Any, model: Any, evaluation: TrialEvaluation) -> float:
    """
    Give the mean return of a trained agent.

    :param player: the model itself, or a policy of its
    :param model: the model
    :param evaluation: holds the environments
    """
    if model.get_vec_normalize_env() is not None:
        sync_envs_normalization(model.get_env(), evaluation.eval_env)
    mean, _ = evaluate_policy(player, evaluation.eval_env, evaluation.n_eval_episodes, deterministic=evaluation.deterministic)
    return float(mean)  # type: ignore[arg-type]


def probe(task: Task, sparsities: Sparsities) -> tuple[dict[str, Any], int]:
    """
    Build the agent and take a first step, so that what is wrong with a task shows before anything is trained.

    :param task: what would be trained
    :param sparsities: the sparsest that may come up
    :return: hyper-parameters as written, without the sparsities, and environment steps of one training
    :raises ValueError: if nothing would be trained, or an argument of the task is wrong
    """
    experiment = Experiment(task, 0, sparsities)
    zoo = experiment.zoo
    with experiment.model() as model:
        starts = steps_of("learning_starts", model.learning_starts, zoo.n_timesteps)
        if starts >= zoo.n_timesteps:
            raise ValueError(
                f"--n-timesteps {zoo.n_timesteps} must be more than learning_starts={starts}, before which nothing is trained"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "learning_starts=.* nothing is trained")  # nor is it meant to be
            model.learn(zoo.n_envs, callback=zoo.callbacks)
        if task.deployed and not hasattr(model, ATTRIBUTE):
            raise ValueError(
                "--deployed needs a callback that chooses what to deploy: "
                "-params callback:\"'sb3_rlx2.deploy.DeployAverageCallback'\""
            )
    own = (*keywords(task.algo), "n_timesteps")
    return {name: value for name, value in experiment.written.items() if name not in own}, zoo.n_timesteps


def weigh(task: Task, sparsities: Sparsities) -> int:
    """
    Give the bytes of an agent's parameters, or of its actor's, as the task's objective says.

    :param task: what would be trained
    :param sparsities: of the agent
    """
    with Experiment(task, 0, sparsities).model() as model:
        return _bytes(task, model)[0]


def _bytes(task: Task, model: Any) -> tuple[int, int]:
    """Give the bytes of what is weighed, and those that it would have as dense."""
    return metrics.parameter_bytes(OBJECTIVES[task.objective](model.policy))


def step_seconds(task: Task, sparsities: Sparsities | None) -> float:
    """
    Measure a step of training, behind the first ones, in which kernels are compiled; without evaluations.

    :param task: what would be trained
    :param sparsities: None for the dense reference
    :return: seconds of an environment step with its gradient steps
    """
    experiment = Experiment(task, 0, sparsities)
    with experiment.model() as model, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is no training
        model.learning_starts = FIRST // 2
        model.learn(FIRST)
        began, before = time.monotonic(), model.num_timesteps
        model.learn(TIMED, reset_num_timesteps=False)
        return float((time.monotonic() - began) / (model.num_timesteps - before))


def random_returns(task: Task, seed: int) -> list[float]:
    """
    Measure the random policy.

    :param task: names the environment
    :param seed: of environment and actions
    :return: returns of its episodes
    """
    experiment = Experiment(task, seed, Sparsities.from_densities(task.algo, [0.5] * len(keywords(task.algo))))
    with contextlib.closing(experiment.zoo.create_envs(1, eval_env=True)) as env:
        env.action_space.seed(seed)
        policy = _RandomPolicy(env.action_space)
        returns, _ = evaluate_policy(policy, env, RANDOM_EPISODES, return_episode_rewards=True)
    return [float(value) for value in returns]  # type: ignore[union-attr]


def _quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Keep back what the zoo prints, which is the same for each training."""
    return contextlib.redirect_stdout(io.StringIO())


def normalization_beside(model: Path) -> Path:
    """
    Name the file of a model's normalisation statistics.

    :param model: the model's file
    """
    return model.with_name(f"{model.stem}.vecnormalize.pkl")


def _save(model: Any, path: Path) -> None:
    """Save whole or not at all, at the place where the zoo looks for the parts of an agent."""
    if model.get_vec_normalize_env() is not None:
        with replacing(normalization_beside(path)) as temporary:
            model.get_vec_normalize_env().save(str(temporary))
    with replacing(path) as temporary:
        model.save(temporary)


class _RandomPolicy:
    """Acts at random, uniformly over the action space."""

    def __init__(self, action_space: Any) -> None:
        self.action_space = action_space

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        return np.array([self.action_space.sample()]), None


class _Steps(BaseCallback):
    """Moves a bar with the steps of a training, or writes lines where a bar cannot be shown."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self.bar = bar
        self.began = self.said = time.monotonic()

    def _on_step(self) -> bool:
        if self.bar.disable:
            self._say()
        else:
            self.bar.update(self.num_timesteps - self.bar.n)
        return True

    def _say(self) -> None:
        """Write a line now and then, for a log."""
        now = time.monotonic()
        if now - self.said >= SILENCE:
            self.said, speed = now, self.num_timesteps / (now - self.began)
            left = (self.model._total_timesteps - self.num_timesteps) / speed / 60
            tqdm.write(
                f"  step {self.num_timesteps:,} of {self.model._total_timesteps:,}, {speed:,.0f} steps/s, {left:,.0f} min left"
            )
