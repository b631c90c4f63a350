"""Agents in files: whether a file is one, and the names of those that are saved on the way."""

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_rlx2.saved_objects import check_members, read_objects

CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<steps>\d+)_steps")  # as SB3's CheckpointCallback names them


def why_no_agent(path: Path) -> str | None:
    """
    Tell whether a file is a whole agent, as Stable-Baselines3 saves one.

    :param path: the file
    :return: what is wrong with it, None if nothing is
    """
    if not path.is_file():
        return "is a folder, where the file of an agent must be" if path.is_dir() else "does not exist"
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive)
            damaged, names = archive.testzip(), archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        return f"is damaged, or no zip: {error}"
    # What is left of a torn zip may open as one of the archives inside it, so what must be there counts too.
    if damaged is not None or not {"data", "policy.pth"} <= set(names):
        return "is damaged, or no agent that Stable-Baselines3 saved"
    return None


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
