"""The runs of PROTOCOL.md, and what is stored of each."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks import machine
from benchmarks.budgets.runs import make_env
from benchmarks.offline.data import EPISODES, EVALUATION_SEED, RECIPES, Episode, Recipe
from sb3_rlx2 import RLx2TD3BC, metrics
from sb3_rlx2.files import write_text
from sb3_rlx2.offline import add_episodes, normalised

HERE = Path(__file__).parent
RESULTS = HERE / "results"
EVALUATIONS = 20  # over a run
ARMS = {"dense": 0.0, "sparse": 0.9}  # share of zeros in actor and critics
SEEDS = range(3)


@dataclass(frozen=True)
class Run:
    """
    A training.

    :param env: key of ``RECIPES``
    :param arm: key of ``ARMS``
    :param seed: seed of the model
    """

    env: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.env}_{self.arm}_seed{self.seed}"


RUNS = [Run(env, arm, seed) for env in RECIPES for seed in SEEDS for arm in ARMS]


class Evaluations(BaseCallback):
    """
    Plays episodes without noise after each twentieth of the gradient steps.

    :param run: what is trained
    :param steps: number of gradient steps
    :param env: environment with the statistics of the data
    """

    def __init__(self, run: Run, steps: int, env: Any) -> None:
        super().__init__()
        self.run, self.every, self.env = run, steps // EVALUATIONS, env
        self.rows: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        if self.model.num_timesteps % self.every == 0:
            self._evaluate()
        return True

    def _evaluate(self) -> None:
        step = self.model.num_timesteps
        self.env.seed(EVALUATION_SEED * (1 + self.run.seed) + step)
        returns, _ = evaluate_policy(self.model, self.env, EPISODES, return_episode_rewards=True)
        self.rows.append({"step": step, "returns": [round(each, 2) for each in returns]})


def train(run: Run, recipe: Recipe, episodes: list[Episode], about: dict[str, Any], folder: Path = RESULTS) -> dict[str, Any]:
    """
    Train, and store the result.

    :param run: what to train
    :param recipe: of its data
    :param episodes: the data
    :param about: what is stored about them
    :param folder: where its file goes
    :return: the result
    """
    th.set_num_threads(1)
    begun = time.monotonic()
    arguments = {"actor_sparsity": ARMS[run.arm], "critic_sparsity": ARMS[run.arm], "buffer_size": about["transitions"]}
    holder = RLx2TD3BC("MlpPolicy", make_env(run.env), device="cpu", **arguments)
    add_episodes(holder, episodes)
    data = holder.replay_buffer
    model = RLx2TD3BC("MlpPolicy", normalised(make_env(run.env), data), seed=run.seed, device="cpu", **arguments)
    model.replay_buffer = data
    evaluations = Evaluations(run, recipe.gradient_steps, normalised(make_env(run.env), data))
    model.learn_offline(recipe.gradient_steps, callback=evaluations)
    result = {
        **asdict(run),
        "arguments": arguments,
        "data": about["sha256"],
        "gradient_steps": recipe.gradient_steps,
        "updates": {name: network.updates for name, network in model.policy.topology_updater.networks.items()},
        "weights": metrics.live_weights(model.policy),
        "seconds": round(time.monotonic() - begun, 1),
        "versions": machine.versions(),
        "machine": machine.machine(),
        "curve": evaluations.rows,
    }
    write_text(folder / f"{run.name}.json", json.dumps(result) + "\n")
    return result


def stored(folder: Path = RESULTS) -> dict[Run, dict[str, Any]]:
    """
    Read the results that are there.

    :param folder: where their files are
    """
    found = {run: folder / f"{run.name}.json" for run in RUNS}
    return {run: json.loads(path.read_text()) for run, path in found.items() if path.exists()}


def stored_data(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """
    Read what is stored about data, by environment.

    :param folder: where the files are
    """
    found = {env: folder / f"data_{env}.json" for env in RECIPES}
    return {env: json.loads(path.read_text()) for env, path in found.items() if path.exists()}


def score(result: dict[str, Any]) -> float:
    """
    Give the mean return of the last five evaluations.

    :param result: of a run
    """
    return float(np.mean([row["returns"] for row in result["curve"][-5:]]))
