"""TD3's gradient step in arrays and kernels."""

from functools import partial
from typing import Any

import numpy as np
import torch as th

from sb3_rlx2.backends.csr import array
from sb3_rlx2.gradient_steps import GradientSteps, Tiles
from sb3_rlx2.metrics import sparse_mlps


class TD3Steps(GradientSteps):
    """
    Gradient steps of TD3.

    :param model: the algorithm
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.actor_target = sparse_mlps(self.policy.actor_target)[0]

    def train(self, gradient_steps: int, batch_size: int) -> dict[str, list[float]]:
        """
        Do gradient steps.

        :param gradient_steps: number of steps
        :param batch_size: number of samples of each
        :return: losses by name
        """
        model = self.model
        losses: dict[str, list[float]] = {"critic_loss": [], "actor_loss": []}
        for _ in range(gradient_steps):
            model._n_updates += 1
            self._sample(batch_size)
            losses["critic_loss"].append(self._update_critics())
            if model._n_updates % model.policy_delay == 0:
                losses["actor_loss"].append(self._update_actor())
                self._move_targets(self.critics, self.critic_targets)
                self._move_targets([self.actor], [self.actor_target])
        return losses

    def _update_critics(self) -> float:
        noise = array(th.empty(self.size, self.n_actions).normal_(0, self.model.target_policy_noise))
        split = self._split()
        total = self._run(partial(self._critic_section, noise), split)
        self._step("critic", self.critics, len(split))
        return total / self.size

    def _critic_section(self, noise: np.ndarray, some: Tiles, part: int) -> float:
        batch, kernels = self.batch, self.step_kernels
        self._forward(self.actor_target, batch.next_inputs, batch.next_inputs, self.obs_dim, some, part)
        kernels.add_clipped_noise(batch.next_inputs, self.obs_dim, noise, self.model.target_noise_clip, *some)
        self._value_next_states(some, part)
        kernels.bellman(
            self.values, self.target, 0.0, batch.returns, batch.terminated, batch.discounts, self.target, *some
        )  # fmt: skip
        return self._fit_critics(2 / self.size, some, part)

    def _update_actor(self) -> float:
        split = self._split()
        total = self._run(self._actor_section, split)
        self._step("actor", [self.actor], len(split))
        return -total / self.size

    def _actor_section(self, some: Tiles, part: int) -> float:
        x, critic, value = self.batch.inputs, self.critics[0].mlp, self.values[:, :1].copy()
        done = self._forward(self.actor.mlp, x, x, self.obs_dim, some, part, keep=True)
        critic_done = self._forward(critic, x, value, 0, some, part, keep=True)
        total: float = self.step_kernels.mean_gradient(value, 0, self.size, self.grad_value, *some)
        self._backward_to_actions(critic, critic_done, self.grad_actions, some, part)
        self._backward(self.actor, done, self.grad_actions, some, part)
        return total
