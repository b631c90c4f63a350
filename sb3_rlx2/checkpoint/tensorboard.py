"""What a run has written for TensorBoard: a folder of files of events, to which each process adds one."""

import os
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

EVENTS = "events.out.tfevents.*"  # TensorBoard's own pattern


def written(output: TensorBoardOutputFormat) -> dict[str, Any]:
    """
    Say what a run has written so far.

    :param output: its output
    :return: the folder, and the bytes of each file in it by name
    """
    folder = Path(output.writer.log_dir).absolute()
    return {"folder": str(folder), "events": {path.name: path.stat().st_size for path in sorted(folder.glob(EVENTS))}}


def go_on(logger: Logger, output: TensorBoardOutputFormat, before: dict[str, Any]) -> None:
    """
    Go on in a run's folder, without what was written in it since. If it is no longer there, a new folder holds the rest.

    :param logger: the logger of a process that has just begun, which SB3 gives a new folder
    :param output: its output
    :param before: what :func:`written` gave
    """
    own, lengths = Path(output.writer.log_dir).absolute(), before["events"]
    folder = next((each for each in (own, Path(before["folder"])) if _holds(each, lengths)), None)
    if folder is None:
        return
    writer: Any = output.writer.file_writer
    begun = Path(writer.event_writer._file_name)  # no public name tells it
    output.writer.close()
    begun.unlink()
    if own != folder and not any(own.iterdir()):
        own.rmdir()
        logger.dir = str(folder)
    for path in folder.glob(EVENTS):
        if path.name in lengths:
            os.truncate(path, lengths[path.name])
        else:
            path.unlink()  # of a process that has gone on from here, or from further back, and was killed
    output.writer = type(output.writer)(log_dir=str(folder))


def _holds(folder: Path, lengths: dict[str, int]) -> bool:
    return all((folder / name).is_file() and (folder / name).stat().st_size >= lengths[name] for name in lengths)
