"""What an object holds in its attributes, as far as it is plain, and back into an object like it."""

import csv
import io
import os
import random
from collections import deque
from collections.abc import Callable, Collection, Iterator
from enum import Enum
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_rlx2.packing import PLAIN, NotPlainError, is_plain

# Objects that are looked after elsewhere.
OTHERS = (gym.Env, VecEnv, BaseAlgorithm, BaseCallback, th.nn.Module)
# Objects that hold no state of a run.
STATELESS = (EnvSpec, type, ModuleType, th.device, np.dtype, io.IOBase, type(csv.DictWriter(io.StringIO(), ())))


Place = tuple[str, ...]  # names of attributes, and keys, from what is captured to an object in it
Seen = dict[int, Place]  # where objects were seen first, by id
SEEN = "seen"  # kind of what another attribute holds, too
CLASS = "class"  # among the attributes of an object, of which none can have this name: what it is


class OtherObjectError(ValueError):
    """There is no object like the one whose state was taken."""


class _Kind(NamedTuple):
    """
    Objects whose state is plain, though they are not, and which stay what they are when it is given back.

    :param get: gives the state
    :param put: gives it to another object of the kind
    """

    get: Callable[[Any], Any]
    put: Callable[[Any, Any], None]


def capture(thing: Any, leave_out: Collection[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """
    Take what an object's attributes hold.

    :param thing: the object
    :param leave_out: attributes to leave out
    :return: kind and content of each attribute by name, and the names of those that hold state which cannot be taken
    """
    return _capture(thing, leave_out, {id(thing): ()}, ())


def _capture(thing: Any, leave_out: Collection[str], seen: Seen, path: Place) -> tuple[dict[str, Any], list[str]]:
    state, missing = {}, []
    for name, value in vars(thing).items():
        if name in leave_out or isinstance(value, OTHERS) or _is_stateless(value):
            continue
        try:
            state[name] = _freeze(value, seen, (*path, name))
        except (NotPlainError, RecursionError):
            missing.append(name)
    return state, missing


def restore(thing: Any, state: dict[str, Any]) -> None:
    """
    Give attributes back what :func:`capture` took.

    :param thing: an object of the same class
    :param state: what its attributes held
    :raises OtherObjectError: if one holds another object now
    """
    try:
        _restore(thing, state, _Putting(thing, state))
    except OtherObjectError as error:
        raise OtherObjectError(f"{type(thing).__name__}{error}") from None


def _restore(thing: Any, state: dict[str, Any], putting: "_Putting") -> None:
    for name, (kind, content) in state.items():
        if kind == "value":
            putting.put(thing, name, content)
            continue
        if kind == SEEN:
            setattr(thing, name, putting.at(content))
            continue
        if vars(thing).get(name) is None and kind in _GENERATORS:  # it is made when it is first asked for
            setattr(thing, name, _GENERATORS[kind]())
        try:
            _thaw(vars(thing).get(name), (kind, content), putting)
        except OtherObjectError as error:
            raise OtherObjectError(f".{name}{error}") from None


def generators(thing: Any) -> dict[str, Any]:
    """
    Take the random generators among an object's attributes, for :func:`restore`.

    :param thing: the object
    :return: kind and state of each by name
    """
    kinds = tuple(_KINDS[name][0] for name in _GENERATORS)
    return {name: freeze(value) for name, value in vars(thing).items() if isinstance(value, kinds)}


def freeze(value: Any) -> tuple[str, Any]:
    """
    Take the state of one object.

    :param value: a plain value, a random generator, a space (for its generator), a text file, or an object that holds these
    :return: what it is, and its state
    :raises NotPlainError: if it is anything else
    """
    return _freeze(value, {}, ())


def _freeze(value: Any, seen: Seen, path: Place) -> tuple[str, Any]:
    if is_plain(value):
        return "value", value
    for name, (types, kind) in _KINDS.items():
        if isinstance(value, types):
            return name, kind.get(value)
    if id(value) in seen:  # objects may point at each other
        return SEEN, seen[id(value)]
    seen[id(value)] = path
    if type(value) is dict and all(type(key) is str for key in value):
        return "each", {key: _freeze(each, seen, (*path, key)) for key, each in value.items()}
    if isinstance(value, OTHERS) or callable(value) or not _is_all_in_attributes(value):
        raise NotPlainError(f"a {type(value).__name__} cannot be saved")
    state, missing = _capture(value, (), seen, path)
    if missing:
        raise NotPlainError(f"a {type(value).__name__} cannot be saved")
    return "object", state | {CLASS: ("value", _full_name(value))}


def thaw(thing: Any, frozen: tuple[str, Any]) -> None:
    """
    Give an object the state that :func:`freeze` took of one like it.

    :param thing: an object that is no plain value
    :param frozen: what it is, and its state
    :raises OtherObjectError: if there is no such object
    """
    _thaw(thing, frozen, _Putting(thing, {"": frozen}))


def _thaw(thing: Any, frozen: tuple[str, Any], putting: "_Putting") -> None:
    kind, content = frozen
    if kind in ("each", "object"):
        putting.enter(thing)
    if kind == "each":
        if not isinstance(thing, dict) or thing.keys() != content.keys():
            raise OtherObjectError(f" has no {', '.join(content)} and nothing else")
        _restore(_Items(thing), content, putting)
    elif kind == "object":
        _, name = content.get(CLASS, ("value", _full_name(thing)))  # earlier versions did not tell
        if _full_name(thing) != name:
            raise OtherObjectError(f" is a {_full_name(thing)} and no {name}")
        _restore(thing, {each: value for each, value in content.items() if each != CLASS}, putting)
    else:
        _KINDS[kind][1].put(thing, content)


class _Items:
    """Shows the items of a dict as attributes."""

    def __init__(self, items: dict[str, Any]) -> None:
        self.__dict__ = items


def _full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_all_in_attributes(value: Any) -> bool:
    """
    Tell whether an object is what its attributes hold: it has no room for more, as a list or a number has, and is none of an
    enumeration's members, which everybody shares.
    """
    kind = type(value)
    is_small = kind.__itemsize__ == 0 and kind.__basicsize__ <= _Items.__basicsize__
    return hasattr(value, "__dict__") and is_small and not isinstance(value, Enum)


def _is_stateless(value: Any) -> bool:
    if isinstance(value, io.TextIOWrapper):
        return not _is_written(value)
    return isinstance(value, STATELESS) or (callable(value) and not hasattr(value, "__dict__")) or _is_function(value)


def _is_function(value: Any) -> bool:
    return callable(value) and type(value).__module__ in ("builtins", "functools", "types")


def _is_written(file: io.TextIOWrapper) -> bool:
    return not file.closed and isinstance(file.name, str) and os.path.isfile(file.name) and file.writable()


class _Putting:
    """
    Gives attributes values, so that what was one object, list or array is one again, and what was two is two.

    :param root: what gets its state back
    :param state: all of that
    """

    def __init__(self, root: Any, state: dict[str, Any]) -> None:
        self._root = root
        self._entered: list[Any] = []
        self._inside = set(_arrays_inside(state))  # of arrays that lists and the like hold, too
        self._put: dict[int, Any] = {}  # what is in the place of a value, by its id
        self._filled: list[np.ndarray] = []

    def put(self, thing: Any, name: str, content: Any) -> None:
        held = vars(thing).get(name)
        if id(content) in self._put:
            setattr(thing, name, self._put[id(content)])
        elif id(content) not in self._inside and self._can_fill(held, content):
            held[...] = content  # others may look at the same memory
            self._filled.append(held)
            self._put[id(content)] = held
        else:
            setattr(thing, name, content)
            if type(content) not in PLAIN:
                self._put[id(content)] = content

    def enter(self, thing: Any) -> None:
        """Note an object that gets its state in place, of which there must have been no other."""
        if any(thing is each for each in self._entered):
            raise OtherObjectError(" is the same object as another, which it was not")
        self._entered.append(thing)

    def at(self, path: Place) -> Any:
        """Give the object that is where one was first seen."""
        found = self._root
        for name in path:
            found = found[name] if isinstance(found, dict) else vars(found)[name]
        return found

    def _can_fill(self, held: Any, content: Any) -> bool:
        if not (isinstance(held, np.ndarray) and isinstance(content, np.ndarray) and held.flags.writeable):
            return False
        same = held.shape == content.shape and held.dtype == content.dtype
        return same and not any(held is each for each in self._filled)


def _arrays_inside(state: dict[str, Any]) -> Iterator[int]:
    """Give the ids of arrays that values hold which are none, in what :func:`capture` gave."""
    for kind, content in state.values():
        if kind in ("each", "object"):
            yield from _arrays_inside(content)
        elif kind == "value" and not isinstance(content, np.ndarray):
            yield from _arrays_of(content)


def _arrays_of(value: Any) -> Iterator[int]:
    if isinstance(value, np.ndarray):
        yield id(value)
    elif isinstance(value, dict | list | tuple | set | deque):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _arrays_of(each)


def _get_space(space: spaces.Space[Any]) -> Any:
    parts = _parts(space)
    if parts:
        return [_get_space(part) for part in parts]
    return None if space._np_random is None else space._np_random.bit_generator.state


def _put_space(space: spaces.Space[Any], state: Any) -> None:
    parts = _parts(space)
    if parts:
        for part, each in zip(parts, state, strict=True):
            _put_space(part, each)
    elif state is None:
        vars(space)["_np_random"] = None
    else:
        space.np_random.bit_generator.state = state


def _parts(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    if isinstance(space, spaces.Dict):
        return list(space.spaces.values())
    return list(space.spaces) if isinstance(space, spaces.Tuple) else []


def _get_text(file: io.TextIOWrapper) -> str:
    file.flush()
    with open(file.name, newline="") as written:
        return written.read()


def _put_text(file: io.TextIOWrapper, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _put_state(generator: Any, state: Any) -> None:
    generator.bit_generator.state = state


_GENERATORS: dict[str, Callable[[], Any]] = {
    "numpy generator": np.random.default_rng,
    "numpy random state": np.random.RandomState,
    "python generator": random.Random,
    "torch generator": th.Generator,
}
_KINDS: dict[str, tuple[type, _Kind]] = {
    "numpy generator": (np.random.Generator, _Kind(lambda generator: generator.bit_generator.state, _put_state)),
    "numpy random state": (
        np.random.RandomState,
        _Kind(lambda generator: generator.get_state(), lambda generator, state: generator.set_state(state)),
    ),
    "python generator": (
        random.Random,
        _Kind(lambda generator: generator.getstate(), lambda generator, state: generator.setstate(state)),
    ),
    "torch generator": (
        th.Generator,
        _Kind(lambda generator: generator.get_state(), lambda generator, state: generator.set_state(state)),
    ),
    "space": (spaces.Space, _Kind(_get_space, _put_space)),
    "file": (io.TextIOWrapper, _Kind(_get_text, _put_text)),
}
