"""TQC's gradient step as jobs, as SAC's."""

from sb3_rlx2.kernels.gaussian import add_entropy
from sb3_rlx2.kernels.losses import batch_sum, copy_rows
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
from sb3_rlx2.kernels.mlp import mlp_forward, mlp_learn
from sb3_rlx2.kernels.quantiles import least_quantiles_bellman, mean_quantile_gradient, quantile_huber
from sb3_rlx2.kernels.signatures import Group


def tqc(arrays: MaximumEntropyArrays, job: int, first: int, last: int) -> None:
    """
    Do a job: ``ON_THE_WAY`` draws actions in the states on the way of n-step returns; ``CRITICS`` draws the actor's actions
    and computes the gradients of the critics' loss, the mean of Huber's quantile losses over critics, quantiles and targets;
    ``ACTOR`` goes on from there with that of the actor's loss, the mean of ``alpha * log_prob - mean quantile``.

    :param arrays: what the thread works on
    :param job: ``CRITICS``, ``ACTOR`` or ``ON_THE_WAY``
    :param first: first tile
    :param last: tile behind the last one
    """
    inputs, next_inputs, now, then = arrays.inputs, arrays.next_inputs, arrays.draws[NOW], arrays.draws[THEN]
    values, target, grad_value, sums = arrays.q_values, arrays.target, arrays.grad_value, arrays.sums
    batch, quantiles, total = arrays.returns.size, grad_value.shape[1], values.shape[1]
    sums[:] = 0
    draw_actions(arrays, job, first, last)
    if job == CRITICS:
        for critic in range(total // quantiles):
            row = critic * quantiles
            mlp_forward(arrays.critic_targets[critic], next_inputs, arrays.critic_scratch, values, row, first, last)
        bootstrap = arrays.returns, arrays.terminated, arrays.discounts
        least_quantiles_bellman(values, then.log_prob, arrays.alpha[0], *bootstrap, target, first, last)
        sums[2] = batch_sum(now.log_prob, batch, first, last)
        share = 1 / (total * target.shape[1])
        for critic in range(total // quantiles):
            learner, row = arrays.critics[critic], critic * quantiles
            mlp_forward(learner.network, inputs, learner.activations, values, row, first, last)
            sums[0] += share * quantile_huber(values, row, target, batch, share / batch, grad_value, first, last)
            sums[1] += mlp_learn(learner, inputs, grad_value, first, last)
    elif job == ACTOR:
        copy_rows(now.actions, inputs, next_inputs.shape[1] - now.noise.shape[1], first, last)
        for critic in range(total // quantiles):
            activations, row = arrays.critic_activations[critic], critic * quantiles
            mlp_forward(arrays.critics[critic].network, inputs, activations, values, row, first, last)
            sums[0] += mean_quantile_gradient(values, row, batch, 1 / (batch * total), grad_value, first, last) / total
            add_action_gradient(arrays, critic, first, last)
        sums[1] = actor_backward(arrays, first, last)


TQC = Group("tqc", (add_entropy,), jobs=(tqc,))
