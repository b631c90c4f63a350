"""Fetching cache lines before they are needed, without waiting, for numba."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sb3_rlx2.kernels.constants import LINE_BYTES
from sb3_rlx2.kernels.options import inline
from sb3_rlx2.kernels.pointers import BYTES, INT32


def _prefetch(context, builder, write, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    function = ir.FunctionType(ir.VoidType(), [BYTES, INT32, INT32, INT32])
    function = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
    place = builder.bitcast(builder.gep(data, [index]), BYTES)
    builder.call(function, [place, INT32(write), INT32(3), INT32(1)])  # to be kept, data
    return context.get_dummy_value()


@intrinsic
def prefetch(typing, array, index):
    """Fetch the line of the entry at a flat index."""

    def generate(context, builder, signature, arguments):
        return _prefetch(context, builder, 0, array, *arguments)

    return types.void(array, types.intp), generate


@intrinsic
def claim(typing, array, index):
    """Fetch a line for writing. Where another core has read it, the store itself would wait until it is gone there."""

    def generate(context, builder, signature, arguments):
        return _prefetch(context, builder, 1, array, *arguments)

    return types.void(array, types.intp), generate


@inline
def prefetch_row(matrix, row):
    """Fetch a row of a matrix."""
    start, step = row * matrix.shape[1], LINE_BYTES // matrix.itemsize
    for i in range(0, matrix.shape[1], step):
        prefetch(matrix, start + i)
    prefetch(matrix, start + matrix.shape[1] - 1)  # a row need not begin with a line
