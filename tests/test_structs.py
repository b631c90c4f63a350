"""A struct in memory is what numba reads there."""

import ctypes
from typing import NamedTuple, get_type_hints

import numpy as np
import pytest
from numba import cfunc, float32, int64, types
from numba.core.errors import TypingError

from sb3_rlx2.kernels.annotations import Matrix, Numbers, Tiles, Vector
from sb3_rlx2.kernels.pointers import Pointer, array_at
from sb3_rlx2.kernels.signatures import numba_type, signature
from sb3_rlx2.kernels.structs import Struct


class Inner(NamedTuple):
    vector: Vector
    number: int


class Outer(NamedTuple):
    inner: Inner
    several: tuple[Inner, ...]
    matrix: Tiles
    arrays: tuple[Vector, Vector]
    out: Numbers


FIELDS = [*get_type_hints(Outer, include_extras=True).items()]


def run(function, annotation, struct):
    compiled = cfunc(types.void(Pointer(numba_type(annotation, "float32", length=3))))(function)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(compiled.address)(struct.address)


def vector(*numbers):
    return np.array(numbers, np.float32)


def outer():
    several = tuple(Inner(vector(*range(k, k + 4)), 10 * k) for k in range(3))
    matrix = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return Outer(Inner(vector(5, 6), 7), several, matrix, (vector(1), vector(2, 3)), np.zeros(10))


@pytest.mark.parametrize(
    "fields", [FIELDS, FIELDS[::-1], [("added", Matrix), *FIELDS], [*FIELDS[:2], ("added", int), *FIELDS[2:]]]
)
def test_fields_and_items(fields):
    """Wherever a field stands: the order is written down once."""

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

    reordered = NamedTuple("Reordered", fields)
    values = {"added": np.ones((2, 2), np.float32) if fields[0] == ("added", Matrix) else 5} | outer()._asdict()
    struct = Struct(reordered(**{name: values[name] for name, _ in fields}))
    run(read, reordered, struct)
    matrix = struct.arrays.matrix
    assert struct.arrays.out.tolist() == [7, 11, 7, 18, 29, 9, 26, matrix[1].sum(), 4, 0]


def test_arrays_are_shared_not_copied():
    def write(struct):
        struct.several[2].vector[0] = 100
        struct.matrix[0, 1] = -1

    struct = Struct(outer())
    run(write, Outer, struct)
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
    run(double, tuple[Inner, ...], struct)
    assert [inner.vector.tolist() for inner in struct.arrays] == [[2, 4], [6], [4]]


def test_array_at_an_address():
    def fill(several):
        other = array_at(several[0].number, several[0].vector)
        for i in range(other.size):
            other[i] = several[0].vector[i] + 1

    target = vector(0, 0, 9)
    run(fill, tuple[Inner, ...], Struct((Inner(vector(1, 2), target.ctypes.data),)))
    assert target.tolist() == [2, 3, 9]


def test_an_unknown_field():
    with pytest.raises(TypingError, match="Unknown attribute 'missing'"):
        run(lambda struct: struct.missing, Outer, None)


def test_a_signature_is_what_the_annotations_say():
    def kernel(inner: Inner, row: int, matrix: Matrix, share: float) -> bool: ...

    inner = Pointer(types.NamedTuple((float32[::1], int64), Inner))
    assert signature(kernel, "float32") == types.boolean(inner, int64, float32[:, ::1], types.float64)
    assert signature(kernel, "float64").args[2] == types.float64[:, ::1]


def test_what_is_not_annotated_is_refused():
    def kernel(inner: Inner, row) -> None: ...

    def other(array: np.ndarray) -> None: ...

    with pytest.raises(ValueError, match=r"^kernel=kernel must have annotations of \['row'\]"):
        signature(kernel, "float32")
    with pytest.raises(ValueError, match=r"^annotation=<class 'numpy.ndarray'> must be one of"):
        signature(other, "float32")
