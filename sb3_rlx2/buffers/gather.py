"""Gathers samples by kernel, normalised where they are copied; ``replay.py`` defines what is computed."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rlx2 import kernels
from sb3_rlx2.buffers.samples import Batch, Windows


class Ring(NamedTuple):
    """
    A replay buffer as the kernels read it. Observations and actions are of a dtype that they know, other numbers are float32.

    :param newest: row of the newest transitions, where windows end
    :param n_steps: length of a window
    :param powers: powers of gamma, ``[n_steps + 1]``
    :param observations: ``[rows * n_envs, D]``
    :param next_observations: ``[rows * n_envs, D]``
    :param rewards: ``[rows, n_envs]``
    :param dones: ``[rows, n_envs]``
    :param timeouts: ``[rows, n_envs]``
    :param actions: ``[rows * n_envs, A]``
    """

    newest: int
    n_steps: int
    powers: np.ndarray
    observations: np.ndarray
    next_observations: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    timeouts: np.ndarray
    actions: np.ndarray


class Normalizer(NamedTuple):
    """
    What the kernels subtract, by what they multiply the rest, and where they clip the product; in float64, as in SB3's
    ``VecNormalize``.

    :param mean: of the observations, ``[D]``; empty, as ``scale``, if these are taken as they are
    :param scale: one over their standard deviation, ``[D]``
    :param clip_obs: largest absolute value of a normalised observation
    :param reward_scale: one over the standard deviation of the returns
    :param clip_reward: largest absolute value of a normalised reward
    """

    mean: np.ndarray
    scale: np.ndarray
    clip_obs: float
    reward_scale: float
    clip_reward: float


AS_IT_IS = Normalizer(np.empty(0), np.empty(0), math.inf, 1.0, math.inf)
STATISTICS_ALONE = ("normalize_obs", "_normalize_obs", "normalize_reward")  # methods whose results statistics determine


def why_no_kernel(observations: np.ndarray, actions: np.ndarray, env: VecNormalize | None) -> str | None:
    """
    Say why kernels cannot gather.

    :param observations: stored observations
    :param actions: stored actions
    :param env: normalises observations and rewards
    :return: the reason, None if they can
    """
    for name, stored in (("observations", observations), ("actions", actions)):
        if stored.dtype.kind not in "biu" and stored.dtype not in (np.float32, np.float64):
            return f"{name} are stored as {stored.dtype}, which no kernel reads"
    return why_not_by_statistics(env)


def why_not_by_statistics(env: VecNormalize | None) -> str | None:
    """
    Say why a normaliser may do something else than its statistics say.

    :param env: the normaliser
    :return: the reason, None if it does just that
    """
    if env is None:
        return None
    if type(env) is not VecNormalize:
        return f"{type(env).__name__} is a subclass of VecNormalize and may normalise in a way of its own"
    overridden = [name for name in STATISTICS_ALONE if name in vars(env)]
    return f"VecNormalize's {overridden[0]} is overridden" if overridden else None


def make_normalizer(env: VecNormalize | None, shape: tuple[int, ...]) -> Normalizer:
    """
    Give the statistics of the moment as kernels read them.

    :param env: normalises observations and rewards, by these statistics alone
    :param shape: shape of an observation
    :raises ValueError: the statistics are of other observations
    """
    if env is None:
        return AS_IT_IS
    mean, scale, clip_obs, reward_scale, clip_reward = AS_IT_IS
    if env.norm_obs:
        statistics: Any = env.obs_rms  # not a dict, as observations are none
        mean, scale, clip_obs = np.empty(shape), np.empty(shape), float(env.clip_obs)
        mean[...] = statistics.mean
        scale[...] = 1.0 / np.sqrt(statistics.var + env.epsilon)
    if env.norm_reward:
        reward_scale, clip_reward = float(1.0 / np.sqrt(env.ret_rms.var + env.epsilon)), float(env.clip_reward)
    return Normalizer(mean.reshape(-1), scale.reshape(-1), clip_obs, reward_scale, clip_reward)


@lru_cache(maxsize=16)
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name  # which NumPy puts together anew each time


def gather_batch(ring: Ring, normalizer: Normalizer, batch: Batch) -> None:
    """
    Gather n-step windows in tiles.

    :param ring: the buffer
    :param normalizer: normalises observations and rewards
    :param batch: says which rows and environments, and receives the rest
    """
    _gather(ring, normalizer, batch, batch.inputs, batch.next_inputs)
    kernels.load(".replay:ACTIONS", _name(ring.actions.dtype)).gather_actions(
        batch.rows, batch.environments, ring.rewards.shape[1], ring.actions, batch.inputs, ring.observations.shape[1]
    )


def gather_windows(
    ring: Ring, normalizer: Normalizer, rows: np.ndarray, environments: np.ndarray, shape: tuple[int, ...]
) -> Windows:
    """
    Gather n-step windows, one after the other.

    :param ring: the buffer
    :param normalizer: normalises observations and rewards
    :param rows: first row of each, ``[batch]``
    :param environments: environment of each, ``[batch]``
    :param shape: shape of an observation
    """
    batch = len(rows)
    windows = Windows(
        rows=rows,
        environments=environments,
        obs=np.empty((batch, *shape), np.float32),
        actions=ring.actions[rows * ring.rewards.shape[1] + environments],
        next_obs=np.empty((batch, *shape), np.float32),
        returns=np.empty((batch, 1), np.float32),
        terminated=np.empty((batch, 1), np.float32),
        discounts=np.empty((batch, 1), np.float32),
        lengths=np.empty(batch, np.int64),
    )
    _gather(ring, normalizer, windows, _one_lane(windows.obs), _one_lane(windows.next_obs))
    return windows


def _gather(ring: Ring, normalizer: Normalizer, into: Batch | Windows, obs: np.ndarray, next_obs: np.ndarray) -> None:
    kernels.load(".replay:REPLAY", _name(ring.observations.dtype)).gather_windows(
        into.rows, into.environments, *ring[:-1], *normalizer, obs, next_obs,
        into.returns.reshape(-1), into.terminated.reshape(-1), into.discounts.reshape(-1), into.lengths,
    )  # fmt: skip


def gather_on_the_way(
    ring: Ring,
    normalizer: Normalizer,
    windows: Batch | Windows,
    next_obs: np.ndarray,
    samples: np.ndarray,
    discounts: np.ndarray,
) -> None:
    """
    Gather the next states inside windows, without the last ones.

    :param ring: the buffer
    :param normalizer: normalises observations
    :param windows: the windows
    :param next_obs: receives the states, ``[tiles, D, lanes]``
    :param samples: receives the sample that each belongs to, ``[states]``
    :param discounts: receives the discount of each, ``[states]``
    """
    kernels.load(".replay:ON_THE_WAY", _name(ring.observations.dtype)).gather_on_the_way(
        windows.rows, windows.environments, windows.lengths, ring.powers, ring.next_observations, len(ring.rewards),
        *normalizer[:3], next_obs, samples, discounts,
    )  # fmt: skip


def states_on_the_way(ring: Ring, normalizer: Normalizer, windows: Windows) -> tuple[np.ndarray, ...]:
    """
    Give the same in fresh arrays.

    :param ring: the buffer
    :param normalizer: normalises observations
    :param windows: the windows
    :return: sample that each state belongs to, its discount, and its observation, ``[states]`` and ``[states, ...]``
    """
    count = int(windows.lengths.sum()) - len(windows.lengths)
    next_obs = np.empty((count, *windows.next_obs.shape[1:]), np.float32)
    samples, discounts = np.empty(count, np.int64), np.empty(count, np.float32)
    gather_on_the_way(ring, normalizer, windows, _one_lane(next_obs), samples, discounts)
    return samples, discounts, next_obs


def _one_lane(samples: np.ndarray) -> np.ndarray:
    """View samples as tiles of one."""
    return samples.reshape(len(samples), math.prod(samples.shape[1:]), 1)
