"""
TD3's gradient step as one job for the critics and one for the actor, each for some tiles of the batch (see ``kernels.py``).

One call costs Python once, and lets threads run through without waiting for each other to hold the interpreter. Both jobs
are one function, because functions that call the same ones each have them compiled again.
"""

from typing import NamedTuple

import numpy as np

from sb3_rlx2.backends.kernels import FIRST, gradient_sum, mlp_backward, mlp_fit, mlp_forward
from sb3_rlx2.backends.networks import Learner, Network
from sb3_rlx2.backends.step_kernels import add_clipped_noise, bellman, mean_gradient

CRITICS, ACTOR = 0, 1


class TD3Arrays(NamedTuple):
    """
    What one thread works on. Arrays of all tiles are shared by threads, which have scratch memory and gradients of their own.

    :param actor: the actor, with memory for the activations of all tiles
    :param critics: the critics
    :param actor_target: target network of the actor
    :param critic_targets: target networks of the critics
    :param actor_scratch: scratch memory for the layers of an actor, ``[1, sum of outs, lanes]``
    :param critic_scratch: scratch memory for those of a critic, likewise
    :param critic_activations: memory for the layers of a critic, ``[tiles, sum of outs, lanes]``
    :param inputs: observations and actions, ``[tiles, D + A, lanes]``; those of the actor's loss overwrite the sampled ones
    :param next_inputs: next observations, likewise; receives actions
    :param returns: returns, ``[batch]``
    :param terminated: 1 where the last step terminates, else 0, ``[batch]``
    :param discounts: discounts of the bootstrap, ``[batch]``
    :param noise: noise of the target policy, ``[batch, A]``
    :param noise_clip: bound of the noise, ``[1]``
    :param values: memory for the critics' values, ``[tiles, critics, lanes]``
    :param target: memory for the critics' target, ``[tiles, 1, lanes]``
    :param grad_value: memory for the gradient by a value, ``[tiles, 1, lanes]``
    :param grad_actions: memory for the gradient by the actions, ``[tiles, A, lanes]``
    :param found: receives the sum of squared errors, or of values, over the samples of the tiles; and the sum of all
        gradients, which is finite if they are, ``[3]``
    """

    actor: Learner
    critics: tuple[Learner, ...]
    actor_target: Network
    critic_targets: tuple[Network, ...]
    actor_scratch: np.ndarray
    critic_scratch: np.ndarray
    critic_activations: np.ndarray
    inputs: np.ndarray
    next_inputs: np.ndarray
    returns: np.ndarray
    terminated: np.ndarray
    discounts: np.ndarray
    noise: np.ndarray
    noise_clip: np.ndarray
    values: np.ndarray
    target: np.ndarray
    grad_value: np.ndarray
    grad_actions: np.ndarray
    found: np.ndarray


def td3(arrays, job, first, last):
    """
    Do a job: ``CRITICS`` computes the gradients of the critics' loss, the mean of squared errors summed over the critics;
    ``ACTOR`` that of the actor's loss, minus the mean value of its actions by the first critic.

    :param arrays: :class:`TD3Arrays`
    :param job: ``CRITICS`` or ``ACTOR``
    :param first: first tile
    :param last: tile behind the last one
    """
    actor, inputs, next_inputs = arrays.actor, arrays.inputs, arrays.next_inputs
    values, target, batch = arrays.values, arrays.target, arrays.returns.size
    obs_dim, found = inputs.shape[1] - arrays.noise.shape[1], arrays.found
    found[:] = 0
    if job == CRITICS:
        mlp_forward(arrays.actor_target, next_inputs, arrays.actor_scratch, next_inputs, obs_dim, first, last)
        add_clipped_noise(next_inputs, obs_dim, arrays.noise, arrays.noise_clip[0], first, last)
        for critic in range(values.shape[1]):
            mlp_forward(arrays.critic_targets[critic], next_inputs, arrays.critic_scratch, values, critic, first, last)
        bellman(values, target, 0.0, arrays.returns, arrays.terminated, arrays.discounts, target, first, last)
        for critic in range(values.shape[1]):
            found[0] += mlp_fit(arrays.critics[critic], inputs, target, batch, np.float32(2 / batch), first, last)
            found[1] += gradient_sum(arrays.critics[critic])
    else:
        critic, nothing = arrays.critics[FIRST], actor.grad_values[:0]
        mlp_forward(actor.network, inputs, actor.activations, inputs, obs_dim, first, last)
        mlp_forward(critic.network, inputs, arrays.critic_activations, target, FIRST, first, last)
        found[0] = mean_gradient(target, FIRST, batch, arrays.grad_value, first, last)
        mlp_backward(
            critic.network, inputs, arrays.critic_activations, critic.gradients, critic.by_column, arrays.grad_value,
            nothing, nothing, arrays.grad_actions, obs_dim, first, last,
        )  # fmt: skip
        mlp_backward(
            actor.network, inputs, actor.activations, actor.gradients, actor.by_column, arrays.grad_actions,
            actor.grad_values, actor.grad_bias, arrays.grad_actions[:0], FIRST, first, last,
        )  # fmt: skip
        found[1] = gradient_sum(actor)
