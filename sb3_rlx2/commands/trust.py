"""Keeps the host from running code of the files that it reads, unless the user trusts them (``rlx2 --trust``)."""

import argparse
from types import SimpleNamespace
from typing import Any

from sb3_rlx2 import safe_pickle
from sb3_rlx2.settings import PlainLoader


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


READERS = (safe_pickle.load, safe_pickle.loads)
