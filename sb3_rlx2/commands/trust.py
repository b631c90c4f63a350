"""Keeps the host from running code of the files that it reads, unless the user trusts them (``rlx2 --trust``)."""

import argparse
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sb3_rlx2 import safe_pickle
from sb3_rlx2.settings import PlainLoader, plain_dict, read_settings

# Packages whose wrappers an agent's settings may name.
PACKAGES = ("gymnasium", "rl_zoo3", "sb3_contrib", "sb3_rlx2", "stable_baselines3")


def reads_values(module: Any, _: argparse.Namespace) -> Any:
    """
    Replace ``pickle``, or ``cloudpickle``, in one of the host's modules by what makes values only.

    :param module: the module
    :return: what takes its place
    """
    return module if safe_pickle.trusts else SimpleNamespace(**vars(module) | {each.__name__: each for each in READERS})


def reads_plain(loader: Any, _: argparse.Namespace) -> Any:
    """
    Replace the YAML loader with which the zoo reads its own files, which makes any object.

    :param loader: ``yaml.UnsafeLoader``
    :return: what takes its place
    """
    return loader if safe_pickle.trusts else PlainLoader


def with_checked_settings(get_saved_hyperparams: Any, args: argparse.Namespace) -> Callable[..., Any]:
    """
    Read an agent's settings only where what the zoo evaluates and imports of them is harmless.

    :param get_saved_hyperparams: the zoo's
    :param args: of the command
    :return: what takes its place
    """

    def get(stats_path: str, *given: Any, **kwargs: Any) -> Any:
        path = Path(stats_path, "config.yml")
        if path.is_file() and not safe_pickle.trusts:
            check_settings(path, {*PACKAGES, *(getattr(args, "gym_packages", None) or ())})
        return get_saved_hyperparams(stats_path, *given, **kwargs)

    return get


def check_settings(path: Path, packages: Collection[str]) -> None:
    """
    Check that what the zoo evaluates of an agent's settings is a dict, and what it imports comes from known packages.

    :param path: its ``config.yml``
    :param packages: their names
    :raises ValueError: if it does not
    """
    settings = read_settings(path)
    normalize = settings.get("normalize")
    if isinstance(normalize, str):
        try:
            plain_dict(normalize)
        except ValueError:
            raise ValueError(f"{path} has normalize={normalize!r}, which would be run: rlx2 --trust does that") from None
    for setting in ("env_wrapper", "vec_env_wrapper"):
        for name in _names(settings.get(setting)):
            if name.partition(".")[0] not in packages:
                raise ValueError(
                    f"{path} has {setting}={name}, which would be run: rlx2 --trust, or --gym-packages, does that"
                )


def _names(wrappers: Any) -> Iterator[str]:
    """Give the names of wrappers, as the zoo has them: one, or a list, of names or of dicts from a name to arguments."""
    for each in wrappers if isinstance(wrappers, list) else [wrappers]:
        if each is not None:
            yield from [each] if isinstance(each, str) else each


READERS = (safe_pickle.load, safe_pickle.loads)
