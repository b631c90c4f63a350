"""
Register tiles for numba: a run of consecutive samples as one LLVM vector, so that sums over links stay in registers.

LLVM splits a tile into the vector registers that the CPU has (4 zmm, 8 ymm, 16 xmm or NEON). A batch is padded to whole
tiles. A plain numba loop would load and store the running sum for every few links.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from sb3_rlx2.kernels.constants import TILE_BYTES


class Register(types.Type):
    """The type of an LLVM vector, which lies in registers: `lanes` numbers of type `dtype`."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(f"Register({dtype}, {lanes})")


@register_model(Register)
class RegisterModel(models.PrimitiveModel):
    """How LLVM holds a :class:`Register`."""

    def __init__(self, manager, register):
        element = manager.lookup(register.dtype).get_value_type()
        super().__init__(manager, register, ir.VectorType(element, register.lanes))


def _tile(dtype, parts=1):
    return Register(dtype, TILE_BYTES * 8 // dtype.bitwidth // parts)


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


def _load(array, register):
    def generate(context, builder, signature, arguments):
        vector = context.get_value_type(register)
        pointer = _address(context, builder, array, arguments[0], arguments[1], vector)
        return builder.load(pointer, align=array.dtype.bitwidth // 8, typ=vector)

    return register(array, types.intp), generate


@intrinsic
def load(typing, array, offset):
    """The tile at a flat offset into the array."""
    return _load(array, _tile(array.dtype))


@intrinsic
def load_half(typing, array, offset):
    """The first half of the tile at a flat offset into the array."""
    return _load(array, _tile(array.dtype, 2))


@intrinsic
def load_quarter(typing, array, offset):
    """A quarter of a tile, which is one register on AVX-512, at a flat offset into the array."""
    return _load(array, _tile(array.dtype, 4))


@intrinsic
def zeros_like(typing, tile):
    """Zeros, as many as there are lanes."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(tile), None)

    return tile(tile), generate


@intrinsic
def subtract(typing, a, b):
    """a - b"""

    def generate(context, builder, signature, arguments):
        return builder.fsub(*arguments)

    return a(a, b), generate


@intrinsic
def add(typing, a, b):
    """a + b"""

    def generate(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return a(a, b), generate


@intrinsic
def multiply(typing, a, b):
    """a * b"""

    def generate(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return a(a, b), generate


@intrinsic
def within_one(typing, tile):
    """The tile within [-1, 1]; lets NaN through."""

    def generate(context, builder, signature, arguments):
        (value,) = arguments
        for limit, beyond in ((1.0, ">"), (-1.0, "<")):
            limits = ir.Constant(value.type, [limit] * tile.lanes)
            value = builder.select(builder.fcmp_ordered(beyond, value, limits), limits, value)
        return value

    return tile(tile), generate


@intrinsic
def by_sign(typing, condition, negative, other):
    """One number where the condition is < 0, else the other."""

    def generate(context, builder, signature, arguments):
        zeros = ir.Constant(arguments[0].type, None)
        numbers = (_splat(builder, number, condition.lanes) for number in arguments[1:])
        return builder.select(builder.fcmp_ordered("<", arguments[0], zeros), *numbers)

    return condition(condition, condition.dtype, condition.dtype), generate


def _exceeds(builder, a, b):
    """Where a > b in torch's order, in which NaN is above all others."""
    return builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a))


@intrinsic
def lesser(typing, a, b):
    """The lesser ones, in torch's order: of two NaN, and of a number and NaN, what is left by :func:`greater`."""

    def generate(context, builder, signature, arguments):
        return builder.select(_exceeds(builder, *arguments), *reversed(arguments))

    return a(a, b), generate


@intrinsic
def greater(typing, a, b):
    """The greater ones, in torch's order."""

    def generate(context, builder, signature, arguments):
        return builder.select(_exceeds(builder, *arguments), *arguments)

    return a(a, b), generate


