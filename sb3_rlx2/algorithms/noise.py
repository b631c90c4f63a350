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
    :raises ValueError: if it is neither, of another shape than actions, or has a negative standard deviation
    """
    if isinstance(given, VectorizedActionNoise) and given.n_envs != n_envs:
        given = given.base_noise  # of an agent that was saved with another number of environments; SB3 makes copies of it
    if given is None:
        return None
    if isinstance(given, ActionNoise):
        _check(given, action_space)
        return given
    if not isinstance(given, Real):
        raise ValueError(f"action_noise={given!r} must be None, an ActionNoise, or a number in [0, inf)")
    deviation = check_number("action_noise", given, 0.0, math.inf, high_included=False)
    shape = action_space.shape or ()
    return NormalActionNoise(np.zeros(shape), deviation * np.ones(shape))


def _check(noise: ActionNoise, action_space: spaces.Space[Any]) -> None:
    """Check noise of SB3's own classes; what others' is like is not known before it is drawn."""
    one = noise.base_noise if isinstance(noise, VectorizedActionNoise) else noise
    shape = np.broadcast_shapes(np.shape(getattr(one, "_mu", 0.0)), np.shape(getattr(one, "_sigma", 0.0)))
    if np.any(np.asarray(getattr(one, "_sigma", 0.0)) < 0):
        raise ValueError(f"action_noise={one!r} has a standard deviation below 0")
    wanted = action_space.shape or ()
    if shape not in ((), (1,), wanted):
        raise ValueError(f"action_noise={one!r} has shape {shape}, and actions have {wanted}")
