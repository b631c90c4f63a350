"""The zoo's plots: as files where there is no screen, normalised for MuJoCo, and with an error where nothing is to be seen."""

import argparse
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_sb3 import EnvironmentName
from matplotlib import pyplot as plt

from sb3_rlx2 import safe_pickle
from sb3_rlx2.files import replacing
from sb3_rlx2.progress_log import read_evaluations

# Returns of a random and of an expert agent, by which D4RL normalises MuJoCo's returns (REF_MIN_SCORE and REF_MAX_SCORE in
# https://github.com/Farama-Foundation/D4RL/blob/master/d4rl/infos.py). They are of v2; v4 and v5 compute close to the same.
D4RL_RETURNS = {
    "HalfCheetah": (-280.178953, 12135.0),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
}


def add_options(group: Any) -> None:
    """
    Add our option to a plotting command.

    :param group: where to add it
    """
    help_text = "write the figures there as PNG files and do not show them"
    group.add_argument("--save-figures", metavar="FOLDER", type=Path, default=None, help=help_text)


def prepare_plot_train(args: argparse.Namespace) -> None:
    """
    Check what ``plot_train`` shall plot, and where to.

    :param args: its arguments
    :raises ValueError: if there is no run
    """
    args.env = _in_folders(args.env)
    for env in args.env:
        if not any(runs(Path(args.exp_folder), args.algo, env)):
            raise ValueError(f"no run of {env} in {Path(args.exp_folder, args.algo)}")
    prepare_figures(args)


def prepare_all_plots(args: argparse.Namespace) -> None:
    """
    Check what ``all_plots`` shall plot, and where to.

    :param args: its arguments
    :raises ValueError: if an option or a folder is missing
    """
    for option in ("algos", "env", "exp_folders"):
        if not getattr(args, option):
            raise ValueError(f"--{option.replace('_', '-')} is missing")
    args.env = _in_folders(args.env)
    if args.labels is not None and len(args.labels) != len(args.exp_folders):
        raise ValueError(f"--labels {args.labels} must be as many as --exp-folders {args.exp_folders}")
    for folder in args.exp_folders:
        if not Path(folder).is_dir():
            raise ValueError(f"--exp-folders {folder} does not exist")
    check_evaluations(args)
    if args.save_figures is not None:
        args.no_display = False  # else the zoo does not reach the place where they are saved
    prepare_figures(args)


def _in_folders(envs: Sequence[str]) -> list[str]:
    """Name environments as their folders are named, which is what the zoo looks for: without a slash."""
    return [str(EnvironmentName(env)) for env in envs]


def check_evaluations(args: argparse.Namespace) -> None:
    """
    Check that there are two evaluations of each environment, which the zoo takes for a curve.

    :param args: of ``all_plots``
    :raises ValueError: if there are not
    """
    for env in args.env:
        found = [run for folder in args.exp_folders for algo in args.algos for run in runs(Path(folder), algo.lower(), env)]
        if max((evaluations(run) for run in found), default=0) < 2:
            raise ValueError(
                f"no run of {env} by {' or '.join(args.algos)} in {' or '.join(args.exp_folders)} has two evaluations to plot "
                f"(--eval-freq of train); runs found: {', '.join(map(str, found)) or 'none'}"
            )


def prepare_plot_from_file(args: argparse.Namespace) -> None:
    """
    Check what ``plot_from_file`` shall plot, and where to.

    :param args: its arguments
    :raises ValueError: if the file is missing or damaged, or lacks what is asked for
    """
    if args.input is None:
        raise ValueError("--input is missing: the file that all_plots --output wrote")
    for path in args.merge:
        read_results(Path(path))
    for env, curves in results_to_plot(args).items():
        single = [label for label, curve in curves.items() if np.ndim(curve["last_evals"]) == 0]
        if single or not curves:
            raise ValueError(f"{args.input} must hold two runs (seeds) or more of {', '.join(single) or 'anything'} on {env}")
    prepare_figures(args)


def results_to_plot(args: argparse.Namespace) -> dict[str, Any]:
    """
    Read what ``plot_from_file`` shall plot.

    :param args: its arguments
    :return: for each environment, in the order of the scores' columns, results by label
    :raises ValueError: if there is nothing
    """
    results = read_results(Path(args.input if args.input.endswith(".pkl") else f"{args.input}.pkl"))
    envs = [env for env in results if env not in args.skip_envs and (not args.keep_envs or env in args.keep_envs)]
    if not envs:
        raise ValueError(f"{args.input} has no environment to plot; it holds {', '.join(results)}")
    return {env: results[env] for env in envs}


