"""Adam's step by kernel: torch's takes several passes over memory and a Python call for each."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_rlx2.backends.compile import load_kernels
from sb3_rlx2.backends.csr import array


class PlainAdam:
    """
    ``torch.optim.Adam``'s step by kernel, on the optimizer's own state, which stays torch's to save and load.

    :param optimizer: the optimizer
    :param own_hooks: number of hooks before and after a step that the caller itself calls in their place
    """

    def __init__(self, optimizer: th.optim.Optimizer, own_hooks: tuple[int, int]) -> None:
        self.optimizer = optimizer
        self.own_hooks = own_hooks
        self._state: Any = None
        self._views: list[tuple[int, th.Tensor, tuple[np.ndarray, ...]]] = []

    def serves(self) -> bool:
        """Tell whether the kernel can do the next step: no extras, no other hooks, and not the first step."""
        group, optimizer = self.optimizer.param_groups[0], self.optimizer
        return (
            type(optimizer) is th.optim.Adam
            and len(optimizer.param_groups) == 1
            and len(optimizer.state) == len(group["params"])
            and not any(group[extra] for extra in ("weight_decay", "amsgrad", "maximize", "capturable", "differentiable"))
            and isinstance(group["lr"], float)
            and (len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)) == self.own_hooks
        )

    def step(self, gradients: Sequence[np.ndarray]) -> None:
        """
        Move the parameters.

        :param gradients: gradient by each parameter
        """
        group, kernel = self.optimizer.param_groups[0], load_kernels("optimizer").adam
        lr, (beta1, beta2), epsilon = group["lr"], group["betas"], group["eps"]
        for arrays, gradient in zip(self._arrays(group["params"]), gradients, strict=True):
            kernel(*arrays, gradient, lr, beta1, beta2, epsilon)

    def _arrays(self, parameters: Sequence[th.Tensor]) -> Iterable[tuple[np.ndarray, ...]]:
        """View parameters and state as arrays, anew if the state was loaded or a parameter has moved."""
        state = self.optimizer.state
        if self._state is not state or any(parameter.data_ptr() != place for place, parameter, _ in self._views):
            self._state = state
            self._views = [
                (
                    parameter.data_ptr(),
                    parameter,
                    (
                        array(parameter),
                        *(array(state[parameter][name]).reshape(-1) for name in ("exp_avg", "exp_avg_sq", "step")),
                    ),
                )
                for parameter in parameters
            ]
        return [arrays for _, _, arrays in self._views]
