"""RLx2TD3 and RLx2SAC in rl_zoo3: registration, and what our command does before it hands over to the zoo's."""

import argparse
import os
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from rl_zoo3 import ALGOS, exp_manager
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_rlx2 import RLx2SAC, RLx2TD3, metrics, tuning
from sb3_rlx2.recording import ProgressFile

# The names are the class names in lower case: the zoo's plots and hub commands rely on that.
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"rlx2td3": RLx2TD3, "rlx2sac": RLx2SAC}


def register() -> None:
    """Make the algorithms known to rl_zoo3, whose modules all share one dictionary."""
    ALGOS.update(ALGORITHMS)
    tuning.register()


register()  # so that `--gym-packages sb3_rlx2.zoo` does it too


def hyperparams_file(algo: str) -> Path:
    """
    Find our hyper-parameters: beside the modules (installed) or at the root of the repository (a clone), as the zoo does.

    :param algo: name of the algorithm in the zoo
    """
    package = Path(__file__).parent
    folder = package / "hyperparams"
    return (folder if folder.is_dir() else package.parent / "hyperparams") / f"{algo}.yml"


class ExperimentManager(tuning.TuningManager):
    """The zoo's own, which also keeps the log in the run's folder and says where the trained model is and what it weighs."""

    def create_callbacks(self) -> None:
        """Add the callback that keeps the log to the zoo's own."""
        super().create_callbacks()  # type: ignore[no-untyped-call]
        self.callbacks.append(ProgressFile(self.save_path))

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """
        Save the trained model and report on it.

        :param model: the trained model
        """
        super().save_trained_model(model)
        print(weight_report(f"{self.params_path}.zip", model))


def weight_report(path: str, model: Any) -> str:
    """
    Say where a saved model is and what it weighs, on disk and against a dense one.

    :param path: the saved model
    :param model: the same model in memory
    """
    lines = [f"Model: {path} ({os.path.getsize(path) / 1e3:,.1f} kB on disk)"]
    if metrics.sparse_mlps(model.policy):
        for name in ("actor", "critic"):
            mlps = metrics.sparse_mlps(getattr(model, name))
            live, total = sum(mlp.nnz for mlp in mlps), sum(mlp.size for mlp in mlps)
            lines.append(f"{name}: {live:,} live weights of {total:,} ({live / total:.1%})")
        size, dense = metrics.parameter_bytes(model.policy)
        lines.append(f"parameters, with targets: {size / 1e3:,.1f} kB, {size / dense:.1%} of the dense {dense / 1e3:,.1f} kB")
    return "\n".join(lines)


def prepare_training(arguments: list[str]) -> list[str]:
    """
    Report the weight after training, and train our algorithms with our hyper-parameters unless others are given.

    :param arguments: of the zoo's ``train``
    :return: the arguments to use
    """
    exp_manager.ExperimentManager = ExperimentManager  # type: ignore[misc]
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo", nargs="?")
    parser.add_argument("-conf", "--conf-file", nargs="?")
    given, _ = parser.parse_known_args(arguments)
    if given.algo not in ALGORITHMS or given.conf_file is not None:
        return arguments
    return ["--conf-file", str(hyperparams_file(given.algo)), *arguments]


def prepare_playing(arguments: list[str]) -> list[str]:
    """
    Load our algorithms without memory for a replay buffer, which the zoo does for SB3's own by a list of names.

    :param arguments: of a zoo command that plays a trained agent
    :return: the same
    """
    for name, algorithm in ALGORITHMS.items():
        ALGOS[name] = SimpleNamespace(load=partial(algorithm.load, buffer_size=1))  # type: ignore[assignment]
    return arguments


class Command(NamedTuple):
    """
    A command of the zoo, or one of ours that runs in the same way.

    :param module: the module that runs as the command
    :param prepare: what to do before; takes and gives the command's arguments
    """

    module: str
    prepare: Callable[[list[str]], list[str]]


COMMANDS = {
    "train": Command("rl_zoo3.train", prepare_training),
    "enjoy": Command("rl_zoo3.enjoy", prepare_playing),
    "record_video": Command("rl_zoo3.record_video", prepare_playing),
    "report": Command("sb3_rlx2.report.__main__", list),
}


def run(name: str, arguments: list[str]) -> None:
    """
    Run a command of the zoo as if it were ours.

    :param name: a key of ``COMMANDS``
    :param arguments: the command's arguments
    """
    command = COMMANDS[name]
    sys.argv = [f"rlx2 {name}", *command.prepare(arguments)]  # argparse names the program after argv[0]
    runpy.run_module(command.module, run_name="__main__")
