"""
Compiles the kernels, once per machine: a disk cache that processes may share, and that heals itself.

Numba's own cache is safe neither against two processes that fill it at the same time (numba issue 4807) nor against
damage, and it does not notice a change in a helper's file. So each group of kernels and dtype has a folder of its own,
named after everything it depends on, filled under a file lock, and read only if its checksums agree.

``SB3_RLX2_CACHE_DIR`` moves the folder; an empty value switches the cache off.
"""

import functools
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from filelock import FileLock
from numba import from_dtype, njit, types

from sb3_rlx2.backends import kernels, optimizer_kernels, replay_kernels

OPTIONS = {kernels.mlp_single: kernels.SINGLE_OPTIONS}
MANIFEST = "checksums.json"


@functools.cache
def load_kernels(group: str, dtype: str = "float32") -> SimpleNamespace:
    """
    Compile a group of kernels or read it from the disk cache.

    :param group: ``"network"``, ``"replay"`` or ``"optimizer"``
    :param dtype: ``"float32"`` or ``"float64"``: of the network, of the stored observations (what is sampled is float32);
        the optimizer's kernels are float32
    :return: the kernels by name
    """
    folder = cache_folder(group, dtype)
    if folder is None:
        return _compile(group, dtype, None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            return _load_or_compile(group, dtype, folder)
    except OSError as error:
        warnings.warn(f"the kernel cache {folder} cannot be used ({error}); compiling without it", stacklevel=2)
        return _compile(group, dtype, None)


def cache_folder(group: str, dtype: str) -> Path | None:
    """
    Name the folder after what the machine code depends on: sources, versions, CPU.

    :param group: see :func:`load_kernels`
    :param dtype: ``"float32"`` or ``"float64"``
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
    return Path(root) / f"{group}-{dtype}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}"


def _load_or_compile(group: str, dtype: str, folder: Path) -> SimpleNamespace:
    if folder.exists():
        if _checksums(folder) == _manifest(folder):
            return _compile(group, dtype, folder)
        warnings.warn(f"the kernel cache {folder} is damaged; compiling again", stacklevel=4)
        shutil.rmtree(folder)
    # A process that is killed on the way leaves an unfinished folder of another name, which the next one empties.
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    compiled = _compile(group, dtype, unfinished)
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


def _compile(group: str, dtype: str, folder: Path | None) -> SimpleNamespace:
    """Compile, or read from the folder what is there. Each function has a name of its own and a single signature."""
    compiled = {}
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder or "")
    try:
        for function, signature in SIGNATURES[group](from_dtype(np.dtype(dtype))).items():
            name = f"{function.__name__}_{dtype}"
            copy = FunctionType(function.__code__, function.__globals__, name)
            copy.__qualname__ = name
            options = OPTIONS.get(function, kernels.OPTIONS)
            compiled[function.__name__] = njit(types.void(*signature), cache=folder is not None, **options)(copy)
    finally:
        numba.config.CACHE_DIR = before
    return SimpleNamespace(**compiled)


def _network_signatures(real: Any) -> dict[Any, tuple[Any, ...]]:
    vector, matrix, index, code = real[::1], real[:, ::1], types.int32[::1], types.int64
    network = (types.int64[::1], index, index, vector)  # widths, row_pointers, columns, values
    by_column = (index, index, index)
    return {
        kernels.mlp_forward: (*network, vector, matrix, matrix, matrix, code),
        kernels.mlp_backward: (
            *(*network, *by_column, matrix, matrix, matrix, code),
            *(vector, vector, matrix, types.boolean, types.boolean),
        ),
        kernels.mlp_single: (*network, vector, vector, vector, vector, code),
    }


def _replay_signatures(real: Any) -> dict[Any, tuple[Any, ...]]:
    stored, rows, number = real[:, ::1], types.int64[::1], types.int64
    vector, matrix = types.float32[::1], types.float32[:, ::1]
    return {
        replay_kernels.gather_windows: (
            *(rows, rows, number, number, vector),
            *(stored, stored, matrix, matrix, matrix, matrix),
            *(matrix, matrix, matrix, vector, vector, vector, rows),
        ),
    }


def _optimizer_signatures(real: Any) -> dict[Any, tuple[Any, ...]]:
    vector, scalar = real[::1], types.float64
    return {
        optimizer_kernels.adam: (vector, vector, vector, vector, scalar, scalar, scalar, scalar, scalar),
        optimizer_kernels.polyak: (vector, vector, scalar),
    }


SIGNATURES = {"network": _network_signatures, "replay": _replay_signatures, "optimizer": _optimizer_signatures}
