"""
Register tiles for numba: a run of consecutive samples as one LLVM vector, so that sums over links stay in registers.

LLVM splits a tile into the vector registers that the CPU has (4 zmm, 8 ymm, 16 xmm or NEON). An incomplete tile at the
end of a batch carries a mask of its first lanes; a full one carries None, which costs nothing. A plain numba loop would
load and store the running sum for every few links.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

# 256 bytes (64 float32): wide enough to hide the latency of the multiply-add, narrow enough that
# half of a 256-feature tile of the input stays in a 32 KiB L1 cache.
TILE_BYTES = 256


class Vector(types.Type):
    """The type of an LLVM vector: `lanes` numbers of type `dtype`."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(f"Vector({dtype}, {lanes})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """How LLVM holds a :class:`Vector`."""

    def __init__(self, manager, vector):
        element = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _tile(dtype):
    return Vector(dtype, TILE_BYTES * 8 // dtype.bitwidth)


INT32 = ir.IntType(32)


def _constants(numbers):
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(INT32, len(numbers)), numbers)


def _splat(builder, scalar, lanes):
    vector = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    vector = builder.insert_element(vector, scalar, INT32(0))
    return builder.shuffle_vector(vector, vector, _constants([0] * lanes))


def _slice(builder, vector, start, stop):
    return builder.shuffle_vector(vector, vector, _constants(range(start, stop)))


def _llvm(builder, name, result, *arguments, fastmath=()):
    """Call the LLVM intrinsic `name`."""
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function, name)
    return builder.call(function, arguments, fastmath=fastmath)


def _suffix(vector):
    return f"v{vector.count}{vector.element.intrinsic_name}"


def _multiply_add(builder, a, b, c):
    # "fmuladd" fuses only where the CPU can; "fma" would call libm elsewhere.
    return _llvm(builder, f"llvm.fmuladd.{_suffix(c.type)}", c.type, a, b, c)


def _address(context, builder, array_type, array, offset, vector):
    """Pointer to the vector that starts `offset` elements into the array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _load(builder, pointer, vector, itemsize, mask):
    if mask is None:
        return builder.load(pointer, align=itemsize, typ=vector)
    name = f"llvm.masked.load.{_suffix(vector)}.p0"
    zeros = ir.Constant(vector, None)
    return _llvm(builder, name, vector, pointer, INT32(itemsize), mask, zeros)


def _store(builder, value, pointer, itemsize, mask):
    if mask is None:
        builder.store(value, pointer, align=itemsize)
    else:
        name = f"llvm.masked.store.{_suffix(value.type)}.p0"
        _llvm(builder, name, ir.VoidType(), value, pointer, INT32(itemsize), mask)


def _mask(mask_type, mask):
    """A full tile has no mask (`None` in the kernel), which costs nothing."""
    return None if isinstance(mask_type, types.NoneType) else mask


def _first_lanes(builder, count, lanes):
    count = _splat(builder, builder.trunc(count, INT32), lanes)
    return builder.icmp_signed("<", _constants(range(lanes)), count)


@intrinsic
def first_lanes(typing, count, array):
    """The mask of the first `count` lanes of a tile of the array's type."""
    tile = _tile(array.dtype)

    def generate(context, builder, signature, arguments):
        return _first_lanes(builder, arguments[0], tile.lanes)

    return Vector(types.boolean, tile.lanes)(types.intp, array), generate


@intrinsic
def load(typing, array, offset, mask):
    """The tile at a flat offset into the array; masked lanes are 0."""
    tile = _tile(array.dtype)

    def generate(context, builder, signature, arguments):
        vector = context.get_value_type(tile)
        pointer = _address(context, builder, array, arguments[0], arguments[1], vector)
        itemsize = array.dtype.bitwidth // 8
        return _load(builder, pointer, vector, itemsize, _mask(mask, arguments[2]))

    return tile(array, types.intp, mask), generate


@intrinsic
def store(typing, array, offset, tile, mask):
    """Write a tile at a flat offset into the array, except its masked lanes."""

    def generate(context, builder, signature, arguments):
        value = arguments[2]
        pointer = _address(context, builder, array, arguments[0], arguments[1], value.type)
        itemsize = array.dtype.bitwidth // 8
        _store(builder, value, pointer, itemsize, _mask(mask, arguments[3]))
        return context.get_dummy_value()

    return types.void(array, types.intp, tile, mask), generate


