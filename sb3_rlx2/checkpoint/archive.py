"""Agents in files: whether a file is one, which one of a run is the newest, and how those saved on the way are named."""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sb3_rlx2 import saved_objects
from sb3_rlx2.checkpoint import generations
from sb3_rlx2.checkpoint.agent import as_zip
from sb3_rlx2.checkpoint.transitions import DamagedError
from sb3_rlx2.saved_objects import DATA, read_objects

CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<steps>\d+)_steps")  # as SB3's CheckpointCallback names them
CHECKPOINTS = "checkpoints"  # folder of those of the whole run, in the run's


def newer_checkpoint(run: Path, saved: Path | None) -> Path | None:
    """
    Find the newest whole checkpoint of a run that was cut off, or is being trained.

    :param run: the run's folder
    :param saved: the agent that would be taken otherwise
    :return: folder of the checkpoint; None if there is none, or the agent is whole and not older
    :raises ValueError: if all checkpoints are damaged, and the agent too
    """
    steps = None if saved is None else _steps_of(saved)
    try:
        newest = generations.newest(run / CHECKPOINTS, rows=False)
    except DamagedError:
        if steps is None:
            raise
        return None
    return None if newest is None or (steps is not None and steps >= newest.step) else newest.path


def _steps_of(path: Path) -> int | None:
    """Give the environment steps that a whole agent has been trained for."""
    if why_no_agent(path) is not None:
        return None
    with suppress(KeyError, TypeError, ValueError), zipfile.ZipFile(path) as archive:
        return int(json.loads(archive.read(DATA))["num_timesteps"])
    return None


def why_no_agent(path: Path) -> str | None:
    """
    Tell whether there is a whole agent, as Stable-Baselines3 saves one or in a checkpoint.

    :param path: the file, or the checkpoint's folder
    :return: what is wrong with it, None if nothing is
    """
    if path.is_dir():
        if not is_checkpoint(path):
            return "is a folder, and no checkpoint of a run"
        found = generations.check(path, rows=False)
        return f"is damaged: {found}" if isinstance(found, DamagedError) else None
    return saved_objects.why_no_agent_zip(path)


def is_checkpoint(path: Path) -> bool:
    """
    Tell whether a path is the folder of a checkpoint of a whole run.

    :param path: the path
    """
    return path.is_dir() and generations.NAME.fullmatch(path.name) is not None


def opened(path: Path) -> io.BytesIO | io.BufferedReader:
    """
    Open an agent as Stable-Baselines3 saves it.

    :param path: the file, or a checkpoint's folder
    :raises ValueError: if the checkpoint is damaged, or of a version that kept no agent
    """
    return as_zip(path) if path.is_dir() else path.open("rb")


def read_pickled(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Read what is pickled in an agent, without running code of it unless that is trusted.

    :param path: the file, or a checkpoint's folder
    :param given: attributes that take the place of saved ones
    :return: SB3's argument ``custom_objects``
    :raises ValueError: if the agent is damaged, or holds what is not to be made from a file
    """
    with opened(path) as file:
        try:
            return read_objects(file, given) | dict(given)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def check_agent(path: Path) -> None:
    """
    Check that there is a whole agent, as Stable-Baselines3 saves one or in a checkpoint.

    :param path: the file, or the checkpoint's folder
    :raises ValueError: if there is none
    """
    reason = why_no_agent(path)
    if reason is not None:
        raise ValueError(f"{path} {reason}")
