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
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from filelock import FileLock
from numba import cfunc, njit

from sb3_rlx2.kernels.signatures import Group, plain, signature
from sb3_rlx2.warning import warn

MANIFEST = "checksums.json"

_turn = threading.RLock()  # of a thread to compile
if hasattr(os, "register_at_fork"):  # a fork waits, or its child would find the lock held by nobody
    os.register_at_fork(before=_turn.acquire, after_in_parent=_turn.release, after_in_child=_turn.release)


def load(group: Group, dtype: str, length: int) -> SimpleNamespace:
    """
    Compile a group of kernels or read it from the disk cache; callers use :func:`sb3_rlx2.kernels.load`.

    :param group: the group
    :param dtype: see there
    :param length: see there
    :return: the kernels by name, jobs of a team as addresses
    """
    folder = cache_folder(group, dtype, length)
    if folder is None:
        return _compile_anew(group, dtype, length, None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            return _load_or_compile(group, dtype, length, folder)
    except OSError as error:
        warn(f"the kernel cache {folder} cannot be used ({error}); compiling without it")
        return _compile_anew(group, dtype, length, None)


def cache_folder(group: Group, dtype: str, length: int = 0) -> Path | None:
    """
    Name the folder after what the machine code depends on: sources, versions, CPU. The sources are the files of the group's
    own kernels, which call those of ``kernels/`` and no others, and all of ``kernels/``.

    :param group: the group
    :param dtype: see :func:`sb3_rlx2.kernels.load`
    :param length: see there
    :return: the folder, None if the cache is switched off
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = os.environ.get("SB3_RLX2_CACHE_DIR", str(Path(home) / "sb3_rlx2"))
    if not root:
        return None
    parts = [numba.__version__, np.__version__, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    # Places, too: numba files its entries by them, so another copy of the package would find none of its own.
    for path in sorted({*Path(__file__).parent.glob("*.py"), *group.files()}):
        parts += [str(path), hashlib.sha256(path.read_bytes()).hexdigest()]
    return Path(root) / f"{group.name}{length or ''}-{dtype}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}"


def _load_or_compile(group: Group, dtype: str, length: int, folder: Path) -> SimpleNamespace:
    if folder.exists():
        if _checksums(folder) == _manifest(folder):
            return _compile(group, dtype, length, folder)
        warn(f"the kernel cache {folder} is damaged; compiling again")
        shutil.rmtree(folder)
    # A process that is killed on the way leaves an unfinished folder of another name, which the next one empties.
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    compiled = _compile_anew(group, dtype, length, unfinished)
    (unfinished / MANIFEST).write_text(json.dumps(_checksums(unfinished)))
    unfinished.rename(folder)
    return compiled


def _compile_anew(group: Group, dtype: str, length: int, folder: Path | None) -> SimpleNamespace:
    """Compile, and say so: the program stands still for some seconds."""
    often = "as there is no cache" if folder is None else "once on this machine"
    print(f"sb3_rlx2: compiling kernels of {group.name}, {often} ... ", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    compiled = _compile(group, dtype, length, folder)
    print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    return compiled


def _checksums(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _manifest(folder: Path) -> Any:
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None


def _compile(group: Group, dtype: str, length: int, folder: Path | None) -> SimpleNamespace:
    """Compile, or read from the folder what is there. Each function has a name of its own and a single signature."""
    compiled, entries = {}, {}
    options = {**group.options, "cache": folder is not None}
    with _compiling_into(folder):
        for function in map(plain, group.functions):
            kernel = njit(signature(function, dtype, length), no_cfunc_wrapper=True, **options)(_copy(function, dtype))
            compiled[function.__name__] = kernel
            # Behind numba's dispatcher, which would look for a signature in each call; it checks its arguments itself.
            (overload,) = kernel.overloads.values()
            entries[function.__name__] = overload.entry_point
        for function in map(plain, group.jobs):
            compiled[function.__name__] = cfunc(signature(function, dtype, length), **options)(_copy(function, dtype))
            entries[function.__name__] = compiled[function.__name__].address
    return SimpleNamespace(**entries, compiled=compiled)  # what was compiled lives as long as its entries


def _copy(function: FunctionType, dtype: str) -> FunctionType:
    copy = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_{dtype}")
    copy.__qualname__ = copy.__name__
    return copy


@contextmanager
def _compiling_into(folder: Path | None) -> Iterator[None]:
    """
    Set numba's folder, and LLVM's effort: at level 1 the kernels are no slower and compile sooner (benchmarks/speed/NOTES.md).
    Both settings are global, so threads take turns.
    """
    with _turn:
        before = numba.config.CACHE_DIR, numba.config.OPT
        level = type(before[1])  # numba's own type of a level
        numba.config.CACHE_DIR, numba.config.OPT = str(folder or ""), level(1)
        try:
            yield
        finally:
            numba.config.CACHE_DIR, numba.config.OPT = before
