"""
Kernels of networks that normalise the inputs of their layers. The whole batch goes through one layer before the next, because
the statistics are those of the batch; between layers it stays in tiles.
"""

import numpy as np

from sb3_rlx2.kernels.annotations import Tiles, Vector
from sb3_rlx2.kernels.mlp import FIRST, sddmm_tile, sort_weights, spmm_t_tile, spmm_tile, tile_start
from sb3_rlx2.kernels.network import Network
from sb3_rlx2.kernels.options import inline
from sb3_rlx2.kernels.signatures import Group
from sb3_rlx2.kernels.tiles import at, dot, lane_sum, load, minus, multiply_add, splat, store, zero_where_nonpositive


@inline
def first_row_of(network, layer):
    """Give the first output of a layer, counted through all layers."""
    return network.widths[1 : layer + 1].sum()


def moments(x: Tiles, batch: int, mean: Vector, variance: Vector) -> None:
    """
    Find mean and variance of each feature, in two passes.

    :param x: features, ``[tiles, features, lanes]``
    :param batch: number of samples, at least 2; the rest is padding
    :param mean: receives the mean, ``[features]``
    :param variance: receives the variance, as torch's divided by ``batch - 1``, ``[features]``
    """
    lanes = x.shape[2]
    mean[:] = 0
    variance[:] = 0
    for tile in range(x.shape[0]):
        start, live = tile_start(x, tile), min(batch - tile * lanes, lanes)
        for f in range(x.shape[1]):
            if live == lanes:
                mean[f] += lane_sum(load(x, start + f * lanes))
            else:
                mean[f] += x[tile, f, :live].sum()
    mean /= batch
    for tile in range(x.shape[0]):
        start, live = tile_start(x, tile), min(batch - tile * lanes, lanes)
        for f in range(x.shape[1]):
            if live == lanes:
                deviation = minus(load(x, start + f * lanes), at(mean, f))
                variance[f] += lane_sum(dot(deviation, deviation))
            else:
                variance[f] += ((x[tile, f, :live] - mean[f]) ** 2).sum()
    variance /= batch - 1


def renormed_forward(
    network: Network, layer: int, x: Tiles, origin: Vector, gain: Vector, offset: Vector, inputs: Tiles, y: Tiles
) -> None:
    """
    Run one layer on all tiles, with ReLU where it is not the last.

    :param x: what the layer below gave, ``[tiles, in, lanes]``
    :param origin: subtracted from ``x``, ``[in]``
    :param gain: times that, ``[in]``
    :param offset: plus this, ``[in]``
    :param inputs: receives it
    :param y: receives the layer's output, ``[tiles, out, lanes]``
    """
    lanes = x.shape[2]
    first_row, relu = first_row_of(network, layer), layer < network.widths.size - 2
    for tile in range(x.shape[0]):
        start = tile_start(x, tile)
        for f in range(x.shape[1]):
            deviation = minus(load(x, start + f * lanes), at(origin, f))
            store(inputs, start + f * lanes, multiply_add(at(gain, f), deviation, splat(at(offset, f))))
        spmm_tile(network, first_row, network.widths[layer + 1], inputs, start, y, tile_start(y, tile), relu, load, splat)


def columnwise(network: Network, by_column: Vector) -> None:
    """Copy the weights column by column, as going backward reads them."""
    sort_weights(network, by_column, by_column)  # of all layers, as where a gradient goes on to the inputs


