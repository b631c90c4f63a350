"""Sparse arithmetic on CPU: each network is one call into the kernels, forward and backward."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch as th
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_rlx2.backends import kernels
from sb3_rlx2.backends.compile import load_kernels
from sb3_rlx2.backends.tiles import TILE_BYTES

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
    A network as the kernels read it: all layers' rows one after the other, and the same links by column.

    :param widths: number of inputs, then of outputs of each layer, ``[layers + 1]``
    :param row_pointers: where each row's links begin, ``[sum of out_features + 1]``
    :param columns: column of each link within its layer, ``[nnz]``
    :param values: the live weights; shares the parameter's memory, ``[nnz]``
    :param bias: the biases; shares the parameter's memory, ``[sum of out_features]``
    :param column_pointers: where each column's links begin in ``rows`` and ``order``, ``[sum of in_features + 1]``
    :param rows: row of each link within its layer, column by column, ``[nnz]``
    :param order: position of each such link in ``values``, ``[nnz]``
    :param output_code: activation of the last layer
    :param features: number of inputs and of all layers' outputs together
    :param kernels: the compiled kernels for the parameters' dtype
    :param origin: what it was derived from, to notice a change
    """

    widths: np.ndarray
    row_pointers: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    column_pointers: np.ndarray
    rows: np.ndarray
    order: np.ndarray
    output_code: int
    features: int
    kernels: SimpleNamespace
    origin: tuple[int, ...]


def structure_of(network: "SparseMLP") -> Structure:
    """
    Derive the kernels' arrays, again only if topology or memory have changed (an update, ``load_state_dict``, ``to``).

    :param network: the network
    :return: its structure
    """
    index = network._buffers["index"]  # torch's attribute access is slow
    values, bias = network._parameters["values"], network._parameters["bias"]
    origin = (index.data_ptr(), index._version, values.data_ptr(), bias.data_ptr())  # type: ignore[union-attr]
    cached: Structure | None = network.compute_cache
    if cached is None or cached.origin != origin:
        cached = network.compute_cache = _derive(network, origin)
    return cached


def _derive(network: "SparseMLP", origin: tuple[int, ...]) -> Structure:
    row_counts, column_counts, all_rows, all_columns, orders = [], [], [], [], []
    for number, layer in enumerate(network.layers):
        rows, columns = np.divmod(network.layer_index(number).numpy(), layer.in_features)
        by_column = np.lexsort((rows, columns))
        row_counts.append(np.bincount(rows, minlength=layer.out_features))
        column_counts.append(np.bincount(columns, minlength=layer.in_features))
        all_rows.append(rows[by_column])
        all_columns.append(columns)
        orders.append(by_column + network.slices[number].start)
    widths = np.array([network.layers[0].in_features, *(layer.out_features for layer in network.layers)], dtype=np.int64)
    values = array(network.values)
    return Structure(
        widths=widths,
        row_pointers=_pointers(row_counts),
        columns=np.concatenate(all_columns).astype(np.int32),
        values=values,
        bias=array(network.bias),
        column_pointers=_pointers(column_counts),
        rows=np.concatenate(all_rows).astype(np.int32),
        order=np.concatenate(orders).astype(np.int32),
        output_code=OUTPUT_CODES[type(network.output_activation)],
        features=int(widths.sum()),
        kernels=load_kernels("network", values.dtype.name),
        origin=origin,
    )


def _pointers(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)


class Workspace:
    """
    A borrowed array ``[features, pitch]``, aligned and padded as the kernels like it. It goes back when the last reference
    to it goes, so a pass that may still go backward keeps its own, however many others have run since.

    :param features: number of rows
    :param batch: number of samples
    :param dtype: type of the numbers
    """

    _free: ClassVar[dict[tuple[int, int, Any], list[np.ndarray]]] = {}

    def __init__(self, features: int, batch: int, dtype: Any) -> None:
        pitch = kernels.workspace_pitch(batch, dtype.itemsize)  # many batch sizes share one, so the pool stays small
        key = (features, pitch, dtype)
        self._home = self._free.get(key) or self._free.setdefault(key, [])
        try:
            self.array = self._home.pop()
        except IndexError:
            # Fresh memory costs page faults; torch aligns to 64 bytes, numpy does not.
            self.array = th.empty(features, pitch, dtype=th.from_numpy(np.empty(0, dtype)).dtype).numpy()
        self.batch = batch

    def __del__(self) -> None:
        if len(self._home) < 8:
            self._home.append(self.array)

    def tensor(self, start: int, stop: int) -> th.Tensor:
        """Give some features of all samples, ``[stop - start, batch]``."""
        return th.from_numpy(self.array[start:stop, : self.batch])


@dataclass
class Pass:
    """
    One network's forward pass, kept for its backward.

    :param structure: the network's structure at that time
    :param activations: the input, then each layer's output
    """

    structure: Structure
    activations: Workspace