@intrinsic
def zeros(typing, array):
    """A tile of zeros of the array's type."""
    tile = _tile(array.dtype)

    def generate(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(tile), None)

    return tile(array), generate


@intrinsic
def splat(typing, scalar):
    """A tile of equal numbers."""
    tile = _tile(scalar)

    def generate(context, builder, signature, arguments):
        return _splat(builder, arguments[0], tile.lanes)

    return tile(scalar), generate


@intrinsic
def multiply_add(typing, scalar, tile, accumulator):
    """scalar * tile + accumulator"""

    def generate(context, builder, signature, arguments):
        scalar = _splat(builder, arguments[0], tile.lanes)
        return _multiply_add(builder, scalar, *arguments[1:])

    return tile(tile.dtype, tile, tile), generate


@intrinsic
def zero_where_nonpositive(typing, tile, condition):
    """0 where the condition is <= 0, else the tile: ReLU and its gradient.

    A NaN in the condition is not <= 0 and lets the tile pass, as in PyTorch.
    """

    def generate(context, builder, signature, arguments):
        value, condition = arguments
        zeros = ir.Constant(value.type, None)
        nonpositive = builder.fcmp_ordered("<=", condition, zeros)
        return builder.select(nonpositive, zeros, value)

    return tile(tile, tile), generate


@intrinsic
def lane_sum(typing, tile):
    """The sum over all lanes."""

    def generate(context, builder, signature, arguments):
        vector = arguments[0].type
        zero = vector.element(-0.0)
        name = f"llvm.vector.reduce.fadd.{_suffix(vector)}"
        # Without "reassoc" it would add the lanes one after another.
        return _llvm(builder, name, zero.type, zero, *arguments, fastmath=("reassoc",))

    return tile.dtype(tile), generate


@intrinsic
def dot(typing, a, b):
    """The product of two tiles summed to a quarter of their lanes.

    The quarter is one register on AVX-512, and a chain of multiply-adds into it
    needs no additions; `add_sums` sums its lanes.
    """
    quarter = Vector(a.dtype, a.lanes // 4)

    def generate(context, builder, signature, arguments):
        total = ir.Constant(context.get_value_type(quarter), None)
        for start in range(0, a.lanes, quarter.lanes):
            x, y = (_slice(builder, value, start, start + quarter.lanes) for value in arguments)
            total = _multiply_add(builder, x, y, total)
        return total

    return quarter(a, b), generate


def _pair_sums(builder, a, b):
    """Sums of neighbouring lanes of a and b: two of a, two of b, two of a, ...

    This order of four needs one cheap shuffle per operand on x86 (shufps).
    """
    lanes = a.type.count
    even = []
    for start in range(0, lanes, 4):
        even += [start, start + 2, lanes + start, lanes + start + 2]
    odd = [lane + 1 for lane in even]
    return builder.fadd(
        builder.shuffle_vector(a, b, _constants(even)),
        builder.shuffle_vector(a, b, _constants(odd)),
    )


@intrinsic
def add_sums(typing, array, offset, count, a, b, c, d):
    """Add the lane sums of a, b, c, d to array[offset:offset + count].

    A count of `None` means all four.  Summing four vectors side by side takes a
    third of the shuffles of four separate sums.
    """

    def generate(context, builder, signature, arguments):
        array_, offset_, count_, *vectors = arguments
        sums = _pair_sums(
            builder,
            _pair_sums(builder, *vectors[:2]),
            _pair_sums(builder, *vectors[2:]),
        )
        while sums.type.count > 4:
            half = sums.type.count // 2
            low = _slice(builder, sums, 0, half)
            sums = builder.fadd(low, _slice(builder, sums, half, 2 * half))
        pointer = _address(context, builder, array, array_, offset_, sums.type)
        mask = _mask(count, count_)
        if mask is not None:
            mask = _first_lanes(builder, count_, 4)
        itemsize = array.dtype.bitwidth // 8
        old = _load(builder, pointer, sums.type, itemsize, mask)
        _store(builder, builder.fadd(old, sums), pointer, itemsize, mask)
        return context.get_dummy_value()

    return types.void(array, types.intp, count, a, b, c, d), generate


@intrinsic
def at(typing, array, index):
    """array[index] without Python's negative indices."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return array.dtype(array, types.intp), generate