def renormed_backward(
    network: Network, layer: int, by_column: Vector, grad_values: Vector, grad_bias: Vector, inputs: Tiles, x: Tiles,
    origin: Vector, gy: Tiles, gx: Tiles, sums: Vector, products: Vector,
) -> None:  # fmt: skip
    """
    Go backward through one layer, to its normalised inputs. Gradients of values and biases are added.

    :param by_column: the weights column by column, ``[nnz]``
    :param inputs: the layer's normalised inputs, ``[tiles, in, lanes]``
    :param x: them before, likewise
    :param origin: subtracted from ``x``, ``[in]``
    :param gy: gradient by the output before the activation, ``[tiles, out, lanes]``, 0 in padding
    :param gx: receives the gradient by the normalised inputs, ``[tiles, in, lanes]``
    :param sums: receives its sum over the batch, ``[in]``
    :param products: receives the sum of it times ``x - origin``, ``[in]``
    """
    lanes, columns = gx.shape[2], gx.shape[1]
    first_row, first_column = first_row_of(network, layer), network.widths[:layer].sum()
    sums[:] = 0
    products[:] = 0
    for tile in range(gx.shape[0]):
        gy_start, gx_start = tile_start(gy, tile), tile_start(gx, tile)
        sddmm_tile(network, first_row, gy.shape[1], gy, gy_start, inputs, gx_start, grad_values, grad_bias)
        spmm_t_tile(network, by_column, first_column, columns, gy, gy_start, x, gx_start, gx, gx_start, False)
        for f in range(columns):
            gradient = load(gx, gx_start + f * lanes)
            deviation = minus(load(x, gx_start + f * lanes), at(origin, f))
            sums[f] += lane_sum(gradient)
            products[f] += lane_sum(dot(gradient, deviation))


def norm_backward(
    x: Tiles, origin: Vector, gain: Vector, by_mean: Vector, by_variance: Vector, relu: bool, batch: int, gx: Tiles
) -> None:
    """
    Go backward through a normalisation, in place: from the gradient by what it gave to that by what it got.

    :param x: what it got, ``[tiles, features, lanes]``
    :param origin: subtracted from ``x``, ``[features]``
    :param gain: gradient of each output by its own input, ``[features]``
    :param by_mean: gradient by the batch's mean, divided by the size of the batch
    :param by_variance: gradient by the batch's variance, times ``2 / (batch - 1)``
    :param relu: whether ``x`` came out of a ReLU, to go backward through that, too
    :param batch: number of samples; in padding the gradient becomes 0
    :param gx: the gradient
    """
    features, lanes = gx.shape[1], gx.shape[2]
    zero = x.dtype.type(0)
    for tile in range(gx.shape[0]):
        start = tile_start(gx, tile)
        for f in range(features):
            own = load(x, start + f * lanes)
            total = multiply_add(at(gain, f), load(gx, start + f * lanes), splat(at(by_mean, f)))
            total = multiply_add(at(by_variance, f), minus(own, at(origin, f)), total)
            if relu:
                total = zero_where_nonpositive(total, own)
            store(gx, start + f * lanes, total)
            for i in range(max(batch - tile * lanes, 0), lanes):
                gx[tile, f, i] = zero


def fold(network: Network, gain: Vector, offset: Vector, values: Vector, bias: Vector) -> None:
    """
    Give the network without normalisations that computes the same.

    :param gain: each layer's inputs are to be multiplied by it, ``[sum of in_features]``
    :param offset: and then have this added, likewise
    :param values: receives the weights, ``[nnz]``
    :param bias: receives the biases, ``[sum of out_features]``
    """
    first_row, first_column = FIRST, FIRST
    for layer in range(network.widths.size - 1):
        for row in range(first_row, first_row + network.widths[layer + 1]):
            total = network.bias[row]
            for j in range(np.intp(at(network.row_pointers, row)), np.intp(at(network.row_pointers, row + 1))):
                column = first_column + np.intp(at(network.columns, j))
                values[j] = at(network.values, j) * at(gain, column)
                total += at(network.values, j) * at(offset, column)
            bias[row] = total
        first_row, first_column = first_row + network.widths[layer + 1], first_column + network.widths[layer]


RENORM = Group("renorm", (moments, renormed_forward, columnwise, renormed_backward, norm_backward))
FOLD = Group("fold", (fold,))
