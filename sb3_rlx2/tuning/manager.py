"""RL Zoo's tuning on studies that outlive their workers: `-optimize` and `--trial-id`."""

import argparse
import ast
import os
import pickle
import pprint
import shlex
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError, TrialPruned
from optuna.trial import FrozenTrial
from optuna.visualization import plot_optimization_history, plot_param_importances
from rl_zoo3 import ALGOS, exp_manager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import get_callback_list
from sqlalchemy.exc import SQLAlchemyError
from stable_baselines3 import HerReplayBuffer

from sb3_rlx2.algorithms.policies import SparsePolicy
from sb3_rlx2.files import filling
from sb3_rlx2.studies.storage import join_study, open_storage
from sb3_rlx2.studies.workers import given_up, run_trials
from sb3_rlx2.zoo.experiment import ExperimentManager
from sb3_rlx2.zoo.search_space import SAMPLERS
from sb3_rlx2.zoo.trials import forget, trial_checkpoints, trial_evaluation, trial_folder

NESTED = ("policy_kwargs", "replay_buffer_kwargs")
NOISE = {"noise_type", "noise_std"}  # in the zoo's terms; SB3's is `action_noise`
# Of bad hyper-parameters: they prune the trial. Others are bugs and end the study.
TRAINING_ERRORS = (AssertionError, ArithmeticError, MemoryError, RuntimeError, ValueError)


def combine(base: dict[str, Any], sampled: dict[str, Any]) -> dict[str, Any]:
    """
    Put a trial's hyper-parameters over the ones it was started with. The zoo replaces ``policy_kwargs`` as a whole, and with
    it the sparsities of SB3's own algorithms.

    :param base: hyper-parameters of the YAML file
    :param sampled: the trial's
    :return: all of them
    """
    base = base.copy()
    if "action_noise" in sampled:
        base.pop("noise_type", None)
        base.pop("noise_std", None)
    combined = base | sampled
    for name in NESTED:
        outer, inner = base.get(name), sampled.get(name)
        if isinstance(outer, str):
            outer = eval(outer, vars(exp_manager))  # as the zoo does with its YAML files
        if isinstance(inner, str):
            inner = combined[name] = ast.literal_eval(inner)  # a study may be anybody's: values only
        if outer is not None and inner is not None:
            combined[name] = outer | inner
    return combined


