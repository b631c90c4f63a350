"""Plain values and arrays as JSON and npy, and back: reading them runs no code."""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch as th

Arrays = dict[str, np.ndarray]

PLAIN = {type(None), bool, int, float, str}
UNCHANGING = (tuple, bytes, np.generic)  # of two equal ones nobody can tell whether they are one
SAME = "$same"  # in the place of what is there already, with its number
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


class Packer:
    """
    Gives values as JSON has them; of what is there twice, the second time only that it is the same.

    :param arrays: receives the arrays, under names that the JSON holds
    :param kinds: what is packed beside what JSON knows, by name
    """

    def __init__(self, arrays: Arrays, kinds: Mapping[str, Kind]) -> None:
        self.arrays, self.kinds = arrays, kinds
        self._begun: set[int] = set()
        self._done: dict[int, tuple[int, Any]] = {}  # numbers by id; the values live on, so that no other gets their ids

    def __call__(self, value: Any) -> Any:
        """
        Give a value as JSON has it.

        :param value: any
        :raises NotPlainError: if it is none that can be packed, or holds itself
        """
        if type(value) in PLAIN:
            return value
        if id(value) in self._done:
            return {SAME: self._done[id(value)][0]}
        if id(value) in self._begun:
            raise NotPlainError(f"a {type(value).__name__} that holds itself cannot be saved")
        self._begun.add(id(value))
        packed = self._pack(value)
        self._begun.remove(id(value))
        if not isinstance(value, UNCHANGING):
            self._done[id(value)] = len(self._done), value
        return packed

    def _pack(self, value: Any) -> Any:
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


class Unpacker:
    """
    Gives back what a :class:`Packer` was given.

    :param arrays: the arrays
    :param kinds: as the packer's
    """

    def __init__(self, arrays: Arrays, kinds: Mapping[str, Kind]) -> None:
        self.arrays, self.kinds = arrays, kinds
        self._done: list[Any] = []

    def __call__(self, value: Any) -> Any:
        """
        Give a value back.

        :param value: JSON
        """
        if not isinstance(value, list | dict):
            return value
        if isinstance(value, dict) and SAME in value:
            return self._done[value[SAME]]
        unpacked = self._unpack(value)
        if not isinstance(unpacked, UNCHANGING):
            self._done.append(unpacked)
        return unpacked

    def _unpack(self, value: Any) -> Any:
        if isinstance(value, list):
            return self.list(value)
        name = next(iter(value), "")
        if name in self.kinds:
            return self.kinds[name].read(value[name], self)
        return {key: self(each) for key, each in value.items()}

    def list(self, values: Any) -> Any:
        """
        Give the items of a list or the like back.

        :param values: what :meth:`Packer.list` gave
        """
        return self.arrays[values["$numbers"]].tolist() if isinstance(values, dict) else [self(each) for each in values]


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
    except (NotPlainError, RecursionError):
        return False
    return True


def _exactly(*types: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


def _keep_tensor(tensor: th.Tensor, pack: Packer) -> str:
    if tensor.dtype == th.bfloat16 or tensor.layout != th.strided:
        raise NotPlainError(f"a tensor of {tensor.dtype}, {tensor.layout} cannot be saved")
    return pack.keep(tensor.detach().cpu().numpy())


def _write_scalar(scalar: Any, pack: Packer) -> Any:
    value = scalar.item()
    if type(value) not in PLAIN:  # of extended precision, or a date
        raise NotPlainError(f"a {type(scalar).__name__} cannot be saved")
    return [scalar.dtype.str, value]


def _pack_pairs(values: Any, pack: Packer) -> Any:
    return [[pack(key), pack(value)] for key, value in values.items()]


def _read_pairs(pairs: Any, unpack: Unpacker) -> dict[Any, Any]:
    return {unpack(key): unpack(value) for key, value in pairs}


KINDS = {
    "$array": Kind(_exactly(np.ndarray), lambda value, pack: pack.keep(value), lambda name, unpack: unpack.arrays[name]),
    "$scalar": Kind(
        lambda value: isinstance(value, np.generic),
        _write_scalar,
        lambda pair, _: np.dtype(pair[0]).type(pair[1]),
    ),
    "$tensor": Kind(
        _exactly(th.Tensor, th.nn.Parameter), _keep_tensor, lambda name, unpack: th.from_numpy(unpack.arrays[name])
    ),
    "$numbers": Kind(lambda _: False, lambda value, pack: value, lambda name, unpack: unpack.arrays[name].tolist()),
    "$tuple": Kind(_exactly(tuple), lambda value, pack: pack.list(value), lambda values, unpack: tuple(unpack.list(values))),
    "$set": Kind(_exactly(set), lambda value, pack: pack.list(value), lambda values, unpack: set(unpack.list(values))),
    "$deque": Kind(
        _exactly(deque),
        lambda value, pack: [value.maxlen, pack.list(value)],
        lambda pair, unpack: deque(unpack.list(pair[1]), maxlen=pair[0]),
    ),
    "$ordered": Kind(_exactly(OrderedDict), _pack_pairs, lambda pairs, unpack: OrderedDict(_read_pairs(pairs, unpack))),
    "$pairs": Kind(_exactly(dict), _pack_pairs, _read_pairs),
    "$bytes": Kind(_exactly(bytes), lambda value, _: value.hex(), lambda text, _: bytes.fromhex(text)),
}
