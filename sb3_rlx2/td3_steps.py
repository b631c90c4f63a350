"""TD3's gradient step in arrays and kernels."""

from typing import Any

import numpy as np
import torch as th

from sb3_rlx2.backends.csr import array, structure_of
from sb3_rlx2.backends.td3_kernels import ACTOR, CRITICS, TD3Arrays
from sb3_rlx2.gradient_steps import GradientSteps
from sb3_rlx2.metrics import sparse_mlps
from sb3_rlx2.sparse_mlp import SparseMLP


class TD3Steps(GradientSteps):
    """
    Gradient steps of TD3.

    :param model: the algorithm
    """

    kernel = "td3"

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
                self._move_targets()
        return losses

    def _allocate(self, size: int) -> None:
        super()._allocate(size)
        self.noise, self.noise_clip = th.zeros(size, self.n_actions), np.zeros(1)
        self.critic_activations = self._tiled(structure_of(self.critics[0].mlp).outputs)

    def _arrays(self, part: int) -> TD3Arrays:
        return TD3Arrays(
            **self._common_arrays(part),
            actor_target=structure_of(self.actor_target).network,
            actor_scratch=self._scratch(self.actor_target),
            critic_activations=self.critic_activations,
            noise=array(self.noise),
            noise_clip=self.noise_clip,
        )

    def _targets(self) -> list[tuple[SparseMLP, SparseMLP]]:
        return [*super()._targets(), (self.actor.mlp, self.actor_target)]

    def _update_critics(self) -> float:
        self.noise.normal_(0, self.model.target_policy_noise)
        self.noise_clip[0] = self.model.target_noise_clip
        work = self._do(CRITICS)
        self._record(self.critics, self.structs[0].arrays.critics)
        self._step("critic", self.critics, work)
        return work.total / self.size

    def _update_actor(self) -> float:
        work = self._do(ACTOR)
        self._record([self.actor], [self.structs[0].arrays.actor])
        self._step("actor", [self.actor], work)
        return -work.total / self.size
