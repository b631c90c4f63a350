"""Finds the agent that the command means, as ``rlx2 enjoy`` does, and all that belongs to it."""

import argparse
import inspect
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl_zoo3 import ALGOS, utils
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rlx2 import safe_pickle, zoo
from sb3_rlx2.algorithms.base import RLx2Algorithm
from sb3_rlx2.checkpoint.agent import normalizer_of
from sb3_rlx2.checkpoint.archive import CHECKPOINT, check_agent, opened, read_pickled
from sb3_rlx2.files import with_suffix
from sb3_rlx2.settings import read_settings
from sb3_rlx2.validation import lookup
from sb3_rlx2.zoo import agents
from sb3_rlx2.zoo.checks import option

# Code that another Python may not be able to load, and that an agent which only acts does not need.
CONSTANTS = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
# Options that find an agent in a log folder, and what they are where they were not given.
OF_A_RUN = {"folder": "logs", "exp_id": 0, "load_best": False, "load_checkpoint": None, "load_last_checkpoint": False}


@dataclass(frozen=True)
class Agent:
    """
    An agent on disk.

    :param path: the zip, or the folder of a checkpoint
    :param statistics: of ``VecNormalize``, or the folder of a checkpoint that holds them; None if it was trained without
    :param env_kwargs: arguments of its environment
    :param hyperparams: that it was trained with, as far as they are known
    """

    path: Path
    statistics: Path | None
    env_kwargs: dict[str, Any]
    hyperparams: dict[str, Any] = field(default_factory=dict)


def find(args: argparse.Namespace) -> Agent:
    """
    Find the agent.

    :param args: of the command
    :return: where it is, and with what it was trained
    :raises ValueError: if there is none, or the arguments say two things
    """
    zoo.register()
    if args.env is not None:
        agents.check_env(args.env.gym_id, args.gym_packages)
    if args.agent is not None:
        path = args.agent if args.agent.exists() else with_suffix(args.agent, ".zip")  # as SB3 saves and loads it
        for name, unsaid in OF_A_RUN.items():
            if getattr(args, name) != unsaid:
                raise ValueError(f"{option(name)} {getattr(args, name)} beside {args.agent}: an agent is one or the other")
        check_agent(path)
        beside = agents.beside_checkpoint(path, "vecnormalize") or _of_run(path)
        return Agent(path, args.vecnormalize or beside, args.env_kwargs or {})
    if args.algo is None or args.env is None:
        raise ValueError("the agent must be given, as the path of a zip, or by --algo and --env")
    path, run = agents.find_agent(args), agents.find_run(args)
    folder = run / args.env
    hyperparams, _ = utils.get_saved_hyperparams(str(folder), test_mode=True)
    beside = folder / "vecnormalize.pkl" if hyperparams.get("normalize") else None
    statistics = args.vecnormalize or agents.beside_checkpoint(path, "vecnormalize") or beside
    return Agent(path, statistics, agents.env_kwargs(run, str(args.env), args.env_kwargs), hyperparams)


def _of_run(path: Path) -> Path | None:
    """Find the statistics of the run that an agent's zip is of, if it is one that ``rlx2 train`` writes."""
    for config in sorted(path.parent.glob("*/config.yml")):
        is_of_run = path.stem in (config.parent.name, "best_model") or CHECKPOINT.fullmatch(path.stem) is not None
        if is_of_run and read_settings(config).get("normalize"):
            return config.with_name("vecnormalize.pkl")
    return None


def load(agent: Agent, algo: str | None, deployed: bool = False) -> tuple[BaseAlgorithm, VecNormalize | None]:
    """
    Load an agent, without memory for a replay buffer.

    :param agent: where it is
    :param algo: name of its algorithm in the zoo, None to find out
    :param deployed: whether its policy is to be the one that a callback of ``sb3_rlx2.deploy`` has chosen
    :return: the agent, and its ``VecNormalize``
    :raises ValueError: if a file is missing or damaged, or the algorithm unknown
    """
    check_agent(agent.path)
    statistics = None if agent.statistics is None else _load_statistics(agent.statistics)
    algorithm = _algorithm_of(agent.path) if algo is None else lookup("algo", algo, ALGOS)
    return agents.load_to_play(algorithm, agent.path, deployed, device="cpu", custom_objects=CONSTANTS), statistics


def _algorithm_of(path: Path) -> type[BaseAlgorithm]:
    """Find the algorithm that takes such a policy, ours if it saved ours, and of several the one whose arguments are saved."""
    with opened(path) as file:
        data, _, _ = load_from_zip_file(file, device="cpu", custom_objects=read_pickled(path, CONSTANTS))
    assert data is not None
    policy = data["policy_class"]
    own = "topology" in data  # SB3's may have a sparse policy, too
    candidates = [
        algorithm
        for algorithm in ALGOS.values()
        if issubclass(algorithm, RLx2Algorithm) == own and issubclass(policy, tuple(algorithm.policy_aliases.values()))
    ]
    if not candidates:
        raise ValueError(f"{path} has a {policy.__name__}, which could be of any algorithm: --algo must name it")

    def saved(algorithm: type[BaseAlgorithm]) -> int:
        return sum(1 if name in data else -1 for name in inspect.signature(algorithm).parameters)

    return max(candidates, key=saved)


def _load_statistics(path: Path) -> VecNormalize | None:
    if path.is_dir():
        return normalizer_of(path)
    if not path.is_file():
        raise ValueError(f"--vecnormalize {path} does not exist")
    try:
        statistics = safe_pickle.loads(path.read_bytes())  # as VecNormalize.load, which wants the environment too
    except (EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"--vecnormalize {path} is damaged: {error}") from error
    if not isinstance(statistics, VecNormalize):
        raise ValueError(f"--vecnormalize {path} holds a {type(statistics).__name__}, it must hold a VecNormalize")
    return statistics
