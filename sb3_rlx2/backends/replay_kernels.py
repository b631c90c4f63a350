"""Sampling from the replay buffer, as loops for numba: n-step windows straight into the layout that networks read."""

from sb3_rlx2.backends.options import inline
from sb3_rlx2.backends.prefetch import prefetch, prefetch_row

AHEAD = 8  # samples whose rows are on their way from memory while one is copied


@inline
def fetch(place, steps, observations, next_observations, actions, rewards, dones, timeouts):
    """Fetch what a window of some steps needs, if no episode ends in it."""
    prefetch_row(observations, place)
    prefetch_row(next_observations, min(place + steps, next_observations.shape[0] - 1))
    prefetch(actions, place * actions.shape[1])
    prefetch(rewards, place)
    prefetch(dones, place)
    prefetch(timeouts, place)


def gather_windows(
    rows, environments, newest, n_steps, powers, observations, next_observations, actions, rewards, dones, timeouts,
    obs, action, action_row, next_obs, returns, terminated, discounts, lengths,
):  # fmt: skip
    """
    Gather a batch of transitions with n-step returns; what is computed is defined by ``RLx2ReplayBuffer._gather_any``.

    :param rows: sampled rows of the ring, ``[batch]``
    :param environments: sampled environments, ``[batch]``
    :param newest: row of the newest transitions, where windows end
    :param n_steps: length of a window
    :param powers: powers of gamma, ``[n_steps + 1]``
    :param observations: ``[rows * n_envs, D]``, as are the other arrays of the ring
    :param obs: receives the first observation, ``[tiles, at least D, lanes]``; with one lane it is ``[batch, D]``
    :param action: receives the first action from ``action_row`` on; may be ``obs``
    :param next_obs: receives the last next observation, as ``obs``
    :param returns: receives the n-step return, ``[batch]``; the others receive 1 where the window ends in a termination
        (else 0), the bootstrap's discount, and the number of steps in the window
    """
    n_envs, size, lanes = rewards.shape[1], rewards.shape[0], obs.shape[2]
    for b in range(-AHEAD, rows.size):
        ahead = min(b + AHEAD, rows.size - 1)
        place = rows[ahead] * n_envs + environments[ahead]
        fetch(place, (n_steps - 1) * n_envs, observations, next_observations, actions, rewards, dones, timeouts)
        if b < 0:
            continue
        row, env = rows[b], environments[b]
        tile, lane, first = b // lanes, b % lanes, row * n_envs + env
        for i in range(observations.shape[1]):
            obs[tile, i, lane] = observations[first, i]
        for i in range(actions.shape[1]):
            action[tile, action_row + i, lane] = actions[first, i]
        total, steps = rewards[row, env], 1
        while steps < n_steps and dones[row, env] <= 0 and timeouts[row, env] <= 0 and row != newest:
            row = row + 1 if row + 1 < size else 0
            total += powers[steps] * rewards[row, env]
            steps += 1
        last = row * n_envs + env
        for i in range(observations.shape[1]):
            next_obs[tile, i, lane] = next_observations[last, i]
        returns[b] = total
        terminated[b] = dones[row, env] * (1 - timeouts[row, env])
        discounts[b] = powers[steps]
        lengths[b] = steps


def gather_on_the_way(rows, environments, lengths, powers, next_observations, size, next_obs, samples, discounts):
    """
    Gather the next states inside windows, without the last ones; defined by ``RLx2ReplayBuffer.states_on_the_way``.

    :param rows: first row of each window, ``[batch]``; the environments and lengths likewise
    :param powers: powers of gamma
    :param next_observations: ``[size * n_envs, D]``
    :param size: rows of the ring
    :param next_obs: receives the states, ``[tiles, D, lanes]``
    :param samples: receives the sample that each belongs to, ``[states]``
    :param discounts: receives the discount of each, ``[states]``
    """
    n_envs, lanes = next_observations.shape[0] // size, next_obs.shape[2]
    state = 0
    for b in range(rows.size):
        for step in range(lengths[b] - 1):
            place = (rows[b] + step) % size * n_envs + environments[b]
            for i in range(next_observations.shape[1]):
                next_obs[state // lanes, i, state % lanes] = next_observations[place, i]
            samples[state] = b
            discounts[state] = powers[step + 1]
            state += 1
