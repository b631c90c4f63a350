"""Writes and reads a policy as safetensors: the sparse tensors, with the rest as metadata. Needs the extra ``safetensors``."""

import json
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_rlx2.export.rlx2_reader import Layer, Policy
from sb3_rlx2.validation import lookup

OF_LAYER = ("values", "bias", "counts", "columns", "scales")
OF_POLICY = ("low", "high", "normaliser", "test_observations", "test_actions")


def pack(policy: Policy) -> bytes:
    """
    Write a policy. Tensor ``layers.0.values`` is attribute ``values`` of its first layer, and so on, see
    :class:`sb3_rlx2.export.rlx2_reader.Policy`; what is no tensor stands in the metadata, as JSON under ``sb3_rlx2``.

    :param policy: the policy
    :return: the file
    :raises ValueError: if the package safetensors is missing
    """
    tensors = {name: getattr(policy, name) for name in OF_POLICY}
    for number, layer in enumerate(policy.layers):
        tensors |= {f"layers.{number}.{name}": getattr(layer, name) for name in OF_LAYER}
    layers = [{"inputs": layer.inputs, "activation": layer.activation} for layer in policy.layers]
    rest = {"output": policy.output, "clip": policy.clip, "layers": layers, "about": policy.about}
    kept = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items() if tensor is not None}
    return bytes(_package().save(kept, metadata={"sb3_rlx2": json.dumps(rest)}))


def load(data: bytes, framework: str = "numpy") -> Any:
    """
    Read a policy.

    :param data: the file
    :param framework: ``"numpy"`` or ``"torch"``
    :return: a :class:`Policy`, or a :class:`TorchPolicy`; both can be called
    :raises ValueError: if the framework is another, or the package safetensors is missing
    """
    return lookup("framework", framework, {"numpy": _load, "torch": _load_module})(data)


def _load(data: bytes) -> Policy:
    size = int.from_bytes(data[:8], "little")
    rest = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["sb3_rlx2"])
    tensors = _package().load(data)
    layers = [
        Layer(**layer, **{name: tensors.get(f"layers.{number}.{name}") for name in OF_LAYER})
        for number, layer in enumerate(rest["layers"])
    ]
    arrays = {name: tensors.get(name) for name in OF_POLICY}
    return Policy(tuple(layers), rest["output"], clip=rest["clip"], about=rest["about"], **arrays)


def _load_module(data: bytes) -> nn.Module:
    return TorchPolicy(_load(data))


def _package() -> Any:
    """Import what an extra installs."""
    try:
        from safetensors import numpy
    except ImportError as error:
        raise ValueError("format='safetensors' needs the package safetensors: pip install 'sb3_rlx2[safetensors]'") from error
    return numpy


MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "leaky_relu": nn.LeakyReLU}


class TorchPolicy(nn.Module):
    """
    The policy as a module, with dense layers: to go on with, or to differentiate.

    :param policy: the policy
    """

    low: th.Tensor
    high: th.Tensor
    normaliser: th.Tensor | None

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.output, self.clip = policy.output, policy.clip
        self.register_buffer("low", th.tensor(policy.low))
        self.register_buffer("high", th.tensor(policy.high))
        self.register_buffer("normaliser", None if policy.normaliser is None else th.tensor(policy.normaliser))
        self.net = nn.Sequential(*(module for layer in policy.layers for module in _modules(layer)))

    def forward(self, observation: th.Tensor) -> th.Tensor:
        """
        Choose actions.

        :param observation: as the environment gives them, ``[n, observations]``
        :return: actions, ``[n, actions]``; ``[n]``, their numbers, if they are discrete
        """
        if self.normaliser is not None:
            mean, rest, inverse_std = self.normaliser
            observation = (((observation - mean) - rest) * inverse_std).clamp(-self.clip, self.clip)
        y: th.Tensor = self.net(observation)
        if self.output == "argmax":
            return y.argmax(dim=1)
        if self.output == "clip":
            return th.minimum(th.maximum(y, self.low), self.high)
        return self.low + 0.5 * (y + 1.0) * (self.high - self.low)


def _modules(layer: Layer) -> list[nn.Module]:
    linear = nn.Linear(layer.inputs, layer.outputs)
    weight = layer.dense().astype(np.float32)
    with th.no_grad():
        linear.weight.copy_(th.tensor(weight if layer.scales is None else weight * layer.scales[:, None].astype(np.float32)))
        linear.bias.copy_(th.tensor(layer.bias.astype(np.float32)))
    return [linear, *([MODULES[layer.activation]()] if layer.activation in MODULES else [])]