def run_forward(network: "SparseMLP", x: np.ndarray, y: np.ndarray, keep: bool = True) -> Pass:
    """
    Run one network.

    :param network: the network
    :param x: input, ``[batch, in_features]``
    :param y: receives the output, ``[batch, out_features]``
    :param keep: whether to keep what the backward pass needs
    """
    s = structure_of(network)
    activations = Workspace(s.features, len(x) if keep else min(len(x), TILE_BYTES // x.itemsize), x.dtype)
    s.kernels.mlp_forward(
        s.widths, s.row_pointers, s.columns, s.values, s.bias, x, activations.array, y, s.output_code
    )  # fmt: skip
    return Pass(s, activations)


def run_backward(
    network: "SparseMLP",
    done: Pass,
    grad_y: np.ndarray,
    grad_parameters: tuple[np.ndarray, np.ndarray] | None,
    grad_x: np.ndarray | None,
) -> None:
    """
    Go backward through one network; gradients are overwritten. Records it for topology growth if the network asks for it.

    :param network: the network
    :param done: its forward pass
    :param grad_y: gradient by the output, ``[batch, out_features]``
    :param grad_parameters: receive the gradients by ``values`` and ``bias``; None skips them
    :param grad_x: receives the gradient by the input, ``[batch, in_features]``; None skips it
    """
    s, x = done.structure, done.activations
    records = network.records_dense_gradient and grad_parameters is not None
    batch = len(grad_y) if records else min(len(grad_y), TILE_BYTES // grad_y.itemsize)
    gradients = Workspace(s.features, batch, grad_y.dtype)
    values, bias = grad_parameters or (s.values, s.bias)  # not written to where nothing asks for them
    s.kernels.mlp_backward(
        s.widths, s.row_pointers, s.columns, s.values, s.column_pointers, s.rows, s.order,
        x.array, gradients.array, grad_y, s.output_code, values, bias, grad_y if grad_x is None else grad_x,
        grad_parameters is not None, grad_x is not None,
    )  # fmt: skip
    if records:
        _record(network, x, gradients)


def _record(network: "SparseMLP", x: Workspace, gradients: Workspace) -> None:
    start = 0
    for number, layer in enumerate(network.layers):
        stop = start + layer.in_features
        inputs, outputs = (start, stop), (stop, stop + layer.out_features)
        network.record_dense_gradient(number, partial(_dense_gradient, x, inputs, gradients, outputs))
        start = stop


def _dense_gradient(x: Workspace, inputs: tuple[int, int], gradients: Workspace, outputs: tuple[int, int]) -> th.Tensor:
    return gradients.tensor(*outputs) @ x.tensor(*inputs).T


def infer(network: "SparseMLP", x: np.ndarray) -> np.ndarray:
    """
    Run one network, not to go backward.

    :param network: the network
    :param x: input, ``[batch, in_features]``
    :return: output, ``[batch, out_features]``
    """
    y = np.empty((len(x), network.layers[-1].out_features), x.dtype)
    if len(x) > 1:
        run_forward(network, x, y, keep=False)
        return y
    s = structure_of(network)
    activations = np.empty(s.features, x.dtype)
    s.kernels.mlp_single(s.widths, s.row_pointers, s.columns, s.values, s.bias, x[0], activations, y[0], s.output_code)
    return y


def array(tensor: th.Tensor) -> np.ndarray:
    """View a tensor as an array; it shares the memory."""
    return tensor.detach().numpy()


class _SparseMLPs(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, networks: Sequence["SparseMLP"], x: th.Tensor, *parameters: th.Tensor) -> tuple[th.Tensor, ...]:
        ctx.networks = networks
        ctx.x_dtype = x.dtype
        ctx.save_for_backward(*parameters)  # raises if an optimizer changes them before the backward pass
        inputs = array(x.to(parameters[0].dtype).contiguous())
        outputs = [np.empty((len(inputs), network.layers[-1].out_features), inputs.dtype) for network in networks]
        ctx.passes = [run_forward(network, inputs, y) for network, y in zip(networks, outputs, strict=True)]
        return tuple(th.from_numpy(y) for y in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: th.Tensor) -> tuple[th.Tensor | None, ...]:
        parameters = ctx.saved_tensors
        grads: list[th.Tensor | None] = []
        grad_x: th.Tensor | None = None
        for i, (network, done) in enumerate(zip(ctx.networks, ctx.passes, strict=True)):
            own: list[th.Tensor] = []
            if any(ctx.needs_input_grad[2 + 2 * i : 4 + 2 * i]):
                own = [th.empty_like(parameter) for parameter in parameters[2 * i : 2 * i + 2]]
            grad_y = grad_outputs[i].contiguous()
            into = grad_y.new_empty(len(grad_y), network.layers[0].in_features) if ctx.needs_input_grad[1] else None
            run_backward(
                network,
                done,
                array(grad_y),
                (array(own[0]), array(own[1])) if own else None,
                None if into is None else array(into),
            )
            grads += own or [None, None]
            grad_x = into if grad_x is None or into is None else grad_x + into
        return None, None if grad_x is None else grad_x.to(ctx.x_dtype), *grads
