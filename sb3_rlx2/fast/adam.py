"""Adam's step by kernel: torch's takes several passes over memory and a Python call for each."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch as th
from torch.optim import optimizer as of_optimizers

from sb3_rlx2 import kernels
from sb3_rlx2.kernels.parameters import AdamArrays, lines
from sb3_rlx2.kernels.structs import Struct

Run = Callable[[str, Any, int, int], None]  # name of a kernel, struct, job, number of cache lines


@cache
def address_of(name: str) -> int:
    """
    Give the address of a kernel that updates parameters.

    :param name: its name in ``kernels/optimizer.py``
    """
    address: int = getattr(kernels.load(f".optimizer:{name.upper()}"), name)
    return address


def run_alone(name: str, struct: Any, job: int, count: int) -> None:
    """
    Run a kernel that updates parameters in this thread.

    :param name: its name
    :param struct: what it works on
    :param job: its job
    :param count: number of cache lines
    """
    kernels.load(".mailbox:JOBS").run(address_of(name), struct.address, job, 0, count)


class PlainAdam:
    """
    ``torch.optim.Adam``'s step by kernel, on the optimizer's own state, which stays torch's to save and load.

    :param optimizer: the optimizer
    """

    def __init__(self, optimizer: th.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._state: Any = None
        self._origin: list[int] = []

    def serves(self) -> bool:
        """Tell whether the kernel can do the next step: no extras, float32, and not the first step."""
        group, optimizer = self.optimizer.param_groups[0], self.optimizer
        return (
            type(optimizer) in (th.optim.Adam, KernelAdam)
            and len(optimizer.param_groups) == 1
            and len(optimizer.state) == len(group["params"])
            and not any(group[extra] for extra in ("weight_decay", "amsgrad", "maximize", "capturable", "differentiable"))
            and isinstance(group["lr"], float)
            and all(tensor.dtype == th.float32 for state in optimizer.state.values() for tensor in state.values())
        )

    def has_hooks(self, before: int, after: int) -> bool:
        """
        Tell whether these numbers of hooks are all there are, so that a caller may call them in the optimizer's place.

        :param before: number of hooks before a step
        :param after: number of hooks after a step
        """
        hooks = (self.optimizer._optimizer_step_pre_hooks, self.optimizer._optimizer_step_post_hooks)
        of_all = (of_optimizers._global_optimizer_pre_hooks, of_optimizers._global_optimizer_post_hooks)
        return (len(hooks[0]), len(hooks[1])) == (before, after) and not any(of_all)

    def step(self, gradients: Sequence[Sequence[int]], threads: int = 1, run: Run = run_alone) -> None:
        """
        Move the parameters.

        :param gradients: addresses of the threads' gradients by each parameter
        :param threads: number of threads whose gradients are added up, into the first one's
        :param run: runs the kernel
        """
        group = self.optimizer.param_groups[0]
        self._fit(group["params"], len(gradients[0]))
        self._numbers[:] = group["lr"], *group["betas"], group["eps"]
        for addresses, own, step in zip(self._addresses, gradients, self._steps, strict=True):
            addresses[:] = own
            step += 1
        run("adam", self._struct, threads, self._lines)

    def _fit(self, parameters: Sequence[th.Tensor], threads: int) -> None:
        """
        Lay out parameters and state for the kernel, anew if the state was loaded or a parameter has moved. One that has shrunk
        has: the old memory is held here, so that no other can lie there.
        """
        origin = [threads, *(parameter.data_ptr() for parameter in parameters)]
        if self._state is self.optimizer.state and self._origin == origin:
            return
        self._state, self._origin = self.optimizer.state, origin
        self._numbers = np.zeros(4)
        self._addresses = [np.zeros(threads, np.int64) for _ in parameters]
        states = [self._state[parameter] for parameter in parameters]
        if any(state["exp_avg"].shape != parameter.shape for state, parameter in zip(states, parameters, strict=True)):
            raise RuntimeError("the optimizer's moments are of another number of links: load its state with the network's")
        self._steps = [_array(state["step"]).reshape(-1) for state in states]
        values = [_array(parameter) for parameter in parameters]
        moments = [(_array(state["exp_avg"]), _array(state["exp_avg_sq"])) for state in states]
        self._struct = Struct(
            tuple(
                AdamArrays(each, *both, step, addresses, self._numbers)
                for each, both, step, addresses in zip(values, moments, self._steps, self._addresses, strict=True)
            )
        )
        self._lines = lines(values)


class KernelAdam(th.optim.Adam):
    """
    ``torch.optim.Adam``, with a step by kernel where one serves. The state is the same, so checkpoints are, too.

    Torch imports its compiler, which takes seconds, to have it leave these methods alone; here they are as they were before.
    """

    add_param_group: Any = inspect.unwrap(th.optim.Adam.add_param_group)
    state_dict: Any = inspect.unwrap(th.optim.Adam.state_dict)
    load_state_dict: Any = inspect.unwrap(th.optim.Adam.load_state_dict)

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
            # Torch puts the hooks around the `step` of each class, of which this one's have been called, and the compiler.
            step: Any = inspect.unwrap(th.optim.Adam.step)
            with th.set_grad_enabled(self.defaults["differentiable"]):
                return step(self, closure)
        plain.step([[parameter.grad.data_ptr()] for parameter in parameters])
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
