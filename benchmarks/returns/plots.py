"""The pictures: learning curves, and performance profiles."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.returns import statistics, tables
from benchmarks.returns.cells import ABLATIONS, METHODS, MILLION, MUJOCO, OURS, PENDULUM, PENDULUM_METHODS, PENDULUM_SPARSITY
from benchmarks.returns.results import Result, Results
from benchmarks.returns.statistics import Pair
from benchmarks.returns.tables import SPARSE, lengths, pairs_with_dense, sparse_methods
from sb3_rlx2 import RLx2TD3

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

COLOURS = {  # of methods by their label; what has none here takes the next free one
    METHODS[method].label: colour
    for method, colour in {
        "dense": "black",
        "tiny": "tab:brown",
        "static": "tab:orange",
        "set": "tab:green",
        "rigl": "tab:red",
        "rigl-q*": "tab:purple",
        "rlx2": "tab:blue",
        "live": "tab:cyan",
        "live-half": "tab:pink",
        "pruning": "tab:olive",
    }.items()
}
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # a legend's place, where it hides no curve
THRESHOLD = RLx2TD3.rlx2_defaults()["policy_distance_threshold"]
THRESHOLDS = np.linspace(0.0, 1.2, 61)


def write(results: Results, folder: Path) -> list[Path]:
    """
    Draw everything that there are results for.

    :param results: finished cells
    :param folder: where the pictures go
    :return: the pictures
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in _pictures(results).items():
        figure = draw()
        drawn.append(folder / f"{name}.png")
        figure.savefig(drawn[-1], dpi=110)
        plt.close(figure)
    for path in set(folder.glob("*.png")) - set(drawn):
        path.unlink()
    return drawn


def picture_names(results: Results) -> list[str]:
    """Give the names of the pictures that :func:`write` draws."""
    return list(_pictures(results))


def _pictures(results: Results) -> dict[str, Callable[[], Figure]]:
    """Give what draws each picture, by name."""
    pictures: dict[str, Callable[[], Figure]] = {}
    for name, groups in curve_groups(results).items():
        pictures[name] = partial(_curves, name, groups)
    for algorithm, env, steps in results.keys(lambda one: (one.algorithm, one.env, one.steps)):
        found = results.where(algorithm=algorithm, env=env, steps=steps, method="rlx2", sparsity=None)
        traced = [one for one in found if one.trace("buffer") is not None]
        if env in MUJOCO and traced:
            pictures[f"{algorithm}_{env}_{steps}_buffer"] = partial(_buffers, traced)
    for algorithm in ("td3", "sac"):
        for steps in lengths(results):
            if by_method := _profiled(results, algorithm, steps):
                pictures[f"profile_{algorithm}_{steps}"] = partial(_profiles, by_method)
    return pictures


def curve_groups(results: Results) -> dict[str, dict[str, list[Result]]]:
    """Give what is drawn together, by name of the picture and by label."""
    named: dict[str, dict[str, list[Result]]] = {}
    pendulum = results.where(env=PENDULUM["env"], steps=PENDULUM["steps"])
    named["motivation"] = _by_method(
        [one for one in pendulum if one.sparsity in (None, PENDULUM_SPARSITY)], ("dense", *PENDULUM_METHODS)
    )
    for algorithm, env, steps in results.keys(lambda one: (one.algorithm, one.env, one.steps)):
        if env != PENDULUM["env"]:
            found = results.where(algorithm=algorithm, env=env, steps=steps, sparsity=None)
            named[f"{algorithm}_{env}_{steps}"] = _by_method(found, ("dense", *SPARSE, *OURS))
            if any(one.method in ABLATIONS for one in found):
                named[f"{algorithm}_{env}_{steps}_ablations"] = _by_method(found, ("dense", "rlx2", *ABLATIONS))
    named["walker_causes"] = {}
    for found in tables.walker_groups(results):
        longer = f", {found[0].steps:,} steps" if found[0].steps > MILLION else ""
        named["walker_causes"][tables.label(found[0]) + longer] = found
    return {name: groups for name, groups in named.items() if groups}


def _by_method(found: Sequence[Result], methods: Sequence[str]) -> dict[str, list[Result]]:
    groups = {METHODS[method].label: [one for one in found if one.method == method] for method in methods}
    return {label: group for label, group in groups.items() if group}


def _curves(name: str, groups: dict[str, list[Result]]) -> Figure:
    """Draw the mean over seeds, and each seed faintly."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    others = iter(colour for colour in plt.get_cmap("tab20").colors if colour != to_rgb(COLOURS["RLx2"]))
    one = max((found[0] for found in groups.values()), key=lambda result: result.steps)
    for label, found in groups.items():
        colour = COLOURS.get(label) or next(others)
        for result in found:
            axes.plot(result.curve.steps, result.curve.returns, color=colour, alpha=0.25, linewidth=0.8)
        mean = np.mean([result.curve.returns for result in found], axis=0)
        axes.plot(found[0].curve.steps, mean, color=colour, linewidth=1.6, label=f"{label} ({len(found)})")
    title = f"{one.algorithm.upper()} {one.env}" + (f", sparsity {PENDULUM_SPARSITY:.0%}" if name == "motivation" else "")
    axes.set(title=title, xlabel="environment steps", ylabel="mean return of 10 episodes", xlim=(0, one.steps))
    axes.legend(fontsize="small", title="seeds in brackets", title_fontsize="x-small", **BESIDE)
    return figure


def _buffers(found: list[Result]) -> Figure:
    """Draw what the dynamic buffer did in each run: returns, policy distance and transitions kept."""
    figure, (returns, distances, buffers) = plt.subplots(3, figsize=(7.5, 6), layout="constrained", sharex=True)
    for one in found:
        label = f"seed {one.seed}"
        returns.plot(one.curve.steps, one.curve.returns, linewidth=1.0, label=label)
        distances.plot(one.curve.steps, one.trace("policy_distance"), linewidth=1.0)
        buffers.plot(one.curve.steps, one.trace("buffer"), linewidth=1.0)
    distances.axhline(THRESHOLD, color="grey", linestyle="--", linewidth=1.0)
    first = found[0]
    returns.set(title=f"{first.algorithm.upper()} {first.env}, RLx2", ylabel="mean return", xlim=(0, first.steps))
    distances.set(ylabel="policy distance", ylim=(0, None))
    buffers.set(xlabel="environment steps", ylabel="transitions kept", ylim=(0, None))
    returns.legend(fontsize="small", **BESIDE)
    return figure


def _profiled(results: Results, algorithm: str, steps: int) -> dict[str, list[Pair]]:
    found = {
        method: list(pairs_with_dense(results, method, algorithm, steps).values()) for method in sparse_methods(results, steps)
    }
    return {method: pairs for method, pairs in found.items() if pairs}


def _profiles(by_method: dict[str, list[Pair]]) -> Figure:
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    for method, pairs in by_method.items():
        above, interval = statistics.performance_profile(pairs, THRESHOLDS)
        label = METHODS[method].label
        runs = sum(len(own) for own, _ in pairs)
        axes.plot(100 * THRESHOLDS, above, color=COLOURS[label], label=f"{label} ({runs} runs)")
        axes.fill_between(100 * THRESHOLDS, *interval, color=COLOURS[label], alpha=0.15)
    axes.set(xlabel="% of dense", ylabel="share of runs above", ylim=(0, 1.02), xlim=(0, 100 * THRESHOLDS[-1]))
    axes.legend(fontsize="small", **BESIDE)
    return figure
