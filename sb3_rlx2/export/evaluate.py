"""Compares what was exported with the agent: action by action, and return by return."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from rl_zoo3 import utils
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from sb3_rlx2.export.agent import count_frames, statistics_of_frames
from sb3_rlx2.export.description import Description, observations
from sb3_rlx2.export.rlx2_reader import Policy

N_OBSERVATIONS = 2000


def act_of_agent(model: Any, vecnormalize: Any) -> Callable[[np.ndarray], np.ndarray]:
    """
    Give the agent as a function of what the environment shows.

    :param model: the agent
    :param vecnormalize: its ``VecNormalize``, or None
    :return: function of observations, ``[n, observations]``, to actions, ``[n, actions]``
    """
    shape = model.observation_space.shape
    statistics = None if vecnormalize is None else statistics_of_frames(vecnormalize, shape)

    def act(observation: np.ndarray) -> np.ndarray:
        several = np.reshape(observation, (-1, *shape))
        seen = several if statistics is None else statistics.normalize_obs(several)
        actions, _ = model.predict(seen, deterministic=True)
        return np.asarray(actions.reshape(len(several), -1), np.float32)

    return act


def difference(description: Description, policy: Policy, agent: Callable[[np.ndarray], np.ndarray]) -> float:
    """
    Compare a policy with its agent on typical and on extreme observations.

    :param description: what the policy was made of
    :param policy: the policy
    :param agent: see :func:`act_of_agent`
    :return: largest difference as a share of the action's range (where that is infinite, of the largest action); for discrete
        actions, the share of observations where they differ
    """
    seen = observations(description, N_OBSERVATIONS, np.random.default_rng(1))
    own, its = policy(seen), agent(seen)
    if policy.output == "argmax":
        return float((own != its).mean())
    span = description.high - description.low
    return float((np.abs(own - its) / np.where(np.isfinite(span), span, np.abs(its).max())).max())


class Frames(VecEnvWrapper):
    """
    Shows the last few frames at once, as ``VecFrameStack`` does behind ``VecNormalize`` in the zoo, but as they are before it.
    So what stands for frames before the first is not 0, but what becomes 0.

    :param env: a single environment
    :param count: how many frames
    :param blank: what stands for a frame before the first, of an observation's shape
    """

    def __init__(self, env: VecEnv, count: int, blank: np.ndarray) -> None:
        self.blank = np.tile(blank, count)[None]
        super().__init__(env, observation_space=spaces.Box(-np.inf, np.inf, self.blank.shape[1:]))

    def reset(self) -> np.ndarray:
        """Begin an episode."""
        self.shown = self.blank
        return self._show(self.venv.reset())

    def step_wait(self) -> Any:
        """Go on; what is shown after an episode's end belongs to none."""
        observation, *others = self.venv.step_wait()
        return self._show(observation), *others

    def _show(self, observation: Any) -> np.ndarray:
        self.shown = np.concatenate([self.shown[..., observation.shape[-1] :], observation], axis=-1)
        return self.shown


def make_env(env_id: str, env_kwargs: dict[str, Any], hyperparams: dict[str, Any], shape: Any, vecnormalize: Any) -> VecEnv:
    """
    Make the environment of an agent as ``rlx2 enjoy`` does, with all its wrappers and frames, but without ``VecNormalize``.

    :param env_id: its id
    :param env_kwargs: its arguments
    :param hyperparams: of the agent
    :param shape: of the observations that the agent reads
    :param vecnormalize: the agent's ``VecNormalize``, or None
    :raises ValueError: if the environment shows others
    """
    env = utils.create_test_env(env_id, should_render=False, hyperparams=dict(hyperparams), env_kwargs=env_kwargs)
    own: Any = env.observation_space.shape
    count = count_frames(shape, own)
    if count == 0:
        raise ValueError(f"--env {env_id} must show observations of shape {shape}, which the agent reads, not of {own}")
    normalised = vecnormalize is not None and vecnormalize.norm_obs
    return env if count == 1 else Frames(env, count, vecnormalize.obs_rms.mean if normalised else np.zeros(own))


def returns(act: Callable[[np.ndarray], np.ndarray], env: VecEnv, episodes: int, seed: int) -> np.ndarray:
    """
    Play episodes.

    :param act: function of observations, ``[n, observations]``, to actions, ``[n, actions]``
    :param env: a single environment
    :param episodes: how many
    :param seed: of the first; the others' follow
    :return: return of each
    """
    return np.asarray([_play(act, env, seed + episode) for episode in range(episodes)])


def _play(act: Callable[[np.ndarray], np.ndarray], env: VecEnv, seed: int) -> float:
    env.seed(seed)
    observation: Any = env.reset()
    shape: tuple[int, ...] = env.action_space.shape or ()
    total, done = 0.0, False
    while not done:
        actions = act(observation.reshape(1, -1)).reshape(1, *shape)
        if isinstance(env.action_space, spaces.Discrete):
            actions = actions.astype(np.int64)
        observation, rewards, ends, _ = env.step(actions)
        total, done = total + float(rewards[0]), bool(ends[0])
    return total
