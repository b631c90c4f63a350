"""Compiles an exported policy and calls it from Python, to prove that it acts as it should."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sb3_rlx2.export.rlx2_reader import Policy

FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-shared", "-fPIC")
Act = Callable[[np.ndarray], np.ndarray]


def compiler() -> list[str] | None:
    """Give the command of the C compiler, ``$CC`` or the first that is there; None if there is none."""
    given = shlex.split(os.environ.get("CC", ""))
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return given or ([found] if found else None)


def load(files: dict[str, bytes], command: list[str]) -> ctypes.CDLL:
    """
    Compile C and load it.

    :param files: content of each file, by its name; those that end with ``.c`` are compiled
    :param command: the compiler, see :func:`compiler`
    :raises RuntimeError: if it does not compile
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        sources = [name for name in files if name.endswith(".c")]
        result = subprocess.run([*command, *FLAGS, *sources, "-o", "policy.so"], cwd=folder, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"{shlex.join(command)} does not compile the policy: {result.stderr}")
        return ctypes.CDLL(str(Path(folder, "policy.so")))


def act_of_source(files: dict[str, bytes], name: str, policy: Policy, command: list[str]) -> Act:
    """
    Compile a policy's C.

    :param files: what :func:`sb3_rlx2.export.c.source` gave
    :param name: the name that it was given
    :param policy: the policy
    :param command: the compiler
    :return: like the policy itself
    """
    library = load(files, command)
    return _calling(policy, lambda observation, action: library[f"{name}_act"](observation, action))


def act_of_reader(files: dict[str, bytes], data: bytes, policy: Policy, command: list[str]) -> Act:
    """
    Compile the reader of ``.rlx2`` files.

    :param files: what :func:`sb3_rlx2.export.bin.readers` gave
    :param data: the ``.rlx2`` file
    :param policy: the policy
    :param command: the compiler
    :return: like the policy itself
    :raises RuntimeError: if the reader refuses the file
    """
    library = load(files, command)
    scratch = (ctypes.c_float * library.rlx2_floats(data, ctypes.c_uint32(len(data))))()
    if len(scratch) == 0:
        raise RuntimeError("rlx2_reader.c refuses the file")
    return _calling(policy, lambda observation, action: library.rlx2_act(data, observation, action, scratch))


def _calling(policy: Policy, call: Callable[[ctypes.c_void_p, ctypes.c_void_p], object]) -> Act:
    """Give a function of one observation or several that calls a function of pointers for each."""

    def act(observation: np.ndarray) -> np.ndarray:
        flat = np.ascontiguousarray(observation, np.float32).reshape(-1, policy.inputs)
        actions = np.empty((len(flat), policy.actions), np.float32)
        for row, action in zip(flat, actions, strict=True):
            call(ctypes.c_void_p(row.ctypes.data), ctypes.c_void_p(action.ctypes.data))
        return actions.reshape(*np.shape(observation)[:-1], policy.actions)

    return act
