"""Slow, obvious versions of what the package computes. Nothing here is shared with it."""

import math

import numpy as np


def sparse_mlp_forward(layers, bias, x, output=lambda v: v):
    """
    :param layers: per layer a list of (row, column, value)
    :param bias: per layer a list of biases
    :param x: [batch][in]
    """
    h = [[float(v) for v in sample] for sample in x]
    for number, (links, biases) in enumerate(zip(layers, bias, strict=True)):
        out = [[float(b) for b in biases] for _ in h]
        for row, column, value in links:
            for sample in range(len(h)):
                out[sample][row] += float(value) * h[sample][column]
        last = number == len(layers) - 1
        h = [[output(v) if last else relu(v) for v in sample] for sample in out]
    return np.array(h)


def relu(v):
    return 0.0 if v <= 0 else v  # NaN is not <= 0, so it goes through


def drop_and_grow(index, magnitude, scores, k):
    """Plain sorting; ties fall to the lower position, as in a stable sort."""
    ranked = sorted(range(len(index)), key=lambda i: (-magnitude[i], i))
    kept = {index[i] for i in ranked[: len(index) - k]}
    candidates = sorted((p for p in range(len(scores)) if p not in kept), key=lambda p: (-scores[p], p))
    return sorted(kept | set(candidates[:k]))


def alive_links(widths, layers):
    """
    Walk every path from an input to an output.

    :param widths: number of inputs, then of units of each layer
    :param layers: per layer a list of (row, column)
    :return: per layer the set of links that a whole path goes through
    """
    alive = [set() for _ in layers]

    def walk(unit, trail):
        if len(trail) == len(layers):
            for links, link in zip(alive, trail, strict=True):
                links.add(link)
            return
        for row, column in layers[len(trail)]:
            if column == unit:
                walk(row, [*trail, (row, column)])

    for unit in range(widths[0]):
        walk(unit, [])
    return alive


def reached_units(widths, layers):
    """Give, for the inputs and the units of each layer, the set of those that an input reaches."""
    reached = [set(range(widths[0]))]
    for links in layers:
        reached.append({row for row, column in links if column in reached[-1]})
    return reached


def cosine(progress, initial):
    return initial * (1 + math.cos(math.pi * progress)) / 2


def n_step(transitions, start, n, gamma, entropy=None):
    """
    :param transitions: one environment's live transitions, oldest first, as dicts
    :param entropy: of a next observation; given, the soft n-step return adds that of the states on the way
    :return: return, discount of the bootstrap, number of the last transition of the window
    """
    total, discount = 0.0, 1.0
    for number in range(start, start + n):
        transition = transitions[number]
        total += discount * transition["reward"]
        discount *= gamma
        ends = transition["terminated"] or transition["truncated"] or number == len(transitions) - 1
        if ends or number == start + n - 1:
            return total, discount, number
        if entropy is not None:
            total += discount * entropy(transition["next_obs"])
    raise AssertionError


def live_window(operations, capacity, min_rows):
    """
    :param operations: ``"add"`` or ``"halve"`` (drop the oldest half, but keep ``min_rows``), in order
    :return: numbers of the live rows, oldest first; the first row ever added is 0
    """
    live, added = [], 0
    for operation in operations:
        if operation == "add":
            live.append(added)
            added += 1
            if len(live) > capacity:
                live.pop(0)
        elif operation == "halve":
            for _ in range(len(live) // 2):
                if len(live) > min_rows:
                    live.pop(0)
    return live


def huber(error):
    return error * error / 2 if abs(error) <= 1 else abs(error) - 0.5


def huber_slope(error):
    return max(-1.0, min(1.0, error))


def quantile_huber(quantiles, targets):
    """
    :param quantiles: one sample's quantiles
    :param targets: what they are compared with, each with each
    :return: sum of the losses, and its gradient by each quantile
    """
    total, gradient = 0.0, []
    for number, quantile in enumerate(quantiles):
        share, slope = (number + 0.5) / len(quantiles), 0.0
        for target in targets:
            weight = 1 - share if target < quantile else share
            total += weight * huber(target - quantile)
            slope -= weight * huber_slope(target - quantile)
        gradient.append(slope)
    return total, gradient


def greedy_target(quantiles, reward, discount):
    """
    :param quantiles: per action of the next state a list of quantiles
    :param discount: 0 where the episode is over
    :return: target of each quantile
    """
    best = max(range(len(quantiles)), key=lambda action: sum(quantiles[action]))
    return [reward + discount * quantile for quantile in quantiles[best]]


def least_quantiles_target(quantiles, kept, entropy, reward, discount):
    """
    :param quantiles: all critics' quantiles of the next state
    :param kept: number of those that are not dropped
    :param entropy: ``-alpha * log_prob``
    """
    return [reward + discount * (quantile + entropy) for quantile in sorted(quantiles)[:kept]]
