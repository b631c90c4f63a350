"""TD3's gradient step in arrays and kernels."""

from functools import partial
from typing import Any

import numpy as np
import torch as th

from sb3_rlx2.backends.csr import array, structure_of
from sb3_rlx2.gradient_steps import GradientSteps, Tiles
from sb3_rlx2.metrics import sparse_mlps


class TD3Steps(GradientSteps):
    """
    Gradient steps of TD3.

    :param model: the algorithm
    """

    kernel_group = "td3"

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
        batch, actor, targets = self.batch, self.actor_target, self.critic_targets
        critics = tuple(self._learner(critic, part) for critic in self.critics)
        total: float = self.kernels.td3_critics(
            structure_of(actor).network, self._memory("activations", actor, part),
            tuple(structure_of(target).network for target in targets), self._memory("activations", targets[0], part),
            critics, batch.inputs, batch.next_inputs, noise, self.model.target_noise_clip,
            batch.returns, batch.terminated, batch.discounts, self.values, self.target, *some,
        )  # fmt: skip
        for critic, learner in zip(self.critics, critics, strict=True):
            self._record(critic, learner)
        return total

    def _update_actor(self) -> float:
        split = self._split()
        total = self._run(self._actor_section, split)
        self._step("actor", [self.actor], len(split))
        return -total / self.size

    def _actor_section(self, some: Tiles, part: int) -> float:
        actor, critic = self._learner(self.actor, part, keep=True), self.critics[0].mlp
        total: float = self.kernels.td3_actor(
            actor, structure_of(critic).network, self._memory("activations", critic, part, keep=True),
            self._memory("gradients", critic, part), self.batch.inputs, self.size, self.target, self.grad_value,
            self.grad_actions, *some,
        )  # fmt: skip
        self._record(self.actor, actor)
        return total
