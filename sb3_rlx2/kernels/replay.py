"""Sampling from the replay buffer, as loops for numba: n-step windows straight into the layout that networks read."""

import numpy as np

from sb3_rlx2.kernels.annotations import Integers, Matrix, Matrix32, Numbers, Tiles32, Vector32
from sb3_rlx2.kernels.options import inline, kernel
from sb3_rlx2.kernels.prefetch import prefetch, prefetch_row
from sb3_rlx2.kernels.signatures import Group
from sb3_rlx2.kernels.tiles import at

BLOCK = 16  # samples that are copied side by side, to fill lines of cache, while the next ones are on their way from memory


@inline
def fetch(place, steps, observations, next_observations, rewards, dones, timeouts):
    """Fetch what a window of some steps needs, if no episode ends in it."""
    prefetch_row(observations, place)
    prefetch_row(next_observations, min(place + steps, next_observations.shape[0] - 1))
    prefetch(rewards, place)
    prefetch(dones, place)
    prefetch(timeouts, place)


@inline
def normalized(value, mean, scale, limit):
    """Normalise in float64 and round to float32, as SB3's VecNormalize. Clips as numpy does, which lets NaN through."""
    return np.float32(max(min((value - mean) * scale, limit), -limit))


@kernel
def copy_normalized(source, places, count, mean, scale, limit, target, begin):
    """
    Copy rows of observations, normalised, to samples side by side.

    :param source: observations, ``[rows, D]``
    :param places: rows, of which the first ``count`` are copied
    :param mean: of the observations, ``[D]``; empty, as ``scale``, if they are to be taken as they are
    :param target: receives them, ``[tiles, at least D, lanes]``; a block of samples lies in one tile, or lanes are 1
    :param begin: sample where they begin
    """
    features, lanes, flat = source.shape[1], target.shape[2], target.reshape(-1)
    step = 1 if lanes > 1 else target.shape[1]  # from one sample to the next
    start = begin // lanes * target.shape[1] * lanes + begin % lanes
    for feature in range(features):
        place = start + feature * lanes
        if mean.size == 0:
            for i in range(count):
                flat[place + i * step] = at(source, places[i] * features + feature)
        else:
            center, factor = mean[feature], scale[feature]
            for i in range(count):
                value = at(source, places[i] * features + feature)
                flat[place + i * step] = normalized(value, center, factor, limit)


def gather_windows(
    rows: Integers, environments: Integers, newest: int, n_steps: int, powers: Vector32,
    observations: Matrix, next_observations: Matrix, rewards: Matrix32, dones: Matrix32, timeouts: Matrix32,
    mean: Numbers, scale: Numbers, clip_obs: float, reward_scale: float, clip_reward: float,
    obs: Tiles32, next_obs: Tiles32,
    returns: Vector32, terminated: Vector32, discounts: Vector32, lengths: Integers,
) -> None:  # fmt: skip
    """
    Gather a batch of transitions with n-step returns, without the actions; what is computed is defined by
    ``RLx2ReplayBuffer._gather_any``.

    :param rows: sampled rows of the ring, ``[batch]``; the environments likewise
    :param newest: row of the newest transitions, where windows end
    :param n_steps: length of a window
    :param powers: powers of gamma, ``[n_steps + 1]``
    :param observations: ``[rows * n_envs, D]``, as are the other arrays of the ring
    :param mean: of the observations, ``[D]``; the others normalise as :class:`sb3_rlx2.buffers.gather.Normalizer` says
    :param obs: receives the first observation, ``[tiles, at least D, lanes]``; with one lane it is ``[batch, D]``
    :param next_obs: receives the last next observation, as ``obs``
    :param returns: receives the n-step return, ``[batch]``; the others receive 1 where the window ends in a termination
        (else 0), the bootstrap's discount, and the number of steps in the window
    """
    n_envs, size, batch = rewards.shape[1], rewards.shape[0], rows.size
    first, last = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for b in range(-BLOCK, batch):
        ahead = b + BLOCK
        if ahead < batch:
            place = rows[ahead] * n_envs + environments[ahead]
            fetch(place, (n_steps - 1) * n_envs, observations, next_observations, rewards, dones, timeouts)
        if b < 0:
            continue
        row, env = rows[b], environments[b]
        first[b % BLOCK] = row * n_envs + env
        total, steps = normalized(rewards[row, env], 0.0, reward_scale, clip_reward), 1
        while steps < n_steps and dones[row, env] <= 0 and timeouts[row, env] <= 0 and row != newest:
            row = row + 1 if row + 1 < size else 0
            total += powers[steps] * normalized(rewards[row, env], 0.0, reward_scale, clip_reward)
            steps += 1
        last[b % BLOCK] = row * n_envs + env
        returns[b] = total
        terminated[b] = dones[row, env] * (1 - timeouts[row, env])
        discounts[b] = powers[steps]
        lengths[b] = steps
        if (b + 1) % BLOCK == 0 or b + 1 == batch:
            begin, count = b - b % BLOCK, b % BLOCK + 1
            copy_normalized(observations, first, count, mean, scale, clip_obs, obs, begin)
            copy_normalized(next_observations, last, count, mean, scale, clip_obs, next_obs, begin)


