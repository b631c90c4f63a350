"""The evaluation of a trial while it trains, each with a checkpoint from which a retry on another machine goes on."""

import json
import shutil
import uuid
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from rl_zoo3.callbacks import TrialEvalCallback
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize


class TrialEvaluation(TrialEvalCallback):
    """
    The zoo's own, with checkpoints.

    :param args: as the zoo's
    :param checkpoints: folder for checkpoints, which the trial's retries share; None for none
    :param kwargs: as the zoo's
    """

    def __init__(self, *args: Any, checkpoints: Path | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.checkpoints = checkpoints
        self.reported: list[float] = []

    def _on_step(self) -> bool:
        go_on = super()._on_step()
        if self.eval_idx > len(self.reported):
            self.reported.append(float(self.last_mean_reward))
            if go_on:
                self._save()
        return go_on

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        # Its own name for each worker: one that was taken for dead may still write here beside the retry.
        new = self.checkpoints / f"{self.num_timesteps}_{self.trial.number}"
        unfinished = self.checkpoints / f".{uuid.uuid4()}"
        unfinished.mkdir(parents=True)
        try:
            self.model.save(unfinished / "model.zip")
            if isinstance(self.model, OffPolicyAlgorithm):
                self.model.save_replay_buffer(unfinished / "replay_buffer.pkl")
            normalizer = self.model.get_vec_normalize_env()
            if normalizer is not None:
                normalizer.save(str(unfinished / "vecnormalize.pkl"))
            (unfinished / "reported.json").write_text(json.dumps(self.reported))
            unfinished.rename(new)
        except OSError as error:  # a full disk is no reason to lose the trial
            warnings.warn(f"no checkpoint of trial {self.trial.number} at step {self.num_timesteps}: {error}", stacklevel=1)
            shutil.rmtree(unfinished, ignore_errors=True)
            return
        for old in self._list()[:-1]:
            shutil.rmtree(old, ignore_errors=True)

    def _list(self) -> list[Path]:
        """List the checkpoints, the furthest last."""
        assert self.checkpoints is not None
        return sorted(self.checkpoints.glob("[0-9]*_[0-9]*"), key=lambda path: [int(part) for part in path.name.split("_")])

    def restore(self, algorithm: type[BaseAlgorithm], **kwargs: Any) -> BaseAlgorithm | None:
        """
        Load what an earlier attempt at this trial left, and report its evaluations again, for this attempt.

        :param algorithm: the class
        :param kwargs: arguments for its ``load``
        :return: the model, None if there is nothing
        """
        for path in reversed(self._list() if self.checkpoints is not None else []):
            try:
                model = algorithm.load(path / "model.zip", **kwargs)
                if isinstance(model, OffPolicyAlgorithm):
                    model.load_replay_buffer(path / "replay_buffer.pkl")
                normalizer = model.get_vec_normalize_env()
                if normalizer is not None:
                    saved = VecNormalize.load(str(path / "vecnormalize.pkl"), normalizer.venv)
                    normalizer.obs_rms, normalizer.ret_rms = saved.obs_rms, saved.ret_rms
                self.reported = json.loads((path / "reported.json").read_text())
            except Exception as error:  # whatever is wrong with it, an earlier one or a new start is better than no trial
                warnings.warn(f"checkpoint {path} cannot be used: {error}", stacklevel=1)
                continue
            print(f"Trial {self.trial.number} goes on from step {model.num_timesteps}: {path}")
            for step, value in enumerate(self.reported, start=1):
                self.trial.report(value, step)
            self.eval_idx, self.last_mean_reward = len(self.reported), self.reported[-1]
            self.best_mean_reward = max(self.reported)
            return model
        return None


def forget(checkpoints: Path | None) -> None:
    """
    Remove the checkpoints of a trial that ended, and the study's folder with the last of them.

    :param checkpoints: their folder, None for none
    """
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
        with suppress(OSError):  # other trials have theirs there
            checkpoints.parent.rmdir()
