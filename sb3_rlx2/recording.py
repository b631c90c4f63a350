"""What a run leaves in its folder for `rlx2 report`: rows of SB3's ``progress.csv``, also between two dumps of the logger."""

from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, KVWriter, Logger

STEP = "time/total_timesteps"  # SB3's name for the step of a row


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


class ProgressFile(BaseCallback):
    """
    Writes what the model logs into a run's folder too, as SB3's ``progress.csv``. In a script,
    ``model.set_logger(configure(folder, ["stdout", "csv"]))`` does the same. A file that is there already stays; the new
    one gets a number.

    :param folder: the run's folder
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder)
        self._output: CSVOutputFormat | None = None

    def _on_training_start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._output = CSVOutputFormat(str(self.folder / _free_name(self.folder)))
        self.logger.output_formats.append(self._output)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self._output is not None:  # the zoo may end a training twice
            self.logger.output_formats.remove(self._output)
            self._output.close()
            self._output = None


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
