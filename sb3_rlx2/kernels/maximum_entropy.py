"""The gradient step of a maximum-entropy algorithm, but for what its critics learn."""

from typing import NamedTuple

import numpy as np

from sb3_rlx2.kernels.annotations import Matrix, Numbers, Tiles, Vector
from sb3_rlx2.kernels.gaussian import squash, squash_gradient
from sb3_rlx2.kernels.losses import add_rows
from sb3_rlx2.kernels.mlp import FIRST, mlp_backward, mlp_forward, mlp_learn
from sb3_rlx2.kernels.network import Learner, Network
from sb3_rlx2.kernels.options import kernel

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

    obs: Tiles
    activations: Tiles
    noise: Matrix
    raw: Tiles
    actions: Tiles
    row: int
    log_prob: Tiles


class MaximumEntropyArrays(NamedTuple):
    """
    What one thread works on. Arrays of all tiles are shared by threads, which have scratch memory and gradients of their own.
    A critic gives N quantiles of the return; in SAC one value, its mean.

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
    :param q_values: memory for the critics' outputs, ``[tiles, critics * N, lanes]``
    :param target: memory for the critics' targets, ``[tiles, 1 or more, lanes]``
    :param grad_value: memory for the gradient by a critic's output, ``[tiles, N, lanes]``
    :param grad_by_critic: memory for the gradient by the actions through one critic, ``[tiles, A, lanes]``
    :param grad_actions: memory for the gradient by the actions, likewise
    :param grad_raw: memory for the gradient by the actor's output, ``[tiles, 2A, lanes]``
    :param sums: receives the sum of the critics' losses, or of the values in the actor's, over the samples of the tiles; the
        sum of all gradients, which is finite if they are; and the sum of the log-probabilities, ``[3]``
    """

    actor: Learner
    critics: tuple[Learner, ...]
    critic_targets: tuple[Network, ...]
    critic_scratch: Tiles
    critic_activations: tuple[Tiles, ...]
    draws: tuple[Draw, Draw, Draw]
    inputs: Tiles
    next_inputs: Tiles
    returns: Vector
    terminated: Vector
    discounts: Vector
    alpha: Numbers
    q_values: Tiles
    target: Tiles
    grad_value: Tiles
    grad_by_critic: Tiles
    grad_actions: Tiles
    grad_raw: Tiles
    sums: Numbers


@kernel
def draw_actions(arrays, job, first, last):
    """Draw the actions that a job begins with."""
    for i in range(*DRAWS_OF[job]):
        draw = arrays.draws[i]
        mlp_forward(arrays.actor.network, draw.obs, draw.activations, draw.raw, FIRST, first, last)
        squash(draw.raw, draw.noise, draw.actions, draw.row, draw.log_prob, first, last)


@kernel
def add_action_gradient(arrays, critic, first, last):
    """Go backward through a critic, from the gradient by its output to that by the actor's actions; add it to the others'."""
    learner, nothing = arrays.critics[critic], arrays.actor.grad_values[:0]
    obs_dim = arrays.next_inputs.shape[1] - arrays.draws[NOW].noise.shape[1]
    mlp_backward(
        learner.network, arrays.inputs, arrays.critic_activations[critic], learner.gradients, learner.by_column,
        arrays.grad_value, nothing, nothing, arrays.grad_by_critic, obs_dim, first, last,
    )  # fmt: skip
    add_rows(arrays.grad_by_critic, arrays.grad_actions, critic > 0, first, last)


@kernel
def actor_backward(arrays, first, last):
    """Go backward through the actor from the gradient by its actions, and by their entropy; give the sum of its gradient."""
    now, actions, grad_log_prob = arrays.draws[NOW], arrays.grad_actions, arrays.grad_value
    grad_log_prob[first:last] = np.float32(arrays.alpha[0] / arrays.returns.size)
    squash_gradient(now.raw, now.noise, now.actions, FIRST, actions, grad_log_prob, arrays.grad_raw, first, last)
    return mlp_learn(arrays.actor, arrays.inputs, arrays.grad_raw, first, last)
