"""Sparse arithmetic on CPU for networks that normalise the inputs of their layers: each layer is one call into the kernels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch as th
from torch.autograd.function import once_differentiable

from sb3_rlx2.backends import csr
from sb3_rlx2.backends.batch_renorm import Renorm
from sb3_rlx2.backends.csr import Structure, structure_of, to_tiles
from sb3_rlx2.backends.network import SparseNetwork
from sb3_rlx2.kernels.structs import Struct
from sb3_rlx2.kernels.tiling import Workspace, array

KERNELS = ".renorm:RENORM"


def forward(networks: Sequence[SparseNetwork], x: th.Tensor) -> tuple[th.Tensor, ...]:
    """
    Compute networks that read one input.

    :param networks: sparse networks with normalisations
    :param x: input, ``[batch, in_features]``
    :return: output of each network, ``[batch, out_features]``
    :raises ValueError: if the shape of ``x`` is another, or a normalisation in training mode has less than two samples
    """
    width = networks[0].layers[0].in_features
    if x.ndim != 2 or x.shape[1] != width:  # kernels look at no bounds
        raise ValueError(f"x has the shape {list(x.shape)}, which must be [batch, in_features={width}]")
    return tuple(_forward(network, x) for network in networks)


def _forward(network: SparseNetwork, x: th.Tensor) -> th.Tensor:
    norms = _norms(network)
    if len(x) < 2 and any(norm.training for norm in norms):
        raise ValueError(f"x has {len(x)} samples and must have at least 2: one has no variance to normalise by")
    learn = [parameter for norm in norms for parameter in (norm.scale, norm.bias)]
    y: th.Tensor = _RenormedMLP.apply(network, x, network.values, network.bias, *learn)  # type: ignore[no-untyped-call]
    return y


def _norms(network: SparseNetwork) -> list[Renorm]:
    assert network.norms is not None
    return list(network.norms)  # type: ignore[arg-type]


@dataclass
class LayerPass:
    """
    One layer's forward pass, kept for its backward.

    :param x: what the layer below gave, ``[tiles, in, lanes]``
    :param inputs: its normalised inputs, likewise
    :param origin: the inputs are ``gain * (x - origin) + offset``, ``[in]``
    :param gain: see there, with a graph to ``leaves``
    :param offset: likewise
    :param leaves: mean and variance that were found, the normalisation's scale and bias
    :param of_batch: whether mean and variance are the batch's
    """

    x: Workspace
    inputs: Workspace
    origin: th.Tensor
    gain: th.Tensor
    offset: th.Tensor
    leaves: Sequence[th.Tensor]
    of_batch: bool


def _normalise(norm: Renorm, s: Structure, x: Workspace, batch: int) -> LayerPass:
    """Find gain and offset. They are but a number for each feature, so torch may compute them and go backward through that."""
    mean, variance = norm.ra_mean.clone(), norm.ra_var.clone()
    if norm.training:
        s.kernels(KERNELS).moments(x.array, batch, array(mean), array(variance))
    origin = mean.clone()
    leaves = mean, variance, scale, bias = [each.detach().requires_grad_() for each in (mean, variance, norm.scale, norm.bias)]
    with th.enable_grad():
        if norm.training:
            mean, variance = norm.renormalise(mean, variance)
        gain, offset = norm.affinity(mean, variance, scale, bias, origin)
    return LayerPass(x, _like(x, x.array.shape[1]), origin, gain, offset, leaves, norm.training)


def _like(x: Workspace, features: int) -> Workspace:
    return Workspace(len(x.array), features, x.array.dtype)


class _RenormedMLP(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: SparseNetwork, x: th.Tensor, *parameters: th.Tensor) -> th.Tensor:
        ctx.network, ctx.x_dtype = network, x.dtype
        ctx.save_for_backward(*parameters)  # raises if an optimizer changes them before the backward pass
        s = ctx.structure = structure_of(network)
        ctx.passes, batch = [], len(x)
        tiles = to_tiles(network, array(x.to(parameters[0].dtype).contiguous()))
        for number, (norm, layer) in enumerate(zip(_norms(network), network.layers, strict=True)):
            done = _normalise(norm, s, tiles, batch)
            tiles = _like(tiles, layer.out_features)
            vectors = (array(vector) for vector in (done.origin, done.gain, done.offset))
            into = done.inputs.array, tiles.array
            s.kernels(KERNELS).renormed_forward(s.struct.address, number, done.x.array, *vectors, *into)
            ctx.passes.append(done)
        y = np.empty((batch, network.layers[-1].out_features), tiles.array.dtype)
        s.kernels(".mlp:FORWARD").from_tiles(tiles.array, y)
        return th.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: th.Tensor) -> tuple[th.Tensor | None, ...]:
        s, network, batch = ctx.structure, ctx.network, len(grad_y)
        values, bias = (th.zeros_like(parameter) for parameter in ctx.saved_tensors[:2])
        by_column = np.empty_like(s.network.values)
        s.kernels(KERNELS).columnwise(s.struct.address, by_column)
        weights = by_column, array(values), array(bias)
        gy = _like(ctx.passes[0].x, grad_y.shape[1])
        s.kernels(".mlp:FORWARD").to_tiles(array(grad_y.contiguous()), gy.array)
        learnt: list[th.Tensor | None] = []
        for number in reversed(range(len(ctx.passes))):
            if network.records_dense_gradient:
                inputs = ctx.passes[number].inputs
                network.record_dense_gradient(number, partial(csr.dense_gradient, inputs.array, gy.array, (inputs, gy)))
            gy, by_norm = _layer_backward(s, number, ctx.passes[number], batch, gy, weights)
            learnt = [*by_norm, *learnt]
        grad_x = None
        if ctx.needs_input_grad[1]:
            grad_x = grad_y.new_empty(batch, gy.array.shape[1])
            s.kernels(".mlp:FORWARD").from_tiles(gy.array, array(grad_x))
            grad_x = grad_x.to(ctx.x_dtype)
        return None, grad_x, values, bias, *learnt


def _layer_backward(
    s: Structure, number: int, done: LayerPass, batch: int, gy: Workspace, weights: Sequence[np.ndarray]
) -> tuple[Workspace, Sequence[th.Tensor | None]]:
    """
    Give the gradients by what the layer below gave and by the normalisation's parameters.

    :param s: the network
    :param number: of the layer
    :param done: its forward pass
    :param batch: number of samples
    :param gy: gradient by its output before the activation
    :param weights: the weights column by column, and what the gradients by values and biases are added to
    """
    gx = _like(done.x, done.x.array.shape[1])
    sums, products = th.empty_like(done.origin), th.empty_like(done.origin)
    origin, gain = array(done.origin), array(done.gain)
    tiles = done.inputs.array, done.x.array, origin, gy.array, gx.array
    s.kernels(KERNELS).renormed_backward(s.struct.address, number, *weights, *tiles, array(sums), array(products))
    given, by = (done.gain, done.offset), (products, sums)
    by_mean, by_variance, *learnt = th.autograd.grad(given, done.leaves, by, retain_graph=True, allow_unused=True)
    shares = (1 / batch, 2 / max(batch - 1, 1)) if done.of_batch else (0, 0)
    by_each = array(by_mean * shares[0]), array(by_variance * shares[1])
    relu = number > 0  # what hidden layers gave came out of one
    s.kernels(KERNELS).norm_backward(done.x.array, origin, gain, *by_each, relu, batch, gx.array)
    return gx, learnt


def infer(network: SparseNetwork, x: np.ndarray) -> np.ndarray:
    """
    Run one network in evaluation mode, not to go backward: its normalisations are folded into its weights and biases.

    :param network: the network
    :param x: input, ``[batch, in_features]``
    :return: output, ``[batch, out_features]``
    """
    return csr.infer(folded(network), x)


def folded(network: SparseNetwork) -> Structure:
    """
    Give the network without normalisations that computes what this one does in evaluation mode.

    :param network: the network
    :return: its structure, with values and biases of its own, which the next call writes anew
    """
    s = structure_of(network)
    plain: Structure | None = s.companions.get("folded")
    if plain is None:
        own = s.network._replace(values=np.empty_like(s.network.values), bias=np.empty_like(s.network.bias))
        plain = s.companions["folded"] = replace(s, network=own, struct=Struct(own), companions={})
    with th.no_grad():
        pairs = [
            norm.affinity(norm.ra_mean, norm.ra_var, norm.scale, norm.bias, th.zeros_like(norm.ra_mean))
            for norm in _norms(network)
        ]
        gain, offset = (array(th.cat(vectors)) for vectors in zip(*pairs, strict=True))
    s.kernels(".renorm:FOLD").fold(s.struct.address, gain, offset, plain.network.values, plain.network.bias)
    return plain
