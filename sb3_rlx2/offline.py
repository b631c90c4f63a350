"""Given data for agents that learn offline: transitions into a replay buffer, and their statistics into an environment."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_rlx2.buffers.replay import cut_last
from sb3_rlx2.extras import require

EPSILON = 1e-6  # below the variance of whatever varies; TD3+BC adds 1e-3 to the deviation


def add_episodes(model: OffPolicyAlgorithm, episodes: Iterable[Any]) -> int:
    """
    Add episodes to a model's replay buffer, such as :func:`minari_episodes`. Those whose last step is no end, as parts of
    longer ones, are taken as cut off there: their last observation counts, and nothing follows it.

    :param model: the model, of one environment
    :param episodes: each with arrays ``observations`` (one more than there are steps), ``actions`` as the environment takes
        them, ``rewards``, ``terminations`` and ``truncations``
    :return: number of transitions
    :raises ValueError: if the buffer cannot hold them all, or is that of several environments
    """
    buffer, count = model.replay_buffer, 0
    assert buffer is not None
    if buffer.n_envs != 1:
        raise ValueError(f"n_envs={buffer.n_envs} must be 1: episodes are those of one environment")
    for episode in episodes:
        actions = np.asarray(episode.actions)
        if isinstance(buffer.action_space, spaces.Box):
            actions = model.policy.scale_action(actions.astype(np.float32))
        steps = zip(actions, episode.rewards, episode.terminations, episode.truncations, strict=True)
        for step, (action, reward, terminated, truncated) in enumerate(steps):
            if buffer.full:
                raise ValueError(
                    f"buffer_size={buffer.buffer_size} must be at least the number of transitions, and more follow"
                )
            before, after = episode.observations[step : step + 2]
            infos = [{"TimeLimit.truncated": bool(truncated and not terminated)}]
            done = np.array([terminated or truncated])
            buffer.add(before[None], after[None], action[None], np.array([reward]), done, infos)
            count += 1
        cut_last(buffer, np.array([True]))
    return count


def minari_episodes(dataset: str) -> Iterator[Any]:
    """
    Give the episodes of a `Minari <https://minari.farama.org>`_ data set, for :func:`add_episodes`.

    :param dataset: its name, as ``"mujoco/hopper/medium-v0"``; it is downloaded if it is not there
    :raises MissingExtra: if Minari is not installed: ``pip install 'sb3_rlx2[minari]'``
    """
    require("minari", f"dataset={dataset!r}")
    import minari

    episodes: Iterator[Any] = minari.load_dataset(dataset, download=True).iterate_episodes()
    return episodes


def normalised(env: VecEnv, buffer: ReplayBuffer) -> VecNormalize:
    """
    Give an environment that normalises observations by the mean and variance of data, and leaves rewards as they are.

    :param env: the environment
    :param buffer: the data, of which those count that can be sampled
    :raises ValueError: if there are none
    """
    count = buffer.size()
    if count == 0:
        raise ValueError("buffer holds 0 transitions, which have no statistics")
    wrapped = VecNormalize(env, training=False, norm_reward=False, clip_obs=np.inf, epsilon=EPSILON)
    begin = buffer.pos - count
    rows = (
        slice(begin, buffer.pos) if begin >= 0 else (begin + np.arange(count)) % buffer.buffer_size
    )  # a slice copies nothing
    seen = buffer.observations[rows].reshape(-1, *env.observation_space.shape)  # type: ignore[misc]
    statistics: Any = wrapped.obs_rms
    statistics.mean, statistics.var = seen.mean(axis=0, dtype=np.float64), seen.var(axis=0, dtype=np.float64)
    return wrapped
