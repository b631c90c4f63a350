"""Studies that outlive their workers: the loop that runs their trials."""

import copy
import itertools
import logging
import math
import os
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, TrialPruned, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from sb3_rlx2.studies import timing
from sb3_rlx2.studies.storage import STORAGE_ERRORS, _cause

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
# System attributes. A retry inherits its parent's, so they hold numbers of trials: the one that is to be retried, and those,
# of it and the tries before, whose workers died.
UNFINISHED = "sb3_rlx2:unfinished"
DEATHS = "sb3_rlx2:deaths"
WORKER = "worker"  # user attribute, the first thing that is told of a trial whose objective runs

Supply = Callable[[Sequence[FrozenTrial]], dict[str, Any] | None]

_logger = logging.getLogger(__name__)
T = TypeVar("T")


def first_attempt(trial: Trial | FrozenTrial) -> int:
    """
    Number the trial that this one retries, its own if it is no retry: a key for checkpoints that a retry continues.

    :param trial: a trial of a study that :func:`run_trials` runs
    """
    frozen = trial if isinstance(trial, FrozenTrial) else trial.storage.get_trial(trial._trial_id)
    return int(frozen.system_attrs.get("failed_trial", frozen.number))


def given_up(trial: FrozenTrial) -> bool:
    """
    Say whether a trial's worker died as those of all tries before, so that nobody retries it.

    :param trial: a trial of a study that :func:`run_trials` runs
    """
    return _unfinished(trial) and _exhausted(trial)


def run_trials(
    study: optuna.Study,
    objective: Callable[[Trial], float],
    total: int | None = None,
    *,
    n_trials: int | None = None,
    n_jobs: int = 1,
    supply: Supply | None = None,
    progress: bool = True,
) -> None:
    """
    Run trials beside other workers of the same study. A dead worker's trial is marked FAIL and retried with its parameters.

    An interrupted trial (Ctrl-C) is retried too, by whoever comes next, and one that lost its storage. Errors of the objective
    fail the trial and are raised.

    :param study: a study in a storage of :func:`open_storage`
    :param objective: as in Optuna; a trial whose objective gives NaN counts as pruned
    :param total: return when so many trials of the study, counted over all workers, are complete or pruned; never starts more,
        and waits for those of other workers
    :param n_trials: return after so many trials of this worker
    :param n_jobs: threads that run trials side by side
    :param supply: decides, instead of ``total``, what comes next: gets the study's trials and gives the user attributes of a
        new one, or None if there is nothing left to begin; one worker at a time asks. Return when nothing is left and all have
        ended
    :param progress: whether to show a progress bar of the whole study
    :raises ValueError: if a number is below 1
    """
    for name, value in (("total", total), ("n_trials", n_trials), ("n_jobs", n_jobs)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value!r} must be an integer >= 1")
    with tqdm(total=total or n_trials, unit="trial", disable=None if progress else True) as bar:
        worker = _Worker(study, objective, total, n_trials, supply, bar)
        if n_jobs == 1:
            worker.run()
            return
        with ThreadPoolExecutor(n_jobs) as threads:
            futures = [threads.submit(worker.run) for _ in range(n_jobs)]
            try:
                for future in futures:
                    future.result()
            finally:
                worker.stopped = True  # after an error or Ctrl-C the other threads end after their current trial


