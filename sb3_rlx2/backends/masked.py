"""Dense arithmetic on scattered weights: the readable definition of a sparse network, for any device and activation."""

from collections.abc import Sequence
from functools import partial

import torch as th
from torch.nn import functional as F

from sb3_rlx2.backends.network import SparseNetwork
from sb3_rlx2.kernels.constants import EPSILON, LOG_SQRT_2_PI, LOG_STD_MAX, LOG_STD_MIN


def forward(networks: Sequence[SparseNetwork], x: th.Tensor) -> tuple[th.Tensor, ...]:
    """
    Compute networks that read one input.

    :param networks: sparse networks
    :param x: input, ``[batch, in_features]``
    :return: output of each network, ``[batch, out_features]``
    """
    return tuple(_forward(network, x) for network in networks)


def _forward(network: SparseNetwork, x: th.Tensor) -> th.Tensor:
    biases = th.split(network.bias, [layer.out_features for layer in network.layers])
    last = len(network.layers) - 1
    for layer, (weight, bias) in enumerate(zip(network.dense_weights(), biases, strict=True)):
        if layer < network.frozen_layers:
            weight, bias = weight.detach(), bias.detach()
        if network.records_dense_gradient and weight.requires_grad:
            weight.register_hook(partial(_record, network, layer))  # type: ignore[no-untyped-call]
        x = x if network.norms is None else network.norms[layer](x)
        x = F.linear(x, weight, bias)
        x = network.hidden_activation(x) if layer < last else network.output_activation(x)
    return x


def _record(network: SparseNetwork, layer: int, gradient: th.Tensor) -> None:
    network.record_dense_gradient(layer, lambda: gradient)


def squash(raw: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    Compute a squashed Gaussian's actions and their log-probability, see :func:`sb3_rlx2.backends.squash`.

    :param raw: mean and log standard deviation, ``[batch, 2A]``
    :param noise: standard normal, ``[batch, A]``
    """
    mean, log_std = raw.chunk(2, dim=1)
    log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    actions = th.tanh(mean + log_std.exp() * noise)
    density = noise.square() / -2 - log_std - LOG_SQRT_2_PI - th.log(1 - actions.square() + EPSILON)
    return actions, density.sum(dim=1)
