"""
The kernels of sparse networks on one CPU thread, as loops for numba.

Activations and gradients are cut into tiles of consecutive samples, ``[tiles, features, lanes]`` with the batch padded to
whole tiles (``TILE_BYTES``): the samples of one feature are one vector, and what a layer works on lies together. One tile
runs through all layers before the next, so that its activations stay in cache; within it, the work is to multiply a
feature's vector by a weight and add it to a sum in registers.
"""

import numpy as np
from numba import njit

from sb3_rlx2.kernels.annotations import Matrix, Tiles, Vector
from sb3_rlx2.kernels.constants import TILE_BYTES
from sb3_rlx2.kernels.elementary import tanh
from sb3_rlx2.kernels.network import IDENTITY, RELU, TANH, Network
from sb3_rlx2.kernels.options import SINGLE_OPTIONS, inline, kernel
from sb3_rlx2.kernels.signatures import Group
from sb3_rlx2.kernels.tiles import (
    add_sums,
    at,
    dot,
    lane_sum,
    load,
    load_half,
    multiply_add,
    splat,
    splat_half,
    store,
    zero_where_nonpositive,
    zeros,
)

FIRST = np.int64(0)  # a row; for a plain 0 numba would compile a variant


# One tile of one layer. A layer is a range of rows of the packed structure: `first_row` is its first output (`first_column`
# its first input) in the whole network; `x`, `y`, `gz`, `gx` begin at flat offsets into their arrays.


@inline
def spmm_tile(network, first_row, row_count, x, x_start, y, y_start, relu, load, splat):
    """y = W x + b, then ReLU; of a whole tile or a half, as ``load`` and ``splat`` say."""
    lanes = TILE_BYTES // x.itemsize
    row_pointers, columns, values, bias = network.row_pointers, network.columns, network.values, network.bias
    for r in range(row_count):
        total = splat(at(bias, first_row + r))
        start = np.intp(at(row_pointers, first_row + r))
        stop = np.intp(at(row_pointers, first_row + r + 1))
        for j in range(start, stop):
            tile = load(x, x_start + at(columns, j) * lanes)
            total = multiply_add(at(values, j), tile, total)
        if relu:
            total = zero_where_nonpositive(total, total)
        store(y, y_start + r * lanes, total)


@inline
def spmm_t_tile(network, by_column, first_column, column_count, gz, gz_start, x, x_start, gx, gx_start, relu):
    """gx = W' gz, masked where the ReLU below gave x = 0; ``by_column`` are the weights column by column."""
    lanes = TILE_BYTES // gz.itemsize
    column_pointers, rows, zero = network.column_pointers, network.rows, zeros(by_column)
    for c in range(column_count):
        total = zero
        start = np.intp(at(column_pointers, first_column + c))
        stop = np.intp(at(column_pointers, first_column + c + 1))
        for j in range(start, stop):
            tile = load(gz, gz_start + at(rows, j) * lanes)
            total = multiply_add(at(by_column, j), tile, total)
        if relu:
            total = zero_where_nonpositive(total, load(x, x_start + c * lanes))
        store(gx, gx_start + c * lanes, total)


@inline
def sddmm_tile(network, first_row, row_count, gz, gz_start, x, x_start, grad_values, grad_bias):
    """Add one tile's share of the gradients of the values and biases."""
    lanes = TILE_BYTES // gz.itemsize
    row_pointers, columns = network.row_pointers, network.columns
    for r in range(row_count):
        gradient = load(gz, gz_start + r * lanes)
        grad_bias[first_row + r] += lane_sum(gradient)
        start = np.intp(at(row_pointers, first_row + r))
        stop = np.intp(at(row_pointers, first_row + r + 1))
        j = start
        while j + 4 <= stop:
            a = dot(gradient, load(x, x_start + at(columns, j) * lanes))
            b = dot(gradient, load(x, x_start + at(columns, j + 1) * lanes))
            c = dot(gradient, load(x, x_start + at(columns, j + 2) * lanes))
            d = dot(gradient, load(x, x_start + at(columns, j + 3) * lanes))
            add_sums(grad_values, j, None, a, b, c, d)
            j += 4
        if j < stop:
            # The last one to three: repeat the last column, whose sums are dropped.
            last = stop - 1
            a = dot(gradient, load(x, x_start + at(columns, j) * lanes))
            b = dot(gradient, load(x, x_start + at(columns, min(j + 1, last)) * lanes))
            c = dot(gradient, load(x, x_start + at(columns, last) * lanes))
            add_sums(grad_values, j, stop - j, a, b, c, c)


