"""Gradient steps of one network that values all discrete actions, for which SB3 clips the gradient."""

import math
from typing import Any

import numpy as np

from sb3_rlx2.backends.csr import structure_of
from sb3_rlx2.fast.steps import GradientSteps, Sums
from sb3_rlx2.kernels.value_based import FIT, ValueArrays


class ValueSteps(GradientSteps):
    """
    Gradient steps of a network that values all discrete actions. Its target follows in the host's ``_on_step``.

    :param model: the algorithm
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        ((self.name, (self.online,)),) = self.trained.items()
        ((self.behind,),) = self.targets.values()

    def train(self, gradient_steps: int, batch_size: int) -> dict[str, list[float]]:
        """
        Do gradient steps.

        :param gradient_steps: number of steps
        :param batch_size: number of samples of each
        :return: losses by name
        """
        losses = []
        for _ in range(gradient_steps):
            self._sample(batch_size)
            sums = self._do(FIT)
            self._record(self.name, [self.structs[0].arrays.online])
            losses.append(sums.total / self.size)
            self._step(self.name, self._clip(sums))
        self.model._n_updates += gradient_steps
        return {"loss": losses}

    def _allocate(self, size: int) -> None:
        super()._allocate(size)
        outputs = self.online.mlp.layers[-1].out_features
        self.activations = self._tiled(structure_of(self.online.mlp).outputs)
        quantiles = outputs // self.policy.n_actions  # one for DQN
        self.outputs, self.taken, self.target = map(self._tiled, (outputs, quantiles, quantiles))

    def _arrays(self, part: int) -> ValueArrays:
        return ValueArrays(
            online=self._learner(self.online, part, self.activations),
            behind=structure_of(self.behind).network,
            behind_scratch=self._scratch(self.behind),
            **self._batch_arrays(),
            outputs=self.outputs,
            taken=self.taken,
            target=self.target,
            sums=np.zeros(3),
        )

    def _clip(self, sums: Sums) -> Sums:
        """
        Clip the gradient as torch's ``clip_grad_norm_``.

        :return: the sums, as if the first thread had done it alone
        """
        self.online.add_gradients(sums.threads)
        if self.model.max_grad_norm is not None:
            gradients = self.online.arrays[0]
            norm = math.sqrt(sum(float(gradient @ gradient) for gradient in gradients))
            share = self.model.max_grad_norm / (norm + 1e-6)
            if not share >= 1:
                with np.errstate(invalid="ignore"):  # infinity becomes NaN, and the step is not taken
                    for gradient in gradients:
                        gradient *= share
        return sums._replace(threads=1)
