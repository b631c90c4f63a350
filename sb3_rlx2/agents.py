"""Trained agents in a log folder: where they are, whether they are whole, and what it takes to play them."""

import argparse
import contextlib
import difflib
import importlib
import io
import os
import re
import zipfile
import zlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import yaml
from rl_zoo3 import utils
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

CHECKPOINT = re.compile(r"(?P<prefix>.+)_(?P<steps>\d+)_steps")


def check_env(env_id: str, packages: list[str]) -> None:
    """
    Check that an environment exists.

    :param env_id: its id
    :param packages: modules to import before, because they register environments
    :raises ValueError: if it does not, with the nearest id
    """
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
    :return: the zip
    :raises ValueError: if there is none
    """
    find_run(args)
    choice = args.load_best, args.load_checkpoint, args.load_last_checkpoint
    with contextlib.redirect_stdout(io.StringIO()):  # the zoo will say again what it loads
        _, path, _ = utils.get_model_path(args.exp_id, args.folder, args.algo, args.env, *choice)
    return Path(path)


def _folders(place: Path) -> str:
    return ", ".join(sorted(path.name for path in place.iterdir() if path.is_dir())) or "nothing"


def check_agent(path: Path) -> None:
    """
    Check that a saved agent is whole.

    :param path: the zip
    :raises ValueError: if it is damaged or no agent
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged, names = archive.testzip(), archive.namelist()
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged, or no zip: {error}") from error
    # What is left of a torn zip may open as one of the archives inside it, so what must be there counts too.
    if damaged is not None or not {"data", "policy.pth"} <= set(names):
        raise ValueError(f"{path} is damaged, or no agent that Stable-Baselines3 saved")


def beside_checkpoint(agent: Path, kind: str) -> Path | None:
    """
    Find what was saved together with a checkpoint.

    :param agent: the zip
    :param kind: ``"replay_buffer"`` or ``"vecnormalize"``
    :return: the file, None if there is none or the agent is no checkpoint
    """
    checkpoint = CHECKPOINT.fullmatch(agent.stem)
    if checkpoint is None:
        return None
    path = agent.with_name(f"{checkpoint['prefix']}_{kind}_{checkpoint['steps']}_steps.pkl")
    return path if path.is_file() else None


def add_packages(group: Any) -> None:
    """
    Add the option for environments of other packages, which some of the zoo's commands lack.

    :param group: where to add it
    """
    help_text = "modules to import, which register environments"
    group.add_argument("--gym-packages", nargs="+", default=[], metavar="MODULE", help=help_text)


def prepare_playing(args: argparse.Namespace) -> None:
    """
    Find the agent to play and see that the zoo will load it as it should.

    :param args: of a zoo command that plays an agent
    """
    use_statistics_of(find_agent(args))
    for name, algorithm in utils.ALGOS.items():
        utils.ALGOS[name] = SimpleNamespace(load=partial(load_to_play, algorithm))  # type: ignore[assignment]


def load_to_play(algorithm: type[BaseAlgorithm], path: str | Path, **kwargs: Any) -> BaseAlgorithm:
    """
    Load an agent without memory for a replay buffer, which the zoo does for SB3's own algorithms by a list of names.

    :param algorithm: its algorithm
    :param path: the zip
    :param kwargs: as SB3's ``load``
    :return: the agent
    """
    check_agent(Path(path))
    if issubclass(algorithm, OffPolicyAlgorithm):
        kwargs["buffer_size"] = 1
    return algorithm.load(path, **kwargs)


def use_statistics_of(agent: Path) -> None:
    """
    Make the zoo normalise by the statistics of a checkpoint; it knows those of the last best agent only.

    :param agent: the checkpoint
    """
    path = beside_checkpoint(agent, "vecnormalize")
    if path is None:
        return

    class Statistics(VecNormalize):
        @staticmethod
        def load(_: str, venv: VecEnv) -> VecNormalize:
            return VecNormalize.load(str(path), venv)

    utils.VecNormalize = Statistics  # type: ignore[attr-defined]
    # Before it loads, the zoo looks whether there are statistics of a best agent, which come with its first evaluation.
    files = vars(os.path) | {"exists": lambda place: os.path.exists(place) or Path(place).name == "vecnormalize.pkl"}
    utils.os = SimpleNamespace(**vars(os) | {"path": SimpleNamespace(**files)})  # type: ignore[attr-defined,assignment]


def env_kwargs(agent: Path, env_name: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """
    Put together the arguments of an agent's environment.

    :param agent: the agent's zip
    :param env_name: the environment's name in the log folder
    :param given: arguments of the command line, which come before those saved with the agent
    """
    folder = agent.parent / env_name
    saved: dict[str, Any] = utils.get_saved_hyperparams(str(folder))[0].get("env_kwargs", {})
    if (folder / "args.yml").is_file():
        # The zoo's files hold Python objects (OrderedDict), so it reads them with this loader too.
        arguments = yaml.load((folder / "args.yml").read_text(), Loader=yaml.UnsafeLoader)
        saved = arguments.get("env_kwargs") or saved
    return saved | (given or {})
