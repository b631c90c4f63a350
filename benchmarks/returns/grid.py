"""
Shares cells out to workers, on this machine and on others, through a study in the storage that tuning uses.

A trial is a cell that somebody trains. A worker that dies gives no heartbeat, and its trial goes to another; the cell goes
on from its last checkpoint if the folder of checkpoints is shared, else from its beginning. Finished results travel in the
storage too; those of a cell that the grid describes otherwise today are left where they are.
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
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from benchmarks.machine import thread_variables
from benchmarks.returns.cells import CELLS, Cell
from benchmarks.returns.progress import Display
from benchmarks.returns.training import Places, as_text, train
from sb3_rlx2.studies import timing
from sb3_rlx2.studies.storage import join_study, open_storage
from sb3_rlx2.studies.workers import given_up, run_trials

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
    :param checkpoint_every: steps between checkpoints
    :param more: arguments of the command line that tell which cells there are
    """

    def __init__(
        self,
        names: Sequence[str],
        cells: Sequence[Cell],
        storage: str,
        places: Places,
        checkpoint_every: int,
        more: Sequence[str] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.names, self.cells, self.places, self.checkpoint_every = names, list(cells), places, checkpoint_every
        self.url, self.more = storage, list(more)
        places.work.mkdir(parents=True, exist_ok=True)
        self.storage = open_storage(storage)
        self.study = join_study(self.storage, STUDY + " ".join([*names, *more]), "minimize")

    def work(self) -> None:
        """Train cells until none is left; returns when those of other workers are finished too."""
        run_trials(self.study, self._train, supply=self._next, progress=False)

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
        command += self.more
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | thread_variables(1) | {"PYTHONPATH": paths}
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are stopped behind it
        # In a session of its own, where Ctrl-C does not reach it: a second signal would end it without a checkpoint.
        start = partial(subprocess.Popen, [*command, "--parent", str(os.getpid())], env=environment, start_new_session=True)
        workers, restarts = [start() for _ in range(cores)], (timing.MAX_RETRIES + 1) * len(self.cells)
        try:
            with Display(self.cells, self.places) as display:
                while any(worker.poll() is None for worker in workers):
                    display.update()
                    time.sleep(0.5)
                    for at, worker in enumerate(workers):
                        if (worker.poll() or 0) < 0 < restarts:  # killed, perhaps for want of memory
                            workers[at], restarts = start(), restarts - 1
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
        missing = [cell for cell in self.cells if not self.places.result(cell).exists()]
        errors = self.failures()
        for cell in missing:
            if cell.name in errors:
                print(f"{cell.name} failed: {errors[cell.name]}", file=sys.stderr)
        if missing:
            print(f"{len(missing)} of {len(self.cells)} cells are missing; the same command goes on.", file=sys.stderr)
        if any(codes):
            print(f"workers ended with {sorted(set(codes))}, see above", file=sys.stderr)
        return 1 if missing or any(codes) else 0

    def _forgive(self) -> None:
        """Let cells that failed be tried again."""
        failed = (TrialState.PRUNED, TrialState.FAIL)
        trials = self.study.get_trials(deepcopy=False)
        self.study.set_user_attr(FORGIVEN, [trial.number for trial in trials if trial.state in failed])

    def _next(self, trials: Sequence[FrozenTrial]) -> dict[str, str] | None:
        """Say what the next trial trains: the first cell that no trial has, None if there is none."""
        forgiven = set(self.study.user_attrs.get(FORGIVEN, []))
        taken = {_cell_of(trial) for trial in trials if trial.number not in forgiven}
        free = (cell for cell in self.cells if cell not in taken)
        return next(({"cell": cell.name, "fingerprint": cell.fingerprint} for cell in free), None)

    def _train(self, trial: Trial) -> float:
        cell = _cell_of(trial)
        if cell is None:
            return math.nan  # of another version of the grid, whose worker died
        try:
            result = train(cell, self.places, self.checkpoint_every)
        except Exception as error:  # one broken cell must not keep the others from being trained
            traceback.print_exc()
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            return math.nan
        trial.set_user_attr("result", as_text(result))
        return float(np.mean(result["curve"][-1]["returns"]))


def _cell_of(trial: Trial | FrozenTrial) -> Cell | None:
    """Give the cell that a trial trains, None if the grid has no such cell today."""
    cell = CELLS.get(trial.user_attrs.get("cell", ""))
    return cell if cell is not None and cell.fingerprint == trial.user_attrs.get("fingerprint") else None


def failures(study: optuna.Study) -> dict[str, str]:
    """Give the errors of a study's failed cells, by cell; a cell that was finished later did not fail."""
    trials = study.get_trials(deepcopy=False)
    finished = {trial.user_attrs.get("cell") for trial in trials if trial.state == TrialState.COMPLETE}
    errors = {trial.user_attrs["cell"]: trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs}
    errors |= {trial.user_attrs["cell"]: "its workers died, time and again" for trial in trials if given_up(trial)}
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
            cell = _cell_of(trial)
            if cell is not None and not places.result(cell).exists():
                places.store(cell, trial.user_attrs["result"])


def behave_as_child(parent: int | None) -> None:
    """
    Give the trial back when told to stop, so that it can be taken up at once, and end when the process that started this
    one is gone, however that ended.

    :param parent: number of that process, None if it was a person
    """

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

    if parent is not None:
        threading.Thread(target=watch, name="parent watch", daemon=True).start()