class _Worker:
    """What the threads of one worker share."""

    def __init__(
        self,
        study: optuna.Study,
        objective: Callable[[Trial], float],
        total: int | None,
        n_trials: int | None,
        supply: Supply | None,
        bar: Any,
    ) -> None:
        self.study, self.objective, self.total, self.supply, self.bar = study, objective, total, supply, bar
        self.storage: Any = study._storage
        self.tickets: Iterator[int] = itertools.count() if n_trials is None else iter(range(n_trials))
        self.stopped = False

    def run(self) -> None:
        for _ in self.tickets:
            trial = self._wait_for_trial()
            if trial is None:
                return
            self._run_trial(trial)
            self._show()

    def _wait_for_trial(self) -> Trial | None:
        """Claim a trial, None when the study is done. While other workers run the last ones they may still die."""
        while not self.stopped:
            trial, done = _patiently(self._claim)
            if trial is not None:
                return trial
            self._show()
            if done:
                break
            time.sleep(timing.POLL_INTERVAL)
        return None

    def _claim(self) -> tuple[Trial | None, bool]:
        """
        One worker at a time: retry the trials of the dead, then take a waiting trial or begin a new one, if there is room.

        A worker that was suspended meanwhile, or whose database crashed, is not the only one: it gives back what it took.

        :return: the trial, None if there is none to take, and whether there never will be one
        """
        with self.storage.exclusive(self.study._study_id) as held:
            _retry_dead_trials(self.study, held)
            trials = self.study.get_trials(deepcopy=False)
            waiting = _queue(self.storage, trials)
            states = Counter(trial.state for trial in trials)
            ended = sum(states[state] for state in ENDED)
            if self.total is not None and ended + states[TrialState.RUNNING] >= self.total:
                return None, ended >= self.total
            attributes: dict[str, Any] | None = {}
            if not waiting and self.supply is not None:
                attributes = self.supply([trial for trial in trials if not _given_back(trial)])
            if attributes is None:
                return None, not states[TrialState.RUNNING]
            if not held():
                return None, False
            trial_id = self._take(waiting[0]) if waiting else self._begin(attributes)
            if trial_id is None:
                return None, False
            if not held():
                _give_back(self.storage, trial_id, TrialState.WAITING if waiting else TrialState.FAIL)
                return None, False
            return self._opened(trial_id), False

    def _take(self, waiting: FrozenTrial) -> int | None:
        """Take a trial from the queue: this one, where Optuna's own `ask` would begin a new one if another worker has it."""
        with suppress(UpdateFinishedTrialError):
            if self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                return waiting._trial_id
        return None

    def _begin(self, attributes: dict[str, Any]) -> int:
        new = optuna.create_trial(state=TrialState.RUNNING, user_attrs=attributes)
        return self.storage.create_new_trial(self.study._study_id, new)  # type: ignore[no-any-return]

    def _opened(self, trial_id: int) -> Trial:
        self.study._thread_local.cached_all_trials = None  # samplers look at each other's trials once a trial
        return Trial(self.study, trial_id)

    def _run_trial(self, trial: Trial) -> None:
        value: float | None = None
        state = TrialState.FAIL
        with _heartbeats(self.storage, trial._trial_id):
            try:
                trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
                value = float(self.objective(trial))
                state = TrialState.PRUNED if math.isnan(value) else TrialState.COMPLETE
            except TrialPruned:
                state = TrialState.PRUNED
            except UpdateFinishedTrialError:
                pass  # superseded, which the end below finds out
            except (StorageInternalError, SQLAlchemyError) as error:
                _logger.warning(f"trial {trial.number} lost the storage: {_cause(error)}")
                _patiently(lambda: _bury(self.storage, trial._trial_id, worker_died=True))
                return
            except Exception:
                self._tell(trial, TrialState.FAIL, None)
                raise
            except BaseException:  # Ctrl-C
                _bury(self.storage, trial._trial_id, worker_died=False)
                raise
            self._tell(trial, state, value)

    def _tell(self, trial: Trial, state: TrialState, value: float | None) -> None:
        """Store the result, unless another worker took this one for dead meanwhile: then the retry's result counts."""

        def tell() -> TrialState:
            with suppress(UpdateFinishedTrialError):
                self.study.tell(trial, value if state == TrialState.COMPLETE else None, state, skip_if_finished=True)
            return self.storage.get_trial(trial._trial_id).state  # type: ignore[no-any-return]

        stored = _patiently(tell)
        if stored != state or _unfinished(self.storage.get_trial(trial._trial_id)):
            _logger.warning(
                f"trial {trial.number} was superseded: this worker gave no heartbeat for {timing.GRACE_PERIOD} s, so the "
                "trial is retried and this result is left out"
            )
        elif state == TrialState.COMPLETE:
            self.study._log_completed_trial([value], trial.number, trial.params)  # type: ignore[list-item]

    def _show(self) -> None:
        trials = _patiently(lambda: self.study.get_trials(deepcopy=False))
        self.bar.n, running = (sum(trial.state in states for trial in trials) for states in (ENDED, (TrialState.RUNNING,)))
        self.bar.set_postfix_str(f"{running} running")


