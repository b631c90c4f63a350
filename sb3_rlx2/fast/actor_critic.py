"""What gradient steps share that train an actor and critics."""

from typing import Any

import numpy as np

from sb3_rlx2.backends.csr import structure_of
from sb3_rlx2.fast.steps import GradientSteps
from sb3_rlx2.sparse_mlp import sparse_mlps


class ActorCriticSteps(GradientSteps):
    """
    Gradient steps of an actor and critics.

    :param model: the algorithm
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model, length=len(sparse_mlps(model.policy.critic)))
        (self.actor,), self.critics = self.trained["actor"], self.trained["critic"]

    def _allocate(self, size: int) -> None:
        super()._allocate(size)
        self.actor_activations = self._tiled(structure_of(self.actor.mlp).outputs)
        outputs = self.critics[0].mlp.layers[-1].out_features
        self.q_values, self.grad_value = self._tiled(len(self.critics) * outputs), self._tiled(outputs)
        self.target = self._tiled(self._target_count())
        self.grad_actions = self._tiled(self.n_actions)

    def _target_count(self) -> int:
        """Give the number of targets of a sample."""
        return 1

    def _common_arrays(self, part: int) -> dict[str, Any]:
        """Give what a thread has in all these algorithms, by field of what it works on."""
        return {
            "actor": self._learner(self.actor, part, self.actor_activations),
            "critics": tuple(self._learner(critic, part) for critic in self.critics),
            "critic_targets": tuple(structure_of(target).network for target in self.targets["critic"]),
            "critic_scratch": self._scratch(self.targets["critic"][0]),
            **self._batch_arrays(),
            **{name: getattr(self, name) for name in ("q_values", "target", "grad_value", "grad_actions")},
            "sums": np.zeros(3),
        }
