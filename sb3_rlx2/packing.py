"""Plain values and arrays as JSON and npy, and back: reading them runs no code."""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch as th

Arrays = dict[str, np.ndarray]

PLAIN = {type(None), bool, int, float, str}
LONG = 64  # numbers; a list of so many is kept as an array, which takes a tenth of the time and room of JSON


class NotPlainError(TypeError):
    """A value that JSON and npy cannot hold."""


class Kind(NamedTuple):
    """
    What JSON has no words for. It is written as an object with the kind's name, which begins with ``$``, as its only key.

    :param holds: tells whether a value is of this kind
    :param write: gives JSON, by what packs a value inside it
    :param read: gives the value back, by what unpacks one inside it
    """

    holds: Callable[[Any], bool]
    write: Callable[[Any, "Packer"], Any]
    read: Callable[[Any, "Unpacker"], Any]


class Packer(NamedTuple):
    """
    Gives values as JSON has them.

    :param arrays: receives the arrays, under names that the JSON holds
    :param kinds: what is packed beside what JSON knows, by name
    """

    arrays: Arrays
    kinds: Mapping[str, Kind]

    def __call__(self, value: Any) -> Any:
        """
        Give a value as JSON has it.

        :param value: any
        :raises NotPlainError: if it is none that can be packed
        """
        if type(value) in PLAIN:
            return value
        if type(value) is list:
            return self.list(value)
        if type(value) is dict and not any(type(key) is not str or key.startswith("$") for key in value):
            return {key: self(each) for key, each in value.items()}
        for name, kind in self.kinds.items():
            if kind.holds(value):
                return {name: kind.write(value, self)}
        raise NotPlainError(f"a {type(value).__name__} cannot be saved")

    def list(self, values: Any) -> Any:
        """
        Give the items of a list or the like.

        :param values: the items
        """
        values = list(values)
        kinds = {type(value) for value in values}
        if len(values) >= LONG and kinds == {float}:
            return {"$numbers": self.keep(np.array(values, np.float64))}
        if len(values) >= LONG and kinds == {int} and max(map(abs, values)) < 2**63:
            return {"$numbers": self.keep(np.array(values, np.int64))}
        return [self(value) for value in values]

    def keep(self, array: np.ndarray) -> str:
        """
        Put an array beside the JSON.

        :param array: the array
        :return: its name there
        :raises NotPlainError: if it holds Python objects
        """
        if array.dtype.hasobject:
            raise NotPlainError("an array of Python objects cannot be saved")
        name = f"a{len(self.arrays)}"
        self.arrays[name] = array
        return name


class Unpacker(NamedTuple):
    """
    Gives back what a :class:`Packer` was given.

    :param arrays: the arrays
    :param kinds: as the packer's
    """

    arrays: Arrays
    kinds: Mapping[str, Kind]

    def __call__(self, value: Any) -> Any:
        """
        Give a value back.

        :param value: JSON
        """
        if isinstance(value, list):
            return [self(each) for each in value]
        if not isinstance(value, dict):
            return value
        name = next(iter(value), "")
        if name in self.kinds:
            return self.kinds[name].read(value[name], self)
        return {key: self(each) for key, each in value.items()}


def pack(value: Any, arrays: Arrays) -> Any:
    """
    Give a value as JSON has it.

    :param value: numbers, strings, numpy arrays and scalars, tensors, and lists, tuples, sets, deques and dicts of them
    :param arrays: receives the arrays, under names that the JSON holds
    :raises NotPlainError: if it is anything else
    """
    return Packer(arrays, KINDS)(value)


def unpack(value: Any, arrays: Arrays) -> Any:
    """
    Give back what :func:`pack` was given.

    :param value: JSON
    :param arrays: the arrays that go with it
    """
    return Unpacker(arrays, KINDS)(value)


def is_plain(value: Any) -> bool:
    """
    Tell whether :func:`pack` takes a value.

    :param value: any
    """
    try:
        pack(value, {})
    except NotPlainError:
        return False
    return True


def _exactly(*types: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


def _keep_tensor(tensor: th.Tensor, pack: Packer) -> str:
    if tensor.dtype == th.bfloat16 or tensor.layout != th.strided:
        raise NotPlainError(f"a tensor of {tensor.dtype}, {tensor.layout} cannot be saved")
    return pack.keep(tensor.detach().cpu().numpy())


def _pack_pairs(values: Any, pack: Packer) -> Any:
    return [[pack(key), pack(value)] for key, value in values.items()]


def _read_pairs(pairs: Any, unpack: Unpacker) -> dict[Any, Any]:
    return {unpack(key): unpack(value) for key, value in pairs}


KINDS = {
    "$array": Kind(_exactly(np.ndarray), lambda value, pack: pack.keep(value), lambda name, unpack: unpack.arrays[name]),
    "$scalar": Kind(
        lambda value: isinstance(value, np.generic),
        lambda value, pack: [value.dtype.str, pack(value.item())],
        lambda pair, _: np.dtype(pair[0]).type(pair[1]),
    ),
    "$tensor": Kind(
        _exactly(th.Tensor, th.nn.Parameter), _keep_tensor, lambda name, unpack: th.from_numpy(unpack.arrays[name])
    ),
    "$numbers": Kind(lambda _: False, lambda value, pack: value, lambda name, unpack: unpack.arrays[name].tolist()),
    "$tuple": Kind(_exactly(tuple), lambda value, pack: pack.list(value), lambda values, unpack: tuple(unpack(values))),
    "$set": Kind(_exactly(set), lambda value, pack: pack.list(value), lambda values, unpack: set(unpack(values))),
    "$deque": Kind(
        _exactly(deque),
        lambda value, pack: [value.maxlen, pack.list(value)],
        lambda pair, unpack: deque(unpack(pair[1]), maxlen=pair[0]),
    ),
    "$ordered": Kind(_exactly(OrderedDict), _pack_pairs, lambda pairs, unpack: OrderedDict(_read_pairs(pairs, unpack))),
    "$pairs": Kind(_exactly(dict), _pack_pairs, _read_pairs),
    "$bytes": Kind(_exactly(bytes), lambda value, _: value.hex(), lambda text, _: bytes.fromhex(text)),
}
