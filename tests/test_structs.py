"""A struct in memory is what numba reads there."""

import ctypes
from typing import NamedTuple

import numpy as np
import pytest
from numba import cfunc, float32, int64, types
from numba.core.errors import TypingError

from sb3_rlx2.backends.pointers import ANY_NUMBER, Pointer, array_at
from sb3_rlx2.backends.structs import Struct


class Inner(NamedTuple):
    vector: np.ndarray
    number: int


class Outer(NamedTuple):
    inner: Inner
    several: tuple[Inner, ...]
    matrix: np.ndarray
    arrays: tuple[np.ndarray, ...]
    out: np.ndarray


INNER = types.NamedTuple((float32[::1], int64), Inner)
OUTER = types.NamedTuple(
    (INNER, types.UniTuple(INNER, 3), float32[:, :, ::1], types.UniTuple(float32[::1], 2), types.float64[::1]), Outer
)


def run(function, target, struct):
    compiled = cfunc(types.void(Pointer(target)))(function)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(compiled.address)(struct.address)


def vector(*numbers):
    return np.array(numbers, np.float32)


def outer():
    several = tuple(Inner(vector(*range(k, k + 4)), 10 * k) for k in range(3))
    matrix = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return Outer(Inner(vector(5, 6), 7), several, matrix, (vector(1), vector(2, 3)), np.zeros(10))


def test_fields_and_items():
    def read(struct):
        out = struct.out
        out[0] = struct.inner.number
        out[1] = struct.inner.vector.sum()
        for k in range(3):
            inner = struct.several[k]
            out[2 + k] = inner.number + inner.vector[3] + inner.vector.size
        out[5] = struct.several[1].vector[1:].sum()
        out[6] = struct.matrix[1, 2, 3] + struct.matrix.shape[1]
        out[7] = struct.matrix[1].sum()
        out[8] = struct.arrays[1][1] + struct.arrays[0].size

    struct = Struct(outer())
    run(read, OUTER, struct)
    matrix = struct.arrays.matrix
    assert struct.arrays.out.tolist() == [7, 11, 7, 18, 29, 9, 26, matrix[1].sum(), 4, 0]


def test_arrays_are_shared_not_copied():
    def write(struct):
        struct.several[2].vector[0] = 100
        struct.matrix[0, 1] = -1

    struct = Struct(outer())
    run(write, OUTER, struct)
    assert struct.arrays.several[2].vector.tolist() == [100, 3, 4, 5]
    assert (struct.arrays.matrix[0, 1] == -1).all()
    assert struct.arrays.matrix.sum() == np.arange(24).sum() - (4 + 5 + 6 + 7) - 4


def test_any_number_of_items():
    def double(several):
        k = 0
        while several[k].number >= 0:
            several[k].vector[:] *= 2
            k += 1

    struct = Struct((Inner(vector(1, 2), 1), Inner(vector(3), 0), Inner(vector(4), -1)))
    run(double, types.UniTuple(INNER, ANY_NUMBER), struct)
    assert [inner.vector.tolist() for inner in struct.arrays] == [[2, 4], [6], [4]]


def test_array_at_an_address():
    def fill(several):
        other = array_at(several[0].number, several[0].vector)
        for i in range(other.size):
            other[i] = several[0].vector[i] + 1

    target = vector(0, 0, 9)
    run(fill, types.UniTuple(INNER, ANY_NUMBER), Struct((Inner(vector(1, 2), target.ctypes.data),)))
    assert target.tolist() == [2, 3, 9]


def test_an_unknown_field():
    with pytest.raises(TypingError, match="Unknown attribute 'missing'"):
        cfunc(types.void(Pointer(OUTER)))(lambda struct: struct.missing)
