"""The zoo's experiment manager with our hyper-parameters, checkpoints, log and report."""

import contextlib
import os
import pickle
import shlex
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
from rl_zoo3 import ALGOS, exp_manager
from rl_zoo3.utils import get_latest_run_id
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_rlx2 import metrics
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.checkpoint import Checkpoints, Resumable, generations, resume, run_state, transitions
from sb3_rlx2.checkpoint.archive import CHECKPOINTS, check_agent
from sb3_rlx2.checkpoint.interruptible import Interruptible
from sb3_rlx2.checkpoint.transitions import DamagedError
from sb3_rlx2.files import filling, sweep
from sb3_rlx2.patching import patched
from sb3_rlx2.progress_log import ProgressFile, monitored
from sb3_rlx2.settings import needs_trust, read_settings
from sb3_rlx2.warning import warn
from sb3_rlx2.zoo import agents, hyperparams_file
from sb3_rlx2.zoo.checks import check_actions, check_keywords, check_settings_file, check_zoo_settings
from sb3_rlx2.zoo.dense_twin import dense_hyperparams

CHECKPOINT_EVERY = 10_000
BEGUN_FROM = "begun_from.zip"  # copy of the agent that a run went on from, beside its settings
UNASKED_BYTES = 4_000_000_000  # of a replay buffer that is written to disk without being asked for, as of images


