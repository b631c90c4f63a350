"""What builds on sb3-contrib: it is imported when it is asked for, so that all else works without that package."""

import importlib
from typing import Any

MODULES = {
    "RLx2CrossQ": "sb3_rlx2.algorithms.crossq.crossq",
    "SparseCrossQPolicy": "sb3_rlx2.algorithms.crossq.policies",
    "RLx2QRDQN": "sb3_rlx2.algorithms.qrdqn.qrdqn",
    "SparseQRDQNCnnPolicy": "sb3_rlx2.algorithms.qrdqn.policies",
    "SparseQRDQNMultiInputPolicy": "sb3_rlx2.algorithms.qrdqn.policies",
    "SparseQRDQNPolicy": "sb3_rlx2.algorithms.qrdqn.policies",
    "RLx2TQC": "sb3_rlx2.algorithms.tqc.tqc",
    "SparseTQCCnnPolicy": "sb3_rlx2.algorithms.tqc.policies",
    "SparseTQCMultiInputPolicy": "sb3_rlx2.algorithms.tqc.policies",
    "SparseTQCPolicy": "sb3_rlx2.algorithms.tqc.policies",
}


def find(module: str, name: str) -> Any:
    """
    Find what a module's ``__getattr__`` was asked for.

    :param module: the module
    :param name: one of the keys of ``MODULES``
    :raises AttributeError: if it is none
    :raises ImportError: if sb3-contrib is not installed
    """
    if name not in MODULES:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(MODULES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sb3_contrib":
            raise
        raise ImportError(f"{name} needs sb3-contrib, which is not installed: pip install sb3-contrib") from error
