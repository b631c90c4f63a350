"""Where a run takes place: what must be the same for it to go on to the last bit."""

import hashlib
import inspect
import math
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_rlx2.checkpoint.environments import parts_of_envs
from sb3_rlx2.packing import is_plain
from sb3_rlx2.validation import known_arguments

PACKAGES = ("torch", "numpy", "stable-baselines3", "sb3-contrib", "gymnasium", "mujoco", "numba")
LONG = 200  # letters


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
    Give the arguments of a model that are numbers, words or the like, as JSON has them.

    :param model: the algorithm
    """
    names = sorted(known_arguments(type(model)) - {"policy_kwargs", "verbose", "tensorboard_log", "stats_window_size"})
    values = {name: getattr(model, name) for name in ("n_envs", *names) if hasattr(model, name)}
    # The planned end belongs to them: schedules run towards it. And the device, on which numbers round as nowhere else.
    return _as_json(values | {"total_timesteps": model._total_timesteps, "device": str(model.device)})


def kept_arguments(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """
    Give the arguments whose effect a checkpoint holds, so that others have none in a run that goes on: of the policy, of
    environments and what they are wrapped in, and of noise, as far as these keep them under their names. Without a seed
    environments may have drawn what stands there.

    :param model: the algorithm, with its environments
    """
    env, noise = model.get_env(), model.action_noise
    assert env is not None
    things = [*(parts_of_envs(env) if model.seed is not None else ()), *([] if noise is None else [noise])]
    found = {f"{type(each).__name__}.{name}": value for each in things for name, value in _kept(each).items()}
    given = {**(model.policy_kwargs or {}), "optimizer_class": model.policy.optimizer_class}
    return _as_json({f"policy_kwargs.{name}": value for name, value in given.items()} | found)


def _kept(thing: Any) -> dict[str, Any]:
    """Give the constructor's arguments that an object has among its attributes."""
    held = vars(thing)
    names = {name: next((each for each in (name, f"_{name}") if each in held), None) for name in _parameters(type(thing))}
    return {name: held[attribute] for name, attribute in names.items() if attribute is not None}


def _parameters(kind: type) -> Iterable[str]:
    try:
        return inspect.signature(kind).parameters
    except ValueError:  # made in C
        return ()


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give numbers and words as they are, what else is plain, and classes, in words; long ones by a checksum."""
    return {name: _in_words(value) for name, value in values.items() if isinstance(value, type) or is_plain(value)}


def _in_words(value: Any) -> Any:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value) in (type(None), bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    text = (
        str(sorted(map(str, value))) if isinstance(value, set) else str(value.tolist() if hasattr(value, "tolist") else value)
    )
    return text if len(text) <= LONG else f"{text[:20]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """
    Say in words what is not as it was, of what was known then and is now.

    :param before: names and values
    :param now: names and values
    :return: the differences, empty if there are none
    """
    names = [name for name in before if name in now and before[name] != now[name]]
    return ", ".join(f"{name} {before[name]} -> {now[name]}" for name in names)


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