class TuningManager(ExperimentManager):
    """That of ``rlx2 train``, whose trials have all their hyper-parameters, outlive their workers and come back exactly."""

    def setup_experiment(self) -> Any:
        """Set up a run, or a study, whose trials have folders of their own: an empty run would be the latest to all others."""
        experiment = super().setup_experiment()
        if self.optimize_hyperparameters:
            self._remove_new_folder()
        return experiment

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Read them from the YAML file, the trial of a study (``--trial-id``) and the command line, the last one first.

        :return: them as arguments of the algorithm, and as they are to be saved
        :raises ValueError: if what is needed beside ``--storage`` or ``--trial-id`` is missing
        """
        if self.optimize_hyperparameters and self.storage is not None and self.study_name is None:
            raise ValueError(f"--storage {self.storage} needs a --study-name, by which all workers find the study")
        trial_id, self.trial_id = self.trial_id, None  # the zoo takes 0 for none, and restores no nested arguments
        hyperparams, saved = super().read_hyperparameters()
        if trial_id is None:
            return hyperparams, saved
        if not self.storage or not self.study_name:
            raise ValueError(f"--trial-id {trial_id} needs the --storage and the --study-name that hold the trial")
        trial = self.load_trial(self.storage, self.study_name, trial_id)
        given = set(self.custom_hyperparams or {})
        replaced = given | ({"action_noise"} if given & NOISE else set()) | (NOISE if "action_noise" in given else set())
        trial = {name: value for name, value in trial.items() if name not in replaced}
        print(f"Hyperparameters of trial {trial_id} of study {self.study_name}:")
        pprint.pprint(trial)
        return combine(hyperparams, trial), type(saved)(sorted(combine(saved, trial).items()))

    def load_trial(self, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True) -> dict[str, Any]:
        """
        Load a trial's hyper-parameters.

        :param storage: see :func:`open_storage`
        :param study_name: name of the study
        :param trial_id: the trial's number, None for the best
        :param convert: whether to convert them to arguments of the algorithm
        :raises ValueError: if there is no such study or trial, or it has no hyper-parameters
        """
        with closing(open_storage(storage, create=False)) as opened_storage:
            try:
                study = optuna.load_study(storage=opened_storage, study_name=study_name)
            except KeyError:
                names = ", ".join(study.study_name for study in opened_storage.get_all_studies()) or "none"
                raise ValueError(f"--study-name {study_name} is not in the storage, which holds: {names}") from None
            self._check_study(study)
            trials = study.trials
            if trial_id is not None and not 0 <= trial_id < len(trials):
                raise ValueError(f"--trial-id {trial_id} must lie in [0, {len(trials) - 1}], the trials of study {study_name}")
            trial = study.best_trial if trial_id is None else trials[trial_id]
        if not trial.params:
            raise ValueError(f"--trial-id {trial_id} has no hyper-parameters: the trial ended before it had any")
        if not convert:
            return trial.params
        hyperparams = HYPERPARAMS_CONVERTER[self.algo](trial.params)
        if hyperparams.get("noise_type", "") is None:  # which no algorithm takes
            hyperparams = {name: value for name, value in hyperparams.items() if name not in NOISE} | {"action_noise": None}
        return hyperparams

    def _check_study(self, study: optuna.Study) -> None:
        """Refuse a study of another task; the zoo's own studies tell theirs in the command that made them."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--algo")
        parser.add_argument("--env")
        made_by, _ = parser.parse_known_args(shlex.split(study.user_attrs.get("command", "")))
        for name, own in (("algo", self.algo), ("env", self.env_name.gym_id)):
            held = study.user_attrs.get(name) or getattr(made_by, name) or own
            if held != own:
                raise ValueError(f"--study-name {study.study_name} holds trials of --{name} {held}, not of {own}")

    def hyperparameters_optimization(self) -> None:
        """Run this worker's share of a study, then report on the whole of it."""
        self._check_sparsity()
        with closing(open_storage(self.storage)) as storage:
            study = join_study(
                storage,
                self.study_name,
                "maximize",
                sampler=self._create_sampler(self.sampler),
                pruner=self._create_pruner(self.pruner),
            )
            self._check_study(study)
            self._describe(study)
            n_jobs = os.cpu_count() or 1 if self.n_jobs == -1 else self.n_jobs
            total = self.max_total_trials
            try:
                run_trials(study, self.objective, total, n_trials=self.n_trials if total is None else None, n_jobs=n_jobs)
            except KeyboardInterrupt:
                print("Interrupted. The same command goes on with the study, if it has a --storage.")
            for trial in filter(given_up, study.get_trials(deepcopy=False)):
                forget(self._checkpoints(study, trial))
            self._report(study)

    def _check_sparsity(self) -> None:
        """Refuse what would make every trial fail: SB3's own algorithms with our policy and no sparsity to keep."""
        policy = self._hyperparams["policy"]
        if self.algo not in SAMPLERS and isinstance(policy, type) and issubclass(policy, SparsePolicy):
            for name in policy.networks.values():
                if (self._hyperparams.get("policy_kwargs") or {}).get(name) is None:
                    raise ValueError(f"policy_kwargs lacks {name}, which {policy.__name__} needs in every trial")

    def _describe(self, study: optuna.Study) -> None:
        if "algo" in study.user_attrs:
            return
        study.set_user_attr("command", shlex.join(sys.orig_argv))
        for name in sorted(self._hyperparams):
            study.set_user_attr(name, str(self._hyperparams[name]))
        study.set_user_attr("env", self.env_name.gym_id)
        study.set_user_attr("algo", self.algo)

    def objective(self, trial: optuna.Trial) -> float:
        """
        Train with sampled hyper-parameters; a retry of a trial goes on from its last checkpoint.

        :param trial: the trial
        :return: mean return of the last evaluation
        :raises TrialPruned: if the pruner ends the trial, or training breaks down
        """
        if self.algo == "ars":  # asynchronous evaluation, which only the zoo knows
            return float(super().objective(trial))
        her = self._hyperparams.get("replay_buffer_class") == HerReplayBuffer
        args = {"using_her_replay_buffer": her, "her_kwargs": self._hyperparams.get("replay_buffer_kwargs", {})}
        sampled = HYPERPARAMS_SAMPLER[self.algo](trial, self.n_actions, self.n_envs, args)
        if trial.params.get("noise_type", "") is None:
            sampled["action_noise"] = None  # the zoo would leave the YAML file's noise on
        try:
            return self._train(trial, combine(self._hyperparams, sampled))
        except (OptunaError, SQLAlchemyError):  # pruned, superseded, or the storage is away
            raise
        except Exception as error:
            forget(self._checkpoints(trial.study, trial))  # nobody retries it
            if not isinstance(error, TRAINING_ERRORS):
                raise
            print(f"Trial {trial.number} is pruned: {error}")
            pprint.pprint(sampled)
            raise TrialPruned(str(error)) from error

    def _train(self, trial: optuna.Trial, hyperparams: dict[str, Any]) -> float:
        log = None if self.optimization_log_path is None else os.path.join(self.optimization_log_path, f"trial_{trial.number}")
        folder = self._checkpoints(trial.study, trial)
        with (
            closing(self.create_envs(self.n_envs, no_log=True)) as env,
            trial_evaluation(self, trial, log) as evaluation,
        ):
            common: dict[str, Any] = {"env": env, "device": self.device, "verbose": self.verbose if self.verbose >= 2 else 0}
            model = ALGOS[self.algo](**hyperparams, **common)
            checkpoints = trial_checkpoints(folder, trial, model, every=evaluation.eval_freq * self.n_envs)
            own = get_callback_list({"callback": self.specified_callbacks})
            model.learn(self.n_timesteps, callback=[*own, evaluation, *checkpoints])
            evaluation.catch_up()
        forget(folder)
        if evaluation.is_pruned:
            raise TrialPruned
        return float(evaluation.last_mean_reward)

    def _checkpoints(self, study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> Path | None:
        """Name the folder of a trial's checkpoints. A study in memory has no retries."""
        return None if self.storage is None else trial_folder(Path(self.log_folder, self.algo), study, trial)

    def _report(self, study: optuna.Study) -> None:
        """Print the best trial, and write all of them beside the runs, as the zoo does."""
        states = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
        counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "none"
        print(f"Number of trials: {len(states)} ({counts})")
        if "complete" not in states:
            raise ValueError(f"--study-name {study.study_name} has no completed trial, so there is no best one ({counts})")
        best = study.best_trial
        print(f"Best trial: {best.number}\nValue:  {best.value}\nParams:")
        for name, value in (best.params | best.user_attrs).items():
            print(f"    {name}: {value}")
        name = (
            f"report_{self.env_name}_{len(states)}-trials-{self.n_timesteps}-{self.sampler}-{self.pruner}_{int(time.time())}"
        )
        path = Path(self.log_folder, self.algo, name)
        print(f"Writing report to {path}.*")
        with filling(path.parent) as folder:
            study.trials_dataframe().to_csv(folder / f"{name}.csv")
            (folder / f"{name}.pkl").write_bytes(pickle.dumps(study))
            if not self.no_optim_plots:
                for kind, plot in (("history", plot_optimization_history), ("importances", plot_param_importances)):
                    with suppress(ImportError, RuntimeError, ValueError):  # too few trials for importances
                        plot(study).write_html(folder / f"{name}_{kind}.html")
