"""
Says whether arrays and kernels may take the place of SB3's own modules and autograd, and if not, why: in one place, for
gradient steps and for acting.

They compute what calling the modules would, as long as the modules are this package's own and nobody looks in between. So
:func:`why_not` asks everything, and a :class:`Watch` notices at each step, at little cost, that it has to be asked again.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_rlx2 import backends
from sb3_rlx2.buffers.gather import why_not_by_statistics
from sb3_rlx2.buffers.replay import RLx2ReplayBuffer
from sb3_rlx2.hooks import global_hooks, has_hooks, hooks
from sb3_rlx2.sparse_mlp import SparseMLP


def why_not(model: Any) -> str | None:
    """
    Say what keeps gradient steps in arrays from taking the place of SB3's ``train``.

    :param model: one of SB3's off-policy algorithms with a sparse policy
    :return: the first reason, or None if nothing does
    """
    return next(_reasons(model), None)


def why_not_act(policy: Any) -> str | None:
    """
    Say what keeps a policy from choosing actions in arrays.

    :param policy: a sparse policy
    :return: the first reason, or None if nothing does
    """
    return next(_network_reasons(policy, [policy.acting_network]), None)


def uses_masked(policy: Any) -> bool:
    """
    Tell whether dense arithmetic serves one of a policy's heads.

    :param policy: a sparse policy
    """
    heads = [mlp for network in policy.all_networks() if is_own(type(network)) for mlp in network.sparse_heads()]
    return any(backends.why_masked(mlp) is not None for mlp in heads)


def _reasons(model: Any) -> Iterator[str]:
    policy, buffer = model.policy, model.replay_buffer
    if not hasattr(policy, "all_networks"):
        yield f"the policy is a {type(policy).__name__}, which is not sparse"
        return
    yield from _network_reasons(policy, policy.all_networks())
    if type(buffer) is not RLx2ReplayBuffer:
        yield f"the replay buffer is a {type(buffer).__name__}, not an RLx2ReplayBuffer"
    else:
        reason = buffer.why_no_kernel(model._vec_normalize_env)
        if reason is not None:
            yield reason
    yield from _parameter_reasons(policy)


def _parameter_reasons(policy: Any) -> Iterator[str]:
    for name in policy.network_names():
        for parameter_name, parameter in getattr(policy, name).named_parameters():
            if parameter.dtype != th.float32:
                yield f"{name}.{parameter_name} is {parameter.dtype}, and gradient steps in arrays are float32"
            if name in policy.networks and not takes_plain_gradient(parameter):
                yield f"{name}.{parameter_name} is frozen or has a hook"


def _network_reasons(policy: Any, networks: Sequence[nn.Module]) -> Iterator[str]:
    for part in (policy, *networks):
        if not is_own(type(part)):
            yield f"{type(part).__name__} is no class of this package and may compute something else"
            return
    yield from _observation_reasons(policy)
    for network in networks:
        extractor: Any = network.features_extractor
        if type(extractor) is not FlattenExtractor:
            yield f"the features extractor is a {type(extractor).__name__}, not a FlattenExtractor"
        yield from filter(None, map(_why_not_head, network.sparse_heads()))  # type: ignore[operator]
        for name, module in network.named_modules():
            if has_hooks(module):
                yield f"{f'{name} of ' if name else ''}the {type(network).__name__} has a hook"


def _observation_reasons(policy: Any) -> Iterator[str]:
    space = policy.observation_space
    if type(space) not in (spaces.Box, spaces.MultiBinary):
        yield f"observations are of a {type(space).__name__} space, which SB3 encodes"
    elif policy.normalize_images and is_image_space(space):
        yield "observations are images, which SB3 divides by 255"


def _why_not_head(mlp: SparseMLP) -> str | None:
    if not is_own(type(mlp)):
        return f"{type(mlp).__name__} is no class of this package and may compute something else"
    if mlp.values.dtype != th.float32:
        return f"weights are {mlp.values.dtype}, not float32"
    return backends.why_masked(mlp)


def is_own(cls: type) -> bool:
    """
    Tell whether a class is this package's: a subclass of a user may compute something else.

    :param cls: the class
    """
    return cls.__module__.partition(".")[0] == "sb3_rlx2"


def takes_plain_gradient(parameter: th.Tensor) -> bool:
    """
    Tell whether a backward pass would give a parameter its gradient and do nothing else: it is neither frozen nor hooked.

    :param parameter: any
    """
    return parameter.requires_grad and not (parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


_BACKEND, _KIND = attrgetter("backend"), attrgetter("dtype", "is_cpu")


class Watch:
    """
    Networks as they were looked at, to notice at every step that one or a part of it was put in, replaced, moved or given a
    hook. Asked several times a step, so all loops are ``map``'s.

    :param policy: the policy
    :param names: attributes of the policy that hold the networks
    """

    def __init__(self, policy: Any, names: Sequence[str]) -> None:
        modules = [module for name in names for module in policy._modules[name].modules()]
        self._owners = [each for module in (policy, *modules) for each in (module._modules, module._parameters) if each]
        self._held = [*_all_values(self._owners)]  # alive, or another could get the id of one that is gone
        self._parts = [*map(id, self._held)]
        self._hooks = [*global_hooks(), *(each for module in modules for each in hooks(module))]
        self._mlps = [module for module in modules if isinstance(module, SparseMLP)]
        self._tensors = [each for module in modules for each in module._parameters.values() if each is not None]
        self._state = self._look()

    def sees_the_same_parts(self) -> bool:
        """Tell whether the networks consist of the modules and parameters that they did."""
        return [*map(id, _all_values(self._owners))] == self._parts

    def sees_the_same(self) -> bool:
        """Tell whether they do, none has a hook, and nothing has changed that the choice of the backend looks at."""
        return not any(self._hooks) and self.sees_the_same_parts() and self._look() == self._state

    def _look(self) -> list[Any]:
        tensors = self._tensors
        return [*map(_BACKEND, self._mlps), *map(_KIND, tensors), *map(th.Tensor.numel, tensors)]


def _all_values(owners: Sequence[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, owners))


class TrainingWatch:
    """
    A model as :func:`why_not` has found nothing against it, to notice at every step what may have changed.

    :param model: the algorithm
    """

    def __init__(self, model: Any) -> None:
        policy = self.policy = model.policy
        self.buffer, self.threads = model.replay_buffer, th.get_num_threads()
        self.networks = Watch(policy, policy.network_names())
        self.parameters = [each for name in policy.networks for each in getattr(policy, name).parameters()]
        self.optimizers = [policy.optimizer_of(name) for name in policy.networks]

    def sees_the_same(self, model: Any) -> bool:
        """
        Tell whether the model is as it was.

        :param model: the algorithm
        """
        policy = self.policy
        return (
            policy is model.policy
            and self.buffer is model.replay_buffer
            and why_not_by_statistics(model._vec_normalize_env) is None
            and self.threads == th.get_num_threads()
            and self.networks.sees_the_same()
            and all(map(takes_plain_gradient, self.parameters))
            and [*map(policy.optimizer_of, policy.networks)] == self.optimizers
        )
