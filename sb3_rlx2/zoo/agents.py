"""Trained agents in a log folder: where they are, whether they are whole, and what it takes to play them."""

import argparse
import contextlib
import difflib
import importlib
import io
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
from rl_zoo3 import utils
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_rlx2 import minatar
from sb3_rlx2.checkpoint.agent import normalizer_of
from sb3_rlx2.checkpoint.archive import CHECKPOINT, is_checkpoint, newer_checkpoint, opened, read_pickled
from sb3_rlx2.deploy import deployed_policy
from sb3_rlx2.extras import require
from sb3_rlx2.settings import read_settings


def check_env(env_id: str, packages: list[str]) -> None:
    """
    Check that an environment exists.

    :param env_id: its id
    :param packages: modules to import before, because they register environments
    :raises ValueError: if it does not, with the nearest id
    """
    if env_id.startswith(minatar.PREFIX):
        require("minatar", f"--env {env_id}, a game under GPL-3,")
    for package in packages:
        importlib.import_module(package)
    importlib.import_module("rl_zoo3.import_envs")  # registers the zoo's
    try:
        gym.spec(env_id)
    except (gym.error.Error, ImportError) as error:
        ids = {known.lower(): known for known in gym.registry}
        near = difflib.get_close_matches(env_id.lower(), ids, n=1, cutoff=0.0)
        hint = f"did you mean {ids[near[0]]}?" if near else "no environment is registered"
        raise ValueError(f"--env {env_id} is unknown; {hint} (--gym-packages imports modules that register more)") from error


def find_run(args: argparse.Namespace) -> Path:
    """
    Find the run that the arguments of a zoo command mean.

    :param args: ``folder``, ``algo``, ``env`` and ``exp_id``
    :return: its folder
    :raises ValueError: if there is none, with what there is
    """
    root, folder = Path(args.folder), Path(args.folder, args.algo)
    if not root.is_dir():
        raise ValueError(f"--folder {root} does not exist")
    if not folder.is_dir():
        raise ValueError(f"--folder {root} has no folder {args.algo}; it holds {_folders(root)}")
    if args.exp_id < 0:  # the zoo's way to say that runs have no folders of their own
        return folder
    run = folder / f"{args.env}_{args.exp_id or utils.get_latest_run_id(str(folder), args.env)}"
    if not run.is_dir():
        what = f"run {args.exp_id}" if args.exp_id else "run"
        raise ValueError(f"{folder} has no {what} of {args.env}; it holds {_folders(folder)}")
    return run


def find_agent(args: argparse.Namespace) -> Path:
    """
    Find the agent that the arguments of a zoo command mean.

    :param args: those of :func:`find_run`, ``load_best``, ``load_checkpoint`` and ``load_last_checkpoint``
    :return: the zip; of a run that was cut off the folder of its newest checkpoint, unless another agent was asked for
    :raises ValueError: if there is none
    """
    newer = _newer(args)
    if newer is not None:
        return newer
    choice = args.load_best, args.load_checkpoint, args.load_last_checkpoint
    with contextlib.redirect_stdout(io.StringIO()):  # the zoo will say again what it loads
        _, path, _ = utils.get_model_path(args.exp_id, args.folder, args.algo, args.env, *choice)
    return Path(path)


def _newer(args: argparse.Namespace) -> Path | None:
    run = find_run(args)
    if args.load_best or args.load_last_checkpoint or args.load_checkpoint is not None:
        return None
    return newer_checkpoint(run, run / f"{args.env}.zip")


def with_checkpoints(get_model_path: Any, args: argparse.Namespace) -> Callable[..., tuple[str, str, str]]:
    """
    Have the zoo take the agent that :func:`find_agent` finds.

    :param get_model_path: the zoo's
    :param args: of the command
    :return: what takes its place
    """

    def get(*given: Any) -> tuple[str, str, str]:
        newer = _newer(args)
        if newer is None:
            return get_model_path(*given)  # type: ignore[no-any-return]
        return f"{newer.name}-{args.algo}-{args.env}", str(newer), str(find_run(args))

    return get


def in_any_folder(glob: Any, _: argparse.Namespace) -> SimpleNamespace:
    """
    Have the zoo find files in folders whose names hold what means something in a pattern, such as brackets.

    :param glob: the module
    :return: what takes its place
    """

    def find(pattern: str) -> list[str]:
        folder, name = os.path.split(pattern)
        return glob.glob(os.path.join(glob.escape(folder), name))  # type: ignore[no-any-return]

    return SimpleNamespace(glob=find)


def _folders(place: Path) -> str:
    return ", ".join(sorted(path.name for path in place.iterdir() if path.is_dir())) or "nothing"


