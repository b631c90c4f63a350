"""
What lies between the networks in a gradient step, as loops for numba.

Arrays are float32 and cut into tiles, ``[tiles, features, lanes]`` (see ``mlp.py``), except those that come one per
sample from the replay buffer or a random generator. Kernels work on the tiles from ``first`` to ``last``; ``batch`` is the
number of samples, behind which there is padding.
"""

import numpy as np

from sb3_rlx2.kernels.options import inline, kernel
from sb3_rlx2.kernels.tiles import add, load, store, zeros

ONE, TWO, MINUS_HALF = np.float32(1), np.float32(2), np.float32(-0.5)  # a plain 1 would make float64 of all
NAN = np.float32(np.nan)


@inline
def copy_column(samples, begin, column, into):
    """Copy one column of ``[batch, A]`` to the lanes of a tile."""
    for i in range(min(into.size, samples.shape[0] - begin)):
        into[i] = samples[begin + i, column]


@inline
def bootstrapped(returned, terminated, discount, value):
    """The target of a sample: its return, and behind it a value, discounted, unless the episode is over."""
    return returned + (ONE - terminated) * discount * value


@inline
def exceeds(a, b):
    """Whether a number is greater, in torch's order, where NaN is above all others."""
    return a > b or (a != a and b == b)


@inline
def clipped_to_one(error):
    """The error within [-1, 1], which is Huber's gradient; lets NaN through."""
    if error > ONE:
        return ONE
    if error < -ONE:
        return -ONE
    return error


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
def bellman(q_values, log_prob, alpha, returns, terminated, discounts, target, first, last):
    """
    Compute the critics' target, ``return + discount * (least value - alpha * log_prob)``.

    :param q_values: Q-values of the next state by each target critic, ``[tiles, critics, lanes]``
    :param log_prob: log-probability of the next action, ``[tiles, 1, lanes]``; not looked at where alpha is 0
    :param returns: (n-step) returns, ``[batch]``, as are terminations (1 or 0) and discounts
    :param target: receives the target, ``[tiles, 1, lanes]``
    """
    lanes, weight = q_values.shape[2], np.float32(alpha)
    for tile in range(first, last):
        begin = tile * lanes
        for i in range(min(lanes, returns.size - begin)):
            least = q_values[tile, 0, i]
            for critic in range(1, q_values.shape[1]):
                value = q_values[tile, critic, i]
                if not least <= value:  # lets NaN through
                    least = value
            if alpha != 0:
                least -= weight * log_prob[tile, 0, i]
            sample = begin + i
            target[tile, 0, i] = bootstrapped(returns[sample], terminated[sample], discounts[sample], least)


@kernel
def greedy_bellman(outputs, returns, terminated, discounts, target, first, last):
    """
    Compute the target of discrete actions, ``return + discount * (value, or quantiles, of the best action)``.

    :param outputs: of the next state, ``[tiles, N * A, lanes]``: row ``n * A + a`` is the quantile ``n`` of the action ``a``,
        or its value where there is one, and the best action is that of the greatest mean
    :param returns: (n-step) returns, ``[batch]``, as are terminations (1 or 0) and discounts
    :param target: receives the target, ``[tiles, N, lanes]``
    """
    lanes, count = outputs.shape[2], target.shape[1]
    n_actions = outputs.shape[1] // count
    sums = np.empty((n_actions, lanes), outputs.dtype)
    for tile in range(first, last):
        begin = tile * lanes
        for action in range(n_actions):
            total = zeros(outputs)
            for n in range(count):
                total = add(total, load(outputs, (tile * outputs.shape[1] + n * n_actions + action) * lanes))
            store(sums, action * lanes, total)
        for i in range(min(lanes, returns.size - begin)):
            best = 0
            for action in range(1, n_actions):
                if exceeds(sums[action, i], sums[best, i]):
                    best = action
            sample = begin + i
            for n in range(count):
                value = outputs[tile, n * n_actions + best, i]
                target[tile, n, i] = bootstrapped(returns[sample], terminated[sample], discounts[sample], value)


@kernel
def take_actions(outputs, actions, taken, first, last):
    """
    Copy what belongs to the taken actions. Numbers come from the replay buffer, to which everybody may add: one that is none
    of an action's gives NaN, so that the step is not taken.

    :param outputs: as in :func:`greedy_bellman`
    :param actions: has the number of the taken action in its last row, ``[tiles, rows, lanes]``
    :param taken: receives the value or quantiles of it, ``[tiles, N, lanes]``
    """
    n_actions, row = outputs.shape[1] // taken.shape[1], actions.shape[1] - 1
    for tile in range(first, last):
        for n in range(taken.shape[1]):
            for i in range(outputs.shape[2]):
                action = np.int64(actions[tile, row, i])
                known = 0 <= action < n_actions
                taken[tile, n, i] = outputs[tile, n * n_actions + action, i] if known else NAN


@kernel
def put_actions(taken, actions, outputs, first, last):
    """Copy it back, with zeros for all other actions; see :func:`take_actions`."""
    n_actions, row = outputs.shape[1] // taken.shape[1], actions.shape[1] - 1
    for tile in range(first, last):
        outputs[tile] = 0
        for n in range(taken.shape[1]):
            for i in range(outputs.shape[2]):
                action = np.int64(actions[tile, row, i])
                if 0 <= action < n_actions:
                    outputs[tile, n * n_actions + action, i] = taken[tile, n, i]
                else:
                    outputs[tile, n * n_actions, i] = NAN


@kernel
def huber_gradient(values, target, batch, first, last):
    """
    Compute the mean of Huber's loss, torch's ``smooth_l1_loss``, and its gradient.

    :param values: values, ``[tiles, 1, lanes]``; receives the gradient by them, 0 in padding
    :param target: what they should be, likewise
    :return: sum of the samples' losses
    """
    lanes, share, total = values.shape[2], np.float32(1 / batch), 0.0
    for tile in range(first, last):
        for i in range(lanes):
            error = values[tile, 0, i] - target[tile, 0, i]
            if tile * lanes + i >= batch:
                error = np.float32(0)
            slope = clipped_to_one(error)
            total += slope * (error + MINUS_HALF * slope)
            values[tile, 0, i] = share * slope
    return total


@kernel
def mean_gradient(q_values, critic, batch, gradient, first, last):
    """
    Compute the gradient of ``-mean(least value)`` by one critic's value.

    :param q_values: Q-values by each critic, ``[tiles, critics, lanes]``
    :param critic: the critic
    :param gradient: receives the gradient, ``[tiles, 1, lanes]``, 0 in padding
    :return: sum of the Q-values of the samples where this critic's is the least
    """
    lanes, total = q_values.shape[2], 0.0
    for tile in range(first, last):
        for i in range(lanes):
            chosen = tile * lanes + i < batch
            value = q_values[tile, critic, i]
            for other in range(q_values.shape[1]):
                # Of equal Q-values the first counts, as in torch.
                if q_values[tile, other, i] < value or (other < critic and q_values[tile, other, i] == value):
                    chosen = False
            gradient[tile, 0, i] = np.float32(-1 / batch) if chosen else np.float32(0)
            if chosen:
                total += value
    return total


@kernel
def batch_sum(values, batch, first, last):
    """Sum ``[tiles, 1, lanes]`` over the samples of some tiles."""
    lanes, total = values.shape[2], 0.0
    for tile in range(first, last):
        for i in range(min(lanes, batch - tile * lanes)):
            total += values[tile, 0, i]
    return total
