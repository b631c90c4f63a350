"""Batches in tiles of samples, as the kernels read them, and memory for these."""

from typing import Any, ClassVar

import numpy as np
import torch as th

from sb3_rlx2.kernels.constants import TILE_BYTES

FLOAT = np.dtype(np.float32)


def lanes(dtype: Any) -> int:
    """
    Give the number of samples in a tile.

    :param dtype: type of the numbers
    """
    return int(TILE_BYTES // dtype.itemsize)


def tiles(batch: int, dtype: Any) -> int:
    """
    Give the number of tiles that a batch takes.

    :param batch: number of samples
    :param dtype: type of the numbers
    """
    return -(-batch // lanes(dtype))


def tiled(count: int, features: int, dtype: Any) -> np.ndarray:
    """
    Allocate an array of tiles, aligned as the CPU likes it (torch aligns to 64 bytes, numpy does not).

    :param count: number of tiles
    :param features: number of features
    :param dtype: type of the numbers
    :return: zeros, ``[count, features, lanes]``
    """
    like = th.from_numpy(np.empty(0, dtype))
    zeros: np.ndarray = th.zeros(count, features, lanes(np.dtype(dtype)), dtype=like.dtype).numpy()
    return zeros


class Workspace:
    """
    A borrowed array of tiles: fresh memory costs page faults. It goes back when the last reference to it goes, so a pass
    that may still go backward keeps its own, however many others have run since. All threads borrow from one pool, by single
    calls of dict and list, which CPython does one at a time; a forked process goes on with a copy of it.

    :param count: number of tiles
    :param features: number of features
    :param dtype: type of the numbers
    """

    _free: ClassVar[dict[tuple[int, int, Any], list[np.ndarray]]] = {}

    def __init__(self, count: int, features: int, dtype: Any) -> None:
        key = (count, features, dtype)
        self._home = self._free.setdefault(key, [])
        try:
            self.array = self._home.pop()
        except IndexError:
            self.array = tiled(count, features, dtype)

    def __del__(self) -> None:
        if len(self._home) < 8:
            self._home.append(self.array)


def array(tensor: th.Tensor) -> np.ndarray:
    """View a tensor as an array; it shares the memory."""
    return tensor.detach().numpy()
