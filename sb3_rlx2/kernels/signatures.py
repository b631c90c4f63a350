"""Groups of kernels, which kernel files declare, and numba's signatures, which are derived from annotations."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
from numba import from_dtype, types

from sb3_rlx2.kernels.options import OPTIONS
from sb3_rlx2.kernels.pointers import Pointer

SCALARS = {int: types.int64, float: types.float64, bool: types.boolean, NoneType: types.void}


@dataclass(frozen=True)
class Group:
    """
    Kernels that are compiled together and share a folder of the disk cache, whose arguments are annotated in the words of
    ``annotations.py``. A struct comes as a pointer to it.
    :func:`sb3_rlx2.kernels.load` finds the group where it is declared.

    :param name: name of the folder
    :param functions: kernels that Python calls
    :param jobs: kernels ``(struct, job, first, last)`` that a team calls by address
    :param options: how numba compiles them
    """

    name: str
    functions: tuple[Callable[..., Any], ...] = ()
    jobs: tuple[Callable[..., Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=OPTIONS.copy)

    def files(self) -> set[Path]:
        """Give the files that the kernels stand in."""
        return {Path(plain(kernel).__code__.co_filename) for kernel in (*self.functions, *self.jobs)}


def plain(kernel: Any) -> Any:
    """
    Give a kernel as the Python function that it was before numba's decorator, if it has one.

    :param kernel: the kernel
    """
    return getattr(kernel, "py_func", kernel)


def signature(kernel: Any, dtype: str, length: int = 0) -> Any:
    """
    Derive a kernel's signature from its annotations.

    :param kernel: the kernel
    :param dtype: name of the dtype of arrays that are annotated with none
    :param length: length of tuples that are annotated with none
    :return: numba's signature
    :raises ValueError: if an annotation is missing or unknown, or a struct's tuples have no length
    """
    hints = get_type_hints(plain(kernel), include_extras=True)
    names = [*inspect.signature(plain(kernel)).parameters, "return"]
    missing = [name for name in names if name not in hints]
    if missing:
        raise ValueError(f"kernel={plain(kernel).__name__} must have annotations of {missing}, see kernels/annotations.py")
    *arguments, returned = (numba_type(hints[name], dtype, length) for name in names)
    return returned(*(Pointer(each) if isinstance(each, types.BaseTuple) else each for each in arguments))


def numba_type(annotation: Any, dtype: str, length: int = 0) -> Any:
    """
    Give numba's type for what is annotated; see :func:`signature`.

    :param annotation: one of those that ``annotations.py`` names
    :param dtype: name of the dtype of arrays that are annotated with none
    :param length: length of tuples that are annotated with none. Items of a tuple that is a whole struct are found whatever it
        says; of one inside a struct it decides where the next field lies.
    :return: numba's type
    :raises ValueError: if there is none, or a struct's tuples have no length
    """
    if annotation in SCALARS:
        return SCALARS[annotation]
    if get_origin(annotation) is Annotated:
        (array,) = annotation.__metadata__
        return types.Array(from_dtype(np.dtype(array.dtype or dtype)), array.dimensions, "C")
    if get_origin(annotation) is tuple:
        items = [numba_type(item, dtype, length) for item in get_args(annotation) if item is not Ellipsis]
        return types.UniTuple(*items, length) if Ellipsis in get_args(annotation) else types.BaseTuple.from_types(items)
    if hasattr(annotation, "_fields"):
        hints = get_type_hints(annotation, include_extras=True)
        fields = [numba_type(hints[name], dtype, length) for name in annotation._fields]
        if any(isinstance(each, types.UniTuple) and each.count == 0 for each in fields):
            raise ValueError(f"length={length} must be positive: {annotation.__name__} has tuples of that length")
        return types.NamedTuple(fields, annotation)
    raise ValueError(f"annotation={annotation} must be one of those that kernels/annotations.py names")