@kernel  # not inlined, which keeps compile time down
def forward_tile(network, x, x_start, activations, start, load, splat):
    """Run one tile of samples through all layers, or the half that ``load`` and ``splat`` are of."""
    lanes = TILE_BYTES // x.itemsize
    layers = network.widths.size - 1
    source, source_start, first_row = x, x_start, FIRST
    for layer in range(layers):
        width = network.widths[layer + 1]
        y_start = start + first_row * lanes
        relu = layer < layers - 1 or network.output_activation == RELU
        spmm_tile(network, first_row, width, source, source_start, activations, y_start, relu, load, splat)
        source, source_start, first_row = activations, y_start, first_row + width
    if network.output_activation == TANH:
        flat = activations.reshape(-1)
        for i in range(source_start, start + first_row * lanes):
            flat[i] = tanh(flat[i])


@kernel  # not inlined, which keeps compile time down
def backward_tile(
    network, by_column, x, x_start, activations, start, gradients, gradients_start,
    grad_values, grad_bias, gx, gx_start, first_column,
):  # fmt: skip
    """Go backward with one tile of samples from the gradient by the last layer's output, which ``gradients`` holds."""
    lanes = TILE_BYTES // x.itemsize
    layers = network.widths.size - 1
    rows = network.widths[1:].sum()
    output = (rows - network.widths[layers]) * lanes
    if network.output_activation != IDENTITY:
        flat, y = gradients.reshape(-1), activations.reshape(-1)
        for i in range(output, rows * lanes):
            gradient = flat[gradients_start + i]
            flat[gradients_start + i] = output_gradient(gradient, y[start + i], network.output_activation)
    lowest = lowest_layer(network, gx)
    for layer in range(layers - 1, lowest - 1, -1):
        width, below = network.widths[layer + 1], network.widths[layer]
        first_row = rows - width
        gz_start = gradients_start + first_row * lanes
        if layer > 0:
            source, source_start = activations, start + (first_row - below) * lanes
        else:
            source, source_start = x, x_start
        if grad_values.size > 0 and layer >= network.frozen_layers:
            sddmm_tile(network, first_row, width, gradients, gz_start, source, source_start, grad_values, grad_bias)
        target, target_start, column, columns = gx, gx_start, first_column, gx.shape[1] if gx.size > 0 else 0
        if layer > 0:
            target, target_start = gradients, gradients_start + (first_row - below) * lanes
            column, columns = network.widths[:layer].sum(), below if layer > lowest else 0
        spmm_t_tile(
            network, by_column, column, columns, gradients, gz_start, source, source_start, target, target_start, layer > 0
        )  # fmt: skip
        rows = first_row


@inline
def output_gradient(gradient, y, output_activation):
    """The gradient before the output activation, from the one after it."""
    if output_activation == RELU:
        return gradient * 0 if y <= 0 else gradient
    return gradient * (1 - y * y)


@inline
def lowest_layer(network, gx):
    """The first of the layers that a gradient has to reach: not the frozen ones, unless the inputs are to have one."""
    return network.frozen_layers if gx.size == 0 else 0


@inline
def sort_weights(network, by_column, gx):
    """
    Copy the weights column by column; scattered reads while going backward would displace gradients from the L1 cache. Only
    those through which a gradient goes on to a layer below, or to the inputs.
    """
    values, order = network.values, network.order
    first = lowest_layer(network, gx) + (1 if gx.size == 0 else 0)
    for j in range(np.intp(at(network.column_pointers, network.widths[:first].sum())), by_column.size):
        by_column[j] = at(values, at(order, j))


@inline
def tile_start(array, tile):
    """Give the flat offset of a tile; an array of one tile is used for all."""
    return tile * array.shape[1] * array.shape[2] if array.shape[0] > 1 else 0


@kernel
def mlp_forward(network: Network, x: Tiles, activations: Tiles, y: Tiles, y_row: int, first: int, last: int) -> None:
    """
    Run a network on some tiles.

    :param network: the network
    :param x: input, ``[tiles, at least in, lanes]``
    :param activations: receives the outputs of all layers, ``[tiles, sum of outs, lanes]``; with one tile only it stays in
        cache, but nothing can go backward
    :param y: receives the output, ``[tiles, rows, lanes]``
    :param y_row: row of ``y`` where the output begins
    :param first: first tile
    :param last: tile behind the last one
    """
    output = network.widths[network.widths.size - 1]
    before = activations.shape[1] - output
    for tile in range(first, last):
        forward_tile(network, x, tile_start(x, tile), activations, tile_start(activations, tile), load, splat)
        place = tile if activations.shape[0] > 1 else 0
        for row in range(output):
            for i in range(x.shape[2]):
                y[tile, y_row + row, i] = activations[place, before + row, i]


@kernel
def half_forward(network, x, activations, y):
    """
    Run a network as :func:`mlp_forward` on a batch that fills half a tile at most. What lies behind in memory stays as it is.

    :param x: input, ``[1, at least in, lanes]``
    :param activations: receives the outputs of all layers, ``[1, sum of outs, lanes]``; 0 behind the half, to go backward
    :param y: receives the output, ``[1, out, lanes]``
    """
    before = activations.shape[1] - y.shape[1]
    forward_tile(network, x, FIRST, activations, FIRST, load_half, splat_half)
    for row in range(y.shape[1]):
        for i in range(x.shape[2] // 2):
            y[0, row, i] = activations[0, before + row, i]


@kernel
def mlp_backward(
    network: Network, x: Tiles, activations: Tiles, gradients: Tiles, by_column: Vector,
    gy: Tiles, grad_values: Vector, grad_bias: Vector, gx: Tiles, first_column: int, first: int, last: int,
) -> None:  # fmt: skip
    """
    Go backward from the activations that :func:`mlp_forward` left. Gradients are overwritten, not accumulated.

    :param gradients: receives the gradient of each layer's output before its activation, ``[tiles or 1, sum of outs, lanes]``
    :param by_column: memory for the weights column by column, ``[nnz]``
    :param gy: gradient by the output, ``[tiles, out, lanes]``, 0 in padding
    :param grad_values: receives the gradient by the values, ``[nnz]``; empty to leave it out
    :param grad_bias: receives the gradient by the biases, ``[sum of outs]``
    :param gx: receives the gradient by the inputs from ``first_column`` on, ``[tiles, columns, lanes]``; no columns to leave
        it out
    """
    output = gy.shape[1]
    before = gradients.shape[1] - output
    sort_weights(network, by_column, gx)
    if grad_values.size > 0:
        grad_values[:] = 0
        grad_bias[:] = 0
    for tile in range(first, last):
        place = tile if gradients.shape[0] > 1 else 0
        for row in range(output):
            for i in range(gy.shape[2]):
                gradients[place, before + row, i] = gy[tile, row, i]
        backward_tile(
            network, by_column, x, tile_start(x, tile), activations, tile_start(activations, tile), gradients,
            tile_start(gradients, tile), grad_values, grad_bias, gx, tile_start(gx, tile), first_column,
        )  # fmt: skip


@kernel
def mlp_fit(learner, x, target, batch, scale, first, last):
    """
    Go forward and backward from ``scale / 2 * sum((y - target)^2)`` tile by tile, with one output.

    :param target: what the output should be, ``[tiles, 1, lanes]``
    :param batch: number of samples in all tiles; the rest is padding
    :return: sum of squares
    """
    network, activations, gradients, by_column = learner.network, learner.activations, learner.gradients, learner.by_column
    grad_values, grad_bias = learner.grad_values, learner.grad_bias
    no_gx = np.empty((1, 0, 1), x.dtype)
    before = activations.shape[1] - 1
    sort_weights(network, by_column, no_gx)
    grad_values[:] = 0
    grad_bias[:] = 0
    total = 0.0
    for tile in range(first, last):
        start, place = tile_start(activations, tile), tile if activations.shape[0] > 1 else 0
        forward_tile(network, x, tile_start(x, tile), activations, start, load, splat)
        squares = x.dtype.type(0)
        for i in range(x.shape[2]):
            error = activations[place, before, i] - target[tile, 0, i]
            if tile * x.shape[2] + i >= batch:
                error = x.dtype.type(0)
            squares += error * error
            gradients[place, before, i] = scale * error
        total += squares
        backward_tile(
            network, by_column, x, tile_start(x, tile), activations, start, gradients, start, grad_values, grad_bias,
            no_gx, FIRST, FIRST,
        )  # fmt: skip
    return total


@kernel
def mlp_learn(learner, x, gy, first, last):
    """
    Go backward with a learner from its activations of all tiles.

    :param gy: gradient by the output, ``[tiles, out, lanes]``, 0 in padding
    :return: sum of the gradient, see :func:`gradient_sum`
    """
    mlp_backward(
        learner.network, x, learner.activations, learner.gradients, learner.by_column, gy, learner.grad_values,
        learner.grad_bias, gy[:0], FIRST, first, last,
    )  # fmt: skip
    return gradient_sum(learner)


@kernel
def gradient_sum(learner):
    """Sum a network's gradient; infinity and NaN show in it."""
    grad_values, grad_bias = learner.grad_values, learner.grad_bias
    total = np.float32(0)
    for i in range(grad_values.size):
        total += grad_values[i]
    for i in range(grad_bias.size):
        total += grad_bias[i]
    return total


def to_tiles(samples: Matrix, tiles: Tiles) -> None:
    """Copy ``[batch, features]`` into ``[tiles, features, lanes]``, with zeros for padding."""
    batch, features = samples.shape
    for tile in range(tiles.shape[0]):
        for feature in range(features):
            for i in range(tiles.shape[2]):
                sample = tile * tiles.shape[2] + i
                tiles[tile, feature, i] = samples[sample, feature] if sample < batch else samples.dtype.type(0)


def from_tiles(tiles: Tiles, samples: Matrix) -> None:
    """Copy ``[tiles, features, lanes]`` into ``[batch, features]``."""
    for sample in range(samples.shape[0]):
        tile, i = divmod(sample, tiles.shape[2])
        for feature in range(samples.shape[1]):
            samples[sample, feature] = tiles[tile, feature, i]


@njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **SINGLE_OPTIONS)
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


