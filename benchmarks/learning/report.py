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
        groups[cell.check, cell.env, cell.method, cell.steps].append(cell)
    lines = [
        "| run | steps | mean of the last 3 evaluations, per seed | dense at the same steps (1 seed) | share of dense |",
        "|---|---|---|---|---|",
    ]
    for (_, env, method, steps), cells in groups.items():
        finals = [final(RESULTS / f"{cell.name}.csv", steps) for cell in cells]
        dense = final(BASELINES[env], steps) if env in BASELINES else None
        shown = ", ".join("missing" if value is None else f"{value:,.0f}" for value in finals)
        known = [value for value in finals if value is not None]
        share = f"{np.mean(known) / dense:.0%}" if known and dense else "-"
        lines.append(f"| {env}, {method} | {steps:,} | {shown} | {'-' if dense is None else f'{dense:,.0f}'} | {share} |")
    return "\n".join(lines)


def final(path: Path, steps: int) -> float | None:
    """Mean return of the last three evaluations up to ``steps``; None if the curve is missing or too short."""
    if not path.exists():
        return None
    at, returns = read(path)
    if at.max() < steps:
        return None
    return float(returns[at <= steps][-3:].mean())


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
