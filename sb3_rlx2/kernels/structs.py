"""
Structs of arrays that a kernel gets as one pointer: ``NamedTuple``s, laid out in memory as numba reads them.

A kernel that gets a ``NamedTuple`` itself takes its dozens of arrays apart and checks them at each call, and LLVM carries all
of them through the whole function: that costs time in each step, and more while compiling.
"""

from typing import Any

import numpy as np


class Struct:
    """
    What a kernel works on.

    :param arrays: ``NamedTuple`` (or tuple) of arrays, integers and such tuples; lives as long as the struct
    """

    def __init__(self, arrays: Any) -> None:
        self.arrays = arrays
        self._words = np.array(list(_words(arrays)), np.int64)
        self.address: int = self._words.ctypes.data


def _words(value: Any) -> list[int]:
    if isinstance(value, tuple):
        return [word for each in value for word in _words(each)]
    if isinstance(value, np.ndarray):
        no_owner = (0, 0)  # for which numba would count references
        return [*no_owner, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    return [int(value)]
