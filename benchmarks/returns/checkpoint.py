"""
A training run's whole state in one file, so that a killed run goes on as if nothing had happened.

A checkpoint is taken where an episode has just begun: there the environment's state is a function of its random generator
as it was before the reset, whatever the simulator keeps inside.
"""

import io
import os
import pickle
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

BUFFER_COUNTERS = ("pos", "full", "live", "n_steps")


class RepeatableReset(gym.Wrapper):
    """Remembers the environment's random generator from before the latest reset."""

    before: dict[str, Any] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.before = None if seed is not None else deepcopy(self.unwrapped.np_random.bit_generator.state)
        return self.env.reset(seed=seed, options=options)

    def prepare(self, before: dict[str, Any]) -> None:
        """
        Make the next reset give what the one behind ``before`` gave.

        :param before: what was remembered
        """
        self.unwrapped.np_random.bit_generator.state = before


def capture(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """
    Take a training run's state, at the start of an episode that is not the first.

    :param model: the agent, its one environment wrapped in :class:`RepeatableReset`
    """
    zipped = io.BytesIO()
    model.save(zipped)
    return {
        "model": zipped.getvalue(),
        "buffer": _buffer_state(model.replay_buffer),
        "generators": _generators(model),
        "reset": model.get_env().get_attr("before")[0],
    }


def restore(agent_class: type[OffPolicyAlgorithm], env: VecEnv, state: dict[str, Any]) -> OffPolicyAlgorithm:
    """
    Make the agent of a checkpoint; :class:`RestoreGenerators` does the rest once training starts.

    :param agent_class: class of the agent
    :param env: a fresh environment, wrapped in :class:`RepeatableReset`
    :param state: what :func:`capture` gave
    """
    model = agent_class.load(io.BytesIO(state["model"]), env=env, force_reset=False, device="cpu")
    env.reset()  # uses up the seed that `load` has set
    env.env_method("prepare", state["reset"])
    if not np.array_equal(env.reset(), model._last_obs):
        raise RuntimeError(
            f"{env.envs[0].unwrapped.spec.id} does not start the checkpoint's episode again: its reset depends on more than "
            "its random generator, or its version has changed; delete the cell's folder to begin it anew"
        )
    arrays, counters = state["buffer"]
    for name, rows in arrays.items():
        getattr(model.replay_buffer, name)[: len(rows)] = rows
    vars(model.replay_buffer).update(counters)
    return model


class RestoreGenerators(BaseCallback):
    """
    Sets the random generators where SB3's ``load`` and ``learn`` are done with seeding them.

    :param states: of the checkpoint
    """

    def __init__(self, states: tuple[Any, ...]) -> None:
        super().__init__()
        self.states = states

    def _on_training_start(self) -> None:
        torch, numpy, python, actions = self.states
        th.set_rng_state(torch)
        np.random.set_state(numpy)  # noqa: NPY002 as SB3 draws
        random.setstate(python)
        self.model.action_space.np_random.bit_generator.state = actions

    def _on_step(self) -> bool:
        return True


def write(path: Path, state: Any) -> None:
    """
    Write a file in one go: at any moment it is there as a whole, as it was or as it will be.

    :param path: the file
    :param state: what to pickle
    :raises OSError: if there is no room for it; what was written of it is gone again
    """
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as file:
            pickle.dump(state, file, protocol=5)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def read(path: Path) -> Any:
    """
    Read what :func:`write` wrote.

    :param path: the file, one of our own: pickles run code
    """
    with path.open("rb") as file:
        return pickle.load(file)


def _buffer_state(buffer: ReplayBuffer) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Give the rows that are filled; those that are not take no memory until they are written."""
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: value for name, value in vars(buffer).items() if isinstance(value, np.ndarray) and value.ndim >= 2}
    return {name: rows[:filled] for name, rows in arrays.items()}, {
        name: getattr(buffer, name) for name in BUFFER_COUNTERS if hasattr(buffer, name)
    }


def _generators(model: OffPolicyAlgorithm) -> tuple[Any, ...]:
    numpy, actions = np.random.get_state(), model.action_space.np_random.bit_generator.state  # noqa: NPY002 as SB3 draws
    return th.get_rng_state(), numpy, random.getstate(), deepcopy(actions)
