"""
Bootstrapping from the true value function, as in the paper's motivating figure ("RigL + Q*").

The true value function is unknown, so a dense agent is trained to convergence first. Its critics, frozen, then give the
value of each next state at its own actor's action, V*(s') = min_i Q_i(s', pi*(s')), in place of the learner's own target
critics: the learner's critics regress on r + gamma V*(s'), and everything else of its training stays as it is.
"""

from typing import Any

import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rlx2 import RLx2ReplayBuffer


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
        self.teacher = TD3.load(teacher, device=self.device, buffer_size=1).policy
        self.teacher.set_training_mode(False)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        samples = super().sample(batch_size, env)
        assert samples.discounts is not None
        bootstrap = (1 - samples.dones) * samples.discounts * self.value(samples.next_observations)
        return samples._replace(rewards=samples.rewards + bootstrap, discounts=th.zeros_like(samples.discounts))

    def value(self, obs: th.Tensor) -> th.Tensor:
        """
        Give the teacher's value of states.

        :param obs: observations, ``[batch, ...]``
        :return: values, ``[batch, 1]``
        """
        with th.no_grad():
            values = th.cat(self.teacher.critic(obs, self.teacher.actor(obs)), dim=1)
            return values.min(dim=1, keepdim=True).values
