"""Data of a policy that is on its way: whose they are, how they are collected, and by which checksum they are known again."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise

from benchmarks import machine
from benchmarks.budgets.runs import Random, make_env
from sb3_rlx2.checkpoint import Checkpoints
from sb3_rlx2.files import replacing, write_text

EVALUATION_SEED = 1_000_000  # far from the seeds of training
EPISODES = 10  # of each evaluation
NOISE = 0.1
MEDIUM = (1 / 3, 1 / 2)  # shares of the way from random to whole between which a policy is on its way
SEEDS = range(10)  # of the agents that are tried one after the other


@dataclass(frozen=True)
class Recipe:
    """
    How an environment's data come about.

    :param env: environment
    :param whole: return that counts as whole
    :param steps: environment steps that an agent is given to come to be on its way
    :param every: environment steps between its evaluations
    :param learning_starts: environment steps of random actions before it learns
    :param transitions: that it collects then; whole episodes, so some more
    :param gradient_steps: of those that learn from them
    """

    env: str
    whole: float
    steps: int
    every: int
    learning_starts: int
    transitions: int
    gradient_steps: int


RECIPES = {
    recipe.env: recipe
    for recipe in (
        Recipe("Pendulum-v1", -150.0, 10_000, 100, 1_000, 20_000, 20_000),  # as RL Zoo's agents of TD3
        Recipe("Hopper-v4", 3_431.0, 500_000, 5_000, 25_000, 200_000, 100_000),  # as dense TD3 in benchmarks/returns
    )
}


@dataclass(frozen=True)
class Episode:
    """
    An episode, as Minari has them.

    :param observations: one more than there are steps
    :param actions: as the environment takes them
    :param rewards: of each step
    :param terminations: of each step
    :param truncations: of each step
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


class OnItsWay(BaseCallback):
    """
    Ends training at the first evaluation between the two shares of the way.

    :param recipe: says when there is one
    :param random: return of random actions
    :param seed: of the agent
    """

    def __init__(self, recipe: Recipe, random: float, seed: int) -> None:
        super().__init__()
        self.recipe, self.random, self.seed = recipe, random, seed
        self.env = make_env(recipe.env)
        self.found: dict[str, Any] | None = None

    def _on_step(self) -> bool:
        if self.num_timesteps % self.recipe.every == 0 and self.num_timesteps > self.recipe.learning_starts:
            self.env.seed(EVALUATION_SEED * (1 + self.seed) + self.num_timesteps)
            mean = float(evaluate_policy(self.model, self.env, EPISODES)[0])
            share = share_of_the_way(mean, self.random, self.recipe.whole)
            if MEDIUM[0] <= share <= MEDIUM[1]:
                self.found = {"seed": self.seed, "step": self.num_timesteps, "evaluation": round(mean, 2)}
        return self.found is None


def share_of_the_way(value: float, random: float, whole: float) -> float:
    """
    Give how far a return is on the way from random to whole.

    :param value: the return
    :param random: return of random actions
    :param whole: return that counts as whole
    """
    return (value - random) / (whole - random)


def collect(recipe: Recipe, work: Path, results: Path) -> tuple[list[Episode], dict[str, Any]]:
    """
    Give an environment's data, and what is known about them. They are collected if they are not there.

    :param recipe: how
    :param work: folder of what is not kept: data, checkpoints
    :param results: folder of what is kept, the data's checksum among it
    :raises ValueError: if the data are not those of the checksum
    """
    path, about, kept = work / f"{recipe.env}.npz", work / f"{recipe.env}.json", results / f"data_{recipe.env}.json"
    if not about.exists():  # written last
        write_text(about, json.dumps(_collect(recipe, work, path), indent=1) + "\n")
    episodes, known = read(path), json.loads(about.read_text())
    if not kept.exists():
        write_text(kept, about.read_text())
    for file in (about, kept):
        expected = json.loads(file.read_text())["sha256"]
        if checksum(episodes) != expected:
            raise ValueError(
                f"{path} holds data of checksum {checksum(episodes)[:12]}, {file} is about {expected[:12]}: what was learned "
                "from both does not belong together; take the other data, or another --results"
            )
    return episodes, known


