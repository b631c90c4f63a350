"""
TD3's gradient step as one call for the critics and one for the actor, each for some tiles of the batch (see ``kernels.py``).

One call costs Python once, and lets threads run through without waiting for each other to hold the interpreter.
"""

import numpy as np

from sb3_rlx2.backends.kernels import FIRST, mlp_backward, mlp_fit, mlp_forward
from sb3_rlx2.backends.step_kernels import add_clipped_noise, bellman, mean_gradient


def td3_critics(
    actor_target, actor_activations, critic_targets, critic_activations, critics, inputs, next_inputs, noise, clip,
    returns, terminated, discounts, values, target, first, last,
):  # fmt: skip
    """
    Compute the gradients of the critics' loss, the mean of squared errors summed over the critics.

    :param actor_target: target network of the actor
    :param actor_activations: scratch memory for its layers, ``[1, sum of outs, lanes]``
    :param critic_targets: target networks of the critics, with scratch memory for one
    :param critics: learners, whose gradients are overwritten
    :param inputs: observations and actions, ``[tiles, D + A, lanes]``
    :param next_inputs: next observations, likewise; receives actions
    :param noise: noise of the target policy, ``[batch, A]``, and its bound
    :param returns: returns, ``[batch]``; terminations (1 or 0) and discounts likewise
    :param values: scratch memory, ``[tiles, critics, lanes]``
    :param target: scratch memory, ``[tiles, 1, lanes]``
    :return: sum of squared errors
    """
    obs_dim = inputs.shape[1] - noise.shape[1]
    mlp_forward(actor_target, next_inputs, actor_activations, next_inputs, obs_dim, first, last)
    add_clipped_noise(next_inputs, obs_dim, noise, clip, first, last)
    for critic in range(values.shape[1]):
        mlp_forward(critic_targets[critic], next_inputs, critic_activations, values, critic, first, last)
    bellman(values, target, 0.0, returns, terminated, discounts, target, first, last)
    total = 0.0
    for critic in range(values.shape[1]):
        total += mlp_fit(critics[critic], inputs, target, returns.size, np.float32(2 / returns.size), first, last)
    return total


def td3_actor(
    actor, critic, critic_activations, critic_gradients, inputs, batch, value, grad_value, grad_actions, first, last
):  # fmt: skip
    """
    Compute the gradient of the actor's loss, minus the mean value of its actions by the first critic.

    :param actor: learner with memory for the activations of all tiles
    :param critic: the critic
    :param critic_activations: scratch memory for its layers, ``[tiles, sum of outs, lanes]``
    :param critic_gradients: scratch memory for the gradients by them, ``[1, sum of outs, lanes]``
    :param inputs: observations, ``[tiles, D + A, lanes]``; receives actions
    :param batch: number of samples
    :param value: scratch memory, ``[tiles, 1, lanes]``, as is ``grad_value``
    :param grad_actions: scratch memory, ``[tiles, A, lanes]``
    :return: sum of values
    """
    obs_dim, nothing = inputs.shape[1] - grad_actions.shape[1], np.empty(0, np.float32)
    mlp_forward(actor.network, inputs, actor.activations, inputs, obs_dim, first, last)
    mlp_forward(critic, inputs, critic_activations, value, FIRST, first, last)
    total = mean_gradient(value, FIRST, batch, grad_value, first, last)
    mlp_backward(
        critic, inputs, critic_activations, critic_gradients, grad_value, nothing, nothing, grad_actions, obs_dim, first, last
    )
    mlp_backward(
        actor.network, inputs, actor.activations, actor.gradients, grad_actions, actor.grad_values, actor.grad_bias,
        np.empty((1, 0, 1), np.float32), FIRST, first, last,
    )  # fmt: skip
    return total
