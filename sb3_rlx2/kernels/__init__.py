"""
Everything that numba compiles. :func:`load` is the door: importing numba takes longer than importing the rest of the package,
so nothing else imports it before kernels are needed.
"""

from functools import cache
from importlib import import_module
from types import SimpleNamespace


@cache  # for the life of the process, and its forks; threads that ask for a group at the same time may each load it
def load(group: str, dtype: str = "float32", length: int = 0) -> SimpleNamespace:
    """
    Compile a group of kernels or read it from the disk cache.

    :param group: where it is declared, as module and name: ``".mlp:FORWARD"`` in this package (as in an import, a dot begins
        what is relative), ``"sb3_rlx2.algorithms.td3.kernels:TD3"`` anywhere
    :param dtype: ``"float32"`` or ``"float64"``, for arrays that are annotated with no dtype
    :param length: length of tuples that are annotated with none, such as the critics of a gradient step
    :return: the kernels by name, jobs of a team as addresses
    :raises ValueError: if the module declares no such group, or its structs need a length
    """
    from sb3_rlx2.kernels import compile as compiler  # late, as said above
    from sb3_rlx2.kernels.signatures import Group

    module, _, name = group.partition(":")
    declared = getattr(import_module(module, __name__), name, None)
    if not isinstance(declared, Group):
        raise ValueError(f"group={group!r} must name a `Group` that a module declares, such as '.mlp:FORWARD'")
    return compiler.load(declared, dtype, length)
