"""
The kernels of sparse networks on one CPU thread, as loops for numba.

Activations and gradients are feature-major, ``[features, pitch]`` with ``pitch >= batch``: the batch is the contiguous
axis. One tile of it (``TILE_BYTES`` of consecutive samples) runs through all layers before the next, so that its
activations stay in cache; within a tile, the work is to multiply a row of ``x`` by a weight and add it to a sum in
registers.
"""

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from sb3_rlx2.backends.tiles import (
    TILE_BYTES,
    add_sums,
    at,
    dot,
    first_lanes,
    lane_sum,
    load,
    multiply_add,
    splat,
    store,
    zero_where_nonpositive,
    zeros,
)

IDENTITY, RELU, TANH = 0, 1, 2
CACHE_LINE = 64

# No "nnan" and "ninf": NaN and infinity must propagate as in plain loops, or a diverging run would not show.
FASTMATH = {"nsz", "arcp", "contract", "reassoc"}
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}

# LLVM would vectorise the sparse dot product of one observation with gathers, which are slower than four separate sums.
SINGLE_OPTIONS = OPTIONS | {"fastmath": FASTMATH - {"reassoc"}}

# Helpers are compiled into the kernels that use them; Python never calls them.
INLINE: dict[str, Any] = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inline = njit(**INLINE, **OPTIONS)


