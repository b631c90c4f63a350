"""One training as ``rlx2 train`` does it, of a sparse agent or of its dense reference, which reports to an Optuna trial."""

import argparse
import contextlib
import inspect
import io
import math
import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from rl_zoo3.callbacks import TrialEvalCallback
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization
from tqdm import tqdm

from sb3_rlx2 import metrics, zoo
from sb3_rlx2.algorithms import BUFFER_KEYWORDS, POLICY_KEYWORDS, RLX2_KEYWORDS
from sb3_rlx2.buffers import RLx2ReplayBuffer
from sb3_rlx2.compress.files import replacing

RANDOM_EPISODES = 50


@dataclass(frozen=True)
class Sparsities:
    """
    What is searched.

    :param actor: share of zeros in the actor
    :param critic: share of zeros in each critic
    """

    actor: float
    critic: float

    @classmethod
    def from_densities(cls, actor: float, critic: float) -> "Sparsities":
        """Round to what is readable in a YAML file; all else works with the rounded ones."""
        return cls(round(1.0 - actor, 5), round(1.0 - critic, 5))

    def __str__(self) -> str:
        return f"actor {1 - self.actor:.2%}, critic {1 - self.critic:.2%}"


@dataclass(frozen=True)
class Task:
    """
    What all trainings of a search share.

    :param algo: ``rlx2td3`` or ``rlx2sac``
    :param env: id of the environment
    :param n_timesteps: environment steps of one training, 0 for those of the hyper-parameter file
    :param eval_episodes: episodes of one evaluation
    :param n_evaluations: evaluations of one training
    :param config: hyper-parameter file
    :param hyperparams: replace what the file says
    :param env_kwargs: for the environment
    :param vec_env: ``dummy`` or ``subproc``
    :param device: for PyTorch
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


class Experiment(zoo.ExperimentManager):
    """
    The zoo's experiment of one training, without files.

    :param task: what is trained
    :param seed: as of ``rlx2 train``
    :param sparsities: None for the dense reference: SB3's own algorithm with the same hyper-parameters
    :param trial: gets the evaluations and may end the training; None goes without
    """

    eval_env: VecEnv
    evaluation: TrialEvalCallback

    def __init__(self, task: Task, seed: int, sparsities: Sparsities | None, trial: optuna.Trial | None = None) -> None:
        own = {} if sparsities is None else {"actor_sparsity": sparsities.actor, "critic_sparsity": sparsities.critic}
        super().__init__(
            argparse.Namespace(),
            task.algo,
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
        self.task, self.trial = task, trial
        self.sparse = sparsities is not None

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keep those that are written down apart from those that preprocessing changes."""
        hyperparams, saved = super().read_hyperparameters()
        return hyperparams, deepcopy(saved)

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        hyperparams, *rest = super()._preprocess_hyperparams(hyperparams)
        if not self.sparse:
            self.algo = stock_name(self.task.algo)
            hyperparams = dense_hyperparams(self.task.algo, hyperparams)
        return hyperparams, *rest

    def create_callbacks(self) -> None:
        """Evaluate as the zoo's tuning does, and show progress."""
        if self.trial is None:
            return
        self.eval_env = self.create_envs(self.n_eval_envs, eval_env=True)
        self.evaluation = TrialEvalCallback(
            self.eval_env,
            self.trial,
            n_eval_episodes=self.n_eval_episodes,
            eval_freq=max(self.n_timesteps // self.n_evaluations // self.n_envs, 1),
            deterministic=self.deterministic_eval,
        )
        self.bar = tqdm(total=self.n_timesteps, unit="step", position=1, leave=False, disable=None)  # below that of the trials
        self.callbacks += [self.evaluation, _Steps(self.bar)]

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = True) -> VecEnv:
        """Create environments as the zoo does, without log files."""
        return super().create_envs(n_envs, eval_env, no_log=True)

    def evaluate(self, model: Any) -> float:
        """
        Give the mean return of the trained model.

        :param model: the model
        """
        if model.get_vec_normalize_env() is not None:
            sync_envs_normalization(model.get_env(), self.eval_env)
        mean, _ = evaluate_policy(model, self.eval_env, self.n_eval_episodes, deterministic=self.deterministic_eval)
        return float(mean)  # type: ignore[arg-type]

    def create_log_folder(self) -> None:
        """Trainings of a search leave no files."""

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        pass

    @contextlib.contextmanager
    def model(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Give the untrained model and the hyper-parameters as written, and release the environments after use."""
        set_random_seed(self.seed)
        with contextlib.redirect_stdout(io.StringIO()):  # what the zoo prints is the same for each training
            experiment = self.setup_experiment()
        assert experiment is not None
        try:
            yield experiment
        finally:
            for resource in (experiment[0].get_env(), getattr(self, "eval_env", None), getattr(self, "bar", None)):
                if resource is not None:
                    resource.close()


def train(
    task: Task, seed: int, sparsities: Sparsities | None, trial: optuna.Trial, save_to: Path | None = None
) -> float | None:
    """
    Train and evaluate.

    :param task: what is trained
    :param seed: of ``rlx2 train``, which then does the same training
    :param sparsities: None for the dense reference
    :param trial: gets the agent's size and the evaluations, and may end the training, by Optuna's ``TrialPruned``
    :param save_to: the model's file, beside which the statistics of ``VecNormalize`` go
    :return: mean return of the evaluation after training, None if training broke down: NaN in a gradient, an observation or
        a reward
    """
    experiment = Experiment(task, seed, sparsities, trial)
    with experiment.model() as (model, _):
        size, dense_size = metrics.parameter_bytes(model.policy)
        trial.set_user_attr("size", size)
        trial.set_user_attr("dense_size", dense_size)
        try:
            model.learn(experiment.n_timesteps, callback=experiment.callbacks)
        except ValueError as error:
            if sparsities is None:
                raise
            tqdm.write(f"training with {sparsities} and seed {seed} broke down: {error}")
            return None
        if experiment.evaluation.is_pruned:
            raise optuna.TrialPruned
        mean_return = experiment.evaluate(model)
        if save_to is not None:
            _save(model, save_to)
        return mean_return if math.isfinite(mean_return) else None


def probe(task: Task, sparsities: Sparsities) -> tuple[dict[str, Any], int]:
    """
    Build the agent and take a first step, so that what is wrong with a task shows before anything is trained.

    :param task: what would be trained
    :param sparsities: the sparsest that may come up
    :return: hyper-parameters as written, without the sparsities, and environment steps of one training
    """
    experiment = Experiment(task, 0, sparsities)
    with experiment.model() as (model, hyperparams):
        if model.learning_starts >= experiment.n_timesteps:
            raise ValueError(
                f"--n-timesteps {experiment.n_timesteps} must be more than learning_starts={model.learning_starts}, before "
                "which nothing is trained"
            )
        model.learn(experiment.n_envs, callback=experiment.callbacks)
        own = ("actor_sparsity", "critic_sparsity", "n_timesteps")
        return {name: value for name, value in hyperparams.items() if name not in own}, experiment.n_timesteps


def random_returns(task: Task, seed: int) -> list[float]:
    """
    Measure the random policy.

    :param task: names the environment
    :param seed: of environment and actions
    :return: returns of its episodes
    """
    experiment = Experiment(task, seed, Sparsities(0.5, 0.5))
    with experiment.model():
        env = experiment.create_envs(1, eval_env=True)
        try:
            env.action_space.seed(seed)
            policy = _RandomPolicy(env.action_space)
            returns, _ = evaluate_policy(policy, env, RANDOM_EPISODES, return_episode_rewards=True)
        finally:
            env.close()
    return [float(value) for value in returns]  # type: ignore[union-attr]


def stock_name(algo: str) -> str:
    """
    Name SB3's own algorithm beneath one of ours.

    :param algo: our name in the zoo
    """
    return algo.removeprefix("rlx2")


def dense_hyperparams(algo: str, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """
    Turn a sparse agent's hyper-parameters into those of SB3's own algorithm: RLx2's go, our other defaults stay.

    :param algo: our name in the zoo
    :param hyperparams: as the zoo preprocessed them, before it makes the action noise
    """
    parameters = inspect.signature(zoo.ALGORITHMS[algo]).parameters.values()
    dense = {one.name: one.default for one in parameters if one.default is not one.empty and one.name != "_init_setup_model"}
    dense |= hyperparams
    dense = {name: value for name, value in dense.items() if name not in RLX2_KEYWORDS}
    if not isinstance(dense["policy"], str):
        raise ValueError(
            f"policy={dense['policy'].__name__} has no dense counterpart, which compress trains as the reference: name "
            "'MlpPolicy', 'CnnPolicy' or 'MultiInputPolicy', or give --dense-return"
        )
    if hyperparams.get("noise_type") is not None:
        dense.pop("action_noise", None)
    elif isinstance(dense.get("action_noise"), Real):
        dense |= {"noise_type": "normal", "noise_std": dense.pop("action_noise")}
    dense["policy_kwargs"] = {"net_arch": [256, 256]} | _without(dense.get("policy_kwargs"), POLICY_KEYWORDS)
    buffer = dense.get("replay_buffer_class")
    if buffer is not None and issubclass(buffer, RLx2ReplayBuffer):
        del dense["replay_buffer_class"]
    if dense.get("replay_buffer_kwargs"):
        dense["replay_buffer_kwargs"] = _without(dense["replay_buffer_kwargs"], BUFFER_KEYWORDS)
    return dense


def _without(given: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in (given or {}).items() if name not in names}


def normalization_beside(model: Path) -> Path:
    """
    Name the file of a model's normalisation statistics.

    :param model: the model's file
    """
    return model.with_name(f"{model.stem}.vecnormalize.pkl")


def _save(model: Any, path: Path) -> None:
    """Save whole or not at all, at the place where the zoo looks for the parts of an agent."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
    """Moves a bar with the steps of a training."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self.bar = bar

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        return True
