"""What ours does before the zoo trains or plays an agent."""

import argparse
import ast
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from sb3_rlx2.algorithms.keywords import defaults
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.checkpoint import generations
from sb3_rlx2.checkpoint.archive import CHECKPOINTS, check_agent
from sb3_rlx2.extras import require
from sb3_rlx2.plan import FULL_LENGTH
from sb3_rlx2.settings import read_settings
from sb3_rlx2.validation import check_integer
from sb3_rlx2.zoo import agents, checks, hub, videos
from sb3_rlx2.zoo.dense_twin import stock_name
from sb3_rlx2.zoo.experiment import BEGUN_FROM, CHECKPOINT_EVERY, ExperimentManager

TAKEN_ANEW = {"device", "num_threads", "progress", "verbose"}  # options that a run which goes on may be given
SHORT = {  # the zoo's short options
    "-P": "progress",
    "-conf": "conf_file",
    "-f": "log_folder",
    "-i": "trained_agent",
    "-n": "n_timesteps",
    "-optimize": "optimize_hyperparameters",
    "-params": "hyperparams",
    "-tags": "wandb_tags",
    "-tb": "tensorboard_log",
    "-uuid": "uuid",
}


def add_training_options(group: Any) -> None:
    """
    Add what ``train`` can do here.

    :param group: where to add it
    """
    group.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="STEPS",
        help=f"steps between checkpoints of the whole run (default {CHECKPOINT_EVERY:,}, and removed at the end; 0: none)",
    )
    group.add_argument("--resume", metavar="FOLDER", help="go on with the run in this folder, with its own arguments")
    help_text = "train what a sparse agent is measured against: SB3's own algorithm, with the same hyper-parameters"
    group.add_argument("--dense-twin", action="store_const", const=True, help=help_text)
    arguments = ", ".join(f"{name}:{value}" for name, value in defaults().items())
    group.description = (
        f"RLx2's own hyper-parameters, for -params, with their defaults: {arguments}; and for each network its sparsity "
        "(actor_sparsity, critic_sparsity; sparsity). A number between 0 and 1 in place of steps is a share "
        f"of all steps, of which {FULL_LENGTH:,} count at most."
    )


def prepare_training(args: argparse.Namespace) -> None:
    """
    Check the arguments of ``train``, and show progress on a terminal.

    :param args: its arguments
    :raises ValueError: if a file or an environment that they name is not there
    """
    if args.resume is not None:
        recall(args)
    if (args.checkpoint_every or 0) < 0:
        raise ValueError(f"--checkpoint-every {args.checkpoint_every} must be >= 0")
    agents.check_env(args.env, args.gym_packages)
    if args.resume is None:
        _choose_algorithm(args)
    _check_counts(args)
    if args.trained_agent:
        check_agent(Path(args.trained_agent))
    if args.conf_file is not None and args.conf_file.endswith((".yml", ".yaml", ".py")) and not os.path.isfile(args.conf_file):
        raise ValueError(f"--conf-file {args.conf_file} does not exist")
    if args.tensorboard_log:
        require("tensorboard", "rlx2 train --tensorboard-log")
    if has_study(args):
        require("tuning", f"rlx2 train {'-optimize' if args.optimize_hyperparameters else '--trial-id'}")
    args.progress |= sys.stderr.isatty() and not args.optimize_hyperparameters


def _said(args: argparse.Namespace) -> set[str]:
    """Name the options that the command line has, which argparse lets one shorten."""
    said = set()
    for given in sys.argv[1:]:
        option, name = given.partition("=")[0], given.partition("=")[0].removeprefix("--").replace("-", "_")
        if option in SHORT:
            said.add(SHORT[option])
        elif option.startswith("--") and name:
            said |= {name} & vars(args).keys() or {each for each in vars(args) if each.startswith(name)}
    return said


def _choose_algorithm(args: argparse.Namespace) -> None:
    if "algo" not in _said(args):
        args.algo = algorithm_for(args.env, **(args.env_kwargs or {}))
    if args.dense_twin:
        _be_dense(args)


