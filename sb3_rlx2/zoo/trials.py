"""
Trials of a study: their evaluation, and checkpoints, from which a retry goes on to the last bit.

Each attempt has a folder of its own in that of the trial, so a worker that was taken for dead may write on beside the retry.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, Trial
from rl_zoo3.callbacks import TrialEvalCallback
from rl_zoo3.exp_manager import ExperimentManager

from sb3_rlx2.checkpoint import Checkpoints, generations, run_state
from sb3_rlx2.files import move
from sb3_rlx2.studies.workers import first_attempt
from sb3_rlx2.warning import warn


def trial_folder(place: Path, study: Any, trial: Trial | FrozenTrial) -> Path:
    """
    Name the folder of a trial's checkpoints, which its retries share.

    :param place: what holds those of all studies
    :param study: the study
    :param trial: the trial
    """
    first = study.get_trials(deepcopy=False)[first_attempt(trial)]
    # When it began tells it from the trial of an earlier study of this name.
    name = f"trial_{first.number}_{first.datetime_start:%Y%m%d-%H%M%S-%f}"
    return place / f"study_{study.study_name.replace(os.sep, '_')}" / name


def trial_checkpoints(folder: Path | None, trial: Trial, model: Any, every: int) -> list[Checkpoints]:
    """
    Give the callback that writes an attempt's checkpoints, and goes on from those of the attempt before.

    :param folder: what :func:`trial_folder` gave, None for a study that nobody can go on with
    :param trial: the attempt
    :param model: what it trains
    :param every: environment steps between checkpoints
    :return: the callback; nothing where training cannot be resumed
    """
    if folder is None or run_state.why_not(model) is not None:
        return []
    return [Checkpoints(_take_over(folder, trial.number), every, keep=1, verbose=1)]


def _take_over(folder: Path, number: int) -> Path:
    """Give an attempt's folder, to which the whole checkpoints of the latest attempt before it move."""
    own = folder / str(number)
    for earlier in sorted(folder.glob("[0-9]*"), key=lambda path: int(path.name), reverse=True):
        try:
            if generations.newest(earlier) is not None:
                move(earlier, own)  # a worker that still writes there finds its folder gone, and begins another one
                return own
        except ValueError as error:  # noqa: PERF203  an earlier attempt's, or a new start, is better than no trial
            warn(f"{earlier} cannot be used: {error}")
    return own


def forget(folder: Path | None) -> None:
    """
    Remove the checkpoints of a trial that ended, and the study's folder with the last of them.

    :param folder: what :func:`trial_folder` gave, None for none
    """
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # other trials have theirs there
            folder.parent.rmdir()


class TrialEvaluation(TrialEvalCallback):
    """
    The zoo's own. A retry that goes on from checkpoints reports once more what the attempt before it reported.

    :param args: as the zoo's
    :param kwargs: as the zoo's
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reported: list[float] = []  # by this trial or, where it is a retry, by the attempts before it

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq == 0:
            self.catch_up()
        go_on = super()._on_step()
        if self.eval_idx > len(self.reported):
            self.reported.append(float(self.last_mean_reward))
        return go_on

    def catch_up(self) -> None:
        """Report what this trial lacks; all of it where the attempt before had nothing left to train."""
        known = self.trial.storage.get_trial(self.trial._trial_id).intermediate_values
        for step, value in enumerate(self.reported, start=1):
            if step not in known:
                self.trial.report(value, step)


@contextmanager
def trial_evaluation(manager: ExperimentManager, trial: Trial, folder: str | None = None) -> Iterator[TrialEvaluation]:
    """
    Give what evaluates a training, as often as the manager says, and close its environments after use.

    :param manager: has read the hyper-parameters
    :param trial: gets the evaluations and may end the training
    :param folder: for the best model and the returns of the evaluations, None for none
    """
    with closing(manager.create_envs(manager.n_eval_envs, eval_env=True)) as env:
        yield TrialEvaluation(
            env,
            trial,
            n_eval_episodes=manager.n_eval_episodes,
            eval_freq=max(manager.n_timesteps // manager.n_evaluations // manager.n_envs, 1),
            deterministic=manager.deterministic_eval,
            best_model_save_path=folder,
            log_path=folder,
        )
