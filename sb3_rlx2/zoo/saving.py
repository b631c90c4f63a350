"""Has the zoo write its files whole or not at all, and train on where a disk is full."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import EvalCallback

from sb3_rlx2 import safe_pickle
from sb3_rlx2.algorithms.save_load import SavedSafely
from sb3_rlx2.files import filling, saving
from sb3_rlx2.patching import patched
from sb3_rlx2.warning import warn


def whole(save: Callable[..., None], _: argparse.Namespace) -> Callable[..., None]:
    """
    Have a method that saves an agent leave what was there before where it fails.

    :param save: the method, of SB3's algorithms
    :return: what takes its place
    """

    def save_whole(model: Any, path: Any, *given: Any, **kwargs: Any) -> None:
        if not isinstance(path, str | Path) or isinstance(model, SavedSafely):  # which sees to it
            save(model, path, *given, **kwargs)
            return
        with saving(path, ".zip") as unfinished:
            save(model, unfinished, *given, **kwargs)

    return save_whole


def sealed(save: Callable[..., None], _: argparse.Namespace) -> Callable[..., None]:
    """
    Have a method that pickles leave what was there before where it fails, and write a checksum.

    :param save: the method, of SB3
    :return: what takes its place
    """

    def save_sealed(thing: Any, path: Any) -> None:
        if not isinstance(path, str | Path) or isinstance(thing, SavedSafely):  # which sees to it
            save(thing, path)
            return
        with saving(path, ".pkl") as unfinished:
            save(thing, str(unfinished))
            safe_pickle.seal(unfinished)

    return save_sealed


class Evaluation(EvalCallback):
    """
    SB3's evaluation, whose files appear whole or not at all, the best agent's with the statistics by which its observations
    are normalised; where a disk is full, training goes on.
    """

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq != 0 or self.best_model_save_path is None:
            return super()._on_step()
        best = self.best_mean_reward
        try:
            with filling(Path(self.best_model_save_path)) as unfinished:
                paths = {"best_model_save_path": str(unfinished), "log_path": str(unfinished / "evaluations")}
                with patched(self, **paths):
                    goes_on = super()._on_step()
                normaliser = self.model.get_vec_normalize_env()
                if self.best_mean_reward > best and normaliser is not None:
                    normaliser.save(str(unfinished / "best_model_vecnormalize.pkl"))
                return goes_on
        except ConnectionError:  # with an environment in a process of its own
            raise
        except OSError as error:
            warn(f"nothing is kept of the evaluation at step {self.num_timesteps}: {error}")
            self.best_mean_reward = best  # of what is on the disk
            return True


def evaluation(_: type[EvalCallback], __: argparse.Namespace) -> type[EvalCallback]:
    """
    Replace SB3's evaluation in the zoo.

    :return: what takes its place
    """
    return Evaluation