def beside_checkpoint(agent: Path, kind: str) -> Path | None:
    """
    Find what was saved together with an agent on the way.

    :param agent: the zip, or the folder of a checkpoint of the whole run
    :param kind: ``"replay_buffer"`` or ``"vecnormalize"``
    :return: the file, or that folder; None if there is none
    """
    if is_checkpoint(agent):
        return agent if kind == "vecnormalize" and normalizer_of(agent) is not None else None
    checkpoint = CHECKPOINT.fullmatch(agent.stem)
    name = f"{agent.stem}_{kind}" if checkpoint is None else f"{checkpoint['prefix']}_{kind}_{checkpoint['steps']}_steps"
    path = agent.with_name(f"{name}.pkl")
    return path if path.is_file() else None


def add_packages(group: Any) -> None:
    """
    Add the option for environments of other packages, which some of the zoo's commands lack.

    :param group: where to add it
    """
    help_text = "modules to import, which register environments"
    group.add_argument("--gym-packages", nargs="+", default=[], metavar="MODULE", help=help_text)


def add_deployed(group: Any) -> None:
    """
    Add the option to play the policy that was chosen to be deployed.

    :param group: where to add it
    """
    help_text = "the policy that a callback of sb3_rlx2.deploy has chosen, instead of the last one"
    group.add_argument("--deployed", action="store_true", help=help_text)


def add_video_options(group: Any) -> None:
    """
    Add both options.

    :param group: where to add them
    """
    add_packages(group)
    add_deployed(group)


def without_replay_memory(algos: dict[str, type[BaseAlgorithm]], args: argparse.Namespace) -> dict[str, Any]:
    """
    Replace the zoo's algorithms by what loads their agents only to play.

    :param algos: the zoo's, by name
    :param args: of the command, with what :func:`add_deployed` adds
    :return: for each name, something with their ``load``
    """

    def load(algorithm: type[BaseAlgorithm], path: str | Path, **kwargs: Any) -> BaseAlgorithm:
        return load_to_play(algorithm, path, args.deployed, **kwargs)  # parsed by now

    return {name: SimpleNamespace(load=partial(load, algorithm)) for name, algorithm in algos.items()}


def load_to_play(algorithm: type[BaseAlgorithm], path: str | Path, deployed: bool = False, **kwargs: Any) -> BaseAlgorithm:
    """
    Load an agent without memory for a replay buffer.

    :param algorithm: its algorithm
    :param path: the zip, or the folder of a checkpoint
    :param deployed: whether its policy is to be the one that a callback of ``sb3_rlx2.deploy`` has chosen
    :param kwargs: as SB3's ``load``
    :return: the agent
    :raises ValueError: if none was chosen
    """
    if issubclass(algorithm, OffPolicyAlgorithm):
        kwargs["buffer_size"] = 1
    given = kwargs.pop("custom_objects", None) or {}
    with opened(Path(path)) as file:
        model = algorithm.load(file, custom_objects=read_pickled(Path(path), given), **kwargs)
    if deployed:
        model.policy = deployed_policy(model)
    return model


def with_own_statistics(create_test_env: Any, args: argparse.Namespace) -> Callable[..., VecEnv]:
    """
    Make environments that normalise by the statistics of the checkpoint that is played, if they were saved with it.

    :param create_test_env: the zoo's, which looks for them in the folder that holds those of the last best agent
    :param args: of the command
    :return: what takes its place
    """

    def create(*given: Any, stats_path: str | None = None, **kwargs: Any) -> VecEnv:
        statistics = beside_checkpoint(find_agent(args), "vecnormalize")
        with tempfile.TemporaryDirectory(prefix="sb3_rlx2-") as folder:
            if statistics is not None:
                copy_statistics(statistics, Path(folder, "vecnormalize.pkl"))
                stats_path = folder
            try:
                return create_test_env(*given, stats_path=stats_path, **kwargs)  # type: ignore[no-any-return]
            except (EOFError, pickle.UnpicklingError) as error:
                raise ValueError(f"{statistics or Path(stats_path or '', 'vecnormalize.pkl')} is damaged: {error}") from error

    return create


def copy_statistics(source: Path, target: Path) -> None:
    """
    Copy statistics that an agent was saved with.

    :param source: what :func:`beside_checkpoint` found
    :param target: where the zoo reads them
    """
    if source.is_dir():
        target.write_bytes(pickle.dumps(normalizer_of(source)))
    else:
        shutil.copy(source, target)


def env_kwargs(run: Path, env_name: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """
    Put together the arguments of an agent's environment.

    :param run: the folder of the agent's run
    :param env_name: the environment's name in it
    :param given: arguments of the command line, which come before those saved with the agent
    """
    folder = run / env_name
    saved: dict[str, Any] = utils.get_saved_hyperparams(str(folder))[0].get("env_kwargs", {})
    if (folder / "args.yml").is_file():
        saved = read_settings(folder / "args.yml").get("env_kwargs") or saved
    return saved | (given or {})
