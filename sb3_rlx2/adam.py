"""Adam's step by kernel: torch's takes several passes over memory and a Python call for each."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch as th


class PlainAdam:
    """
    ``torch.optim.Adam``'s step by kernel, on the optimizer's own state, which stays torch's to save and load.

    :param optimizer: the optimizer
    """

    def __init__(self, optimizer: th.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._state: Any = None
        self._views: list[tuple[int, th.Tensor, tuple[np.ndarray, ...]]] = []

    def serves(self) -> bool:
        """Tell whether the kernel can do the next step: no extras, and not the first step."""
        group, optimizer = self.optimizer.param_groups[0], self.optimizer
        return (
            type(optimizer) in (th.optim.Adam, KernelAdam)
            and len(optimizer.param_groups) == 1
            and len(optimizer.state) == len(group["params"])
            and not any(group[extra] for extra in ("weight_decay", "amsgrad", "maximize", "capturable", "differentiable"))
            and isinstance(group["lr"], float)
        )

    def has_hooks(self, before: int, after: int) -> bool:
        """
        Tell whether these numbers of hooks are all there are, so that a caller may call them in the optimizer's place.

        :param before: number of hooks before a step
        :param after: number of hooks after a step
        """
        hooks = (self.optimizer._optimizer_step_pre_hooks, self.optimizer._optimizer_step_post_hooks)
        return (len(hooks[0]), len(hooks[1])) == (before, after)

    def step(self, gradients: Sequence[np.ndarray]) -> None:
        """
        Move the parameters.

        :param gradients: gradient by each parameter
        """
        from sb3_rlx2.backends.compile import load_kernels  # late, because it imports numba

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
                        _array(parameter),
                        *(_array(state[parameter][name]).reshape(-1) for name in ("exp_avg", "exp_avg_sq", "step")),
                    ),
                )
                for parameter in parameters
            ]
        return [arrays for _, _, arrays in self._views]


class KernelAdam(th.optim.Adam):
    """``torch.optim.Adam``, with a step by kernel where one serves. The state is the same, so checkpoints are, too."""

    def step(self, closure: Any = None) -> Any:
        """
        Move the parameters.

        :param closure: as torch's
        """
        plain: PlainAdam | None = self.__dict__.get("_plain")  # copies come without it
        if plain is None:
            plain = self._plain = PlainAdam(self)
        parameters = self.param_groups[0]["params"]
        if closure is not None or not plain.serves() or not all(map(_has_plain_gradient, parameters)):
            step: Any = th.optim.Adam.step
            # Torch puts the hooks around the `step` of each class; this one's have been called.
            return (step.__wrapped__ if getattr(step, "hooked", False) else step)(self, closure)
        plain.step([_array(parameter.grad) for parameter in parameters])
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """
        Forget the gradients.

        :param set_to_none: as torch's
        """
        if not set_to_none:
            super().zero_grad(set_to_none)
            return
        for group in self.param_groups:  # torch's own does the same and takes longer over its bookkeeping
            for parameter in group["params"]:
                parameter.grad = None


def _has_plain_gradient(parameter: th.Tensor) -> bool:
    gradient = parameter.grad
    return gradient is not None and gradient.is_cpu and gradient.dtype == th.float32 and gradient.stride() == (1,)


def _array(tensor: Any) -> np.ndarray:
    view: np.ndarray = tensor.detach().numpy()
    return view
