"""SAC's gradient step as jobs, as TD3's."""

import numpy as np

from sb3_rlx2.kernels.gaussian import add_entropy
from sb3_rlx2.kernels.losses import batch_sum, bellman, copy_rows, mean_gradient
from sb3_rlx2.kernels.maximum_entropy import (
    ACTOR,
    CRITICS,
    NOW,
    THEN,
    MaximumEntropyArrays,
    actor_backward,
    add_action_gradient,
    draw_actions,
)
from sb3_rlx2.kernels.mlp import gradient_sum, mlp_fit, mlp_forward
from sb3_rlx2.kernels.signatures import Group


def sac(arrays: MaximumEntropyArrays, job: int, first: int, last: int) -> None:
    """
    Do a job: ``ON_THE_WAY`` draws actions in the states on the way of n-step returns; ``CRITICS`` draws the actor's actions
    and computes the gradients of the critics' loss, half the mean of squared errors summed over the critics; ``ACTOR`` goes on
    from there with that of the actor's loss, the mean of ``alpha * log_prob - least value``.

    :param arrays: what the thread works on
    :param job: ``CRITICS``, ``ACTOR`` or ``ON_THE_WAY``
    :param first: first tile
    :param last: tile behind the last one
    """
    inputs, next_inputs, now = arrays.inputs, arrays.next_inputs, arrays.draws[NOW]
    q_values, target, batch, sums = arrays.q_values, arrays.target, arrays.returns.size, arrays.sums
    sums[:] = 0
    draw_actions(arrays, job, first, last)
    if job == CRITICS:
        for critic in range(q_values.shape[1]):
            mlp_forward(arrays.critic_targets[critic], next_inputs, arrays.critic_scratch, q_values, critic, first, last)
        entropy = arrays.draws[THEN].log_prob, arrays.alpha[0]
        bellman(q_values, *entropy, arrays.returns, arrays.terminated, arrays.discounts, target, first, last)
        sums[2] = batch_sum(now.log_prob, batch, first, last)
        for critic in range(q_values.shape[1]):
            sums[0] += 0.5 * mlp_fit(arrays.critics[critic], inputs, target, batch, np.float32(1 / batch), first, last)
            sums[1] += gradient_sum(arrays.critics[critic])
    elif job == ACTOR:
        copy_rows(now.actions, inputs, next_inputs.shape[1] - now.noise.shape[1], first, last)
        for critic in range(q_values.shape[1]):
            activations = arrays.critic_activations[critic]
            mlp_forward(arrays.critics[critic].network, inputs, activations, q_values, critic, first, last)
        for critic in range(q_values.shape[1]):
            sums[0] += mean_gradient(q_values, critic, batch, arrays.grad_value, first, last)
            add_action_gradient(arrays, critic, first, last)
        sums[1] = actor_backward(arrays, first, last)


SAC = Group("sac", (add_entropy,), jobs=(sac,))