def _retry_dead_trials(study: optuna.Study, held: Callable[[], bool]) -> None:
    """
    Mark the trials of dead workers FAIL and put a copy of each in the queue, once. Only under the storage's lock.

    The steps are kept apart so that a worker killed between any two of them leaves what the next one completes.

    :param study: the study
    :param held: tells whether the lock is still held
    """
    storage: Any = study._storage
    for trial_id in storage.dead_trials(study._study_id):
        _bury(storage, trial_id, worker_died=True)
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in _history(trial)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        retry = RetryHeartbeatStaleTrialCallback()
    for trial in trials:
        if _unfinished(trial) and trial.number not in retried and not _exhausted(trial):
            if not held():
                return
            _logger.warning(f"trial {trial.number} was not finished, it is retried")
            retry(study, copy.deepcopy(trial))


def _queue(storage: Any, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Give the trials that wait. A second retry of one, of a worker that lost its lock, is taken from the queue."""
    waiting: list[FrozenTrial] = []
    retried: set[int] = set()
    for trial in trials:
        history = _history(trial)
        if trial.state == TrialState.WAITING and retried.intersection(history[-1:]):
            _give_back(storage, trial._trial_id, TrialState.FAIL)
        elif trial.state == TrialState.WAITING:
            waiting.append(trial)
        retried.update(history)
    return waiting


def _history(trial: FrozenTrial) -> Sequence[int]:
    return trial.system_attrs.get("retry_history", ())  # type: ignore[no-any-return]


def _give_back(storage: Any, trial_id: int, state: TrialState) -> None:
    """Take back a trial that should not have begun."""
    with suppress(UpdateFinishedTrialError):  # others took its worker for dead meanwhile
        storage.set_trial_state_values(trial_id, state)


def _given_back(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and not _unfinished(trial) and WORKER not in trial.user_attrs


def _bury(storage: Any, trial_id: int, worker_died: bool) -> None:
    """Mark a trial for :func:`_retry_dead_trials` as one whose worker died or, which may happen without end, was stopped."""
    with suppress(UpdateFinishedTrialError):  # its worker just finished it
        number = storage.get_trial_number_from_id(trial_id)
        if worker_died:
            deaths = {*storage.get_trial(trial_id).system_attrs.get(DEATHS, ()), number}
            storage.set_trial_system_attr(trial_id, DEATHS, sorted(deaths))
        storage.set_trial_system_attr(trial_id, UNFINISHED, number)
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
        trial = storage.get_trial(trial_id)
        if _exhausted(trial):
            _logger.warning(f"trial {trial.number} is given up: its worker died as those of {timing.MAX_RETRIES} tries before")


def _exhausted(trial: FrozenTrial) -> bool:
    return len(trial.system_attrs.get(DEATHS, ())) > timing.MAX_RETRIES


def _unfinished(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and trial.system_attrs.get(UNFINISHED) == trial.number


@contextmanager
def _heartbeats(storage: Any, trial_id: int) -> Iterator[None]:
    """Beat beside the trial. Unlike Optuna's, this thread outlives a lost connection."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(timing.HEARTBEAT_INTERVAL):
            try:
                storage.record_heartbeat(trial_id)
            except STORAGE_ERRORS as error:  # noqa: PERF203
                _logger.warning(
                    f"no heartbeat for trial id {trial_id}, next try in {timing.HEARTBEAT_INTERVAL} s: {_cause(error)}"
                )

    _patiently(lambda: storage.record_heartbeat(trial_id))
    thread = threading.Thread(target=beat, name=f"heartbeat of trial id {trial_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _patiently(call: Callable[[], T]) -> T:
    """Repeat a call while the storage is away, so that a trial of hours is not lost to a restart of the database."""
    deadline = time.monotonic() + timing.OUTAGE
    while True:
        try:
            return call()
        except STORAGE_ERRORS as error:  # noqa: PERF203
            if time.monotonic() > deadline:
                raise
            _logger.warning(f"storage does not answer, next try in {timing.HEARTBEAT_INTERVAL} s: {_cause(error)}")
            time.sleep(timing.HEARTBEAT_INTERVAL)
