"""
Reads the pickles that Stable-Baselines3 writes (spaces, noise, schedules, replay buffers, statistics) without running code.

Unpickling calls whatever a file names. Here it may call and make only what is listed below, nothing of which does more than
to build a value, and may name beside that only classes of a few kinds, which it may neither call nor change. All else is
refused. In the place of what numpy and torch build values with stand functions of ours, as theirs take classes to call, and
types of numbers that say of themselves that they hold no pointers. It is Python's own unpickler in Python, since the one in C
cannot be told what it may call.
"""

import hashlib
import importlib
import io
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, BinaryIO

import numpy as np

Names = Mapping[str, tuple[str, ...]]  # module -> names

CALLED: Names = {
    "collections": ("OrderedDict", "deque"),
    **dict.fromkeys(("numpy._core.multiarray", "numpy.core.multiarray"), ("scalar",)),
    **dict.fromkeys(("numpy._core.numeric", "numpy.core.numeric"), ("_frombuffer",)),
    "numpy.random.bit_generator": ("__pyx_unpickle_SeedSequence",),
    "stable_baselines3.common.type_aliases": ("TrainFrequencyUnit",),
    "stable_baselines3.her.goal_selection_strategy": ("GoalSelectionStrategy",),
    "torch": ("device",),
    "sb3_rlx2.safe_pickle": (
        *("load_storage", "make_array", "make_bit_generator", "make_dtype", "make_generator", "make_parameter"),
        *("make_random_state", "make_tensor"),
    ),
}
# What takes the place of what the file names.
OURS = {
    ("numpy", "dtype"): "make_dtype",
    ("numpy._core.multiarray", "_reconstruct"): "make_array",
    ("numpy.core.multiarray", "_reconstruct"): "make_array",
    ("numpy.random._pickle", "__bit_generator_ctor"): "make_bit_generator",
    ("numpy.random._pickle", "__generator_ctor"): "make_generator",
    ("numpy.random._pickle", "__randomstate_ctor"): "make_random_state",
    ("torch._utils", "_rebuild_parameter"): "make_parameter",
    ("torch._utils", "_rebuild_tensor_v2"): "make_tensor",
    ("torch.storage", "_load_from_bytes"): "load_storage",
}
# Instances of these are made without their constructors, which could be told to fill memory.
MADE: Names = {
    "gymnasium.spaces.box": ("Box",),
    "gymnasium.spaces.dict": ("Dict",),
    "gymnasium.spaces.discrete": ("Discrete",),
    "gymnasium.spaces.multi_binary": ("MultiBinary",),
    "gymnasium.spaces.multi_discrete": ("MultiDiscrete",),
    "gymnasium.spaces.tuple": ("Tuple",),
    "rl_zoo3.utils": ("SimpleLinearSchedule",),
    "sb3_rlx2.buffers": ("RLx2ReplayBuffer",),
    "stable_baselines3.common.buffers": ("DictReplayBuffer", "NStepReplayBuffer", "ReplayBuffer"),
    "stable_baselines3.common.noise": ("NormalActionNoise", "OrnsteinUhlenbeckActionNoise", "VectorizedActionNoise"),
    "stable_baselines3.common.running_mean_std": ("RunningMeanStd",),
    "stable_baselines3.common.type_aliases": ("TrainFreq",),
    "stable_baselines3.common.utils": ("ConstantSchedule", "FloatSchedule", "LinearSchedule"),
    "stable_baselines3.common.vec_env.vec_normalize": ("VecNormalize",),
    "stable_baselines3.her.her_replay_buffer": ("HerReplayBuffer",),
}
NAMED: Names = {
    "numpy": (
        *("ndarray", "bool_", "bool", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    ),
    "numpy.random._mt19937": ("MT19937",),
    "numpy.random._pcg64": ("PCG64", "PCG64DXSM"),
    "numpy.random._philox": ("Philox",),
    "numpy.random._sfc64": ("SFC64",),
    "numpy.random.bit_generator": ("SeedSequence",),
}
# Classes of these packages that derive from one of these may be named, too.
PACKAGES = {"sb3_contrib", "sb3_rlx2", "stable_baselines3", "torch"}
BIT_GENERATORS = (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
SEAL = b"sha-256:"
KINDS = {"Module", "Optimizer", "BaseBuffer"}

REFUSAL = (
    "{} is not made from a file, because that runs code: with allow_pickle=True (rlx2 --trust) all is that the file names; do "
    "that only if you trust who wrote it"
)


trusts = False  # whether pickles are read with all that they name, as ``rlx2 --trust`` has it


class UnsafePickleError(ValueError):
    """A pickle that names what is not to be called."""


UNPICKLER: Any = pickle._Unpickler  # private, and the same since Python 3.0


class _Reader(UNPICKLER):  # type: ignore[misc]
    def find_class(self, module: str, name: str) -> Any:
        ours = OURS.get((module, name))
        return find(module, name) if ours is None else globals()[ours]


def find(module: str, name: str) -> Any:
    """
    Give what a file names.

    :param module: full name of a module
    :param name: name in it
    :raises UnsafePickleError: if it is not listed above
    """
    if any(name in names.get(module, ()) for names in (CALLED, MADE, NAMED)):
        return _find(module, name)
    if module.partition(".")[0] in PACKAGES and "." not in name:
        found = _find(module, name)
        if isinstance(found, type) and KINDS & {base.__name__ for base in found.__mro__}:
            return found
    raise UnsafePickleError(REFUSAL.format(f"{module}.{name}"))


def _find(module: str, name: str) -> Any:
    holder = sys.modules.get(module) or importlib.import_module(module)
    try:
        return getattr(holder, name)
    except AttributeError:
        raise UnsafePickleError(f"{module} has no {name} in this version") from None


def _only(listed: Names, opcode: bytes, place: int) -> Callable[[_Reader], None]:
    """Let an opcode work on what is listed only, which it finds in a place of the stack."""
    work: Callable[[_Reader], None] = UNPICKLER.dispatch[opcode[0]]

    def check_and_work(reader: _Reader) -> None:
        called = reader.stack[place]
        if not any(
            called is vars(sys.modules[each]).get(name) for each in listed if each in sys.modules for name in listed[each]
        ):
            raise UnsafePickleError(REFUSAL.format(f"what {getattr(called, '__name__', called)} gives"))
        work(reader)

    return check_and_work


def _build(reader: _Reader) -> None:
    """Do as Python's, but look for ``__setstate__`` in the class only, where the file has not put it, and set no slots."""
    state, target = reader.stack.pop(), reader.stack[-1]
    set_state = getattr(type(target), "__setstate__", None)
    if isinstance(target, type | FunctionType | BuiltinFunctionType | ModuleType):
        raise UnsafePickleError(REFUSAL.format(f"a change of {target}"))
    if isinstance(target, np.dtype):
        _order(target, state)
    elif set_state is not None:
        set_state(target, state)
    elif isinstance(state, dict) and all(type(name) is str for name in state):
        vars(target).update(state)
    elif state is not None:
        raise UnsafePickleError(REFUSAL.format(f"a change of a {type(target).__name__}"))


def _order(dtype: np.dtype[Any], state: Any) -> None:
    """Give a type of numbers its order of bytes; the rest of what a file says is what the type itself knows better."""
    version, order, *parts = state
    if version != 3 or order not in ("<", ">", "|", "=") or any(part is not None for part in parts[:3]):
        raise UnsafePickleError(REFUSAL.format("a type of numbers with fields or units"))
    own: Any = dtype.__reduce__()
    dtype.__setstate__((version, order, None, None, None, *own[2][5:8]))  # type: ignore[attr-defined]


def _refuse(_: _Reader) -> None:
    raise UnsafePickleError(REFUSAL.format("what an old pickle asks for"))


_Reader.dispatch = {
    **UNPICKLER.dispatch,
    pickle.REDUCE[0]: _only(CALLED, pickle.REDUCE, -2),
    pickle.NEWOBJ[0]: _only(MADE, pickle.NEWOBJ, -2),
    pickle.NEWOBJ_EX[0]: _only(MADE, pickle.NEWOBJ_EX, -3),
    pickle.BUILD[0]: _build,
    **{opcode[0]: _refuse for opcode in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4)},
}


def load(file: BinaryIO) -> Any:
    """
    Read a pickle, behind which there may be a checksum (:func:`seal`).

    :param file: the file
    :raises UnsafePickleError: if it names what is not to be called
    :raises UnpicklingError: if it is damaged
    """
    _check_seal(file)
    if trusts:
        return pickle.load(file)
    try:
        return _Reader(file).load()
    except (UnsafePickleError, pickle.UnpicklingError, EOFError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes of the calls that it may make
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error


def seal(path: Path) -> None:
    """
    Write a checksum behind a pickle, where no reader of pickles looks: a pickle itself has none, so that a flipped bit in
    what it holds is another number.

    :param path: the file
    """
    with path.open("r+b") as file:
        digest = _digest(file, path.stat().st_size)
        file.write(SEAL + digest)


def _check_seal(file: BinaryIO) -> None:
    begin, end = file.tell(), file.seek(0, io.SEEK_END)
    length = end - begin - len(SEAL) - hashlib.sha256().digest_size
    sealed = b""
    if length > 0:
        file.seek(begin + length)
        sealed = file.read()
    file.seek(begin)
    if sealed.startswith(SEAL) and _digest(file, length) != sealed.removeprefix(SEAL):
        raise pickle.UnpicklingError("its checksum is another")
    file.seek(begin)


def _digest(file: BinaryIO, length: int) -> bytes:
    """Give the checksum of what comes next in a file."""
    digest = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
    return digest.digest()


def make_dtype(name: str, *_: Any) -> np.dtype[Any]:
    """
    Make a type of numbers, or of objects, without fields.

    :param name: numpy's short name, such as ``"f4"``
    :raises UnsafePickleError: if it is none
    """
    if not isinstance(name, str) or re.fullmatch(r"[<>=|]?[a-zA-Z?]\d*", name) is None:
        raise UnsafePickleError(REFUSAL.format(f"the type of numbers {name!r}"))
    return np.dtype(name, False, True)  # a copy: the state that comes next must not be the one of all numbers


def make_array(kind: type, *_: Any) -> np.ndarray:
    """
    Make an empty array, which gets its shape and numbers with its state.

    :param kind: numpy's class
    :raises UnsafePickleError: if it is another
    """
    if kind is not np.ndarray:
        raise UnsafePickleError(REFUSAL.format(f"an array of {kind}"))
    return np.empty(0, np.int8)


def make_bit_generator(kind: Any = "MT19937") -> Any:
    """
    Make what gives a generator its bits.

    :param kind: its class, or the name of that
    :raises UnsafePickleError: if it is none of numpy's
    """
    made = next((each for each in BIT_GENERATORS if kind is each or kind == each.__name__), None)
    if made is None:
        raise UnsafePickleError(REFUSAL.format(f"a generator of {kind}"))
    return made()


def make_generator(bits: Any = "MT19937", *_: Any) -> np.random.Generator:
    """
    Make a generator.

    :param bits: what gives it its bits, or the name of that
    """
    return np.random.Generator(bits if isinstance(bits, BIT_GENERATORS) else make_bit_generator(bits))


def make_random_state(bits: Any = "MT19937", *_: Any) -> np.random.RandomState:
    """
    Make a generator of numpy's old kind.

    :param bits: what gives it its bits, or the name of that
    """
    return np.random.RandomState(bits if isinstance(bits, BIT_GENERATORS) else make_bit_generator(bits))


def make_tensor(storage: Any, offset: int, size: Any, stride: Any, requires_grad: bool = False, *_: Any) -> Any:
    """
    Make a tensor, without hooks that a file may have hung on it.

    :param storage: its numbers
    :param offset: where they begin
    :param size: its shape
    :param stride: its strides
    :param requires_grad: whether it has a gradient
    """
    from torch._utils import _rebuild_tensor_v2

    return _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, OrderedDict())  # type: ignore[no-untyped-call]


def make_parameter(tensor: Any, requires_grad: bool = True, *_: Any) -> Any:
    """
    Make a parameter, without hooks.

    :param tensor: its numbers
    :param requires_grad: whether it has a gradient
    """
    from torch._utils import _rebuild_parameter

    return _rebuild_parameter(tensor, requires_grad, OrderedDict())  # type: ignore[no-untyped-call]


def load_storage(content: bytes) -> Any:
    """
    Read the numbers of a tensor.

    :param content: what torch saved
    """
    import torch as th

    return th.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def loads(content: bytes) -> Any:
    """
    Read a pickle.

    :param content: its bytes
    :raises UnsafePickleError: if it names what is not to be called
    :raises UnpicklingError: if it is damaged
    """
    return load(io.BytesIO(content))
