"""Agents in files: whether a file is one, and the names of those that are saved on the way."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_rlx2.saved_objects import read_objects, why_no_agent

CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<steps>\d+)_steps")  # as SB3's CheckpointCallback names them


def read_pickled(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Read what is pickled in an agent, without running code of it unless that is trusted.

    :param path: the file
    :param given: attributes that take the place of saved ones
    :return: SB3's argument ``custom_objects``
    :raises ValueError: if the agent is damaged, or holds what is not to be made from a file
    """
    with path.open("rb") as file:
        try:
            return read_objects(file, given) | dict(given)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def check_agent(path: Path) -> None:
    """
    Check that a file is a whole agent, as Stable-Baselines3 saves one.

    :param path: the file
    :raises ValueError: if it is not
    """
    reason = why_no_agent(path)
    if reason is not None:
        raise ValueError(f"{path} {reason}")