def _collect(recipe: Recipe, work: Path, path: Path) -> dict[str, Any]:
    env = make_env(recipe.env)
    env.seed(0)
    random = float(evaluate_policy(Random(env.action_space, 0), env, 10 * EPISODES)[0])
    for seed in SEEDS:
        agent = _train(recipe, random, seed, work)
        if agent is not None:
            break
    else:
        raise ValueError(f"no agent of {len(SEEDS)} was on its way in {recipe.env} at an evaluation")
    model, found = agent
    episodes = [*play(model, gym.make(recipe.env), recipe.transitions, seed)]
    behaviour = float(np.mean([episode.rewards.sum() for episode in episodes]))
    _write(episodes, path)
    return {
        "recipe": asdict(recipe),
        "agent": found,
        "random": round(random, 2),
        "behaviour": round(behaviour, 2),
        "share": round(share_of_the_way(behaviour, random, recipe.whole), 4),
        "episodes": len(episodes),
        "transitions": sum(len(episode.rewards) for episode in episodes),
        "sha256": checksum(episodes),
        "versions": machine.versions(),
        "machine": machine.machine(),
    }


def _train(recipe: Recipe, random: float, seed: int, work: Path) -> tuple[TD3, dict[str, Any]] | None:
    """Train an agent until it is on its way; None if it never was. A killed training goes on."""
    env = make_env(recipe.env)
    size = env.action_space.shape[0]
    model = TD3(
        "MlpPolicy",
        env,
        learning_starts=recipe.learning_starts,
        buffer_size=recipe.steps,
        action_noise=NormalActionNoise(np.zeros(size), np.full(size, NOISE)),
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
        device="cpu",
    )
    watching = OnItsWay(recipe, random, seed)
    model.learn(recipe.steps, callback=[watching, Checkpoints(work / f"{recipe.env}_agent_{seed}")])
    return None if watching.found is None else (model, watching.found)


def play(model: Any, env: gym.Env, transitions: int, seed: int) -> Iterator[Episode]:
    """
    Let a policy play whole episodes with the noise that it was trained with.

    :param model: an agent with actions of a Box
    :param env: environment
    :param transitions: how many there are to be at least
    :param seed: of episodes and noise
    """
    generator, policy, played = np.random.default_rng(seed), model.policy, 0
    obs, _ = env.reset(seed=seed)
    while played < transitions:
        observations, steps, over = [obs], [], False
        while not over:
            action = policy.scale_action(model.predict(obs, deterministic=True)[0])
            noisy = np.clip(action + NOISE * generator.standard_normal(action.shape), -1, 1)
            action = policy.unscale_action(noisy.astype(np.float32))
            obs, reward, terminated, truncated, _ = env.step(action)
            observations.append(obs)
            steps.append((action, float(reward), terminated, truncated))
            over = terminated or truncated
        played += len(steps)
        yield Episode(np.array(observations), *map(np.array, zip(*steps, strict=True)))
        obs, _ = env.reset()


def _write(episodes: list[Episode], path: Path) -> None:
    arrays = {
        f"{number}_{field.name}": getattr(episode, field.name)
        for number, episode in enumerate(episodes)
        for field in fields(Episode)
    }
    with replacing(path) as unfinished:
        np.savez(unfinished, **arrays)


def read(path: Path) -> list[Episode]:
    """
    Read episodes.

    :param path: the file
    """
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    count = len(arrays) // len(fields(Episode))
    return [Episode(**{field.name: arrays[f"{number}_{field.name}"] for field in fields(Episode)}) for number in range(count)]


def checksum(episodes: list[Episode]) -> str:
    """
    Give the SHA-256 of all numbers, with their types and shapes.

    :param episodes: the data
    """
    digest = hashlib.sha256()
    for episode in episodes:
        for field in fields(Episode):
            array = getattr(episode, field.name)
            digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