def workspace_pitch(batch: int, itemsize: int) -> int:
    """
    Give the fastest pitch of a workspace: aligned rows of an odd number of cache lines. An even number (batch 256 without
    padding) maps the tiles of all rows to the same few sets of the L1 cache.

    :param batch: number of samples
    :param itemsize: bytes of one number
    :return: numbers per row, at least ``batch``
    """
    lanes = CACHE_LINE // itemsize
    return (-(-batch // lanes) | 1) * lanes


# One tile of one layer. A layer is a range of rows of the packed structure: `first_row` (its first output in the whole
# network), `row_count`, and the workspace rows where its inputs and outputs begin. `place` is the tile's first column in a
# workspace that holds the whole batch, and 0 in one that holds a single tile.


@inline
def spmm_tile(
    row_pointers, first_row, row_count, columns, values, bias,
    x, x_row, y, y_row, relu, place, mask,
):  # fmt: skip
    """y = W x + b, then ReLU, for one tile of samples."""
    pitch = x.shape[1]
    origin = x_row * pitch + place
    for r in range(row_count):
        total = splat(at(bias, first_row + r))
        start = np.intp(at(row_pointers, first_row + r))
        stop = np.intp(at(row_pointers, first_row + r + 1))
        for j in range(start, stop):
            tile = load(x, origin + at(columns, j) * pitch, mask)
            total = multiply_add(at(values, j), tile, total)
        if relu:
            total = zero_where_nonpositive(total, total)
        store(y, (y_row + r) * y.shape[1] + place, total, mask)


@inline
def spmm_t_tile(
    column_pointers, first_column, column_count, rows, values,
    gz, gz_row, gz_place, x, x_row, x_place, gx, gx_row, relu, mask,
):  # fmt: skip
    """gx = W' gz, masked where the ReLU below gave x = 0, for one tile of samples."""
    pitch = gz.shape[1]
    origin = gz_row * pitch + gz_place
    zero = zeros(values)
    for c in range(column_count):
        total = zero
        start = np.intp(at(column_pointers, first_column + c))
        stop = np.intp(at(column_pointers, first_column + c + 1))
        for j in range(start, stop):
            tile = load(gz, origin + at(rows, j) * pitch, mask)
            total = multiply_add(at(values, j), tile, total)
        if relu:
            below = load(x, (x_row + c) * x.shape[1] + x_place, mask)
            total = zero_where_nonpositive(total, below)
        store(gx, (gx_row + c) * gx.shape[1] + gz_place, total, mask)


@inline
def sddmm_tile(
    row_pointers, first_row, row_count, columns, grad_values, grad_bias,
    gz, gz_row, gz_place, x, x_row, x_place, mask,
):  # fmt: skip
    """Add one tile's share of the gradients of the values and biases."""
    pitch = x.shape[1]
    origin = x_row * pitch + x_place
    for r in range(row_count):
        gradient = load(gz, (gz_row + r) * gz.shape[1] + gz_place, mask)
        grad_bias[first_row + r] += lane_sum(gradient)
        start = np.intp(at(row_pointers, first_row + r))
        stop = np.intp(at(row_pointers, first_row + r + 1))
        j = start
        while j + 4 <= stop:
            a = dot(gradient, load(x, origin + at(columns, j) * pitch, mask))
            b = dot(gradient, load(x, origin + at(columns, j + 1) * pitch, mask))
            c = dot(gradient, load(x, origin + at(columns, j + 2) * pitch, mask))
            d = dot(gradient, load(x, origin + at(columns, j + 3) * pitch, mask))
            add_sums(grad_values, j, None, a, b, c, d)
            j += 4
        if j < stop:
            # The last one to three: repeat the last column, whose sums are dropped.
            last = stop - 1
            a = dot(gradient, load(x, origin + at(columns, j) * pitch, mask))
            b = dot(gradient, load(x, origin + at(columns, min(j + 1, last)) * pitch, mask))
            c = dot(gradient, load(x, origin + at(columns, last) * pitch, mask))
            add_sums(grad_values, j, stop - j, a, b, c, c)


def tanh(value):
    """math.tanh, or for float32 a rational function accurate to 3e-7.

    LLVM vectorises the latter.
    """


@overload(tanh, jit_options=OPTIONS)
def _tanh(value):
    if value == types.float64:
        return lambda value: math.tanh(value)
    real = np.float32

    def rational(value):
        # Eigen's coefficients, accurate up to the limit. NaN fails all comparisons.
        limit = real(7.90531110763549805)
        inner = value
        if value > limit:
            inner = limit
        if value < -limit:
            inner = -limit
        square = inner * inner
        p = real(-2.76076847742355e-16)
        p = p * square + real(2.00018790482477e-13)
        p = p * square + real(-8.60467152213735e-11)
        p = p * square + real(5.12229709037114e-08)
        p = p * square + real(1.48572235717979e-05)
        p = p * square + real(6.37261928875436e-04)
        p = p * square + real(4.89352455891786e-03)
        q = real(1.19825839466702e-06)
        q = q * square + real(1.18534705686654e-04)
        q = q * square + real(2.26843463243900e-03)
        q = q * square + real(4.89352518554385e-03)
        result = inner * p / q
        # From here on float32 rounds to 1, whose gradient is exactly 0.
        if value > real(9.02):
            result = real(1)
        if value < real(-9.02):
            result = real(-1)
        return result

    return rational


@inline
def forward_tile(
    widths, row_pointers, columns, values, bias, x, activations, y,
    output_activation, column, place, count, mask,
):  # fmt: skip
    """Run one tile of samples through all layers."""
    layers = widths.size - 1
    for feature in range(widths[0]):
        for i in range(count):
            activations[feature, place + i] = x[column + i, feature]
    x_row, first_row = 0, 0
    for layer in range(layers):
        y_row = x_row + widths[layer]
        relu = layer < layers - 1 or output_activation == RELU
        spmm_tile(
            row_pointers, first_row, widths[layer + 1], columns, values, bias,
            activations, x_row, activations, y_row, relu, place, mask,
        )  # fmt: skip
        x_row, first_row = y_row, first_row + widths[layer + 1]
    for output in range(widths[layers]):
        row = activations[x_row + output, place : place + count]
        if output_activation == TANH:
            for i in range(count):
                row[i] = tanh(row[i])
        for i in range(count):
            y[column + i, output] = row[i]


@inline
def output_gradient(gradient, output, output_activation):
    """The gradient before the output activation, from the one after it."""
    if output_activation == RELU and output <= 0:
        return gradient * 0
    if output_activation == TANH:
        return gradient * (1 - output * output)
    return gradient


@inline
def transpose(source, place, features, target, column, count):
    """Copy a tile of ``[features, pitch]`` into ``[batch, features]``."""
    for i in range(count):
        for feature in range(features):
            target[column + i, feature] = source[feature, place + i]


@inline
def backward_tile(
    widths, row_pointers, columns, column_pointers, rows, transposed_values,
    activations, gradients, grad_y, output_activation, grad_values, grad_bias,
    grad_x, need_grad_parameters, need_grad_x, column, place, count, mask,
):  # fmt: skip
    """Go backward with one tile of samples through all layers."""
    layers = widths.size - 1
    y_row = widths[:layers].sum()
    first_row = y_row - widths[0]
    for output in range(widths[layers]):
        row = y_row + output
        for i in range(count):
            y = activations[row, column + i]
            gradients[row, place + i] = output_gradient(grad_y[column + i, output], y, output_activation)
    for layer in range(layers - 1, -1, -1):
        x_row = y_row - widths[layer]
        if need_grad_parameters:
            sddmm_tile(
                row_pointers, first_row, widths[layer + 1], columns, grad_values,
                grad_bias, gradients, y_row, place, activations, x_row, column, mask,
            )  # fmt: skip
        if layer > 0 or need_grad_x:
            spmm_t_tile(
                column_pointers, x_row, widths[layer], rows, transposed_values,
                gradients, y_row, place, activations, x_row, column, gradients, x_row,
                layer > 0, mask,
            )  # fmt: skip
        y_row, first_row = x_row, first_row - widths[layer]
    if need_grad_x:
        transpose(gradients, place, widths[0], grad_x, column, count)


def mlp_forward(
    widths, row_pointers, columns, values, bias, x, activations, y, output_activation
):  # fmt: skip
    """
    Run a network. The structure (widths, row_pointers, columns) is described in :class:`sb3_rlx2.backends.csr.Structure`.

    :param x: input, ``[batch, in]``
    :param activations: receives the input and the outputs of each layer, ``[sum of widths, pitch]``; a workspace of one
        tile stays in cache, one of at least the batch can go backward
    :param y: receives the output, ``[batch, out]``
    :param output_activation: ``IDENTITY``, ``RELU`` or ``TANH``; hidden layers have ReLU
    """
    batch, lanes = x.shape[0], TILE_BYTES // values.itemsize
    # All layers of one tile run before the next tile: its activations stay in cache.
    keep = activations.shape[1] >= batch
    full = batch // lanes * lanes
    for column in range(0, full, lanes):
        forward_tile(
            widths, row_pointers, columns, values, bias, x, activations, y,
            output_activation, column, column if keep else 0, lanes, None,
        )  # fmt: skip
    if full < batch:
        rest = batch - full
        forward_tile(
            widths, row_pointers, columns, values, bias, x, activations, y,
            output_activation, full, full if keep else 0, rest, first_lanes(rest, activations),
        )  # fmt: skip


def mlp_backward(
    widths, row_pointers, columns, values, column_pointers, rows, order, activations,
    gradients, grad_y, output_activation, grad_values, grad_bias, grad_x,
    need_grad_parameters, need_grad_x,
):  # fmt: skip
    """
    Go backward from the activations that :func:`mlp_forward` left. Gradients are overwritten, not accumulated.

    :param gradients: receives the gradient of each layer's output before its activation, ``[sum of widths, pitch]``; of all
        samples in a workspace of at least the batch, else of one tile after the other
    :param grad_y: gradient by the output, ``[batch, out]``
    :param need_grad_parameters: False leaves ``grad_values`` and ``grad_bias`` alone
    :param need_grad_x: False leaves ``grad_x``, ``[batch, in]``, alone
    """
    batch, lanes = grad_y.shape[0], TILE_BYTES // values.itemsize
    # Once here and not once per tile: scattered reads displace `gradients` from the L1 cache.
    transposed_values = np.empty_like(values)
    for j in range(order.size):
        transposed_values[j] = at(values, at(order, j))
    if need_grad_parameters:
        grad_values[:] = 0
        grad_bias[:] = 0
    keep = gradients.shape[1] >= batch
    full = batch // lanes * lanes
    for column in range(0, full, lanes):
        backward_tile(
            widths, row_pointers, columns, column_pointers, rows, transposed_values,
            activations, gradients, grad_y, output_activation, grad_values,
            grad_bias, grad_x, need_grad_parameters, need_grad_x, column,
            column if keep else 0, lanes, None,
        )  # fmt: skip
    if full < batch:
        rest = batch - full
        backward_tile(
            widths, row_pointers, columns, column_pointers, rows, transposed_values,
            activations, gradients, grad_y, output_activation, grad_values,
            grad_bias, grad_x, need_grad_parameters, need_grad_x, full,
            full if keep else 0, rest, first_lanes(rest, activations),
        )  # fmt: skip


@njit(**INLINE, **SINGLE_OPTIONS)
def sparse_dot(start, stop, columns, values, x, x_row):
    """Multiply one row of weights with a vector."""
    a = b = c = d = values.dtype.type(0)
    j = start
    while j + 4 <= stop:
        a += at(values, j) * at(x, x_row + at(columns, j))
        b += at(values, j + 1) * at(x, x_row + at(columns, j + 1))
        c += at(values, j + 2) * at(x, x_row + at(columns, j + 2))
        d += at(values, j + 3) * at(x, x_row + at(columns, j + 3))
        j += 4
    while j < stop:
        a += at(values, j) * at(x, x_row + at(columns, j))
        j += 1
    return (a + b) + (c + d)


def mlp_single(
    widths, row_pointers, columns, values, bias, x, activations, y, output_activation
):  # fmt: skip
    """Run a network for one observation, as :func:`mlp_forward`; x, activations and y are vectors."""
    layers = widths.size - 1
    for i in range(widths[0]):
        activations[i] = x[i]
    x_row, first_row = 0, 0
    for layer in range(layers):
        y_row = x_row + widths[layer]
        relu = layer < layers - 1 or output_activation == RELU
        start = np.intp(at(row_pointers, first_row))
        for r in range(widths[layer + 1]):
            stop = np.intp(at(row_pointers, first_row + r + 1))
            total = at(bias, first_row + r)
            total += sparse_dot(start, stop, columns, values, activations, x_row)
            if relu and total <= 0:
                total = values.dtype.type(0)
            activations[y_row + r] = total
            start = stop
        x_row, first_row = y_row, first_row + widths[layer + 1]
    for output in range(widths[layers]):
        total = activations[x_row + output]
        y[output] = tanh(total) if output_activation == TANH else total
