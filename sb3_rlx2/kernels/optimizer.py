"""
Element-wise updates of packed parameters, as loops for numba; each is several passes over memory in torch. Threads share the
cache lines of all parameters, so that each line moves between cores as seldom as can be.
"""

import math

import numpy as np

from sb3_rlx2.kernels.options import inline
from sb3_rlx2.kernels.parameters import LINE, AdamArrays, PolyakArrays
from sb3_rlx2.kernels.pointers import array_at
from sb3_rlx2.kernels.prefetch import claim
from sb3_rlx2.kernels.signatures import Group


@inline
def portion(size, first, last):
    """The part of a parameter that lies in cache lines counted from its beginning."""
    start = min(max(first, 0) * LINE, size)
    return slice(start, max(start, min(last * LINE, size)))


@inline
def claim_all(values):
    """Fetch cache lines for writing."""
    for i in range(0, values.size, LINE):
        claim(values, i)


def adam(parameters: tuple[AdamArrays, ...], threads: int, first: int, last: int) -> None:
    """
    Step as ``torch.optim.Adam`` does without weight decay and amsgrad. The first thread's gradient becomes the sum of all.

    :param parameters: each parameter
    :param threads: number of threads whose gradients are added up
    :param first: first cache line, counted through all parameters (``parameters.lines``)
    :param last: the one behind the last
    """
    k = 0
    while last > 0:
        each = parameters[k]
        own = portion(each.values.size, first, last)
        values, mean, square, numbers = each.values[own], each.mean[own], each.square[own], each.numbers
        claim_all(values)
        gradient = array_at(each.gradients[0], each.values)[own]
        for thread in range(1, threads):
            other = array_at(each.gradients[thread], each.values)[own]
            for i in range(gradient.size):
                gradient[i] += other[i]
        count = np.float64(each.step[0])
        size = np.float32(numbers[0] / (1 - numbers[1] ** count))
        correction = np.float32(math.sqrt(1 - numbers[2] ** count))
        weight, floor = np.float32(1 - numbers[1]), np.float32(numbers[3])
        keep, new = np.float32(numbers[2]), np.float32(1 - numbers[2])
        for i in range(values.size):
            g = gradient[i]
            m = mean[i] + weight * (g - mean[i])
            s = square[i] * keep + new * g * g
            mean[i], square[i] = m, s
            values[i] -= size * m / (np.sqrt(s) / correction + floor)
        behind = (each.values.size + LINE - 1) // LINE
        k, first, last = k + 1, first - behind, last - behind


def polyak(parameters: tuple[PolyakArrays, ...], job: int, first: int, last: int) -> None:
    """
    Move targets towards their parameters as SB3's ``polyak_update`` does.

    :param parameters: each parameter and its target
    :param job: anything
    :param first: first cache line, counted through all parameters
    :param last: the one behind the last
    """
    k = 0
    while last > 0:
        each = parameters[k]
        own, tau = portion(each.values.size, first, last), each.tau[0]
        values, target = each.values[own], each.target[own]
        claim_all(target)
        keep, new = np.float32(1 - tau), np.float32(tau)
        for i in range(values.size):
            target[i] = target[i] * keep + new * values[i]
        behind = (each.values.size + LINE - 1) // LINE
        k, first, last = k + 1, first - behind, last - behind


# Apart, because each is compiled when it is first needed, and not all algorithms move their targets here.
ADAM = Group("adam", jobs=(adam,))
POLYAK = Group("polyak", jobs=(polyak,))
