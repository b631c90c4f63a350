"""
What a run logs: the names of the columns, and rows of SB3's ``progress.csv`` for `rlx2 report`, also between two dumps of
the logger.
"""

import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, KVWriter, Logger
from stable_baselines3.common.monitor import Monitor

from sb3_rlx2.warning import warn

ARRAYS = "rlx2/arrays"  # column: whether gradient steps are done in arrays and kernels
STEP = "time/total_timesteps"  # SB3's name for the step of a row
N_STEPS = "rlx2/n_steps"
BUFFER_SIZE = "rlx2/buffer_size"  # transitions
POLICY_DISTANCE = "rlx2/policy_distance"
DROP_FRACTION = "rlx2/drop_fraction"
FLOPS_RATIO = "rlx2/flops_ratio"  # a gradient step's FLOPs, of a dense agent's


def column(network: str, what: str) -> str:
    """
    Name a column that each sparse network has.

    :param network: the network's name, as ``"actor"``
    :param what: ``"density"``, ``"updates"`` or ``"churn"``
    """
    return f"rlx2/{network}_{what}"


def layer_column(network: str, mlp: int, layer: int) -> str:
    """
    Name the column of a layer's churn.

    :param network: the network's name, as ``"critic"``
    :param mlp: number of the network among its twins
    :param layer: number of the layer in it
    """
    return f"{column(network, 'churn')}/{mlp}.{layer}"


def layer_of(name: str) -> tuple[str, int, int] | None:
    """
    Say of which layer a column is the churn, the inverse of :func:`layer_column`.

    :param name: the column's name
    :return: the network's name, its number among its twins and that of the layer in it; None if it is no such column
    """
    match = re.fullmatch(rf"{column('(.+)', 'churn')}/(\d+)\.(\d+)", name)
    return None if match is None else (match[1], int(match[2]), int(match[3]))


def write_row(logger: Logger, values: dict[str, Any], step: int) -> None:
    """
    Write what happened at a step at once. ``Logger.record`` keeps only the last value until the next dump, and a dump of
    our own would print tables in between. Tables are left out here; files and TensorBoard get the row.

    :param logger: a model's logger
    :param values: what to write, by name
    :param step: environment steps so far
    """
    excluded: dict[str, tuple[str, ...]] = {**dict.fromkeys(values, ("",)), STEP: ("tensorboard",)}
    for output in logger.output_formats:
        if isinstance(output, KVWriter) and not isinstance(output, HumanOutputFormat):
            output.write({**values, STEP: step}, excluded, step)


def logs_if_there_is_room(write: Callable[..., None], _: Any = None) -> Callable[..., None]:
    """
    Have a method that writes a row of a log warn where it cannot. The file keeps what it was given for the next row.

    :param write: the method
    :return: what takes its place
    """

    @wraps(write)
    def write_or_warn(*given: Any, **kwargs: Any) -> None:
        try:
            write(*given, **kwargs)
        except OSError as error:
            warn(f"a row of a log is not written yet: {error}")

    return write_or_warn


def monitored(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """
    Have SB3's ``Monitor`` outlive a full disk, also in a process of its own.

    :param env: an environment that may be in one
    :return: the environment
    """
    layer = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, Monitor) and layer.results_writer is not None:
            writer = layer.results_writer
            vars(writer)["write_row"] = logs_if_there_is_room(writer.write_row)
        layer = layer.env
    return env


class ProgressFile(BaseCallback):
    """
    Writes what the model logs into a run's folder too, as SB3's ``progress.csv``. In a script,
    ``model.set_logger(configure(folder, ["stdout", "csv"]))`` does the same. A file that is there already stays; the new
    one gets a number.

    :param folder: the run's folder
    :param again: whether the last file there is this run's, to be gone on with
    """

    def __init__(self, folder: str | Path, again: bool = False) -> None:
        super().__init__()
        self.folder, self.again = Path(folder), again
        self._output: CSVOutputFormat | None = None

    def _on_training_start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path()
        self._output = _go_on(path) if path.exists() and path.stat().st_size > 0 else CSVOutputFormat(str(path))
        self.logger.output_formats.append(self._output)

    def _path(self) -> Path:
        earlier = progress_files(self.folder)
        return earlier[-1] if self.again and earlier else self.folder / _free_name(self.folder)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self._output is not None:  # the zoo may end a training twice
            self.logger.output_formats.remove(self._output)
            self._output.close()
            self._output = None


def _go_on(path: Path) -> CSVOutputFormat:
    """Open a file behind its rows. SB3's own empties it, and a process that is killed then has lost them."""
    output = CSVOutputFormat(os.devnull)
    output.close()
    output.file = path.open("r+")
    output.keys = output.file.readline().rstrip("\n").split(",")
    output.file.seek(0, os.SEEK_END)
    return output


def read_evaluations(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """
    Read what SB3's ``EvalCallback`` has written.

    :param path: ``evaluations.npz``
    :return: steps, ``[evaluations]``, and returns, ``[evaluations, episodes]``
    :raises ValueError: if it is damaged, or something else
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return stored["timesteps"], stored["results"]
    except Exception as error:  # whatever a damaged file makes of numpy
        raise ValueError(f"{path} is damaged, or holds no evaluations: {error}") from error


def progress_files(folder: Path) -> list[Path]:
    """
    Find the progress files of a run, in the order in which they were begun.

    :param folder: the run's folder
    """
    first, others = folder / "progress.csv", folder.glob("progress_*.csv")
    numbered = sorted((int(path.stem.partition("_")[2]), path) for path in others if path.stem.partition("_")[2].isdigit())
    return [*([first] if first.exists() else []), *(path for _, path in numbered)]


def _free_name(folder: Path) -> str:
    taken = progress_files(folder)
    if not taken:
        return "progress.csv"
    last = taken[-1].stem.partition("_")[2]
    return f"progress_{int(last or 1) + 1}.csv"
