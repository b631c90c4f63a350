"""Parameters as the kernels that update them read them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sb3_rlx2.kernels.annotations import Integers, Numbers, Vector
from sb3_rlx2.kernels.constants import LINE_BYTES

LINE = LINE_BYTES // 4  # float32 in a cache line


class AdamArrays(NamedTuple):
    """
    A parameter and what Adam keeps of it.

    :param values: the parameter, ``[n]``
    :param mean: first moment, ``exp_avg``, ``[n]``
    :param square: second moment, ``exp_avg_sq``, ``[n]``
    :param step: number of steps, this one counted, ``[1]``
    :param gradients: address of each thread's gradient, ``[threads]``
    :param numbers: learning rate, decay of the first and of the second moment, term that keeps the denominator from 0, ``[4]``
    """

    values: Vector
    mean: Vector
    square: Vector
    step: Vector
    gradients: Integers
    numbers: Numbers


class PolyakArrays(NamedTuple):
    """
    A parameter and its target.

    :param values: the parameter, ``[n]``
    :param target: the target, ``[n]``
    :param tau: share of the parameter, ``[1]``
    """

    values: Vector
    target: Vector
    tau: Numbers


def lines(values: Sequence[np.ndarray]) -> int:
    """
    Give the number of cache lines that kernels count parameters in; each begins with one of its own.

    :param values: the parameters
    """
    return sum(-(-each.size // LINE) for each in values)