def algorithm_for(env_id: str, **env_kwargs: Any) -> str:
    """
    Choose what the zoo would not: a sparse algorithm, by the actions of the environment.

    :param env_id: its id
    :param env_kwargs: its arguments
    """
    with closing(gym.make(env_id, **env_kwargs)) as env:
        algo = "rlx2dqn" if isinstance(env.action_space, spaces.Discrete) else "rlx2td3"
        print(f"--algo {algo}, for the {type(env.action_space).__name__} actions of {env_id}")
    return algo


def _be_dense(args: argparse.Namespace) -> None:
    """Train the host's algorithm in the place of ours, whose name is kept: that of its hyper-parameters."""
    if args.algo not in ALGORITHMS:
        raise ValueError(f"--dense-twin is of a sparse algorithm: --algo {args.algo} must be one of {', '.join(ALGORITHMS)}")
    if has_study(args):
        raise ValueError("--dense-twin is for a training, not for a study: leave -optimize and --trial-id out")
    args.dense_twin, args.algo = args.algo, stock_name(args.algo)
    print(f"--dense-twin: {args.algo} with the hyper-parameters of {args.dense_twin}")


def _check_counts(args: argparse.Namespace) -> None:
    """Refuse numbers that would silently mean something else."""
    if args.n_timesteps != -1:  # the zoo's way to say that the hyper-parameter file has it
        check_integer("--n-timesteps", args.n_timesteps, 1)
    checks.check_options(args, {"eval_freq": -1, "save_freq": -1, "eval_episodes": 1, "n_eval_envs": 1, "log_interval": -2})
    if args.log_interval == 0:
        raise ValueError("--log-interval=0 must be an integer >= 1, -1 for the usual one or -2 for none")
    if has_study(args):
        least = {"n_trials": 1, "max_total_trials": 1, "n_evaluations": 1, "n_startup_trials": 0}
        checks.check_options(args, least)
        if args.n_jobs != -1:
            check_integer("--n-jobs", args.n_jobs, 1)
    if args.optimize_hyperparameters:
        _check_search(args)
    _name_idle_options(args)


def _check_search(args: argparse.Namespace) -> None:
    """Refuse what the zoo would do in the place of a search, or fail at."""
    if args.trained_agent:
        raise ValueError(f"--trained-agent {args.trained_agent} beside -optimize: trials begin untrained, leave one out")
    if args.sampler == "auto" and importlib.util.find_spec("optunahub") is None:
        raise ValueError("--sampler auto needs optunahub: pip install optunahub")


def _name_idle_options(args: argparse.Namespace) -> None:
    """Say which options do nothing without another."""
    for name in ("storage", "study_name", "n_trials", "max_total_trials"):
        if name in _said(args) and not has_study(args):
            print(f"{checks.option(name)} without -optimize or --trial-id: nothing is searched")
    if args.wandb_tags and not args.track:
        print(f"--wandb-tags {' '.join(args.wandb_tags)} without --track: nothing is sent to Weights & Biases")


def recall(args: argparse.Namespace) -> None:
    """
    Take the arguments with which a run was begun, but for the number of steps and of those between checkpoints, if given.

    :param args: of ``train``
    :raises ValueError: if there is no run to go on with, or something else is asked of it
    """
    folder = Path(args.resume)
    files = sorted(folder.glob("*/args.yml"))
    newest = generations.newest(folder / CHECKPOINTS, rows=False) if files else None
    if newest is None:
        reason = "holds no checkpoint to go on from" if files else "is no folder of a run"
        raise ValueError(f"--resume {folder} {reason}")
    own = {"dense_twin": None, **read_settings(files[0])}
    _check_same(args, own)
    given: dict[str, Any] = {"resume": str(folder), "trial_id": None}  # what a trial gave is in the run's config.yml
    if args.n_timesteps != -1:
        given["n_timesteps"] = check_integer("--n-timesteps", args.n_timesteps, 1)
        if args.n_timesteps < min(newest.step, newest.planned or newest.step):
            raise ValueError(f"--n-timesteps {args.n_timesteps} is behind step {newest.step}, where {folder} goes on")
    elif (planned := newest.planned) is not None:  # a run that was lengthened before it was cut off is as long as then
        given["n_timesteps"] = planned
    if args.checkpoint_every is not None:
        given["checkpoint_every"] = check_integer("--checkpoint-every", args.checkpoint_every, 1)
    if (begun_from := files[0].with_name(BEGUN_FROM)).exists():
        given["trained_agent"] = str(begun_from)
    given |= {name: getattr(args, name) for name in _said(args) & TAKEN_ANEW}
    vars(args).update(own | given)


