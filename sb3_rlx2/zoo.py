"""RLx2TD3 and RLx2SAC in rl_zoo3: registration, and what our command does before it hands over to the zoo's."""

import argparse
import contextlib
import difflib
import inspect
import os
import pickle
import runpy
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rl_zoo3 import ALGOS, exp_manager, utils
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_rlx2 import RLx2SAC, RLx2TD3, agents, hub, metrics, plots, resume, tuning, videos
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
    """
    The zoo's own, with our hyper-parameters for our algorithms, checkpoints that a run can go on from, a log in the run's
    folder, and a report.

    :param args: as the zoo's
    :param kwargs: as the zoo's
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if kwargs.get("config") is None and self.algo in ALGORITHMS:
            self.config = str(hyperparams_file(self.algo))

    def setup_experiment(self) -> Any:
        """Set up a run, or leave nothing of it."""
        new = not os.path.exists(self.save_path)
        try:
            return super().setup_experiment()
        except BaseException:
            if new:
                shutil.rmtree(self.save_path, ignore_errors=True)
                with contextlib.suppress(OSError):  # others' runs may be in it
                    os.rmdir(self.log_path)
            raise

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        processed = super()._preprocess_hyperparams(hyperparams)
        if not self._eval_env_kwargs_args:
            self.eval_env_kwargs = self.env_kwargs  # those of the file, too, which the zoo gives to training only
        check_keywords(ALGOS[self.algo], processed[0])
        return processed

    def create_callbacks(self) -> None:
        """Make the zoo's callbacks, with checkpoints that hold all it takes to go on. The user's own stay as they are."""
        own = len(self.callbacks)
        super().create_callbacks()  # type: ignore[no-untyped-call]
        for number, callback in enumerate(self.callbacks[own:], start=own):
            if type(callback) is CheckpointCallback:
                self.callbacks[number] = resume.Checkpoint(self.save_freq, self.save_path, self.save_replay_buffer)
        self.callbacks.append(ProgressFile(self.save_path))

    def learn(self, model: BaseAlgorithm) -> None:
        """
        Train.

        :param model: the model
        """
        try:
            super().learn(model)
        except Exception:
            traceback.print_exc()  # what goes wrong here is no misuse, and may have taken hours
            raise

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """
        Save the trained model and report on it.

        :param model: the trained model
        """
        super().save_trained_model(model)
        print(weight_report(f"{self.params_path}.zip", model))

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        agent = Path(self.trained_agent)
        agents.check_agent(agent)
        resume.check_networks(self.trained_agent, hyperparams)
        buffer = agents.beside_checkpoint(agent, "replay_buffer")
        try:
            model: Any = super()._load_pretrained_agent(hyperparams, env)
            if buffer is not None:
                model.load_replay_buffer(buffer, truncate_last_traj=self.truncate_last_trajectory)
        except (EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{buffer or agent.with_name('replay_buffer.pkl')} is damaged: {error}") from error
        resume.skip_warm_up(model)
        return model  # type: ignore[no-any-return]

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        env = super()._maybe_normalize(env, eval_env)
        statistics = agents.beside_checkpoint(Path(self.trained_agent), "vecnormalize")
        if statistics is None:
            return env
        self.normalize = True  # the agent knows nothing else, whatever the hyper-parameters say
        loaded = VecNormalize.load(str(statistics), env.venv if isinstance(env, VecNormalize) else env)
        if isinstance(env, VecNormalize):
            loaded.norm_reward = env.norm_reward
        if eval_env:
            loaded.training = loaded.norm_reward = False
        return loaded


def check_keywords(algorithm: type[BaseAlgorithm], hyperparams: dict[str, Any]) -> None:
    """
    Check that an algorithm knows all its hyper-parameters.

    :param algorithm: the class
    :param hyperparams: its arguments, and the zoo's for action noise
    :raises ValueError: if it does not, with the nearest
    """
    known = {"noise_type", "noise_std"}
    for cls in algorithm.__mro__:
        parameters = inspect.signature(vars(cls)["__init__"]).parameters if "__init__" in vars(cls) else {}
        known |= parameters.keys()
        if parameters and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    for name in hyperparams.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}={hyperparams[name]!r} is no argument of {algorithm.__name__}{hint}")


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


def train_with_ours() -> None:
    """Put our experiment manager in the place of the zoo's."""
    exp_manager.ExperimentManager = ExperimentManager  # type: ignore[misc]


