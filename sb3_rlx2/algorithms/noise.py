"""Exploration noise."""

import math
from numbers import Real
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, VectorizedActionNoise

from sb3_rlx2.validation import check_number


def exploration_noise(given: ActionNoise | float | None, action_space: spaces.Space[Any], n_envs: int) -> ActionNoise | None:
    """
    Give the noise that an algorithm takes.

    :param given: SB3's noise, or the standard deviation of Gaussian noise in ``[-1, 1]`` action space
    :param action_space: action space, a Box if a number is given
    :param n_envs: number of environments
    :raises ValueError: if it is neither
    """
    if isinstance(given, VectorizedActionNoise) and given.n_envs != n_envs:
        return given.base_noise  # of an agent that was saved with another number of environments; SB3 makes copies of it
    if given is None or isinstance(given, ActionNoise):
        return given
    if not isinstance(given, Real):
        raise ValueError(f"action_noise={given!r} must be None, an ActionNoise, or a number in [0, inf)")
    deviation = check_number("action_noise", given, 0.0, math.inf, high_included=False)
    shape = action_space.shape or ()
    return NormalActionNoise(np.zeros(shape), deviation * np.ones(shape))