@intrinsic
def store(typing, array, offset, tile):
    """Write a tile at a flat offset into the array."""

    def generate(context, builder, signature, arguments):
        pointer = _address(context, builder, array, arguments[0], arguments[1], arguments[2].type)
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, tile), generate


@intrinsic
def zeros(typing, array):
    """A tile of zeros of the array's type."""
    tile = _tile(array.dtype)

    def generate(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(tile), None)

    return tile(array), generate


def _equal(register):
    def generate(context, builder, signature, arguments):
        return _splat(builder, arguments[0], register.lanes)

    return register(register.dtype), generate


@intrinsic
def splat(typing, scalar):
    """A tile of equal numbers."""
    return _equal(_tile(scalar))


@intrinsic
def splat_half(typing, scalar):
    """Half a tile of equal numbers."""
    return _equal(_tile(scalar, 2))


@intrinsic
def multiply_add(typing, factor, tile, accumulator):
    """factor * tile + accumulator; the factor is a number or a tile."""
    whole = isinstance(factor, Register)

    def generate(context, builder, signature, arguments):
        factors = arguments[0] if whole else _splat(builder, arguments[0], tile.lanes)
        return _multiply_add(builder, factors, *arguments[1:])

    return tile(tile if whole else tile.dtype, tile, tile), generate


@intrinsic
def minus(typing, tile, scalar):
    """tile - scalar"""

    def generate(context, builder, signature, arguments):
        return builder.fsub(arguments[0], _splat(builder, arguments[1], tile.lanes))

    return tile(tile, tile.dtype), generate


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
def first_lanes(typing, tile, count):
    """The tile with 0 behind its first lanes."""

    def generate(context, builder, signature, arguments):
        value, count = arguments
        inside = builder.icmp_signed(
            "<", _constants(range(tile.lanes)), _splat(builder, builder.trunc(count, INT32), tile.lanes)
        )
        return builder.select(inside, value, ir.Constant(value.type, None))

    return tile(tile, types.intp), generate


@intrinsic
def dot(typing, a, b):
    """The product of two tiles summed to a quarter of their lanes.

    The quarter is one register on AVX-512, and a chain of multiply-adds into it
    needs no additions; `add_sums` sums its lanes.
    """
    quarter = Register(a.dtype, a.lanes // 4)

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
        itemsize = array.dtype.bitwidth // 8
        pointer = _address(context, builder, array, array_, offset_, sums.type)
        if isinstance(count, types.NoneType):
            old = builder.load(pointer, align=itemsize, typ=sums.type)
            builder.store(builder.fadd(old, sums), pointer, align=itemsize)
        else:
            first = builder.icmp_signed("<", _constants(range(4)), _splat(builder, builder.trunc(count_, INT32), 4))
            suffix, size = f"{_suffix(sums.type)}.p0", INT32(itemsize)
            zeros = ir.Constant(sums.type, None)
            old = _llvm(builder, f"llvm.masked.load.{suffix}", sums.type, pointer, size, first, zeros)
            new = builder.fadd(old, sums)
            _llvm(builder, f"llvm.masked.store.{suffix}", ir.VoidType(), new, pointer, size, first)
        return context.get_dummy_value()

    return types.void(array, types.intp, count, a, b, c, d), generate


@intrinsic
def at(typing, array, index):
    """array[index] without Python's negative indices."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return array.dtype(array, types.intp), generate


@intrinsic
def float_of_bits(typing, bits):
    """The float32 with these bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def bits_of_float(typing, value):
    """The bits of a float32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], INT32)

    return types.int32(types.float32), generate


@intrinsic
def truncated(typing, value):
    """A float32 that fits an int32, as such; numba's own conversion goes through int64, which does not vectorise well."""

    def generate(context, builder, signature, arguments):
        return builder.fptosi(arguments[0], INT32)

    return types.int32(types.float32), generate
