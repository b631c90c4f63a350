"""
The words that kernels' types are written in: annotations of structs' fields, and of the arguments of kernels that are entries.

``signatures.py`` reads them; to Python and mypy they are arrays. Beside them there are ``int``, ``float``, ``bool``, a
``NamedTuple`` whose fields are annotated so, and tuples: ``tuple[Draw, Draw]`` has its length, ``tuple[Network, ...]`` has the
one that the group is compiled for. All arrays are contiguous in C's order.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np


@dataclass(frozen=True)
class ArrayType:
    """
    What kernels know of an array.

    :param dimensions: number of dimensions
    :param dtype: name of its dtype; None is the dtype that the group is compiled for
    """

    dimensions: int
    dtype: str | None = None


Vector = Annotated[np.ndarray, ArrayType(1)]
Matrix = Annotated[np.ndarray, ArrayType(2)]
Tiles = Annotated[np.ndarray, ArrayType(3)]  # [tiles, features, lanes]

Vector32 = Annotated[np.ndarray, ArrayType(1, "float32")]
Matrix32 = Annotated[np.ndarray, ArrayType(2, "float32")]
Tiles32 = Annotated[np.ndarray, ArrayType(3, "float32")]

Index = Annotated[np.ndarray, ArrayType(1, "int32")]
Integers = Annotated[np.ndarray, ArrayType(1, "int64")]
Numbers = Annotated[np.ndarray, ArrayType(1, "float64")]
