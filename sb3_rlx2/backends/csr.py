"""Sparse arithmetic on CPU: each network is one call into the kernels, forward and backward."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_rlx2 import kernels
from sb3_rlx2.backends.network import SparseNetwork
from sb3_rlx2.kernels.network import IDENTITY, RELU, TANH, Network
from sb3_rlx2.kernels.structs import Struct
from sb3_rlx2.kernels.tiling import Workspace, array, tiles

OUTPUT_CODES: dict[type[nn.Module], int] = {nn.Identity: IDENTITY, nn.ReLU: RELU, nn.Tanh: TANH}


def forward(networks: Sequence[SparseNetwork], x: th.Tensor) -> tuple[th.Tensor, ...]:
    """
    Compute networks that read one input.

    :param networks: sparse networks
    :param x: input, ``[..., in_features]``
    :return: output of each network, ``[..., out_features]``
    :raises ValueError: if the last dimension of ``x`` is another
    """
    width = networks[0].layers[0].in_features
    if x.shape[-1:] != (width,):  # kernels look at no bounds
        raise ValueError(f"x has shape {list(x.shape)}, whose last dimension must be in_features={width}")
    parameters = [parameter for network in networks for parameter in (network.values, network.bias)]
    outputs = _SparseMLPs.apply(networks, x.reshape(-1, width), *parameters)  # type: ignore[no-untyped-call]
    return tuple(y.reshape(*x.shape[:-1], y.shape[-1]) for y in outputs)


@dataclass(frozen=True)
class Structure:
    """
    What is derived from a network for the kernels.

    :param network: the network as the kernels read it
    :param struct: the same for them to point to
    :param outputs: number of outputs of all layers together
    :param dtype: name of the parameters' dtype
    :param origin: what it was derived from, to notice a change
    :param companions: what else is derived from it, by name
    """

    network: Network
    struct: Struct
    outputs: int
    dtype: str
    origin: tuple[int, ...]
    companions: dict[str, Any] = field(default_factory=dict)

    def kernels(self, group: str) -> SimpleNamespace:
        """
        Give compiled kernels for the parameters' dtype; training in arrays has its own, so these wait until they are needed.

        :param group: see :func:`sb3_rlx2.kernels.load`
        """
        return kernels.load(group, self.dtype)


def structure_of(mlp: SparseNetwork) -> Structure:
    """
    Derive the kernels' arrays, again only if topology or memory have changed (an update, ``load_state_dict``, ``to``).

    :param mlp: the network
    :return: its structure
    """
    index = mlp._buffers["index"]  # torch's attribute access is slow
    values, bias = mlp._parameters["values"], mlp._parameters["bias"]
    if index.is_inference():  # type: ignore[union-attr]  # torch does not count its changes
        return _derive(mlp, ())
    origin = (index.data_ptr(), index._version, values.data_ptr(), bias.data_ptr())  # type: ignore[union-attr]
    cached: Structure | None = mlp.compute_cache
    if cached is None or cached.origin != origin:
        cached = mlp.compute_cache = _derive(mlp, origin)
    return cached


def _derive(mlp: SparseNetwork, origin: tuple[int, ...]) -> Structure:
    row_counts, column_counts, all_rows, all_columns, orders = [], [], [], [], []
    for number, layer in enumerate(mlp.layers):
        rows, columns = np.divmod(mlp.layer_index(number).numpy(), layer.in_features)
        by_column = np.lexsort((rows, columns))
        row_counts.append(np.bincount(rows, minlength=layer.out_features))
        column_counts.append(np.bincount(columns, minlength=layer.in_features))
        all_rows.append(rows[by_column])
        all_columns.append(columns)
        orders.append(by_column + mlp.slices[number].start)
    values = array(mlp.values)
    widths = [mlp.layers[0].in_features, *(layer.out_features for layer in mlp.layers)]
    network = Network(
        widths=np.array(widths, dtype=np.int64),
        row_pointers=_pointers(row_counts),
        columns=np.concatenate(all_columns).astype(np.int32),
        values=values,
        bias=array(mlp.bias),
        column_pointers=_pointers(column_counts),
        rows=np.concatenate(all_rows).astype(np.int32),
        order=np.concatenate(orders).astype(np.int32),
        output_activation=OUTPUT_CODES[type(mlp.output_activation)],
        frozen_layers=mlp.frozen_layers,
    )
    return Structure(network, Struct(network), sum(widths[1:]), values.dtype.name, origin)


def _pointers(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)


@dataclass
class Pass:
    """
    One network's forward pass, kept for its backward.

    :param structure: the network's structure at that time
    :param x: the input, ``[tiles, in, lanes]``
    :param activations: the layers' outputs
    """

    structure: Structure
    x: Workspace
    activations: Workspace


def run_forward(mlp: SparseNetwork, x: Workspace, y: np.ndarray, keep: bool = True) -> Pass:
    """
    Run one network.

    :param mlp: the network
    :param x: input, ``[tiles, in, lanes]``
    :param y: receives the output, ``[batch, out]``
    :param keep: whether to keep what the backward pass needs
    """
    return _run(structure_of(mlp), x, y, keep)


def _run(s: Structure, x: Workspace, y: np.ndarray, keep: bool) -> Pass:
    count = len(x.array)
    activations = Workspace(count if keep else 1, s.outputs, x.array.dtype)
    output = np.empty((count, y.shape[1], x.array.shape[2]), x.array.dtype)
    compiled = s.kernels(".mlp:FORWARD")
    compiled.mlp_forward(s.struct.address, x.array, activations.array, output, 0, 0, count)
    compiled.from_tiles(output, y)
    return Pass(s, x, activations)


def run_backward(
    mlp: SparseNetwork,
    done: Pass,
    grad_y: np.ndarray,
    grad_parameters: tuple[np.ndarray, np.ndarray] | None,
    grad_x: np.ndarray | None,
) -> None:
    """
    Go backward through one network; gradients are overwritten. Records it for topology growth if the network asks for it.

    :param mlp: the network
    :param done: its forward pass
    :param grad_y: gradient by the output, ``[batch, out]``
    :param grad_parameters: receive the gradients by ``values`` and ``bias``; None skips them
    :param grad_x: receives the gradient by the input, ``[batch, in]``; None skips it
    """
    s, x = done.structure, done.x.array
    count, _, width = x.shape
    records = mlp.records_dense_gradient and grad_parameters is not None
    gradients = Workspace(count if records else 1, s.outputs, x.dtype)
    gy = np.empty((count, grad_y.shape[1], width), x.dtype)
    s.kernels(".mlp:FORWARD").to_tiles(grad_y, gy)
    gx = np.empty((count, 0 if grad_x is None else grad_x.shape[1], width), x.dtype)
    memory = done.activations.array, gradients.array, np.empty_like(s.network.values)
    into = grad_parameters or (np.empty(0, x.dtype), np.empty(0, x.dtype))
    s.kernels(".mlp:BACKWARD").mlp_backward(s.struct.address, x, *memory, gy, *into, gx, 0, 0, count)
    if grad_x is not None:
        s.kernels(".mlp:FORWARD").from_tiles(gx, grad_x)
    if records:
        record_dense_gradients(mlp, x, done.activations.array, gradients.array, (done, gradients))


def record_dense_gradients(
    mlp: SparseNetwork, x: np.ndarray, activations: np.ndarray, gradients: np.ndarray, keep: Any = None
) -> None:
    """
    Tell a network where the dense gradients of its layers lie, for topology growth.

    :param mlp: the network
    :param x: its input, ``[tiles, at least in, lanes]``
    :param activations: the outputs of its layers, ``[tiles, sum of outs, lanes]``
    :param gradients: the gradients by them, likewise
    :param keep: what has to live as long as the arrays are needed
    """
    inputs, stop = x[:, : mlp.layers[0].in_features], 0
    for number, layer in enumerate(mlp.layers):
        outputs = slice(stop, stop + layer.out_features)
        if number >= mlp.frozen_layers:  # below that the kernels compute none
            mlp.record_dense_gradient(number, partial(dense_gradient, inputs, gradients[:, outputs], keep))
        inputs, stop = activations[:, outputs], outputs.stop


def dense_gradient(x: np.ndarray, gradients: np.ndarray, keep: Any = None) -> th.Tensor:
    """
    Compute the gradient by all weights of a layer.

    :param x: its input, ``[tiles, in, lanes]``
    :param gradients: the gradient by its output before the activation, 0 in padding, ``[tiles, out, lanes]``
    :param keep: what has to live as long as the arrays are needed
    :return: ``[out, in]``
    """
    flat_gradients, flat_x = (th.from_numpy(tiles).permute(1, 0, 2).flatten(1) for tiles in (gradients, x))
    return flat_gradients @ flat_x.T


def infer(s: Structure, x: np.ndarray) -> np.ndarray:
    """
    Run one network, not to go backward.

    :param s: its structure
    :param x: input, ``[batch, in_features]``
    :return: output, ``[batch, out_features]``
    """
    y = np.empty((len(x), s.network.widths[-1]), x.dtype)
    if len(x) != 1:
        _run(s, _cut(s, x), y, keep=False)
        return y
    s.kernels(".mlp:SINGLE").mlp_single(s.struct.address, x[0], np.empty(x.shape[1] + s.outputs, x.dtype), y[0])
    return y


def to_tiles(mlp: SparseNetwork, x: np.ndarray) -> Workspace:
    """
    Cut a network's input into tiles.

    :param mlp: the network
    :param x: input, ``[batch, in_features]``
    :return: ``[tiles, in_features, lanes]``
    """
    return _cut(structure_of(mlp), x)


def _cut(s: Structure, x: np.ndarray) -> Workspace:
    workspace = Workspace(tiles(len(x), x.dtype), x.shape[1], x.dtype)
    s.kernels(".mlp:FORWARD").to_tiles(x, workspace.array)
    return workspace


class _SparseMLPs(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, networks: Sequence[SparseNetwork], x: th.Tensor, *parameters: th.Tensor) -> tuple[th.Tensor, ...]:
        ctx.networks = networks
        ctx.x_dtype = x.dtype
        ctx.save_for_backward(*parameters)  # raises if an optimizer changes them before the backward pass
        inputs = array(x.to(parameters[0].dtype).contiguous())
        outputs = [np.empty((len(inputs), mlp.layers[-1].out_features), inputs.dtype) for mlp in networks]
        shared, keep = to_tiles(networks[0], inputs), any(ctx.needs_input_grad)
        ctx.passes = [run_forward(mlp, shared, y, keep) for mlp, y in zip(networks, outputs, strict=True)]
        return tuple(th.from_numpy(y) for y in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: th.Tensor) -> tuple[th.Tensor | None, ...]:
        parameters = ctx.saved_tensors
        grads: list[th.Tensor | None] = []
        grad_x: th.Tensor | None = None
        for i, (mlp, done) in enumerate(zip(ctx.networks, ctx.passes, strict=True)):
            own: list[th.Tensor] = []
            if any(ctx.needs_input_grad[2 + 2 * i : 4 + 2 * i]):
                own = [th.empty_like(parameter) for parameter in parameters[2 * i : 2 * i + 2]]
            grad_y = grad_outputs[i].contiguous()
            into = grad_y.new_empty(len(grad_y), mlp.layers[0].in_features) if ctx.needs_input_grad[1] else None
            run_backward(
                mlp,
                done,
                array(grad_y),
                (array(own[0]), array(own[1])) if own else None,
                None if into is None else array(into),
            )
            grads += own or [None, None]
            grad_x = into if grad_x is None or into is None else grad_x + into
        return None, None if grad_x is None else grad_x.to(ctx.x_dtype), *grads
