"""
Environments that are out of date and wanted: the oldest living versions are the nearest to those of the paper. And one that
only has the sizes of a game.
"""

import sys
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces

EXPECTED = "settotalmass"  # MuJoCo warns of it in each of gymnasium's own v4 files


def silence_age() -> None:
    """Keep gymnasium and MuJoCo from saying in every process that an environment or its model file is out of date."""
    gym.logger.min_level = gym.logger.ERROR
    mujoco.set_mju_user_warning(_warn)


def _warn(message: str) -> None:
    if EXPECTED not in message:
        print(f"MuJoCo: {message}", file=sys.stderr)


class Bits(gym.Env[np.ndarray, np.int64]):
    """Observations and actions as in MinAtar's Breakout, ten by ten pixels of four bits and six actions; nothing to learn."""

    observation_space = spaces.Box(0, 1, (10, 10, 4), bool)
    action_space = spaces.Discrete(6)
    length = 100  # of an episode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observe(), float(action == 0), self.steps == self.length, False, {}

    def _observe(self) -> np.ndarray:
        return self.np_random.random(self.observation_space.shape) < 0.05


gym.register("Bits-v0", Bits)
