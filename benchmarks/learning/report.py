"""Turns the stored curves into the README's learning table and a plot per environment."""

import json
from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.learning.__main__ import HERE, RESULTS, read
from benchmarks.learning.cells import CELLS

BASELINES = {env: HERE / "baselines" / f"dense_td3_{env}_seed0.csv" for env in ("HalfCheetah-v4", "Hopper-v4")}


def report() -> str:
    """Give the table as Markdown; a cell that has not run is said to be missing."""
    groups = defaultdict(list)
    for cell in CELLS:
        groups[cell.env, cell.method, cell.steps].append(cell)
    lines = [
        "| run | steps | return at the end, per seed | share of dense at that step | mean of the last 3 evaluations | share |",
        "|---|---|---|---|---|---|",
    ]
    for (env, method, steps), cells in groups.items():
        paths = [RESULTS / f"{cell.name}.csv" for cell in cells]
        row = [f"{env}, {method}", f"{steps:,}"]
        for evaluations in (1, 3):
            row += shown([final(path, steps, evaluations) for path in paths], final(BASELINES.get(env), steps, evaluations))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def shown(values: list[float | None], dense: float | None) -> list[str]:
    """Give the seeds' returns, and their mean as a share of the dense run's."""
    known = [value for value in values if value is not None]
    share = f"{np.mean(known) / dense:.0%} (of {dense:,.0f}, 1 seed)" if known and dense else "-"
    return [", ".join("missing" if value is None else f"{value:,.0f}" for value in values), share]


def final(path: Path | None, steps: int, evaluations: int) -> float | None:
    """Mean return of the last evaluations up to ``steps``; None if the curve is missing or too short."""
    if path is None or not path.exists():
        return None
    at, returns = read(path)
    return float(returns[at <= steps][-evaluations:].mean()) if at.max() >= steps else None


def plot() -> None:
    """Draw all curves of an environment into one picture."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    for env in {cell.env for cell in CELLS}:
        figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
        colours = {"rlx2": "tab:blue", "static": "tab:orange"}
        for cell in (cell for cell in CELLS if cell.env == env and (RESULTS / f"{cell.name}.csv").exists()):
            at, returns = read(RESULTS / f"{cell.name}.csv")
            axes.plot(
                at, returns, color=colours[cell.method], label=f"{cell.method}, seed {cell.seed}", alpha=0.6 + 0.4 * cell.seed
            )
        if env in BASELINES:
            at, returns = read(BASELINES[env])
            axes.plot(at, returns, color="grey", linestyle="--", label="dense TD3 (SB3), seed 0")
            axes.set_xlim(0, max(cell.steps for cell in CELLS if cell.env == env))
        axes.set(title=env, xlabel="environment steps", ylabel="mean return of 10 episodes")
        axes.legend(fontsize="small")
        figure.savefig(RESULTS / f"{env}.png", dpi=120)
        plt.close(figure)


def about(cell_name: str) -> dict:
    """Give what a stored run says about itself."""
    return json.loads((RESULTS / f"{cell_name}.csv").read_text().splitlines()[0].removeprefix("# "))
