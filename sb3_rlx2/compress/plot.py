"""Return against size, drawn."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from sb3_rlx2.compress.rows import rows
from sb3_rlx2.compress.search import Findings, Plan

GREY, BLUE, RED = "#9aa5b1", "#1f77b4", "#d62728"
STYLES: dict[str, dict[str, Any]] = {
    "search": {"marker": "o", "color": GREY, "label": "search, one seed"},
    "stopped": {"marker": "x", "color": GREY, "label": "stopped early"},
    "finalist": {"marker": "s", "color": BLUE, "label": "finalist, mean of fresh seeds"},
    "chosen": {"marker": "*", "color": RED, "label": "chosen, with 95 % interval", "markersize": 16},
}


def plot(plan: Plan, findings: Findings) -> Figure:
    """
    Draw every agent, the Pareto front, the tolerance, and the chosen agent with its confidence interval.

    :param plan: what was asked
    :param findings: what was found
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    table = [row for row in rows(findings, plan.tolerance) if row.kind != "dense"]
    front = [row for row in table if row.pareto]
    axes.step([row.size for row in front], [row.score for row in front], where="post", color=GREY, label="Pareto front")
    for kind, style in STYLES.items():
        group = [row for row in table if row.kind == kind]
        if group:
            axes.plot([row.size for row in group], [row.score for row in group], linestyle="", **style)
        for row in group:
            if math.isfinite(row.low) and math.isfinite(row.high):
                axes.plot([row.size] * 2, [row.low, row.high], color=str(style["color"]))
    axes.axhline(1.0, color="black", linewidth=1)
    axes.axhline(1 - plan.tolerance, color="black", linewidth=1, linestyle="--", label=f"dense less {plan.tolerance:g}")
    scores = [0.0, 1.1, *(row.score for row in table)]
    axes.set_ylim(min(scores) - 0.05, max(scores) + 0.05)  # an interval from few seeds may be far wider
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("size, share of dense")
    axes.set_ylabel("score (random 0, dense 1)")
    low, high = np.mean(findings.scale.random), np.mean(findings.scale.dense)
    to_return, to_score = lambda score: low + score * (high - low), lambda value: (value - low) / (high - low)
    axes.secondary_yaxis("right", functions=(to_return, to_score)).set_ylabel("mean return")
    axes.set_title(f"{plan.task.algo} on {plan.task.env}, {plan.task.n_timesteps:,} steps")
    axes.spines["top"].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return figure
