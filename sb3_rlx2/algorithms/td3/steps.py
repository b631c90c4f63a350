"""TD3's gradient step in arrays and kernels."""

import numpy as np
import torch as th

from sb3_rlx2.algorithms.td3.kernels import ACTOR, CRITICS, TD3Arrays
from sb3_rlx2.backends.csr import structure_of
from sb3_rlx2.fast.actor_critic import ActorCriticSteps
from sb3_rlx2.kernels.tiling import array


class TD3Steps(ActorCriticSteps):
    """
    Gradient steps of TD3.

    :param model: the algorithm
    """

    group, kernel = "sb3_rlx2.algorithms.td3.kernels:TD3", "td3"

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
        (actor_target,) = self.targets["actor"]
        return TD3Arrays(
            **self._common_arrays(part),
            actor_target=structure_of(actor_target).network,
            actor_scratch=self._scratch(actor_target),
            critic_activations=self.critic_activations,
            noise=array(self.noise),
            noise_clip=self.noise_clip,
        )

    def _update_critics(self) -> float:
        self.noise.normal_(0, self.model.target_policy_noise)
        self.noise_clip[0] = self.model.target_noise_clip
        work = self._do(CRITICS)
        self._record("critic", self.structs[0].arrays.critics)
        self._step("critic", work)
        return work.total / self.size

    def _update_actor(self) -> float:
        work = self._do(ACTOR)
        self._record("actor", [self.structs[0].arrays.actor])
        self._step("actor", work)
        return -work.total / self.size
