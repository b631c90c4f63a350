"""
Compiles the kernels, once per machine: a disk cache that processes may share, and that heals itself.

Numba's own cache is safe neither against two processes that fill it at the same time (numba issue 4807) nor against
damage, and it does not notice a change in a helper's file. So each group of kernels and dtype has a folder of its own,
named after everything it depends on, filled under a file lock, and read only if its checksums agree.

``SB3_RLX2_CACHE_DIR`` moves the folder; an empty value switches the cache off.
"""

import hashlib
import json
import os
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from filelock import FileLock
from numba import cfunc, from_dtype, njit, types

from sb3_rlx2.backends import (
    kernels,
    optimizer_kernels,
    options,
    replay_kernels,
    sac_kernels,
    step_kernels,
    td3_kernels,
    thread_kernels,
)
from sb3_rlx2.backends.networks import Learner, Network
from sb3_rlx2.backends.pointers import ANY_NUMBER, Pointer

OPTIONS = {kernels.mlp_single: options.SINGLE_OPTIONS}
JOBS = {td3_kernels.td3, sac_kernels.sac, optimizer_kernels.adam, optimizer_kernels.polyak}  # of a team, called by address
MANIFEST = "checksums.json"
MAILBOX, NUMBERS = types.int64[::1], types.float64[::1]

_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):  # a fork waits, or its child would find the lock held by nobody
    release = _one_at_a_time.release
    os.register_at_fork(before=_one_at_a_time.acquire, after_in_parent=release, after_in_child=release)


