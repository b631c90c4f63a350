"""Pointers for numba: to structs of arrays (``structs.py``), to plain arrays, and to compiled kernels."""

import operator

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin, lower_getattr_generic
from numba.core.pythonapi import NativeValue
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import intrinsic, models, register_model, unbox

BYTES, INT32 = ir.IntType(8).as_pointer(), ir.IntType(32)


class Pointer(types.Type):
    """The type of a pointer to a tuple. Fields and items are read as they are asked for; tuples in it are pointers, too."""

    def __init__(self, target):
        self.target = target
        super().__init__(f"Pointer({target})")


@register_model(Pointer)
class PointerModel(models.PrimitiveModel):
    """How LLVM holds a :class:`Pointer`."""

    def __init__(self, manager, pointer):
        super().__init__(manager, pointer, BYTES)


@unbox(Pointer)
def _address(pointer, number, context):
    """A kernel that Python calls gets the address."""
    address = context.pyapi.number_as_ssize_t(number)
    return NativeValue(context.builder.inttoptr(address, BYTES), is_error=context.pyapi.c_api_error())


def _member_type(member):
    return Pointer(member) if isinstance(member, types.BaseTuple) else member


def _member(context, builder, pointer, value, index, member):
    struct = context.get_data_type(pointer.target).as_pointer()
    place = builder.gep(builder.bitcast(value, struct), [INT32(0), index])
    if isinstance(member, types.BaseTuple):
        return builder.bitcast(place, BYTES)
    return context.data_model_manager[member].load_from_data_pointer(builder, place)


@infer_getattr
class PointerField(AttributeTemplate):
    """Types of fields."""

    key = Pointer

    def generic_resolve(self, pointer, field):
        """Give the type of a field."""
        if isinstance(pointer.target, types.BaseNamedTuple) and field in pointer.target.fields:
            return _member_type(pointer.target.types[pointer.target.fields.index(field)])
        return None


@lower_getattr_generic(Pointer)
def _field(context, builder, pointer, value, field):
    index = pointer.target.fields.index(field)
    return _member(context, builder, pointer, value, INT32(index), pointer.target.types[index])


@infer_global(operator.getitem)
class PointerItem(AbstractTemplate):
    """Types of items."""

    def generic(self, arguments, keywords):
        """Give the types of an access."""
        pointer, index = arguments
        if isinstance(pointer, Pointer) and isinstance(pointer.target, types.UniTuple) and isinstance(index, types.Integer):
            return signature(_member_type(pointer.target.dtype), pointer, types.intp)
        return None


@lower_builtin(operator.getitem, Pointer, types.intp)
def _item(context, builder, access, arguments):
    pointer, (value, index) = access.args[0], arguments
    return _member(context, builder, pointer, value, index, pointer.target.dtype)


@intrinsic
def array_at(typing, address, like):
    """The array at an address, of the type and shape of another one."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(like)(context, builder, arguments[1])
        array.data = builder.inttoptr(arguments[0], array.data.type)
        array.meminfo, array.parent = (ir.Constant(owner.type, None) for owner in (array.meminfo, array.parent))
        return array._getvalue()

    return like(types.int64, like), generate


@intrinsic
def call(typing, function, arguments, job, first, last):
    """Call the compiled kernel at an address."""

    def generate(context, builder, signature, values):
        kernel = ir.FunctionType(ir.VoidType(), [BYTES, *(value.type for value in values[2:])])
        builder.call(builder.inttoptr(values[0], kernel.as_pointer()), [builder.inttoptr(values[1], BYTES), *values[2:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate
