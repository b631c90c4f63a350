"""What a user can get wrong in the zoo's settings and options, checked before the zoo fails at it in words of its own."""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch as th
import yaml
from rl_zoo3 import exp_manager
from rl_zoo3.utils import get_class_by_name
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.validation import check_integer, check_number, known_arguments, nearest_argument

SEEDS = 2**32  # numpy's


def check_settings_file(config: str) -> None:
    """
    Check that a file of hyper-parameters holds some.

    :param config: the file, or what else the zoo takes
    :raises ValueError: if it is YAML and does not
    """
    if not config.endswith((".yml", ".yaml")):
        return
    try:
        settings = yaml.safe_load(Path(config).read_text())
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{config} is no YAML: {error}") from error
    for name, value in settings.items() if isinstance(settings, dict) else [("", None)]:
        if not isinstance(value, dict):
            what = f"holds {name}: {value!r}" if name else "is empty, or a list"
            raise ValueError(f"{config} {what}, where there must be settings for each environment")


def check_zoo_settings(hyperparams: Mapping[str, Any], n_timesteps: int) -> None:
    """
    Check the hyper-parameters that are the zoo's own.

    :param hyperparams: all of them
    :param n_timesteps: those that take the place of the settings', if there are any
    :raises ValueError: if one is nothing to train with
    """
    if n_timesteps <= 0 and "n_timesteps" not in hyperparams:
        raise ValueError("n_timesteps is not among the settings, it must be an integer >= 1 there, or -n gives it")
    for name, check in CHECKS.items():
        if hyperparams.get(name) is not None or (name in hyperparams and name in NEEDED):
            check(name, hyperparams[name])
    if hyperparams.get("noise_type") is not None and "noise_std" not in hyperparams:
        raise ValueError(f"noise_type={hyperparams['noise_type']!r} needs noise_std, a number >= 0")


def check_actions(algo: str, env: VecEnv) -> None:
    """
    Check that an algorithm of ours can act in an environment.

    :param algo: its name in the zoo, or that of another
    :param env: the environment
    :raises ValueError: if it is for other actions, with those that are for these
    """
    if algo in ALGORITHMS:
        cls = ALGORITHMS[algo]
        cls.sparse_policy_class.check_action_space(env.action_space, f"env has action_space={env.action_space}, which", cls)


def check_keywords(algorithm: type[BaseAlgorithm], hyperparams: Mapping[str, Any]) -> None:
    """
    Check that an algorithm knows all its hyper-parameters.

    :param algorithm: the class
    :param hyperparams: its arguments, and the zoo's for action noise
    :raises ValueError: if it does not, with the nearest
    """
    for name in hyperparams.keys() & GIVEN:
        raise ValueError(f"{name}={hyperparams[name]!r} is no hyper-parameter: rlx2 train has {option(name)} for it")
    known = {"noise_type", "noise_std"} | known_arguments(algorithm)
    for name in hyperparams.keys() - known:
        hint = nearest_argument(name, known)
        raise ValueError(f"{name}={hyperparams[name]!r} is no argument of {algorithm.__name__}{hint}")


def check_options(args: argparse.Namespace, least: Mapping[str, int]) -> None:
    """
    Check options that the zoo takes as they come, to fail later or to do something else.

    :param args: of a command
    :param least: the least that a number may be, by the option's name; None where it was not given is right
    :raises ValueError: if one is nothing to go on with
    """
    for name, minimum in least.items():
        if getattr(args, name) is not None:
            check_integer(option(name), getattr(args, name), minimum)
    if not -1 <= args.seed < SEEDS:
        raise ValueError(f"--seed={args.seed} must be an integer in [0, {SEEDS}), or -1 for one of chance")
    if args.num_threads == 0 or args.num_threads < -1:
        raise ValueError(f"--num-threads={args.num_threads} must be an integer >= 1, or -1 for PyTorch's own number")
    if args.device != "auto":
        try:
            th.device(args.device)
        except RuntimeError as error:
            raise ValueError(
                f"--device {args.device} must be auto, or a device of PyTorch, as cpu or cuda: {error}"
            ) from error


def check_one_way(args: argparse.Namespace) -> None:
    """
    Check that actions are not asked for in both ways, of which the zoo would take the second.

    :param args: of a command that plays
    :raises ValueError: if they are
    """
    if args.deterministic and args.stochastic:
        raise ValueError("--deterministic and --stochastic exclude each other: leave one out")


def option(name: str) -> str:
    """
    Write the name of an option as on the command line.

    :param name: as an attribute
    """
    return f"--{name.replace('_', '-')}"


def _check_count(name: str, value: Any) -> None:
    check_integer(name, value, 1)


def _check_normalize(name: str, value: Any) -> None:
    is_text = isinstance(value, str) and value.strip().startswith(("dict(", "{"))
    if not is_text and not isinstance(value, bool | dict):
        raise ValueError(f"{name}={value!r} must be true, false or a dict of arguments of VecNormalize")
    if is_text:
        _check_dict(name, value)


def _check_schedule(name: str, value: Any) -> None:
    text = value.removeprefix("lin_") if isinstance(value, str) else value
    try:
        check_number(name, float(text) if isinstance(text, str) and text != value else text, 0.0, math.inf)
    except ValueError:
        raise ValueError(f"{name}={value!r} must be a number >= 0, or lin_ and one, which falls to 0") from None


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{name}={value!r} must be a dict of arguments")


def _check_dict(name: str, value: Any) -> None:
    if not isinstance(_evaluated(name, value), dict):
        raise ValueError(f"{name}={value!r} must be a dict of arguments, or one as Python writes it")


def _check_class(name: str, value: Any) -> None:
    if not isinstance(_evaluated(name, value), type):
        raise ValueError(f"{name}={value!r} must be a class")


def _evaluated(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return eval(value, dict(vars(exp_manager)))  # as the zoo does
    except Exception as error:
        raise ValueError(f"{name}={value!r} has no value in Python: {type(error).__name__}: {error}") from error


def _check_policy(name: str, value: Any) -> None:
    if not isinstance(value, str | type):
        raise ValueError(f"{name}={value!r} must be the name of a policy, as MlpPolicy, or of its class in a module")
    if isinstance(value, str) and "." in value:
        _import(name, value)


def _check_imports(name: str, value: Any) -> None:
    """Check names of classes, with their arguments: one, or a list."""
    for each in value if isinstance(value, list) else [value]:
        for named in _names(name, each):
            _import(name, named)


def _names(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value))
    if isinstance(value, str):
        yield value
    elif not isinstance(value, type) and not hasattr(value, "on_step"):  # a class, or a callback that is one already
        raise ValueError(f"{name}={value!r} must be a class by its name in a module, or a dict from that to its arguments")


def _import(name: str, value: str) -> None:
    try:
        get_class_by_name(value)
    except (AttributeError, ImportError, ValueError) as error:
        raise ValueError(f"{name}={value!r} must be a class in a module that can be imported: {error}") from error


def _check_noise(name: str, value: Any) -> None:
    if not isinstance(value, str) or value.strip() not in NOISES:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(NOISES)}")


def _check_deviation(name: str, value: Any) -> None:
    check_number(name, value, 0.0, math.inf, high_included=False)


NOISES = ("normal", "ornstein-uhlenbeck")
NEEDED = {"n_envs", "n_timesteps", "policy"}  # None is no value of these
GIVEN = {"device", "env", "seed", "tensorboard_log", "verbose"}  # by the command line, to algorithms
CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("n_envs", "n_timesteps", "frame_stack"), _check_count),
    **dict.fromkeys(("policy_kwargs", "replay_buffer_kwargs", "monitor_kwargs"), _check_dict),
    **dict.fromkeys(("env_wrapper", "vec_env_wrapper", "callback"), _check_imports),
    "env_kwargs": _check_mapping,
    "learning_rate": _check_schedule,
    "noise_std": _check_deviation,
    "noise_type": _check_noise,
    "normalize": _check_normalize,
    "policy": _check_policy,
    "replay_buffer_class": _check_class,
}
