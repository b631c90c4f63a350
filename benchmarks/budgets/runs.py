"""The runs of PROTOCOL.md, and what is stored of each."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
import yaml
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks import machine
from benchmarks.environments import silence_age
from sb3_rlx2 import RLx2SAC, RLx2TD3
from sb3_rlx2.files import write_text
from sb3_rlx2.plan import LEAST, steps_of

HERE = Path(__file__).parent
RESULTS = HERE / "results"
HYPERPARAMS = Path(__file__).parents[2] / "hyperparams"
EVALUATION_SEED = 1_000_000  # far from the seeds of training
EVALUATIONS = 20  # over a run
EPISODES = {"Pendulum-v1": 10, "HalfCheetah-v4": 5}  # of each

OWN = {"td3": RLx2TD3, "sac": RLx2SAC}
HOSTS = {"td3": TD3, "sac": SAC}
OFF = {"topology": "static", "n_steps": 1, "policy_distance_threshold": math.inf}
# The defaults of the first round: the paper's numbers as shares of its 3 million steps.
FIRST = {"learning_starts": 1 / 120, "update_interval": 1 / 300, "buffer_check_interval": 1 / 300, "buffer_min_size": 1 / 30}
QUICK = ("first quick", "quick", "sb3")


@dataclass(frozen=True)
class Run:
    """
    A training.

    :param arm: of PROTOCOL.md, or of ``QUICK``
    :param algorithm: ``"td3"`` or ``"sac"``
    :param env: environment
    :param steps: environment steps
    :param seed: seed of the model and of the environment
    """

    arm: str
    algorithm: str
    env: str
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.algorithm}_{self.env}_{self.steps}_{self.arm.replace(' ', '-')}_seed{self.seed}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the class, but for ``policy``, ``env`` and ``seed``."""
        if self.arm == "quick":
            return {}
        if self.arm == "first quick":
            return FIRST
        if self.arm == "sb3":
            return {"action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.1))} if self.algorithm == "td3" else {}
        stored = yaml.safe_load((HYPERPARAMS / f"rlx2{self.algorithm}.yml").read_text())[self.env]
        sparsities = {name: stored[name] for name in ("actor_sparsity", "critic_sparsity")}
        arms: dict[str, dict[str, Any]] = {
            "defaults": {},
            "hand-set": {name: steps_of(name, stored[name], self.steps) for name in LEAST},
            "parts off": OFF,
            "first defaults": FIRST,
            "first parts off": FIRST | OFF,
        }
        return sparsities | arms[self.arm]

    def make(self, env: DummyVecEnv) -> OffPolicyAlgorithm:
        """Make the agent."""
        cls = HOSTS[self.algorithm] if self.arm == "sb3" else OWN[self.algorithm]
        return cls("MlpPolicy", env, seed=self.seed, **self.arguments)


@dataclass(frozen=True)
class Comparison:
    """
    Runs that are compared.

    :param algorithm: ``"td3"`` or ``"sac"``
    :param env: environment
    :param steps: environment steps of each
    :param seeds: seeds of each arm
    :param arms: what is compared; the first with the second
    """

    algorithm: str
    env: str
    steps: int
    seeds: range
    arms: tuple[str, ...]

    def of(self, arm: str) -> list[Run]:
        """
        Give an arm's runs.

        :param arm: one of ``arms``
        """
        return [Run(arm, self.algorithm, self.env, self.steps, seed) for seed in self.seeds]


FIRST_ARMS = ("first defaults", "hand-set", "first parts off")
ROUNDS = {
    "First round: shares of 3 million steps": [
        Comparison("td3", "Pendulum-v1", 20_000, range(3), FIRST_ARMS),
        Comparison("sac", "Pendulum-v1", 20_000, range(3), FIRST_ARMS),
        Comparison("td3", "HalfCheetah-v4", 100_000, range(2), FIRST_ARMS),
    ],
    "Second round: the defaults, shares of a million steps": [
        Comparison("td3", "Pendulum-v1", 20_000, range(3), ("defaults", "hand-set", "parts off")),
        Comparison("sac", "Pendulum-v1", 20_000, range(3), ("defaults", "hand-set", "parts off")),
        Comparison("td3", "HalfCheetah-v4", 100_000, range(4, 10), ("defaults", "first defaults", "parts off")),
    ],
}
QUICK_START = [Comparison(algorithm, "Pendulum-v1", 10_000, range(3), QUICK) for algorithm in OWN]
COMPARISONS = [*QUICK_START, *(each for comparisons in ROUNDS.values() for each in comparisons)]
# Seed by seed, so that a round that is cut short has whole seeds.
RUNS = list(dict.fromkeys(run for each in COMPARISONS for runs in zip(*map(each.of, each.arms), strict=True) for run in runs))


class Evaluations(BaseCallback):
    """
    Plays episodes without exploration.

    :param run: what is trained
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.rows: list[dict[str, Any]] = []
        self.env = make_env(run.env)

    def _on_step(self) -> bool:
        if self.num_timesteps % (self.run.steps // EVALUATIONS) == 0:
            self.env.seed(EVALUATION_SEED * (1 + self.run.seed) + self.num_timesteps)
            returns, _ = evaluate_policy(self.model, self.env, EPISODES[self.run.env], return_episode_rewards=True)
            self.rows.append({"step": self.num_timesteps, "returns": [round(each, 2) for each in returns]})
        return True


class Random:
    """A policy of uniform actions."""

    def __init__(self, space: gym.Space[Any], seed: int) -> None:
        self.space = space
        space.seed(seed)

    def predict(self, observations: Any, *args: Any, **kwargs: Any) -> tuple[np.ndarray, None]:
        return np.array([self.space.sample() for _ in observations]), None


def make_env(name: str) -> DummyVecEnv:
    silence_age()
    return DummyVecEnv([lambda: Monitor(gym.make(name))])


def train(run: Run, folder: Path = RESULTS) -> dict[str, Any]:
    """
    Train, and store the result.

    :param run: what to train
    :param folder: where its file goes
    :return: the result
    """
    th.set_num_threads(1)
    evaluations = Evaluations(run)
    model = run.make(make_env(run.env))
    random, _ = evaluate_policy(Random(model.action_space, run.seed), evaluations.env, EPISODES[run.env])
    model.learn(run.steps, callback=evaluations)
    updater = getattr(model.policy, "topology_updater", None)
    result = {
        **asdict(run),
        "arguments": {name: value for name, value in run.arguments.items() if name != "action_noise"},
        "updates": {} if updater is None else {name: network.updates for name, network in updater.networks.items()},
        "random": round(float(random), 2),
        "versions": machine.versions(),
        "curve": evaluations.rows,
    }
    folder.mkdir(exist_ok=True)
    write_text(folder / f"{run.name}.json", json.dumps(result) + "\n")
    return result


def stored(folder: Path = RESULTS) -> dict[Run, dict[str, Any]]:
    """
    Read the results that are there.

    :param folder: where their files are
    """
    found = {run: folder / f"{run.name}.json" for run in RUNS}
    return {run: json.loads(path.read_text()) for run, path in found.items() if path.exists()}