def _check_same(args: argparse.Namespace, own: Mapping[str, Any]) -> None:
    """Refuse what a run that goes on would not take."""
    own = {**own, "algo": own["dense_twin"] or own.get("algo"), "dense_twin": bool(own["dense_twin"]) or None}
    for name in sorted(_said(args) - {"resume", "n_timesteps", "checkpoint_every"} - TAKEN_ANEW):
        if getattr(args, name) != own.get(name):
            raise ValueError(
                f"{checks.option(name)} {getattr(args, name)} beside --resume {args.resume}, which goes on with its own "
                f"{own.get(name)}: leave it out"
            )


def has_study(args: argparse.Namespace) -> bool:
    """
    Say whether a training has to do with a study.

    :param args: of ``train``
    """
    return args.optimize_hyperparameters or args.trial_id is not None


def choose_manager(_: Any, args: argparse.Namespace) -> Callable[..., Any]:
    """
    Put one of our experiment managers in the place of the zoo's.

    :param args: of ``train``
    :return: what makes the manager
    """

    def make(*given: Any, **kwargs: Any) -> Any:
        # By name, as tuning needs packages that a plain training does without.
        manager = pkgutil.resolve_name("sb3_rlx2.tuning.manager:TuningManager") if has_study(args) else ExperimentManager
        return manager(*given, **kwargs)

    return make


def prepare_enjoying(args: argparse.Namespace) -> None:
    """
    Find the agent to play, in the log folder or, as the zoo does, on the hub.

    :param args: of ``enjoy``
    """
    agents.check_env(args.env.gym_id, args.gym_packages)
    checks.check_options(args, {"n_timesteps": 1, "n_envs": 1, "seed": 0})
    checks.check_one_way(args)
    if not args.no_render:
        videos.check_screen(args.env.gym_id)
    try:
        path = agents.find_agent(args)
    except ValueError:
        if "rl-trained-agents" not in args.folder:
            raise
        hub.download_trained_agent(args)
        path = agents.find_agent(args)
    check_agent(path)


def store_or_explain(store: Any, _: argparse.Namespace) -> Callable[..., None]:
    """
    Store ``name:value`` pairs as the zoo does, with an error that says what was wrong. What RLx2 has names for needs no
    quotes: the zoo would evaluate ``topology:set`` to Python's ``set``.

    :param store: the zoo's
    :return: what takes its place
    """

    def explained(
        action: Any, parser: argparse.ArgumentParser, namespace: Any, values: list[str], option: str | None = None
    ) -> None:
        before = getattr(namespace, action.dest, None) or {}  # where the option is there twice
        try:
            store(action, parser, namespace, [*map(_quoted, values)], option)
            setattr(namespace, action.dest, {**before, **getattr(namespace, action.dest)})
        except Exception as error:
            bad = next((value for value in values if not _is_taken(store, action, parser, value)), " ".join(values))
            parser.error(f"argument {option}: {bad} must be name:value, where the value is a Python expression ({error})")

    return explained


def _is_taken(store: Any, action: Any, parser: argparse.ArgumentParser, pair: str) -> bool:
    try:
        store(action, parser, argparse.Namespace(), [_quoted(pair)], None)
    except Exception:
        return False
    return True


TEXTS = {name for name, value in defaults().items() if isinstance(value, str)}


def _quoted(pair: str) -> str:
    name, colon, value = pair.partition(":")
    return f"{name}:{value!r}" if colon and name in TEXTS and not _is_value(value) else pair


def _is_value(text: str) -> bool:
    """Tell a Python value, as of ``arrays:False`` and ``distribution:dict(...)``, from a name."""
    try:
        ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return re.match(r"\w+\(", text) is not None
    return True
