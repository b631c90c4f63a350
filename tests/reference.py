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