def gather_on_the_way(
    rows: Integers, environments: Integers, lengths: Integers, powers: Vector32, next_observations: Matrix, size: int,
    mean: Numbers, scale: Numbers, clip_obs: float, next_obs: Tiles32, samples: Integers, discounts: Vector32,
) -> None:  # fmt: skip
    """
    Gather the next states inside windows, without the last ones; defined by ``RLx2ReplayBuffer.states_on_the_way``.

    :param rows: first row of each window, ``[batch]``; the environments and lengths likewise
    :param powers: powers of gamma
    :param next_observations: ``[size * n_envs, D]``
    :param size: rows of the ring
    :param mean: of the observations, ``[D]``; ``scale`` and ``clip_obs`` as above
    :param next_obs: receives the states, ``[tiles, D, lanes]``
    :param samples: receives the sample that each belongs to, ``[states]``
    :param discounts: receives the discount of each, ``[states]``
    """
    n_envs, state, places = next_observations.shape[0] // size, 0, np.empty(BLOCK, np.int64)
    for b in range(rows.size):
        for step in range(lengths[b] - 1):
            places[state % BLOCK] = (rows[b] + step) % size * n_envs + environments[b]
            samples[state] = b
            discounts[state] = powers[step + 1]
            state += 1
            if state % BLOCK == 0:
                copy_normalized(next_observations, places, BLOCK, mean, scale, clip_obs, next_obs, state - BLOCK)
    rest = state % BLOCK
    copy_normalized(next_observations, places, rest, mean, scale, clip_obs, next_obs, state - rest)


def gather_actions(rows: Integers, environments: Integers, n_envs: int, actions: Matrix, action: Tiles32, row: int) -> None:
    """
    Gather the actions of a batch; those that are numbers of discrete ones become floats, as all that networks read.

    :param rows: sampled rows of the ring, ``[batch]``; the environments likewise
    :param actions: ``[rows * n_envs, A]``
    :param action: receives the actions from ``row`` on, ``[tiles, rows, lanes]``
    """
    lanes = action.shape[2]
    for b in range(-BLOCK, rows.size):
        ahead = min(b + BLOCK, rows.size - 1)
        prefetch(actions, (rows[ahead] * n_envs + environments[ahead]) * actions.shape[1])
        if b >= 0:
            for i in range(actions.shape[1]):
                action[b // lanes, row + i, b % lanes] = actions[rows[b] * n_envs + environments[b], i]


# Their dtype is that of the stored observations, or actions. Apart, because each is compiled when it is first needed.
REPLAY = Group("replay", (gather_windows,))
ON_THE_WAY = Group("on_the_way", (gather_on_the_way,))
ACTIONS = Group("actions", (gather_actions,))
