"""
Sparse arithmetic on CPU: each network is one call into the kernels, forward and backward.

Inside, activations are feature-major, ``[features, batch]``, so that the batch is the contiguous, vectorised axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_rlx2.backends import kernels

if TYPE_CHECKING:
    from sb3_rlx2.sparse_mlp import SparseMLP

OUTPUT_CODES: dict[type[nn.Module], int] = {nn.Identity: kernels.IDENTITY, nn.ReLU: kernels.RELU, nn.Tanh: kernels.TANH}


def forward(networks: Sequence["SparseMLP"], x: th.Tensor) -> tuple[th.Tensor, ...]:
    """
    Compute networks that read one input.

    :param networks: sparse networks
    :param x: input, ``[batch, in_features]``
    :return: output of each network, ``[batch, out_features]``
    """
    parameters = [parameter for network in networks for parameter in (network.values, network.bias)]
    return _SparseMLPs.apply(networks, x, *parameters)  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True)
class Structure:
    """
    What the kernels read instead of ``index``: all layers' rows one after the other, and the same links by column.

    :param widths: number of inputs, then of outputs of each layer, ``[layers + 1]``
    :param row_pointers: where each row's links begin, ``[sum of out_features + 1]``
    :param columns: column of each link within its layer, ``[nnz]``
    :param column_pointers: where each column's links begin in ``rows`` and ``order``, ``[sum of in_features + 1]``
    :param rows: row of each link within its layer, column by column, ``[nnz]``
    :param order: position of each such link in ``values``, ``[nnz]``
    :param output_code: activation of the last layer
    :param index: the index it was derived from, to notice another one
    :param version: the index's version, to notice a change in place
    """

    widths: np.ndarray
    row_pointers: np.ndarray
    columns: np.ndarray
    column_pointers: np.ndarray
    rows: np.ndarray
    order: np.ndarray
    output_code: int
    index: th.Tensor
    version: int


def structure_of(network: "SparseMLP") -> Structure:
    """
    Derive the kernels' arrays, again only if the topology has changed (an update, ``load_state_dict``, ``to``).

    :param network: the network
    :return: its structure
    """
    cached = network.compute_cache
    if cached is None or cached.index is not network.index or cached.version != network.index._version:
        cached = network.compute_cache = _derive(network)
    return cached  # type: ignore[no-any-return]


def _derive(network: "SparseMLP") -> Structure:
    row_counts, column_counts, all_rows, all_columns, orders = [], [], [], [], []
    for number, layer in enumerate(network.layers):
        rows, columns = np.divmod(network.layer_index(number).numpy(), layer.in_features)
        by_column = np.lexsort((rows, columns))
        row_counts.append(np.bincount(rows, minlength=layer.out_features))
        column_counts.append(np.bincount(columns, minlength=layer.in_features))
        all_rows.append(rows[by_column])
        all_columns.append(columns)
        orders.append(by_column + network.slices[number].start)
    return Structure(
        widths=np.array([network.layers[0].in_features, *(layer.out_features for layer in network.layers)], dtype=np.int64),
        row_pointers=_pointers(row_counts),
        columns=np.concatenate(all_columns).astype(np.int32),
        column_pointers=_pointers(column_counts),
        rows=np.concatenate(all_rows).astype(np.int32),
        order=np.concatenate(orders).astype(np.int32),
        output_code=OUTPUT_CODES[type(network.output_activation)],
        index=network.index,
        version=network.index._version,
    )


def _pointers(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)


@dataclass
class _Pass:
    """One network's forward pass, kept for its backward."""

    structure: Structure
    activations: np.ndarray  # [sum of widths, batch]: the input, then each layer's output


class _SparseMLPs(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, networks: Sequence["SparseMLP"], x: th.Tensor, *parameters: th.Tensor) -> tuple[th.Tensor, ...]:
        ctx.networks = networks
        ctx.save_for_backward(*parameters)
        values = parameters[0]
        x_array = x.detach().to(values.dtype).contiguous().numpy()
        ctx.x_dtype = x.dtype
        ctx.passes = []
        outputs = []
        for network, value, bias in zip(networks, parameters[0::2], parameters[1::2], strict=True):
            s = structure_of(network)
            activations = np.empty((int(s.widths.sum()), len(x_array)), dtype=x_array.dtype)
            y = np.empty((len(x_array), s.widths[-1]), dtype=x_array.dtype)
            kernels.mlp_forward(
                s.widths, s.row_pointers, s.columns, value.detach().numpy(), bias.detach().numpy(), x_array, activations, y,
                s.output_code,
            )  # fmt: skip
            ctx.passes.append(_Pass(s, activations))
            outputs.append(th.from_numpy(y))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: th.Tensor) -> tuple[th.Tensor | None, ...]:
        need_x = ctx.needs_input_grad[1]
        parameters = ctx.saved_tensors
        grad_x: np.ndarray | None = None
        grads: list[th.Tensor | None] = []
        for i, (network, done) in enumerate(zip(ctx.networks, ctx.passes, strict=True)):
            value, bias = parameters[2 * i : 2 * i + 2]
            need_parameters = any(ctx.needs_input_grad[2 + 2 * i : 4 + 2 * i])
            s, activations = done.structure, done.activations
            gradients = np.empty_like(activations)
            grad_value, grad_bias = np.empty(len(value), activations.dtype), np.empty(len(bias), activations.dtype)
            into = np.empty((activations.shape[1], s.widths[0]), activations.dtype)
            kernels.mlp_backward(
                s.widths, s.row_pointers, s.columns, value.detach().numpy(), s.column_pointers, s.rows, s.order, activations,
                gradients, grad_outputs[i].contiguous().numpy(), s.output_code, grad_value, grad_bias, into,
                need_parameters, need_x,
            )  # fmt: skip
            if network.records_dense_gradient and need_parameters:
                _record(network, activations, gradients)
            grads += [th.from_numpy(grad_value), th.from_numpy(grad_bias)] if need_parameters else [None, None]
            if need_x:
                grad_x = into if grad_x is None else grad_x + into
        grad_input = None if grad_x is None else th.from_numpy(grad_x).to(ctx.x_dtype)
        return None, grad_input, *grads


def _record(network: "SparseMLP", activations: np.ndarray, gradients: np.ndarray) -> None:
    x_start = 0
    for number, layer in enumerate(network.layers):
        x_stop = x_start + layer.in_features
        x = th.from_numpy(activations[x_start:x_stop])
        grad_y = th.from_numpy(gradients[x_stop : x_stop + layer.out_features])
        network.record_dense_gradient(number, partial(_outer, grad_y, x))
        x_start = x_stop


def _outer(grad_y: th.Tensor, x: th.Tensor) -> th.Tensor:
    return grad_y @ x.T
