"""Warnings that point at the line of the user's script, and not into the libraries that it calls."""

import sys
import warnings

LIBRARIES = {"sb3_rlx2", "stable_baselines3", "sb3_contrib", "rl_zoo3", "torch", "contextlib"}


def warn(message: str) -> None:
    """
    Warn the user.

    :param message: one line
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
