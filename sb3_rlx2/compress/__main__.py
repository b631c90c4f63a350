"""The command ``rlx2 compress``: checks, search, results, exit status."""

import argparse
import contextlib
import dataclasses
import shlex
import signal
import sys
from pathlib import Path

import numpy as np
import optuna
import torch as th

from sb3_rlx2.compress.options import NOTHING_WITHIN_TOLERANCE, make_parser
from sb3_rlx2.compress.results import Results, check_plain, entry
from sb3_rlx2.compress.search import Plan, Search
from sb3_rlx2.compress.training import Budget, Sparsities, Task, keywords, probe
from sb3_rlx2.files import ABANDONED, sweep
from sb3_rlx2.progress_log import read_evaluations
from sb3_rlx2.studies.storage import open_storage
from sb3_rlx2.zoo import agents, hyperparams_file


def main() -> None:
    """Run ``rlx2 compress``."""
    args = make_parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a scheduler sends ends as Ctrl-C does
    sys.exit(compress(args))


def compress(args: argparse.Namespace) -> int:
    """
    Search, and write the results.

    :param args: of the command
    :return: exit status
    """
    plan = prepare(args)
    results = Results(args.log_folder, args.algo, args.env)
    sweep(results.folder.parent, ABANDONED)
    try:
        with contextlib.closing(open_storage(args.storage or str(results.folder / "search.log"))) as storage:
            print(plan.estimate(), flush=True)
            findings = Search(plan, storage).run()
    except KeyboardInterrupt:
        print("\nInterrupted. The same command continues; finished trainings are kept.", file=sys.stderr)
        raise
    print(results.write(plan, findings, _train_options(args)))
    print(f"Written to {results.folder}")
    return 0 if findings.chosen is not None else NOTHING_WITHIN_TOLERANCE


def prepare(args: argparse.Namespace) -> Plan:
    """
    Check everything before the first training.

    :param args: of the command
    :return: what to do
    :raises ValueError: if something is wrong with them, before anything is written
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if args.num_threads > 0:
        th.set_num_threads(args.num_threads)
    agents.check_env(args.env, args.gym_packages)
    if not args.min_density < args.max_density:
        raise ValueError(f"--min-density {args.min_density:g} must be below --max-density {args.max_density:g}")
    config = args.conf_file or str(hyperparams_file(args.algo))
    if not Path(config).is_file():
        raise ValueError(f"--conf-file {config} does not exist")
    task = Task(
        algo=args.algo,
        env=args.env,
        n_timesteps=args.n_timesteps,
        eval_episodes=args.eval_episodes,
        n_evaluations=args.n_evaluations,
        config=config,
        hyperparams=args.hyperparams,
        env_kwargs=args.env_kwargs,
        vec_env=args.vec_env,
        device=args.device,
        deployed=args.deployed,
        objective=args.objective,
    )
    sparsest = Sparsities.from_densities(args.algo, [args.min_density] * len(keywords(args.algo)))
    hyperparams, n_timesteps = probe(task, sparsest)
    task, densities = dataclasses.replace(task, n_timesteps=n_timesteps), (args.min_density, args.max_density)
    plan = Plan(
        task=task,
        hyperparams=hyperparams,
        tolerance=args.tolerance,
        n_trials=args.n_trials,
        n_seeds=args.n_seeds,
        n_finalists=args.n_finalists,
        densities=densities,
        seed=args.seed,
        dense_returns=tuple(args.dense_return) if args.dense_logs is None else dense_returns(args.dense_logs, n_timesteps),
        study_name=args.study_name or f"{args.algo}-{args.env}",
        models=Results(args.log_folder, args.algo, args.env).folder / "finalists",
        budget=None if args.max_bytes is None else Budget.of(task, args.max_bytes, densities),
    )
    check_plain(entry(plan, sparsest))
    return plan


def dense_returns(folder: Path, n_timesteps: int) -> tuple[float, ...]:
    """
    Read the returns of dense runs from their evaluations.

    :param folder: holds ``evaluations.npz``, as ``rlx2 train`` writes them, in it or below: one per seed
    :param n_timesteps: at which they are read; each must have an evaluation in the tenth of training before it
    :return: mean return of each run
    :raises ValueError: if there are no evaluations, none in time, or damaged ones
    """
    files = sorted(folder.rglob("evaluations.npz"))
    if not files:
        raise ValueError(f"--dense-logs {folder} holds no evaluations.npz, in it or below")
    returns = []
    for file in files:
        steps, results = read_evaluations(file)
        in_time = np.flatnonzero((steps <= n_timesteps) & (steps > 0.9 * n_timesteps))
        if len(in_time) == 0:
            raise ValueError(
                f"--dense-logs: {file} has evaluations at steps {steps[0]:,} to {steps[-1]:,}, and needs one in the last "
                f"tenth of {n_timesteps:,}"
            )
        returns.append(float(results[in_time[-1]].mean()))
    return tuple(returns)


def _train_options(args: argparse.Namespace) -> str:
    """Give what else ``rlx2 train`` needs to do one of these trainings again."""
    defaults = vars(make_parser().parse_args(["--algo", args.algo, "--env", args.env]))
    names = ("vec_env", "device", "num_threads", "gym_packages")
    options = []
    for name in names:
        value = getattr(args, name)
        if value != defaults[name]:
            options += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [str(value)])]
    return "".join(f" {shlex.quote(option)}" for option in options)


if __name__ == "__main__":
    main()
