"""
SAC's gradient step as jobs, as ``td3_kernels.py``: ``ON_THE_WAY`` draws actions in the states on the way of n-step returns;
``CRITICS`` draws the actor's actions and computes the gradients of the critics' loss, half the mean of squared errors summed
over the critics; ``ACTOR`` goes on from there with that of the actor's loss, the mean of ``alpha * log_prob - least value``.
"""

from typing import NamedTuple

import numpy as np

from sb3_rlx2.backends.kernels import FIRST, gradient_sum, mlp_backward, mlp_fit, mlp_forward
from sb3_rlx2.backends.networks import Learner, Network
from sb3_rlx2.backends.step_kernels import add_rows, batch_sum, bellman, copy_rows, mean_gradient, squash, squash_gradient

CRITICS, ACTOR, ON_THE_WAY = range(3)  # jobs; the last one only draws
NOW, THEN, WAY = range(3)  # draws
DRAWS_OF = ((NOW, WAY), (NOW, NOW), (WAY, WAY + 1))  # of each job


class Draw(NamedTuple):
    """
    What is needed to draw actions from the actor.

    :param obs: observations, ``[tiles, at least D, lanes]``
    :param activations: memory for the actor's layers, ``[tiles or 1, sum of outs, lanes]``
    :param noise: standard normal, ``[batch, A]``
    :param raw: receives the actor's output, ``[tiles, 2A, lanes]``
    :param actions: receives the actions, ``[tiles, rows, lanes]``
    :param row: row of ``actions`` where they begin
    :param log_prob: receives their log-probability, ``[tiles, 1, lanes]``
    """

    obs: np.ndarray
    activations: np.ndarray
    noise: np.ndarray
    raw: np.ndarray
    actions: np.ndarray
    row: int
    log_prob: np.ndarray


class SACArrays(NamedTuple):
    """
    What one thread works on. Arrays of all tiles are shared by threads, which have scratch memory and gradients of their own.

    :param actor: the actor, with memory for the activations of all tiles, which stay from the critics' job to the actor's
    :param critics: the critics
    :param critic_targets: target networks of the critics
    :param critic_scratch: scratch memory for the layers of a critic, ``[1, sum of outs, lanes]``
    :param critic_activations: memory for the layers of each critic, ``[tiles, sum of outs, lanes]``
    :param draws: for the observations, for the next ones, whose actions go into ``next_inputs``, and for the states on the way
    :param inputs: observations and actions, ``[tiles, D + A, lanes]``; those of the actor's loss overwrite the sampled ones
    :param next_inputs: next observations, likewise; receives actions
    :param returns: returns, ``[batch]``
    :param terminated: 1 where the last step terminates, else 0, ``[batch]``
    :param discounts: discounts of the bootstrap, ``[batch]``
    :param alpha: entropy coefficient, ``[1]``
    :param values: memory for the critics' values, ``[tiles, critics, lanes]``
    :param target: memory for the critics' target, ``[tiles, 1, lanes]``
    :param grad_value: memory for the gradient by a value, ``[tiles, 1, lanes]``
    :param grad_by_critic: memory for the gradient by the actions through one critic, ``[tiles, A, lanes]``
    :param grad_actions: memory for the gradient by the actions, likewise
    :param grad_raw: memory for the gradient by the actor's output, ``[tiles, 2A, lanes]``
    :param found: receives the sum of squared errors, or of the least values, over the samples of the tiles; the sum of all
        gradients, which is finite if they are; and the sum of the log-probabilities, ``[3]``
    """

    actor: Learner
    critics: tuple[Learner, ...]
    critic_targets: tuple[Network, ...]
    critic_scratch: np.ndarray
    critic_activations: tuple[np.ndarray, ...]
    draws: tuple[Draw, Draw, Draw]
    inputs: np.ndarray
    next_inputs: np.ndarray
    returns: np.ndarray
    terminated: np.ndarray
    discounts: np.ndarray
    alpha: np.ndarray
    values: np.ndarray
    target: np.ndarray
    grad_value: np.ndarray
    grad_by_critic: np.ndarray
    grad_actions: np.ndarray
    grad_raw: np.ndarray
    found: np.ndarray


def sac(arrays, job, first, last):
    """
    Do a job.

    :param arrays: :class:`SACArrays`
    :param job: ``CRITICS``, ``ACTOR`` or ``ON_THE_WAY``
    :param first: first tile
    :param last: tile behind the last one
    """
    actor, inputs, next_inputs, now = arrays.actor, arrays.inputs, arrays.next_inputs, arrays.draws[NOW]
    values, target, batch = arrays.values, arrays.target, arrays.returns.size
    grad_value, grad_actions, grad_raw, found = arrays.grad_value, arrays.grad_actions, arrays.grad_raw, arrays.found
    found[:] = 0
    for i in range(*DRAWS_OF[job]):
        draw = arrays.draws[i]
        mlp_forward(actor.network, draw.obs, draw.activations, draw.raw, FIRST, first, last)
        squash(draw.raw, draw.noise, draw.actions, draw.row, draw.log_prob, first, last)
    if job == CRITICS:
        for critic in range(values.shape[1]):
            mlp_forward(arrays.critic_targets[critic], next_inputs, arrays.critic_scratch, values, critic, first, last)
        entropy = arrays.draws[THEN].log_prob, arrays.alpha[0]
        bellman(values, *entropy, arrays.returns, arrays.terminated, arrays.discounts, target, first, last)
        found[2] = batch_sum(now.log_prob, batch, first, last)
        for critic in range(values.shape[1]):
            found[0] += mlp_fit(arrays.critics[critic], inputs, target, batch, np.float32(1 / batch), first, last)
            found[1] += gradient_sum(arrays.critics[critic])
    elif job == ACTOR:
        nothing, obs_dim = actor.grad_values[:0], next_inputs.shape[1] - now.noise.shape[1]
        copy_rows(now.actions, inputs, obs_dim, first, last)
        for critic in range(values.shape[1]):
            activations = arrays.critic_activations[critic]
            mlp_forward(arrays.critics[critic].network, inputs, activations, values, critic, first, last)
        for critic in range(values.shape[1]):
            learner = arrays.critics[critic]
            found[0] += mean_gradient(values, critic, batch, grad_value, first, last)
            mlp_backward(
                learner.network, inputs, arrays.critic_activations[critic], learner.gradients, learner.by_column,
                grad_value, nothing, nothing, arrays.grad_by_critic, obs_dim, first, last,
            )  # fmt: skip
            add_rows(arrays.grad_by_critic, grad_actions, critic > 0, first, last)
        grad_value[first:last] = np.float32(arrays.alpha[0] / batch)  # from here on by the log-probability
        squash_gradient(now.raw, now.noise, now.actions, FIRST, grad_actions, grad_value, grad_raw, first, last)
        memory = actor.activations, actor.gradients, actor.by_column, grad_raw, actor.grad_values, actor.grad_bias
        mlp_backward(actor.network, inputs, *memory, grad_actions[:0], FIRST, first, last)
        found[1] = gradient_sum(actor)