def mlp_single(network: Network, x: Vector, activations: Vector, y: Vector) -> None:
    """
    Run a network for one observation.

    :param x: observation, ``[in]``
    :param activations: scratch memory, ``[in + sum of outs]``
    :param y: receives the output, ``[out]``
    """
    widths, values, columns = network.widths, network.values, network.columns
    layers = widths.size - 1
    for i in range(widths[0]):
        activations[i] = x[i]
    x_row, first_row = 0, 0
    for layer in range(layers):
        y_row = x_row + widths[layer]
        relu = layer < layers - 1 or network.output_activation == RELU
        start = np.intp(at(network.row_pointers, first_row))
        for r in range(widths[layer + 1]):
            stop = np.intp(at(network.row_pointers, first_row + r + 1))
            total = at(network.bias, first_row + r)
            total += sparse_dot(start, stop, columns, values, activations, x_row)
            if relu and total <= 0:
                total = values.dtype.type(0)
            activations[y_row + r] = total
            start = stop
        x_row, first_row = y_row, first_row + widths[layer + 1]
    for output in range(widths[layers]):
        total = activations[x_row + output]
        y[output] = tanh(total) if network.output_activation == TANH else total


# Apart, because each is compiled when it is first needed.
FORWARD = Group("forward", (mlp_forward, to_tiles, from_tiles))
BACKWARD = Group("backward", (mlp_backward,))
SINGLE = Group("single", (mlp_single,), options=SINGLE_OPTIONS)
