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

from sb3_rlx2.backends.compile import load_kernels
from sb3_rlx2.backends.networks import IDENTITY, RELU, TANH, Network
from sb3_rlx2.backends.structs import Struct
from sb3_rlx2.backends.tiles import TILE_BYTES

if TYPE_CHECKING:
    from sb3_rlx2.sparse_mlp import SparseMLP

FLOAT = np.dtype(np.float32)
OUTPUT_CODES: dict[type[nn.Module], int] = {nn.Identity: IDENTITY, nn.ReLU: RELU, nn.Tanh: TANH}


def forward(networks: Sequence["SparseMLP"], x: th.Tensor) -> tuple[th.Tensor, ...]:
    """
    Compute networks that read one input.

    :param networks: sparse networks
    :param x: input, ``[..., in_features]``
    :return: output of each network, ``[..., out_features]``
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
    """

    network: Network
    struct: Struct
    outputs: int
    dtype: str
    origin: tuple[int, ...]

    def kernels(self, group: str) -> SimpleNamespace:
        """
        Give compiled kernels for the parameters' dtype; training in arrays has its own, so these wait until they are needed.

        :param group: see ``compile.py``
        """
        return load_kernels(group, self.dtype)


def structure_of(mlp: "SparseMLP") -> Structure:
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


def _derive(mlp: "SparseMLP", origin: tuple[int, ...]) -> Structure:
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
    )
    return Structure(network, Struct(network), sum(widths[1:]), values.dtype.name, origin)


def _pointers(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)


def lanes(dtype: Any) -> int:
    """
    Give the number of samples in a tile.

    :param dtype: type of the numbers
    """
    return int(TILE_BYTES // dtype.itemsize)


def tiles(batch: int, dtype: Any) -> int:
    """
    Give the number of tiles that a batch takes.

    :param batch: number of samples
    :param dtype: type of the numbers
    """
    return -(-batch // lanes(dtype))


def tiled(count: int, features: int, dtype: Any) -> np.ndarray:
    """
    Allocate an array of tiles, aligned as the CPU likes it (torch aligns to 64 bytes, numpy does not).

    :param count: number of tiles
    :param features: number of features
    :param dtype: type of the numbers
    :return: zeros, ``[count, features, lanes]``
    """
    like = th.from_numpy(np.empty(0, dtype))
    zeros: np.ndarray = th.zeros(count, features, lanes(np.dtype(dtype)), dtype=like.dtype).numpy()
    return zeros


class Workspace:
    """
    A borrowed array of tiles: fresh memory costs page faults. It goes back when the last reference to it goes, so a pass
    that may still go backward keeps its own, however many others have run since.

    :param count: number of tiles
    :param features: number of features
    :param dtype: type of the numbers
    """

    _free: ClassVar[dict[tuple[int, int, Any], list[np.ndarray]]] = {}

    def __init__(self, count: int, features: int, dtype: Any) -> None:
        key = (count, features, dtype)
        self._home = self._free.get(key) or self._free.setdefault(key, [])
        try:
            self.array = self._home.pop()
        except IndexError:
            self.array = tiled(count, features, dtype)

    def __del__(self) -> None:
        if len(self._home) < 8:
            self._home.append(self.array)


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


def run_forward(mlp: "SparseMLP", x: Workspace, y: np.ndarray, keep: bool = True) -> Pass:
    """
    Run one network.

    :param mlp: the network
    :param x: input, ``[tiles, in, lanes]``
    :param y: receives the output, ``[batch, out]``
    :param keep: whether to keep what the backward pass needs
    """
    s, count = structure_of(mlp), len(x.array)
    activations = Workspace(count if keep else 1, s.outputs, x.array.dtype)
    output = np.empty((count, y.shape[1], x.array.shape[2]), x.array.dtype)
    kernels = s.kernels("forward")
    kernels.mlp_forward(s.struct.address, x.array, activations.array, output, 0, 0, count)
    kernels.from_tiles(output, y)
    return Pass(s, x, activations)


def run_backward(
    mlp: "SparseMLP",
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
    s.kernels("forward").to_tiles(grad_y, gy)
    gx = np.empty((count, 0 if grad_x is None else grad_x.shape[1], width), x.dtype)
    memory = done.activations.array, gradients.array, np.empty_like(s.network.values)
    into = grad_parameters or (np.empty(0, x.dtype), np.empty(0, x.dtype))
    s.kernels("backward").mlp_backward(s.struct.address, x, *memory, gy, *into, gx, 0, 0, count)
    if grad_x is not None:
        s.kernels("forward").from_tiles(gx, grad_x)
    if records:
        record_dense_gradients(mlp, x, done.activations.array, gradients.array, (done, gradients))


def record_dense_gradients(
    mlp: "SparseMLP", x: np.ndarray, activations: np.ndarray, gradients: np.ndarray, keep: Any = None
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
        mlp.record_dense_gradient(number, partial(_dense_gradient, inputs, gradients[:, outputs], keep))
        inputs, stop = activations[:, outputs], outputs.stop


def _dense_gradient(x: np.ndarray, gradients: np.ndarray, keep: Any) -> th.Tensor:
    flat = (th.from_numpy(tiles).permute(1, 0, 2).flatten(1) for tiles in (gradients, x))
    return next(flat) @ next(flat).T


def infer(mlp: "SparseMLP", x: np.ndarray) -> np.ndarray:
    """
    Run one network, not to go backward.

    :param mlp: the network
    :param x: input, ``[batch, in_features]``
    :return: output, ``[batch, out_features]``
    """
    y = np.empty((len(x), mlp.layers[-1].out_features), x.dtype)
    if len(x) != 1:
        run_forward(mlp, to_tiles(mlp, x), y, keep=False)
        return y
    s = structure_of(mlp)
    s.kernels("single").mlp_single(s.struct.address, x[0], np.empty(x.shape[1] + s.outputs, x.dtype), y[0])
    return y


def to_tiles(mlp: "SparseMLP", x: np.ndarray) -> Workspace:
    """
    Cut a network's input into tiles.

    :param mlp: the network
    :param x: input, ``[batch, in_features]``
    :return: ``[tiles, in_features, lanes]``
    """
    workspace = Workspace(tiles(len(x), x.dtype), x.shape[1], x.dtype)
    structure_of(mlp).kernels("forward").to_tiles(x, workspace.array)
    return workspace


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
