"""Kernels of the squashed Gaussian from which SAC's policy draws its actions."""

import numpy as np

from sb3_rlx2.kernels import constants
from sb3_rlx2.kernels.annotations import Integers, Matrix, Tiles, Vector
from sb3_rlx2.kernels.elementary import exp, log, tanh
from sb3_rlx2.kernels.losses import MINUS_HALF, ONE, TWO, copy_column
from sb3_rlx2.kernels.options import inline, kernel
from sb3_rlx2.kernels.signatures import Group

EPSILON, LOG_SQRT_2_PI = np.float32(constants.EPSILON), np.float32(constants.LOG_SQRT_2_PI)
LOG_STD_MIN, LOG_STD_MAX = np.float32(constants.LOG_STD_MIN), np.float32(constants.LOG_STD_MAX)


@inline
def clipped(log_std):
    """Clip as SB3 does; NaN goes through."""
    if log_std < LOG_STD_MIN:
        return LOG_STD_MIN
    if log_std > LOG_STD_MAX:
        return LOG_STD_MAX
    return log_std


@kernel
def squash(raw: Tiles, noise: Matrix, actions: Tiles, row: int, log_prob: Tiles, first: int, last: int) -> None:
    """
    Compute actions ``tanh(mean + std * noise)`` and their log-probability.

    :param raw: mean and log standard deviation, ``[tiles, 2A, lanes]``
    :param noise: standard normal, ``[batch, A]``
    :param actions: receives the actions from ``row`` on
    :param log_prob: receives the log-probability, ``[tiles, 1, lanes]``
    """
    lanes, n_actions = raw.shape[2], noise.shape[1]
    for tile in range(first, last):
        total = log_prob[tile, 0]
        total[:] = 0
        for a in range(n_actions):
            # Views of single rows: loops over them are vectorised.
            mean, log_stds, action = raw[tile, a], raw[tile, n_actions + a], actions[tile, row + a]
            copy_column(noise, tile * lanes, a, action)
            for i in range(lanes):
                drawn = action[i]
                action[i] = tanh(mean[i] + exp(clipped(log_stds[i])) * drawn)
                slope = ONE - action[i] * action[i]
                total[i] += MINUS_HALF * drawn * drawn - clipped(log_stds[i]) - log(slope + EPSILON) - LOG_SQRT_2_PI


@kernel
def squash_gradient(
    raw: Tiles, noise: Matrix, actions: Tiles, row: int, grad_actions: Tiles, grad_log_prob: Tiles, grad_raw: Tiles,
    first: int, last: int,
) -> None:  # fmt: skip
    """
    Go backward through :func:`squash`.

    :param grad_actions: gradient by the actions, ``[tiles, A, lanes]``
    :param grad_log_prob: gradient by the log-probability, ``[tiles, 1, lanes]``
    :param grad_raw: receives the gradient by mean and log standard deviation, ``[tiles, 2A, lanes]``, 0 in padding
    """
    lanes, n_actions = raw.shape[2], noise.shape[1]
    for tile in range(first, last):
        count = min(lanes, noise.shape[0] - tile * lanes)
        for a in range(n_actions):
            log_stds, action, gradient = raw[tile, n_actions + a], actions[tile, row + a], grad_actions[tile, a]
            weight = grad_log_prob[tile, 0]
            grad_mean, grad_log_std = grad_raw[tile, a], grad_raw[tile, n_actions + a]
            copy_column(noise, tile * lanes, a, grad_log_std)
            for i in range(lanes):
                slope = ONE - action[i] * action[i]
                grad_mean[i] = gradient[i] * slope + TWO * weight[i] * action[i] * slope / (slope + EPSILON)
                grad_log_std[i] = grad_mean[i] * exp(clipped(log_stds[i])) * grad_log_std[i] - weight[i]
                if log_stds[i] < LOG_STD_MIN or log_stds[i] > LOG_STD_MAX:
                    grad_log_std[i] = 0
            grad_mean[count:] = 0
            grad_log_std[count:] = 0


def add_entropy(samples: Integers, discounts: Vector, log_prob: Tiles, alpha: float, returns: Vector) -> None:
    """
    Add the entropy of states on the way of n-step returns, ``-alpha * log_prob``.

    :param samples: sample that each state belongs to, ``[states]``
    :param discounts: discount of each state, ``[states]``
    :param log_prob: log-probability of an action in each state, ``[tiles, 1, lanes]``
    :param returns: changed, ``[batch]``
    """
    lanes, weight = log_prob.shape[2], np.float32(alpha)
    for state in range(samples.size):
        returns[samples[state]] -= discounts[state] * weight * log_prob[state // lanes, 0, state % lanes]


SQUASH = Group("squash", (squash, squash_gradient))
