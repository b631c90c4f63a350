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
