"""
Shares cells out to workers, on this machine and on others, through a study in the storage that tuning uses.

A trial is a cell that somebody trains. A worker that dies gives no heartbeat, and its trial goes to another; the cell goes
on from its last checkpoint if the folder of checkpoints is shared, else from its beginning. Finished results travel in the
storage too.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from benchmarks.machine import thread_variables
from benchmarks.returns.cells import CELLS, Cell
from benchmarks.returns.progress import Display
from benchmarks.returns.training import Places, as_text, train
from sb3_rlx2.storage import open_storage, run_trials

ROOT = Path(__file__).parents[2]
STUDY = "returns: "  # begins the name of each of our studies; the names of sets and cells follow
FORGIVEN = "forgiven"  # numbers of failed trials whose cells may be tried again


class Grid:
    """
    Cells that some workers train together.

    :param names: what was asked for, sets or cells; workers that are to share work must be asked for the same
    :param cells: the cells, in the order in which they are begun
    :param storage: see ``open_storage``
    :param places: where files go
    :param checkpoint_every: seconds between checkpoints
    """

    def __init__(
        self, names: Sequence[str], cells: Sequence[Cell], storage: str, places: Places, checkpoint_every: float
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.names, self.cells, self.places, self.checkpoint_every = names, list(cells), places, checkpoint_every
        self.url = storage
        places.work.mkdir(parents=True, exist_ok=True)
        self.storage = open_storage(storage)
        self.study = optuna.create_study(study_name=STUDY + " ".join(names), storage=self.storage, load_if_exists=True)

    def work(self) -> None:
        """Train cells until none is left; returns when those of other workers are finished too."""
        forgiven = self.study.user_attrs.get(FORGIVEN, [])
        run_trials(self.study, self._train_next, len(self.cells) + len(forgiven), progress=False)

    def run(self, cores: int) -> int:
        """
        Keep workers going, one thread each, and show how far they are.

        :param cores: number of workers
        :return: exit status
        """
        self.collect()
        self._forgive()
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.returns", "work", *self.names]
        command += ["--storage", self.url, "--folder", str(self.places.work.resolve())]
        command += ["--results", str(self.places.results.resolve()), "--checkpoint-every", str(self.checkpoint_every)]
        environment = os.environ | thread_variables(1)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are stopped behind it
        workers = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(cores)]
        try:
            with Display(self.cells, self.places) as display:
                while any(worker.poll() is None for worker in workers):
                    display.update()
                    time.sleep(0.5)
                display.update()
        except KeyboardInterrupt:
            print("Stopped. The same command goes on from the last checkpoints.", file=sys.stderr)
            return 130
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait()
        self.collect()
        return self._summary([worker.returncode for worker in workers])

    def collect(self) -> None:
        """Write the files of cells that other machines have finished."""
        collect(self.storage, self.places)

    def failures(self) -> dict[str, str]:
        """Give the errors of cells that failed, by cell."""
        return failures(self.study)

    def _summary(self, codes: list[int]) -> int:
        missing = [cell.name for cell in self.cells if not self.places.result(cell).exists()]
        for name, error in self.failures().items():
            print(f"{name} failed: {error}", file=sys.stderr)
        if missing:
            print(f"{len(missing)} of {len(self.cells)} cells are missing; the same command goes on.", file=sys.stderr)
        if any(codes):
            print(f"workers ended with {sorted(set(codes))}, see above", file=sys.stderr)
        return 1 if missing or any(codes) else 0

    def _forgive(self) -> None:
        """Let cells that failed be tried again."""
        pruned = [trial.number for trial in self.study.get_trials(deepcopy=False) if trial.state == TrialState.PRUNED]
        self.study.set_user_attr(FORGIVEN, pruned)

    def _train_next(self, trial: Trial) -> float:
        cell = self._choose(trial)
        if cell is None:
            return math.nan
        try:
            result = train(cell, self.places, self.checkpoint_every)
        except Exception as error:  # one broken cell must not keep the others from being trained
            traceback.print_exc()
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            return math.nan
        trial.set_user_attr("result", as_text(result))
        return float(np.mean(result["curve"][-1]["returns"]))

    def _choose(self, trial: Trial) -> Cell | None:
        """Give the dead trial's cell if this one is its retry, else the next that nobody has."""
        if "cell" in trial.user_attrs:
            return next(cell for cell in self.cells if cell.name == trial.user_attrs["cell"])
        forgiven = self.study.user_attrs.get(FORGIVEN, [])
        with self.storage.exclusive(self.study._study_id):  # type: ignore[attr-defined]
            trials = self.study.get_trials(deepcopy=False)
            taken = {one.user_attrs.get("cell") for one in trials if _holds(one, forgiven)}
            for cell in self.cells:
                if cell.name not in taken:
                    trial.set_user_attr("cell", cell.name)
                    return cell
        return None


def _holds(trial: FrozenTrial, forgiven: list[int]) -> bool:
    return trial.state != TrialState.FAIL and trial.number not in forgiven


def failures(study: optuna.Study) -> dict[str, str]:
    """Give the errors of a study's failed cells, by cell; a cell that was finished later did not fail."""
    trials = study.get_trials(deepcopy=False)
    finished = {trial.user_attrs.get("cell") for trial in trials if trial.state == TrialState.COMPLETE}
    errors = {trial.user_attrs["cell"]: trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs}
    return {name: error for name, error in errors.items() if name not in finished}


def studies(storage: optuna.storages.BaseStorage) -> list[optuna.Study]:
    """Give the grids of a storage."""
    names = [name for name in optuna.get_all_study_names(storage) if name.startswith(STUDY)]
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def collect(storage: optuna.storages.BaseStorage, places: Places) -> None:
    """
    Write the files of cells that were finished anywhere.

    :param storage: what the machines share
    :param places: where files go
    """
    for study in studies(storage):
        for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
            cell = CELLS.get(trial.user_attrs.get("cell", ""))
            if cell is not None and not places.result(cell).exists():
                places.store(cell, trial.user_attrs["result"])


def behave_as_child() -> None:
    """
    Give the trial back when told to stop, so that it can be taken up at once, and end when the process that started this
    one is gone, however that ended.
    """
    parent = os.getppid()

    def stop(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the terminal and the parent may both send one
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)  # as a kill, from which cells recover

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