def runs(folder: Path, algo: str, env: str) -> list[Path]:
    """
    Find runs as the zoo's plots do.

    :param folder: log folder
    :param algo: name of the folder in it
    :param env: part of the runs' names
    :raises ValueError: if there is no such folder
    """
    if not Path(folder, algo).is_dir():
        raise ValueError(f"the folder {Path(folder, algo)} does not exist")
    return sorted(path for path in Path(folder, algo).iterdir() if env in path.name and path.is_dir())


def evaluations(run: Path) -> int:
    """
    Count a run's evaluations.

    :param run: its folder
    :raises ValueError: if their file is damaged
    """
    path = run / "evaluations.npz"
    return len(read_evaluations(path)[0]) if path.is_file() else 0


def read_results(path: Path) -> dict[str, Any]:
    """
    Read what ``all_plots --output`` wrote.

    :param path: the file
    :return: for each environment, results by label
    :raises ValueError: if it is something else
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: all_plots --output writes it")
    try:
        results: dict[str, Any] = safe_pickle.loads(path.read_bytes())
        del results["results_table"]
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged, or not written by all_plots --output") from error
    return results


def normalise_scores(estimate: Any, args: argparse.Namespace) -> Callable[..., Any]:
    """
    Normalise MuJoCo's returns on their way into rliable.

    :param estimate: rliable's ``get_interval_estimates``
    :param args: of ``plot_from_file``
    :return: what takes its place
    """

    @cache
    def bounds() -> Any:
        return np.array([references().get(env, (0.0, 1.0)) for env in results_to_plot(args)]).T

    def normalised(scores: Any) -> Any:
        if isinstance(scores, tuple):  # a pair to compare
            return tuple(map(normalised, scores))
        columns = (1, -1) + (1,) * (scores.ndim - 2)  # (runs, environments) or (runs, environments, evaluations)
        low, high = bounds()
        return (scores - low.reshape(columns)) / (high - low).reshape(columns)

    def estimate_normalised(scores: dict[str, Any], *given: Any, **kwargs: Any) -> Any:
        return estimate({name: normalised(score) for name, score in scores.items()}, *given, **kwargs)

    for env in references():  # the zoo does not see what is done here
        warnings.filterwarnings("ignore", message=f"{env} not found for normalizing")
    return estimate_normalised


def references() -> dict[str, tuple[float, float]]:
    """Give the returns of a random and of an expert agent, by the environment's id."""
    return {f"{name}-v{version}": returns for name, returns in D4RL_RETURNS.items() for version in (2, 3, 4, 5)}


def prepare_figures(args: argparse.Namespace) -> None:
    """
    Draw without a screen what goes to files.

    :param args: of a plotting command
    """
    if args.save_figures is not None:
        plt.switch_backend("Agg")


def show_or_save(show: Any, args: argparse.Namespace) -> Callable[[], None]:
    """
    Show figures where there is a screen, or save them.

    :param show: ``matplotlib.pyplot.show``
    :param args: of a plotting command
    :return: what takes its place
    """

    def show_figures() -> None:
        figures = [plt.figure(number) for number in plt.get_fignums()]
        if not any(axes.has_data() for figure in figures for axes in figure.axes):
            window = getattr(args, "episode_window", None)  # of plot_train
            hint = f"; is any run shorter than --episode-window {window} (in episodes)?" if window is not None else ""
            raise ValueError(f"nothing to plot{hint}")
        if args.save_figures is not None:
            save(figures, args.save_figures)
            plt.close("all")
        elif plt.get_backend().lower() != "agg":
            show()
        else:
            print("No screen to show the figures on: --save-figures FOLDER writes them to files", file=sys.stderr)

    return show_figures


def save(figures: list[Any], folder: Path) -> None:
    """
    Save figures.

    :param figures: the figures
    :param folder: where to
    """
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        title = figure.get_label() or next((axes.get_title() or axes.get_xlabel() for axes in figure.axes), "")
        path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '_', title).strip('_') or 'figure'}.png"
        with replacing(path) as new:
            figure.savefig(new)
        print(f"Figure: {path}")