class ExperimentManager(exp_manager.ExperimentManager):
    """
    The zoo's own, with our hyper-parameters for our algorithms, checkpoints that a run can go on from, a log in the run's
    folder, and a report.

    :param args: as the zoo's
    :param kwargs: as the zoo's
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.twin_of: str | None = getattr(self.args, "dense_twin", None)
        if kwargs.get("config") is None and (self.twin_of or self.algo) in ALGORITHMS:
            self.config = str(hyperparams_file(self.twin_of or self.algo))
        self.resumes = getattr(self.args, "resume", None) is not None
        self.checkpoints: Checkpoints | None = None
        self.made: list[VecEnv] | None = None  # environments, as long as the run is being set up
        self.has_new_folder = False
        if self.resumes:
            self.save_path = self.args.resume
            sweep(Path(self.save_path))
            self.params_path = f"{self.save_path}/{self.env_name}"

    def setup_experiment(self) -> Any:
        """Set up a run, or leave nothing of it."""
        made: list[VecEnv] = []
        self.made = made
        try:
            return super().setup_experiment()
        except BaseException:
            for env in made:
                env.close()
            self._remove_new_folder()
            raise
        finally:
            self.made = None  # those of trials are theirs

    def create_log_folder(self) -> None:
        """Make the folder of a new run, whose number another one that begins just now may have taken."""
        while not self.resumes and not self._has_made_folder():
            number = get_latest_run_id(self.log_path, self.env_name) + 1
            self.save_path = os.path.join(self.log_path, f"{self.env_name}_{number}")
            self.params_path = f"{self.save_path}/{self.env_name}"
        super().create_log_folder()  # type: ignore[no-untyped-call]

    def _has_made_folder(self) -> bool:
        with contextlib.suppress(FileExistsError):
            os.makedirs(self.save_path)
            self.has_new_folder = True
        return self.has_new_folder

    def _remove_new_folder(self) -> None:
        if self.has_new_folder:
            shutil.rmtree(self.save_path, ignore_errors=True)
            with contextlib.suppress(OSError):  # others' runs may be in it
                os.rmdir(self.log_path)

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read them from their file, or those that a run was begun with if it goes on; as they are, and as they are saved."""
        if not self.resumes:
            check_settings_file(self.config)
            hyperparams: tuple[dict[str, Any], dict[str, Any]] = super().read_hyperparameters()
            check_zoo_settings(hyperparams[0], self.n_timesteps)
            hyperparams[0].setdefault("n_timesteps", self.n_timesteps)  # which the zoo misses even where it is not needed
            return hyperparams
        saved = read_settings(self._config_file, complete=True)
        return dict(saved), saved

    @property
    def _config_file(self) -> Path:
        return Path(self.params_path, "config.yml")

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        if self.resumes:
            return
        assert self.made is not None
        normaliser = unwrap_vec_normalize(self.made[-1])
        if normaliser is not None and not saved_hyperparams.get("normalize"):  # it came with the agent that this goes on from
            own = {"norm_obs": normaliser.norm_obs, "norm_reward": normaliser.norm_reward}
            saved_hyperparams = saved_hyperparams | {"normalize": own}
            self.normalize = True  # or its statistics would not be saved
        super()._save_config(saved_hyperparams)
        if self.continue_training:
            shutil.copy(self.trained_agent, Path(self.params_path, BEGUN_FROM))
        if needs_trust(self._config_file):
            print(f"{self._config_file} holds Python objects: only rlx2 --trust train --resume will go on with this run")

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """
        Make environments.

        :param n_envs: how many
        :param eval_env: whether they are for evaluation
        :param no_log: whether they write no monitor files
        """
        env = super().create_envs(n_envs, eval_env, no_log)
        if self.made is not None:
            self.made[-1] = env
        return env

    def _wrapping(self, wrap: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None) -> Callable[..., gym.Env[Any, Any]]:
        """Have environments give their state, also in processes of their own, and outlive a full disk."""
        in_processes = self.vec_env_class is SubprocVecEnv

        def wrap_also(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
            wrapped = monitored(env if wrap is None else wrap(env))
            return Resumable(wrapped) if in_processes else wrapped

        return wrap_also

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        settings, wrapper, callbacks, vec_env_wrapper = super()._preprocess_hyperparams(hyperparams)
        if not self._eval_env_kwargs_args:
            self.eval_env_kwargs = self.env_kwargs  # those of the file, too, which the zoo gives to training only
        check_keywords(ALGOS[self.twin_of or self.algo], settings)
        if self.twin_of is not None:
            settings = dense_hyperparams(self.twin_of, settings, self.n_timesteps)
        return settings, self._wrapping(wrapper), callbacks, vec_env_wrapper

    def _preprocess_action_noise(self, hyperparams: dict[str, Any], saved_hyperparams: dict[str, Any], env: VecEnv) -> Any:
        check_actions(self.twin_of or self.algo, env)  # before the zoo speaks of noise
        return super()._preprocess_action_noise(hyperparams, saved_hyperparams, env)

    def create_callbacks(self) -> None:
        """Make the zoo's callbacks, and a log in the run's folder. The user's own stay as they are."""
        if self.eval_freq > self.n_timesteps and not self.optimize_hyperparameters:
            print(f"--eval-freq {self.eval_freq} is beyond the {self.n_timesteps} steps of training: nothing is evaluated")
        own = len(self.callbacks)
        super().create_callbacks()  # type: ignore[no-untyped-call]
        for number, callback in enumerate(self.callbacks[own:], start=own):
            if type(callback) is CheckpointCallback:
                self.callbacks[number] = AgentsAtSteps(self.save_freq, self.save_path, save_vecnormalize=True)
        self.progress_file = ProgressFile(self.save_path, again=self.resumes)
        self.callbacks.append(self.progress_file)

    def learn(self, model: BaseAlgorithm) -> None:
        """
        Train, with checkpoints that the run can go on from to the last bit.

        :param model: the model
        :raises ValueError: if there are to be checkpoints, and cannot be
        """
        self._add_checkpoints(model)
        try:
            super().learn(model)
        except DamagedError:  # of its checkpoints
            raise
        except Exception:
            traceback.print_exc()  # what goes wrong here is no misuse, and may have taken hours
            raise
        finally:
            self.progress_file.on_training_end()  # the zoo ends its first callback only, where training was interrupted

    def _add_checkpoints(self, model: BaseAlgorithm) -> None:
        given = getattr(self.args, "checkpoint_every", None)
        every, reason = CHECKPOINT_EVERY if given is None else given, run_state.why_not(model)
        if given and reason is not None:
            raise ValueError(f"--checkpoint-every {given} cannot serve: {reason}")
        if given is None and reason is None and (size := transitions.size(model)) > UNASKED_BYTES:
            print(f"No checkpoints of a replay buffer of {size / 1e9:.0f} GB unless --checkpoint-every asks for them")
            every = 0
        if every > 0 and reason is None:
            folder = Path(self.save_path, CHECKPOINTS)
            self.checkpoints = Checkpoints(folder, every, verbose=self.verbose)
        self.callbacks.append(self.checkpoints or Interruptible())  # else the zoo would save an agent in the middle of a step

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """
        Save the trained model and report on it.

        :param model: the trained model
        """
        super().save_trained_model(model)
        print(weight_report(f"{self.params_path}.zip", model))
        if self.checkpoints is not None and self.checkpoints.interrupted:
            trust = " --trust" if needs_trust(self._config_file) else ""
            command = f"rlx2{trust} train --resume {shlex.quote(self.save_path)}"
            print(f"Interrupted at step {model.num_timesteps:,}. Go on with: {command}")
        elif getattr(self.args, "checkpoint_every", None) is None:
            shutil.rmtree(Path(self.save_path, CHECKPOINTS), ignore_errors=True)  # a buffer may be large, and nobody asked

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        agent = Path(self.trained_agent)
        check_agent(agent)
        is_asked = not self.resumes and "policy_kwargs" in (self.custom_hyperparams or {})
        asked = hyperparams["policy_kwargs"] if is_asked else {}
        resume.check_networks(self.trained_agent, hyperparams, asked)
        buffer = agents.beside_checkpoint(agent, "replay_buffer")
        try:
            model: Any = super()._load_pretrained_agent(hyperparams, env)
            if buffer is not None:
                model.load_replay_buffer(buffer, truncate_last_traj=self.truncate_last_trajectory)
        except (EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{buffer or agent.with_name('replay_buffer.pkl')} is damaged: {error}") from error
        if self.resumes:  # also without the buffer that it may have begun with
            newest = generations.newest(Path(self.save_path, CHECKPOINTS), rows=False)
            assert newest is not None
            model.learning_starts = newest.manifest["arguments"]["learning_starts"]
        else:
            resume.skip_warm_up(model)
        return model  # type: ignore[no-any-return]

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        if self.made is not None:
            self.made.append(env)  # closed then, also if the settings of VecNormalize do not fit
        env = super()._maybe_normalize(env, eval_env)
        agent = Path(self.trained_agent)
        statistics = agents.beside_checkpoint(agent, "vecnormalize") if self.continue_training else None
        if statistics is None:
            return env
        self.normalize = True  # the agent knows nothing else, whatever the hyper-parameters say
        loaded = VecNormalize.load(str(statistics), env.venv if isinstance(env, VecNormalize) else env)
        if isinstance(env, VecNormalize):
            loaded.norm_reward = env.norm_reward
        if eval_env:
            loaded.training = loaded.norm_reward = False
        return loaded


class AgentsAtSteps(CheckpointCallback):
    """SB3's own, whose files are there together or not at all; a full disk is a warning."""

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            try:
                with (
                    filling(Path(self.save_path), last="*.zip") as unfinished,
                    patched(self, save_path=str(unfinished)),
                ):
                    super()._on_step()
            except (OSError, RuntimeError) as error:  # torch's word for it
                warn(f"no agent is saved at step {self.num_timesteps}: {error}")
        return True


def weight_report(path: str, model: Any) -> str:
    """
    Say where a saved model is and what it weighs, on disk and against a dense one.

    :param path: the saved model
    :param model: the same model in memory
    """
    lines = [f"Model: {path} ({os.path.getsize(path) / 1e3:,.1f} kB on disk)"]
    counts = metrics.live_weights(model.policy)
    for name, (live, total) in counts.items():
        lines.append(f"{name}: {live:,} live weights of {total:,} ({live / total:.1%})")
    if counts:
        size, dense = metrics.parameter_bytes(model.policy)
        lines.append(f"parameters, with targets: {size / 1e3:,.1f} kB, {size / dense:.1%} of the dense {dense / 1e3:,.1f} kB")
    return "\n".join(lines)
