"""
What lies between the networks in a gradient step of TD3 and SAC, as loops for numba.

Arrays are float32 and cut into tiles, ``[tiles, features, lanes]`` (see ``kernels.py``), except those that come one per
sample from the replay buffer or a random generator. Kernels work on the tiles from ``first`` to ``last``; ``batch`` is the
number of samples, behind which there is padding.
"""

import numpy as np

from sb3_rlx2.backends import masked
from sb3_rlx2.backends.elementary import exp, log, tanh
from sb3_rlx2.backends.options import inline, kernel

EPSILON, LOG_SQRT_2_PI = np.float32(masked.EPSILON), np.float32(masked.LOG_SQRT_2_PI)
ONE, TWO, MINUS_HALF = np.float32(1), np.float32(2), np.float32(-0.5)  # a plain 1 would make float64 of all
LOG_STD_MIN, LOG_STD_MAX = np.float32(masked.LOG_STD_MIN), np.float32(masked.LOG_STD_MAX)


@inline
def clipped(log_std):
    """Clip as SB3 does; NaN goes through."""
    if log_std < LOG_STD_MIN:
        return LOG_STD_MIN
    if log_std > LOG_STD_MAX:
        return LOG_STD_MAX
    return log_std


@inline
def copy_column(samples, begin, column, into):
    """Copy one column of ``[batch, A]`` to the lanes of a tile."""
    for i in range(min(into.size, samples.shape[0] - begin)):
        into[i] = samples[begin + i, column]


@kernel
def copy_rows(source, target, row, first, last):
    """Copy ``[tiles, rows, lanes]`` to the rows of another array from ``row`` on."""
    for tile in range(first, last):
        for r in range(source.shape[1]):
            for i in range(source.shape[2]):
                target[tile, row + r, i] = source[tile, r, i]


@kernel
def add_rows(source, target, keep, first, last):
    """Add ``[tiles, rows, lanes]`` to an array of the same shape, or to zeros."""
    for tile in range(first, last):
        for r in range(source.shape[1]):
            for i in range(source.shape[2]):
                target[tile, r, i] = source[tile, r, i] + (target[tile, r, i] if keep else np.float32(0))


@kernel
def add_clipped_noise(actions, row, noise, clip, first, last):
    """
    Smooth TD3's target actions, clipped to [-1, 1].

    :param actions: changed from ``row`` on
    :param noise: Gaussian noise, ``[batch, A]``
    :param clip: bound of the noise
    """
    bound = np.float32(clip)
    lanes = actions.shape[2]
    for tile in range(first, last):
        begin = tile * lanes
        for i in range(min(lanes, noise.shape[0] - begin)):
            for a in range(noise.shape[1]):
                smoothed = actions[tile, row + a, i] + min(max(noise[begin + i, a], -bound), bound)
                if smoothed > ONE:
                    smoothed = ONE
                if smoothed < -ONE:
                    smoothed = -ONE
                actions[tile, row + a, i] = smoothed


@kernel
def bellman(values, log_prob, alpha, returns, terminated, discounts, target, first, last):
    """
    Compute the critics' target, ``return + discount * (least value - alpha * log_prob)``.

    :param values: values of the next state by each target critic, ``[tiles, critics, lanes]``
    :param log_prob: log-probability of the next action, ``[tiles, 1, lanes]``; not looked at where alpha is 0
    :param returns: (n-step) returns, ``[batch]``, as are terminations (1 or 0) and discounts
    :param target: receives the target, ``[tiles, 1, lanes]``
    """
    lanes, weight = values.shape[2], np.float32(alpha)
    for tile in range(first, last):
        begin = tile * lanes
        for i in range(min(lanes, returns.size - begin)):
            least = values[tile, 0, i]
            for critic in range(1, values.shape[1]):
                value = values[tile, critic, i]
                if not least <= value:  # lets NaN through
                    least = value
            if alpha != 0:
                least -= weight * log_prob[tile, 0, i]
            sample = begin + i
            target[tile, 0, i] = returns[sample] + (ONE - terminated[sample]) * discounts[sample] * least


@kernel
def mean_gradient(values, critic, batch, gradient, first, last):
    """
    Compute the gradient of ``-mean(least value)`` by one critic's value.

    :param values: values by each critic, ``[tiles, critics, lanes]``
    :param critic: the critic
    :param gradient: receives the gradient, ``[tiles, 1, lanes]``, 0 in padding
    :return: sum of the values of the samples where this critic's is the least
    """
    lanes, total = values.shape[2], 0.0
    for tile in range(first, last):
        for i in range(lanes):
            chosen = tile * lanes + i < batch
            value = values[tile, critic, i]
            for other in range(values.shape[1]):
                # Of equal values the first counts, as in torch.
                if values[tile, other, i] < value or (other < critic and values[tile, other, i] == value):
                    chosen = False
            gradient[tile, 0, i] = np.float32(-1 / batch) if chosen else np.float32(0)
            if chosen:
                total += value
    return total


@kernel
def squash(raw, noise, actions, row, log_prob, first, last):
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
def squash_gradient(raw, noise, actions, row, grad_actions, grad_log_prob, grad_raw, first, last):
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


def add_entropy(samples, discounts, log_prob, alpha, returns):
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


@kernel
def batch_sum(values, batch, first, last):
    """Sum ``[tiles, 1, lanes]`` over the samples of some tiles."""
    lanes, total = values.shape[2], 0.0
    for tile in range(first, last):
        for i in range(min(lanes, batch - tile * lanes)):
            total += values[tile, 0, i]
    return total
