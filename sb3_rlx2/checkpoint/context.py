"""Where a run takes place: what must be the same for it to go on to the last bit."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_rlx2.packing import is_plain

PACKAGES = ("torch", "numpy", "stable-baselines3", "sb3-contrib", "gymnasium", "mujoco", "numba")


def context() -> dict[str, Any]:
    """Name the machine, the number of threads, and the versions of what computes."""
    return {
        "processor": _processor(),
        "threads": th.get_num_threads(),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def arguments(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """
    Give the settings of a model that are numbers, words or the like.

    :param model: the algorithm
    """
    names = ("gamma", "tau", "batch_size", "buffer_size", "learning_starts", "gradient_steps", "learning_rate", "n_envs")
    own: set[str] = getattr(type(model), "rlx2_keywords", set)()
    values = {name: getattr(model, name, None) for name in (*names, *sorted(own))}
    # The planned end belongs to them: schedules run towards it. And the device, on which numbers round as nowhere else.
    about = {"total_timesteps": model._total_timesteps, "device": str(model.device)}
    return about | {name: value for name, value in values.items() if is_plain(value)}


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """
    Say in words what is not as it was.

    :param before: names and values
    :param now: names and values
    :return: the differences, empty if there are none
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