def prepare_training(args: argparse.Namespace) -> None:
    """
    Check the arguments of ``train``, and show progress on a terminal.

    :param args: its arguments
    """
    agents.check_env(args.env, args.gym_packages)
    if args.trained_agent:
        agents.check_agent(Path(args.trained_agent))
    if args.conf_file is not None and args.conf_file.endswith((".yml", ".yaml", ".py")) and not os.path.isfile(args.conf_file):
        raise ValueError(f"--conf-file {args.conf_file} does not exist")
    args.progress |= sys.stderr.isatty() and not args.optimize_hyperparameters


def prepare_enjoying(args: argparse.Namespace) -> None:
    """
    Find the agent to play, in the log folder or, as the zoo does, on the hub.

    :param args: of ``enjoy``
    """
    agents.check_env(args.env.gym_id, args.gym_packages)
    if not args.no_render:
        videos.check_screen(args.env.gym_id)
    try:
        agents.prepare_playing(args)
    except ValueError:
        if "rl-trained-agents" not in args.folder:
            raise
        hub.download_trained_agent(args)
        agents.prepare_playing(args)


class Command(NamedTuple):
    """
    A command that runs a module, most often the zoo's.

    :param module: the module, which parses the command line
    :param prepare: called with the parsed arguments, before the module goes on with them
    :param add_options: called with a group of the module's parser, to add options that only ``prepare`` sees
    :param patch: called before the module is imported
    """

    module: str
    prepare: Callable[[argparse.Namespace], None] = lambda args: None
    add_options: Callable[[Any], None] = lambda group: None
    patch: Callable[[], None] = lambda: None


COMMANDS = {
    "train": Command("rl_zoo3.train", prepare_training, patch=train_with_ours),
    "enjoy": Command("rl_zoo3.enjoy", prepare_enjoying),
    "record_video": Command("rl_zoo3.record_video", videos.prepare_video, agents.add_packages),
    "record_training": Command("rl_zoo3.record_training", videos.prepare_training_video, agents.add_packages),
    "plot_train": Command("rl_zoo3.plots.plot_train", plots.prepare_plot_train, plots.add_options),
    "all_plots": Command("rl_zoo3.plots.all_plots", plots.prepare_all_plots, plots.add_options),
    "plot_from_file": Command("rl_zoo3.plots.plot_from_file", plots.prepare_plot_from_file, plots.add_options),
    "load_from_hub": Command("rl_zoo3.load_from_hub", hub.load_from_hub),
    "push_to_hub": Command("rl_zoo3.push_to_hub", hub.push_to_hub, agents.add_packages, hub.make_importable),
    "report": Command("sb3_rlx2.report.__main__"),
    "compress": Command("sb3_rlx2.compress.__main__"),
}


STORE: Any = utils.StoreDict.__call__


def store_or_explain(action: Any, parser: argparse.ArgumentParser, namespace: Any, values: list[str], option: str) -> None:
    """
    Store ``name:value`` pairs as the zoo does, with an error that says what was wrong.

    :param action: the zoo's action
    :param parser: the zoo's parser
    :param namespace: where to store them
    :param values: the pairs
    :param option: the option that they were given to
    """
    try:
        STORE(action, parser, namespace, values, option)
    except Exception as error:
        pairs = " ".join(values)
        parser.error(f"argument {option}: {pairs} must be name:value, where the value is a Python expression ({error})")


def run(name: str, arguments: list[str]) -> None:
    """
    Run a command as if it were ours.

    :param name: a key of ``COMMANDS``
    :param arguments: the command's arguments
    """
    command = COMMANDS[name]
    sys.argv = [f"rlx2 {name}", *arguments]
    utils.StoreDict.__call__ = store_or_explain  # type: ignore[method-assign,assignment]
    command.patch()
    step_in(command, f"rlx2 {name}")
    # Some of the zoo's modules import others that are commands too; as a command each is run anew.
    warnings.filterwarnings("ignore", ".* found in sys.modules after import of package", RuntimeWarning)
    runpy.run_module(command.module, run_name="__main__")


def step_in(command: Command, program: str) -> None:
    """
    Step in between a module's parsing of the command line and its work.

    :param command: the command
    :param program: what its help and its errors call it
    """
    parse = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
        argparse.ArgumentParser.parse_args = parse  # type: ignore[method-assign]
        parser.prog = program
        group = parser.add_argument_group("options of rlx2")
        command.add_options(group)
        args = parse(parser)
        command.prepare(args)
        return args

    argparse.ArgumentParser.parse_args = parse_args  # type: ignore[method-assign,assignment]
