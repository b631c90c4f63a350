"""
TD3's gradient step as one job for the critics and one for the actor, each for some tiles of the batch (see
``kernels/mlp.py``).

One call costs Python once, and lets threads run through without waiting for each other to hold the interpreter. Both jobs
are one function, because functions that call the same ones each have them compiled again.
"""

from typing import NamedTuple

import numpy as np

from sb3_rlx2.kernels.annotations import Matrix, Numbers, Tiles, Vector
from sb3_rlx2.kernels.losses import add_clipped_noise, bellman, mean_gradient
from sb3_rlx2.kernels.mlp import FIRST, gradient_sum, mlp_backward, mlp_fit, mlp_forward, mlp_learn
from sb3_rlx2.kernels.network import Learner, Network
from sb3_rlx2.kernels.signatures import Group

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
    :param q_values: memory for the critics' Q-values, ``[tiles, critics, lanes]``
    :param target: memory for the critics' target, ``[tiles, 1, lanes]``
    :param grad_value: memory for the gradient by a value, ``[tiles, 1, lanes]``
    :param grad_actions: memory for the gradient by the actions, ``[tiles, A, lanes]``
    :param sums: receives the sum of squared errors, or of Q-values, over the samples of the tiles; and the sum of all
        gradients, which is finite if they are, ``[3]``
    """

    actor: Learner
    critics: tuple[Learner, ...]
    actor_target: Network
    critic_targets: tuple[Network, ...]
    actor_scratch: Tiles
    critic_scratch: Tiles
    critic_activations: Tiles
    inputs: Tiles
    next_inputs: Tiles
    returns: Vector
    terminated: Vector
    discounts: Vector
    noise: Matrix
    noise_clip: Numbers
    q_values: Tiles
    target: Tiles
    grad_value: Tiles
    grad_actions: Tiles
    sums: Numbers


def td3(arrays: TD3Arrays, job: int, first: int, last: int) -> None:
    """
    Do a job: ``CRITICS`` computes the gradients of the critics' loss, the mean of squared errors summed over the critics;
    ``ACTOR`` that of the actor's loss, minus the mean value of its actions by the first critic.

    :param arrays: what the thread works on
    :param job: ``CRITICS`` or ``ACTOR``
    :param first: first tile
    :param last: tile behind the last one
    """
    actor, inputs, next_inputs = arrays.actor, arrays.inputs, arrays.next_inputs
    q_values, target, batch = arrays.q_values, arrays.target, arrays.returns.size
    obs_dim, sums = inputs.shape[1] - arrays.noise.shape[1], arrays.sums
    sums[:] = 0
    if job == CRITICS:
        mlp_forward(arrays.actor_target, next_inputs, arrays.actor_scratch, next_inputs, obs_dim, first, last)
        add_clipped_noise(next_inputs, obs_dim, arrays.noise, arrays.noise_clip[0], first, last)
        for critic in range(q_values.shape[1]):
            mlp_forward(arrays.critic_targets[critic], next_inputs, arrays.critic_scratch, q_values, critic, first, last)
        no_log_prob, no_alpha = target[:0], 0.0  # TD3 has no entropy
        bellman(q_values, no_log_prob, no_alpha, arrays.returns, arrays.terminated, arrays.discounts, target, first, last)
        for critic in range(q_values.shape[1]):
            sums[0] += mlp_fit(arrays.critics[critic], inputs, target, batch, np.float32(2 / batch), first, last)
            sums[1] += gradient_sum(arrays.critics[critic])
    else:
        learner, nothing = arrays.critics[FIRST], actor.grad_values[:0]
        mlp_forward(actor.network, inputs, actor.activations, inputs, obs_dim, first, last)
        mlp_forward(learner.network, inputs, arrays.critic_activations, target, FIRST, first, last)
        sums[0] = mean_gradient(target, FIRST, batch, arrays.grad_value, first, last)
        mlp_backward(
            learner.network, inputs, arrays.critic_activations, learner.gradients, learner.by_column, arrays.grad_value,
            nothing, nothing, arrays.grad_actions, obs_dim, first, last,
        )  # fmt: skip
        sums[1] = mlp_learn(actor, inputs, arrays.grad_actions, first, last)


TD3 = Group("td3", jobs=(td3,))
