"""
Which inputs predict the same signal, from the data of the warm-up: prediction-adapted neighbourhoods as those of Martin &
Modayil (2021, https://arxiv.org/abs/2106.09776), whose inputs are noisy sensors.

For each input there is a general value function, a linear prediction of the discounted sum of the input's own future values.
TD(lambda) learns it, and the inputs of the largest weights belong together. On images of a game that is degenerate as it
stands, which three repairs mend: inputs that hardly ever vary are left out (all predict them, and they predict nothing),
means are subtracted (else what is nearly always on collects the traces and the largest weights), and the horizon is short with
a step size by the size of the inputs (else all predictions come to be about the same).
"""

import torch as th


def varying(inputs: th.Tensor, rarest: float) -> th.Tensor:
    """
    Mark inputs that vary: that differ from their median in some share of the data. For a pixel that is on or off this bounds
    how seldom it is either.

    :param inputs: ``[steps, environments, inputs]``
    :param rarest: the share
    :return: bool, ``[inputs]``
    """
    flat = inputs.flatten(0, 1)
    middle = flat.to(th.float32).median(dim=0).values.to(flat.dtype)
    return (flat != middle).float().mean(dim=0) >= rarest


def learn_predictions(inputs: th.Tensor, ends: th.Tensor, gamma: float, trace: float, step: float) -> th.Tensor:
    """
    Learn to predict each input's ``sum over k >= 0 of gamma^k x(t + 1 + k)`` from all of them, linearly by TD(lambda) with
    accumulating traces, in one pass over the data. Nothing is learned across the end of an episode, where traces begin anew.

    :param inputs: ``[steps, environments, inputs]``
    :param ends: whether an episode ended after a step, ``[steps, environments]``
    :param gamma: discount, in ``[0, 1)``
    :param trace: lambda, in ``[0, 1]``
    :param step: step size, relative to the one at which a prediction would jump to its target
    :return: weights, ``[predictions, inputs]``
    """
    x = inputs.to(th.float32)
    x = x - x.mean(dim=(0, 1))
    _, environments, count = x.shape
    alpha = step * (1 - gamma * trace) / float(x.square().sum(dim=2).mean()) / environments
    weights, traces = th.zeros(count, count), th.zeros(environments, count)
    goes_on = (~ends).to(th.float32)[..., None]
    for now, after, on in zip(x[:-1], x[1:], goes_on[:-1], strict=True):
        traces = gamma * trace * traces + now
        errors = on * (after + (gamma * after - now) @ weights.T)
        weights.addmm_(errors.T, traces, alpha=alpha)
        traces *= on
    return weights
