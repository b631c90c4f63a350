"""Element-wise updates of packed parameters, as loops for numba; each is several passes over memory in torch."""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 16  # float32 in a cache line


@intrinsic
def claim(typing, array, index):
    """
    Fetch a cache line for writing, without waiting. Where another core has read it, the store itself would wait: for networks
    that two threads have read, Adam takes ten times as long without this.
    """

    def generate(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        place = builder.bitcast(builder.gep(data, [arguments[1]]), pointer)
        builder.call(function, [place, number(1), number(3), number(1)])  # to write, to keep, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def adam(values, mean, square, step, gradient, lr, beta1, beta2, epsilon):
    """
    Step as ``torch.optim.Adam`` does without weight decay and amsgrad.

    :param values: parameter, moved, ``[n]``
    :param mean: first moment, ``exp_avg``, moved, ``[n]``
    :param square: second moment, ``exp_avg_sq``, moved, ``[n]``
    :param step: number of steps, counted up, ``[1]``
    :param gradient: gradient by the parameter, ``[n]``
    :param lr: learning rate
    :param beta1: decay of the first moment
    :param beta2: decay of the second moment
    :param epsilon: term that keeps the denominator from 0
    """
    step[0] += 1
    count = np.float64(step[0])
    size = np.float32(lr / (1 - beta1**count))
    correction = np.float32(math.sqrt(1 - beta2**count))
    keep, new = np.float32(beta2), np.float32(1 - beta2)
    weight, floor = np.float32(1 - beta1), np.float32(epsilon)
    for start in range(0, values.size, LINE):
        claim(values, start)
    for i in range(values.size):
        g = gradient[i]
        m = mean[i] + weight * (g - mean[i])
        s = square[i] * keep + new * g * g
        mean[i], square[i] = m, s
        values[i] -= size * m / (np.sqrt(s) / correction + floor)


def polyak(values, target, tau):
    """
    Move a target towards its parameter as SB3's ``polyak_update`` does.

    :param values: parameter, ``[n]``
    :param target: target parameter, moved, ``[n]``
    :param tau: share of the parameter
    """
    keep, new = np.float32(1 - tau), np.float32(tau)
    for start in range(0, values.size, LINE):
        claim(target, start)
    for i in range(values.size):
        target[i] = target[i] * keep + new * values[i]


def total(values):
    """Sum all entries, in float32: an overflow says that a closer look is due."""
    total = np.float32(0)
    for i in range(values.size):
        total += values[i]
    return total