@cache
def load_kernels(group: str, dtype: str = "float32", critics: int = 0) -> SimpleNamespace:
    """
    Compile a group of kernels or read it from the disk cache.

    :param group: ``"single"``, ``"forward"``, ``"backward"``, ``"squash"``, ``"td3"``, ``"sac"``, ``"replay"``,
        ``"optimizer"``, ``"jobs"`` or ``"threads"``
    :param dtype: ``"float32"`` or ``"float64"``: of the network, of the stored observations (what is sampled is float32);
        the other groups are float32
    :param critics: number of critics, for ``"td3"`` and ``"sac"``
    :return: the kernels by name, jobs of a team as addresses
    """
    folder = cache_folder(group, dtype, critics)
    if folder is None:
        return _compile(group, dtype, critics, None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            return _load_or_compile(group, dtype, critics, folder)
    except OSError as error:
        warnings.warn(f"the kernel cache {folder} cannot be used ({error}); compiling without it", stacklevel=2)
        return _compile(group, dtype, critics, None)


def cache_folder(group: str, dtype: str, critics: int = 0) -> Path | None:
    """
    Name the folder after what the machine code depends on: sources, versions, CPU.

    :param group: see :func:`load_kernels`
    :param dtype: ``"float32"`` or ``"float64"``
    :param critics: see :func:`load_kernels`
    :return: the folder, None if the cache is switched off
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = os.environ.get("SB3_RLX2_CACHE_DIR", str(Path(home) / "sb3_rlx2"))
    if not root:
        return None
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    cpu = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    # The place of the sources, too: numba files its entries by it, so another copy of the package would find none of its own.
    parts = [str(Path(__file__)).encode(), *sources, numba.__version__.encode(), np.__version__.encode(), cpu.encode()]
    return Path(root) / f"{group}{critics or ''}-{dtype}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}"


def _load_or_compile(group: str, dtype: str, critics: int, folder: Path) -> SimpleNamespace:
    if folder.exists():
        if _checksums(folder) == _manifest(folder):
            return _compile(group, dtype, critics, folder)
        warnings.warn(f"the kernel cache {folder} is damaged; compiling again", stacklevel=4)
        shutil.rmtree(folder)
    # A process that is killed on the way leaves an unfinished folder of another name, which the next one empties.
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    compiled = _compile(group, dtype, critics, unfinished)
    (unfinished / MANIFEST).write_text(json.dumps(_checksums(unfinished)))
    unfinished.rename(folder)
    return compiled


def _checksums(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _manifest(folder: Path) -> Any:
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None


def _compile(group: str, dtype: str, critics: int, folder: Path | None) -> SimpleNamespace:
    """Compile, or read from the folder what is there. Each function has a name of its own and a single signature."""
    compiled, entries = {}, {}
    with _compiling_into(folder):
        for function, signature in SIGNATURES[group](from_dtype(np.dtype(dtype)), critics).items():
            name = f"{function.__name__}_{dtype}"
            plain = getattr(function, "py_func", function)
            copy = FunctionType(plain.__code__, plain.__globals__, name)
            copy.__qualname__ = name
            chosen = OPTIONS.get(function, options.OPTIONS) | {"cache": folder is not None}
            if function in JOBS:
                compiled[function.__name__] = cfunc(signature, **chosen)(copy)
                entries[function.__name__] = compiled[function.__name__].address
            else:
                compiled[function.__name__] = njit(signature, no_cfunc_wrapper=True, **chosen)(copy)
                # Behind numba's dispatcher, which would look for a signature in each call; it checks its arguments itself.
                entries[function.__name__] = next(iter(compiled[function.__name__].overloads.values())).entry_point
    return SimpleNamespace(**entries, compiled=compiled)  # what was compiled lives as long as its entries


@contextmanager
def _compiling_into(folder: Path | None) -> Iterator[None]:
    """
    Set numba's folder, and LLVM's effort: at level 1 the kernels are no slower and compile sooner (benchmarks/speed/NOTES.md).
    Both settings are global, so threads take turns.
    """
    with _one_at_a_time:
        before = numba.config.CACHE_DIR, numba.config.OPT
        numba.config.CACHE_DIR, numba.config.OPT = str(folder or ""), type(before[1])(1)
        try:
            yield
        finally:
            numba.config.CACHE_DIR, numba.config.OPT = before


def _pointer(target: Any) -> Any:
    pointer: Any = Pointer
    return pointer(target)


def _network_type(real: Any) -> Any:
    vector, index = real[::1], types.int32[::1]
    arrays = (types.int64[::1], index, index, vector, vector, index, index, index, types.int64)
    return types.NamedTuple(arrays, Network)


def _learner_type(real: Any) -> Any:
    vector, tiles = real[::1], real[:, :, ::1]
    return types.NamedTuple((_network_type(real), tiles, tiles, vector, vector, vector), Learner)


def _single_signatures(real: Any, critics: int) -> dict[Any, Any]:
    vector = real[::1]
    return {kernels.mlp_single: types.void(_pointer(_network_type(real)), vector, vector, vector)}


def _forward_signatures(real: Any, critics: int) -> dict[Any, Any]:
    matrix, tiles, number = real[:, ::1], real[:, :, ::1], types.int64
    return {
        kernels.mlp_forward: types.void(_pointer(_network_type(real)), tiles, tiles, tiles, number, number, number),
        kernels.to_tiles: types.void(matrix, tiles),
        kernels.from_tiles: types.void(tiles, matrix),
    }


def _backward_signatures(real: Any, critics: int) -> dict[Any, Any]:
    vector, tiles, number = real[::1], real[:, :, ::1], types.int64
    arrays = (tiles, tiles, tiles, vector, tiles, vector, vector, tiles)
    return {kernels.mlp_backward: types.void(_pointer(_network_type(real)), *arrays, number, number, number)}


def _squash_signatures(real: Any, critics: int) -> dict[Any, Any]:
    matrix, tiles, number = real[:, ::1], real[:, :, ::1], types.int64
    return {
        step_kernels.squash: types.void(tiles, matrix, tiles, number, tiles, number, number),
        step_kernels.squash_gradient: types.void(tiles, matrix, tiles, number, tiles, tiles, tiles, number, number),
    }


def _td3_signatures(real: Any, critics: int) -> dict[Any, Any]:
    vector, matrix, tiles = real[::1], real[:, ::1], real[:, :, ::1]
    network, learner = _network_type(real), _learner_type(real)
    fields = (
        *(learner, types.UniTuple(learner, critics), network, types.UniTuple(network, critics)),
        *(tiles, tiles, tiles, tiles, tiles, vector, vector, vector, matrix, NUMBERS, tiles, tiles, tiles, tiles, NUMBERS),
    )
    return {td3_kernels.td3: _job(types.NamedTuple(fields, td3_kernels.TD3Arrays))}


def _sac_signatures(real: Any, critics: int) -> dict[Any, Any]:
    vector, matrix, tiles = real[::1], real[:, ::1], real[:, :, ::1]
    learner = _learner_type(real)
    draw = types.NamedTuple((tiles, tiles, matrix, tiles, tiles, types.int64, tiles), sac_kernels.Draw)
    fields = (
        *(learner, types.UniTuple(learner, critics), types.UniTuple(_network_type(real), critics)),
        *(tiles, types.UniTuple(tiles, critics), types.UniTuple(draw, 3), tiles, tiles, vector, vector, vector, NUMBERS),
        *(tiles, tiles, tiles, tiles, tiles, tiles, NUMBERS),
    )
    return {
        sac_kernels.sac: _job(types.NamedTuple(fields, sac_kernels.SACArrays)),
        step_kernels.add_entropy: types.void(types.int64[::1], vector, tiles, types.float64, vector),
    }


def _job(arguments: Any) -> Any:
    return types.void(_pointer(arguments), types.int64, types.int64, types.int64)


def _jobs_signatures(real: Any, critics: int) -> dict[Any, Any]:
    return {thread_kernels.run: types.void(*[types.int64] * 5)}


def _threads_signatures(real: Any, critics: int) -> dict[Any, Any]:
    return {
        thread_kernels.serve: types.void(MAILBOX),
        thread_kernels.post: types.int64(MAILBOX),
        thread_kernels.collect: types.boolean(MAILBOX, types.int64),
    }


def _replay_signatures(real: Any, critics: int) -> dict[Any, Any]:
    stored, rows, number = real[:, ::1], types.int64[::1], types.int64
    vector, matrix, tiles = types.float32[::1], types.float32[:, ::1], types.float32[:, :, ::1]
    return {
        replay_kernels.gather_windows: types.void(
            *(rows, rows, number, number, vector),
            *(stored, stored, matrix, matrix, matrix, matrix),
            *(tiles, tiles, number, tiles, vector, vector, vector, rows),
        ),
        replay_kernels.gather_on_the_way: types.void(rows, rows, rows, vector, stored, number, tiles, rows, vector),
    }


def _optimizer_signatures(real: Any, critics: int) -> dict[Any, Any]:
    vector = real[::1]
    adam = types.NamedTuple((vector, vector, vector, vector, types.int64[::1], NUMBERS), optimizer_kernels.AdamArrays)
    polyak = types.NamedTuple((vector, vector, NUMBERS), optimizer_kernels.PolyakArrays)
    return {
        optimizer_kernels.adam: _job(types.UniTuple(adam, ANY_NUMBER)),
        optimizer_kernels.polyak: _job(types.UniTuple(polyak, ANY_NUMBER)),
    }


SIGNATURES = {
    "single": _single_signatures,
    "forward": _forward_signatures,
    "backward": _backward_signatures,
    "squash": _squash_signatures,
    "td3": _td3_signatures,
    "sac": _sac_signatures,
    "replay": _replay_signatures,
    "optimizer": _optimizer_signatures,
    "jobs": _jobs_signatures,
    "threads": _threads_signatures,
}
