"""What lies between the networks where these give quantiles of the return, as ``losses.py``: for QR-DQN and TQC."""

import numpy as np

from sb3_rlx2.kernels.losses import MINUS_HALF, ONE, bootstrapped
from sb3_rlx2.kernels.options import kernel
from sb3_rlx2.kernels.tiles import (
    add,
    by_sign,
    first_lanes,
    greater,
    lane_sum,
    lesser,
    load,
    load_quarter,
    multiply,
    multiply_add,
    store,
    subtract,
    within_one,
    zeros_like,
)


@kernel
def quantile_huber(quantiles, row, target, batch, scale, gradient, first, last):
    """
    Compute the sum of Huber's quantile losses over all pairs of a quantile and a target, and ``scale`` times its gradient.

    :param quantiles: quantiles, ``[tiles, rows, lanes]``
    :param row: row where they begin
    :param target: targets, ``[tiles, targets, lanes]``
    :param batch: number of samples
    :param gradient: receives the gradient by the quantiles, ``[tiles, N, lanes]``, 0 in padding; may be ``quantiles``
    :return: sum over the samples of the tiles
    """
    lanes, count, total = quantiles.shape[2], gradient.shape[1], 0.0
    quarter, factor = lanes // 4, np.float32(-scale)
    for tile in range(first, last):
        used = min(lanes, batch - tile * lanes)
        for begin in range(0, used, quarter):
            for i in range(count):
                below = np.float32((i + 0.5) / count)  # the share of targets that should lie there
                own = load_quarter(quantiles, (tile * quantiles.shape[1] + row + i) * lanes + begin)
                slope = loss = zeros_like(own)
                for j in range(target.shape[1]):
                    error = subtract(load_quarter(target, (tile * target.shape[1] + j) * lanes + begin), own)
                    huber = within_one(error)
                    weighted = multiply(by_sign(error, ONE - below, below), huber)
                    slope = add(slope, weighted)
                    loss = multiply_add(weighted, multiply_add(MINUS_HALF, huber, error), loss)
                store(gradient, (tile * count + i) * lanes + begin, multiply_add(factor, slope, zeros_like(slope)))
                total += lane_sum(first_lanes(loss, used - begin))
        for i in range(count):
            gradient[tile, i, used:] = 0
    return total


@kernel
def least_quantiles_bellman(quantiles, log_prob, alpha, returns, terminated, discounts, target, first, last):
    """
    Compute TQC's targets, ``return + discount * (quantile - alpha * log_prob)`` of all quantiles but the greatest.

    :param quantiles: quantiles of the next state by all target critics, ``[tiles, quantiles, lanes]``; are moved
    :param log_prob: log-probability of the next action, ``[tiles, 1, lanes]``
    :param returns: (n-step) returns, ``[batch]``, as are terminations (1 or 0) and discounts
    :param target: receives the targets, ``[tiles, those that are kept, lanes]``
    """
    lanes, count, kept = quantiles.shape[2], quantiles.shape[1], target.shape[1]
    weight = np.float32(alpha)
    for tile in range(first, last):
        for rest in range(count, kept, -1):  # the greatest one goes to the end
            for row in range(rest - 1):
                place = (tile * count + row) * lanes
                a, b = load(quantiles, place), load(quantiles, place + lanes)
                store(quantiles, place, lesser(a, b))
                store(quantiles, place + lanes, greater(a, b))
        begin = tile * lanes
        for row in range(kept):
            for i in range(min(lanes, returns.size - begin)):
                sample, value = begin + i, quantiles[tile, row, i] - weight * log_prob[tile, 0, i]
                target[tile, row, i] = bootstrapped(returns[sample], terminated[sample], discounts[sample], value)


@kernel
def mean_quantile_gradient(quantiles, row, batch, scale, gradient, first, last):
    """
    Compute the gradient of ``-scale`` times the sum of one critic's quantiles.

    :param quantiles: quantiles, ``[tiles, rows, lanes]``
    :param row: row where they begin
    :param batch: number of samples
    :param gradient: receives the gradient, ``[tiles, N, lanes]``, 0 in padding
    :return: sum over the samples of the tiles
    """
    lanes, total = quantiles.shape[2], 0.0
    for tile in range(first, last):
        used = min(lanes, batch - tile * lanes)
        for n in range(gradient.shape[1]):
            for i in range(used):
                total += quantiles[tile, row + n, i]
                gradient[tile, n, i] = np.float32(-scale)
            gradient[tile, n, used:] = 0
    return total
