"""
Elementary functions for numba that LLVM vectorises, where the mathematical library's are a call per number.

In float32 they are accurate to 3e-7 (``tests/test_elementary.py``); in float64 they are the library's. NaN goes through.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from sb3_rlx2.kernels.options import OPTIONS
from sb3_rlx2.kernels.tiles import bits_of_float, float_of_bits, truncated


def tanh(value):
    """math.tanh"""


def exp(value):
    """math.exp, for values in [-87, 88]"""


def log(value):
    """math.log, for normal positive numbers"""


@overload(tanh, jit_options=OPTIONS)
def _tanh(value):
    if value == types.float64:
        return lambda value: math.tanh(value)
    real = np.float32

    def rational(value):
        # Eigen's coefficients, accurate up to the limit. NaN fails all comparisons.
        limit = real(7.90531110763549805)
        inner = value
        if value > limit:
            inner = limit
        if value < -limit:
            inner = -limit
        square = inner * inner
        p = real(-2.76076847742355e-16)
        p = p * square + real(2.00018790482477e-13)
        p = p * square + real(-8.60467152213735e-11)
        p = p * square + real(5.12229709037114e-08)
        p = p * square + real(1.48572235717979e-05)
        p = p * square + real(6.37261928875436e-04)
        p = p * square + real(4.89352455891786e-03)
        q = real(1.19825839466702e-06)
        q = q * square + real(1.18534705686654e-04)
        q = q * square + real(2.26843463243900e-03)
        q = q * square + real(4.89352518554385e-03)
        result = inner * p / q
        # From here on float32 rounds to 1, whose gradient is exactly 0.
        if value > real(9.02):
            result = real(1)
        if value < real(-9.02):
            result = real(-1)
        return result

    return rational


@overload(exp, jit_options=OPTIONS)
def _exp(value):
    if value == types.float64:
        return lambda value: math.exp(value)
    real = np.float32

    def polynomial(value):
        # 2^n * e^r with |r| <= ln(2) / 2. Taylor's series to r^7 is good to 2e-8.
        inside = value if value > real(-87) else real(-87)  # NaN, too: n must be a number, r stays NaN
        inside = inside if inside < real(88) else real(88)
        shifted = truncated(inside * real(1.4426950408889634) + real(127.5))  # n + 127: rounded down, as it is positive
        # The difference in integers, because fast-math would multiply it out.
        r = value - real(np.int32(shifted - 127)) * real(0.6931471805599453)
        p = real(1 / 5040)
        p = p * r + real(1 / 720)
        p = p * r + real(1 / 120)
        p = p * r + real(1 / 24)
        p = p * r + real(1 / 6)
        p = p * r + real(0.5)
        p = p * r + real(1)
        p = p * r + real(1)
        return p * float_of_bits(np.int32(shifted << 23))

    return polynomial


@overload(log, jit_options=OPTIONS)
def _log(value):
    if value == types.float64:
        return lambda value: math.log(value)
    real = np.float32

    def series(value):
        # value = 2^n * m with m in [sqrt(1/2), sqrt(2)); log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| <= 0.172.
        bits = np.int32(bits_of_float(value) - np.int32(0x3F3504F3))
        n = np.int32(bits >> 23)
        m = float_of_bits(np.int32((bits & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3)))
        s = (m - real(1)) / (m + real(1))
        square = s * s
        p = real(2 / 9)
        p = p * square + real(2 / 7)
        p = p * square + real(2 / 5)
        p = p * square + real(2 / 3)
        result = real(n) * real(0.6931471805599453) + (p * square * s + real(2) * s)
        return result if value > 0 else value - value + real(np.nan)

    return series
