"""
Bootstrapping from the true value function, as in the paper's motivating figure ("RigL + Q*").

The true value function is unknown, so a dense agent is trained to convergence first. Its critics, frozen, then give the
value of each next state at its own actor's action, V*(s') = min_i Q_i(s', pi*(s')), in place of the learner's own target
critics: the learner's critics regress on r + gamma V*(s'), and everything else of its training stays as it is.
"""

from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rlx2 import RLx2ReplayBuffer

GAMMA = 0.99


@dataclass(frozen=True)
class Quality:
    """
    How far a teacher has converged: what it earns, and whether its values say so.

    :param mean_return: of its episodes
    :param value_at_start: its mean value of the states that episodes start from
    :param discounted_return: what episodes bring from there; those cut by the time limit go on with the last state's value
    """

    mean_return: float
    value_at_start: float
    discounted_return: float


class TaughtReplayBuffer(RLx2ReplayBuffer):
    """
    A replay buffer whose samples bring their bootstrap value along: it is part of the return, and nothing is left to
    bootstrap from (discount 0). SB3's ``train`` needs no change for that.

    :param args: arguments of ``RLx2ReplayBuffer``
    :param teacher: file of a trained dense TD3 agent
    :param kwargs: keyword arguments of ``RLx2ReplayBuffer``
    """

    def __init__(self, *args: Any, teacher: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = load(teacher, self.device)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        samples = super().sample(batch_size, env)
        assert samples.discounts is not None
        bootstrap = (1 - samples.dones) * samples.discounts * value(self.teacher, samples.next_observations)
        return samples._replace(rewards=samples.rewards + bootstrap, discounts=th.zeros_like(samples.discounts))


def load(path: str, device: th.device | str = "cpu") -> Any:
    """
    Load a teacher's policy.

    :param path: the saved agent
    :param device: where to
    """
    policy = TD3.load(path, device=device, buffer_size=1).policy
    policy.set_training_mode(False)
    return policy


def value(teacher: Any, obs: th.Tensor) -> th.Tensor:
    """
    Give a teacher's value of states.

    :param teacher: its policy
    :param obs: observations, ``[batch, ...]``
    :return: values, ``[batch, 1]``
    """
    with th.no_grad():
        values = th.cat(teacher.critic(obs, teacher.actor(obs)), dim=1)
        return values.min(dim=1, keepdim=True).values


def quality(teacher: Any, env: gym.Env, episodes: int) -> dict[str, float]:
    """
    Let a teacher play, to see whether its values are what it earns.

    :param teacher: its policy
    :param env: environment
    :param episodes: number of episodes, with seeds from 0 on
    """
    rows = []
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        start, rewards, over = _value_of(teacher, obs), [], False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(teacher.predict(obs, deterministic=True)[0])
            rewards.append(float(reward))
            over = terminated or truncated
        rest = 0.0 if terminated else _value_of(teacher, obs)
        discounted = float(np.dot([*rewards, rest], GAMMA ** np.arange(len(rewards) + 1)))
        rows.append((sum(rewards), start, discounted))
    return asdict(Quality(*(round(float(mean), 2) for mean in np.mean(rows, axis=0))))


def _value_of(teacher: Any, obs: np.ndarray) -> float:
    return float(value(teacher, th.as_tensor(obs, dtype=th.float32)[None]))
