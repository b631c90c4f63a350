"""How numba compiles: options that all kernels share."""

from typing import Any

from numba import njit

# No "nnan" and "ninf": NaN and infinity must propagate as in plain loops, or a diverging run would not show.
FASTMATH = {"nsz", "arcp", "contract", "reassoc"}
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}

# LLVM would vectorise the sparse dot product of one observation with gathers, which are slower than four separate sums.
SINGLE_OPTIONS = OPTIONS | {"fastmath": FASTMATH - {"reassoc"}}

# What kernels call; Python does not call these. Where a kernel is also an entry of its own, compile.py compiles it again.
kernel: Any = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
inline: Any = njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
