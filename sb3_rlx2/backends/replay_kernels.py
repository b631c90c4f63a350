"""Sampling from the replay buffer, as a loop for numba: n-step windows straight into the layout that networks read."""


def gather_windows(
    rows, environments, newest, n_steps, powers, observations, next_observations, actions, rewards, dones, timeouts,
    obs, action, next_obs, returns, terminated, discounts, lengths,
):  # fmt: skip
    """
    Gather a batch of transitions with n-step returns; what is computed is defined by ``RLx2ReplayBuffer._gather_any``.

    :param rows: sampled rows of the ring, ``[batch]``
    :param environments: sampled environments, ``[batch]``
    :param newest: row of the newest transitions, where windows end
    :param n_steps: length of a window
    :param powers: powers of gamma, ``[n_steps + 1]``
    :param observations: ``[rows * n_envs, D]``, as are the other arrays of the ring
    :param obs: receives the first observation, ``[batch, D]``
    :param action: receives the first action, ``[batch, A]``
    :param next_obs: receives the last next observation, ``[batch, D]``
    :param returns: receives the n-step return, ``[batch]``
    :param terminated: receives 1 where the window ends in a termination, else 0, ``[batch]``
    :param discounts: receives the bootstrap's discount, ``[batch]``
    :param lengths: receives the number of steps in the window, ``[batch]``
    """
    n_envs = rewards.shape[1]
    size = rewards.shape[0]
    d, a = observations.shape[1], actions.shape[1]
    for b in range(rows.size):
        row, env = rows[b], environments[b]
        first = row * n_envs + env
        for i in range(d):
            obs[b, i] = observations[first, i]
        for i in range(a):
            action[b, i] = actions[first, i]
        total = rewards[row, env]
        steps = 1
        while steps < n_steps and dones[row, env] <= 0 and timeouts[row, env] <= 0 and row != newest:
            row = row + 1 if row + 1 < size else 0
            total += powers[steps] * rewards[row, env]
            steps += 1
        last = row * n_envs + env
        for i in range(d):
            next_obs[b, i] = next_observations[last, i]
        returns[b] = total
        terminated[b] = dones[row, env] * (1 - timeouts[row, env])
        discounts[b] = powers[steps]
        lengths[b] = steps
