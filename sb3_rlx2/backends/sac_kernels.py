"""SAC's gradient step as one call for the critics and one for the actor, as ``td3_kernels.py``."""

import numpy as np

from sb3_rlx2.backends.kernels import FIRST, mlp_backward, mlp_fit, mlp_forward
from sb3_rlx2.backends.step_kernels import add_rows, bellman, copy_rows, mean_gradient, squash, squash_gradient


def sac_log_prob(actor, activations, obs, noise, raw, actions, log_prob, first, last):
    """
    Draw actions and compute their log-probability.

    :param actor: the actor
    :param activations: scratch memory for its layers, ``[1, sum of outs, lanes]``
    :param obs: observations, ``[tiles, D, lanes]``
    :param noise: standard normal, ``[batch, A]``
    :param raw: scratch memory, ``[tiles, 2A, lanes]``
    :param actions: receives the actions, ``[tiles, A, lanes]``
    :param log_prob: receives the log-probability, ``[tiles, 1, lanes]``
    """
    mlp_forward(actor, obs, activations, raw, FIRST, first, last)
    squash(raw, noise, actions, FIRST, log_prob, first, last)


def sac_critics(
    actor, scratch, critic_targets, critic_activations, critics, inputs, next_inputs, noise, next_noise, alpha,
    returns, terminated, discounts, raw, actions, log_prob, next_raw, next_log_prob, values, target, first, last,
):  # fmt: skip
    """
    Draw the actor's actions, and compute the gradients of the critics' loss, half the mean of squared errors summed over the
    critics.

    :param actor: learner, whose activations of all tiles stay for :func:`sac_actor`
    :param scratch: scratch memory for its layers, ``[1, sum of outs, lanes]``
    :param critic_targets: target networks of the critics, with scratch memory for one
    :param critics: learners, whose gradients are overwritten
    :param inputs: observations and actions, ``[tiles, D + A, lanes]``
    :param next_inputs: next observations, likewise; receives actions
    :param noise: standard normal, ``[batch, A]``, for the actions; ``next_noise`` for the next ones
    :param alpha: entropy coefficient
    :param returns: returns, ``[batch]``; terminations (1 or 0) and discounts likewise
    :param raw: receives the actor's output, ``[tiles, 2A, lanes]``
    :param actions: receives the actions, ``[tiles, A, lanes]``
    :param log_prob: receives their log-probability, ``[tiles, 1, lanes]``
    :param next_raw: scratch memory, as ``raw``; ``next_log_prob`` likewise
    :param values: scratch memory, ``[tiles, critics, lanes]``
    :param target: scratch memory, ``[tiles, 1, lanes]``
    :return: sum of squared errors
    """
    obs_dim = inputs.shape[1] - noise.shape[1]
    mlp_forward(actor.network, inputs, actor.activations, raw, FIRST, first, last)
    squash(raw, noise, actions, FIRST, log_prob, first, last)
    mlp_forward(actor.network, next_inputs, scratch, next_raw, FIRST, first, last)
    squash(next_raw, next_noise, next_inputs, obs_dim, next_log_prob, first, last)
    for critic in range(values.shape[1]):
        mlp_forward(critic_targets[critic], next_inputs, critic_activations, values, critic, first, last)
    bellman(values, next_log_prob, alpha, returns, terminated, discounts, target, first, last)
    total = 0.0
    for critic in range(values.shape[1]):
        total += mlp_fit(critics[critic], inputs, target, returns.size, np.float32(1 / returns.size), first, last)
    return total


def sac_actor(
    actor, critics, critic_activations, critic_gradients, inputs, noise, alpha, raw, actions, values, grad_value,
    grad_by_critic, grad_actions, grad_raw, first, last,
):  # fmt: skip
    """
    Compute the gradient of the actor's loss, the mean of ``alpha * log_prob - least value``.

    :param actor: learner, with the activations of :func:`sac_critics`
    :param critics: the critics
    :param critic_activations: scratch memory for the layers of each, ``[tiles, sum of outs, lanes]``
    :param critic_gradients: scratch memory for the gradients by one's, ``[1, sum of outs, lanes]``
    :param inputs: observations, ``[tiles, D + A, lanes]``; receives the actions
    :param noise: as in :func:`sac_critics`; alpha, raw, actions likewise
    :param values: scratch memory, ``[tiles, critics, lanes]``
    :param grad_value: scratch memory, ``[tiles, 1, lanes]``
    :param grad_by_critic: scratch memory, ``[tiles, A, lanes]``, as is ``grad_actions``
    :param grad_raw: scratch memory, ``[tiles, 2A, lanes]``
    :return: sum of the least values
    """
    obs_dim, batch, nothing = inputs.shape[1] - noise.shape[1], noise.shape[0], np.empty(0, np.float32)
    copy_rows(actions, inputs, obs_dim, first, last)
    for critic in range(values.shape[1]):
        mlp_forward(critics[critic], inputs, critic_activations[critic], values, critic, first, last)
    total = 0.0
    for critic in range(values.shape[1]):
        total += mean_gradient(values, critic, batch, grad_value, first, last)
        mlp_backward(
            critics[critic], inputs, critic_activations[critic], critic_gradients, grad_value, nothing, nothing,
            grad_by_critic, obs_dim, first, last,
        )  # fmt: skip
        add_rows(grad_by_critic, grad_actions, critic > 0, first, last)
    grad_value[first:last] = np.float32(alpha / batch)  # from here on by the log-probability
    squash_gradient(raw, noise, actions, FIRST, grad_actions, grad_value, grad_raw, first, last)
    mlp_backward(
        actor.network, inputs, actor.activations, actor.gradients, grad_raw, actor.grad_values, actor.grad_bias,
        np.empty((1, 0, 1), np.float32), FIRST, first, last,
    )  # fmt: skip
    return total
