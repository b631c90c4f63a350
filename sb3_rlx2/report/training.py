"""Pictures of how a run went, for `rlx2 report`; None where no run has the data."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from sb3_rlx2.report.run_folder import Curve, Run
from sb3_rlx2.report.style import INK, MUTED, STEPS, coloured, label, new_figure, shade, short, step_axis

EPISODES = 100  # SB3 averages training returns over that many
TWIN_STYLES: tuple[Literal["-", "--"], ...] = ("-", "--")


def learning_curve(runs: Sequence[Run]) -> Figure | None:
    """
    Draw returns over steps: evaluations as a line with the standard deviation over episodes, training returns thin.

    :param runs: the runs
    """
    if all(run.evaluations is None and training_returns(run) is None for run in runs):
        return None
    groups = by_environment(runs)
    figure, axes = new_figure(0.6 + 2.9 / len(groups) ** 0.4 * len(groups), rows=len(groups), squeeze=False)
    for ax, (name, group) in zip(axes[:, 0], groups.items(), strict=True):
        for run, colour in group:
            _learning_curve(ax, run, colour)
        step_axis(ax, [run for run, _ in group])
        ax.set_ylabel("return of an episode")
        ax.set_title(name if len(groups) > 1 else "")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 10 else f"{value:g}"))
    keys = [
        Line2D([], [], color=MUTED, marker="o", markersize=3, label="evaluation, mean ± standard deviation over episodes"),
        Line2D([], [], color=MUTED, alpha=0.5, linewidth=1.0, label=f"training, mean of the last {EPISODES} episodes"),
    ]
    figure.legend(handles=keys, loc="outside upper left", ncols=2)
    return figure


def _learning_curve(ax: Axes, run: Run, colour: str) -> None:
    training = training_returns(run)
    if training is not None:
        ax.plot(training.steps, training.values, color=colour, alpha=0.5, linewidth=1.0)
    if run.evaluations is not None:
        steps, means, spread = run.evaluations.steps, run.evaluations.means, run.evaluations.returns.std(axis=1)
        ax.fill_between(steps, means - spread, means + spread, color=colour, alpha=0.16, linewidth=0)
        ax.plot(steps, means, color=colour, marker="o" if len(steps) <= 60 else "", markersize=3)


def training_returns(run: Run) -> Curve | None:
    """
    Give the mean return of the latest training episodes over steps.

    :param run: the run
    """
    logged = run.curve("rollout/ep_rew_mean")
    if logged is not None or run.episodes is None:
        return logged
    sums = np.concatenate([[0.0], run.episodes.values.cumsum()])
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - EPISODES, 0)
    return Curve(run.episodes.steps, (sums[ends] - sums[starts]) / (ends - starts))


def final_evaluation(runs: Sequence[Run]) -> Figure | None:
    """
    Draw the return of each episode of the last and of the best evaluation.

    :param runs: the runs
    """
    evaluated = {
        name: [pair for pair in group if pair[0].evaluations is not None] for name, group in by_environment(runs).items()
    }
    groups = {name: group for name, group in evaluated.items() if group}
    if not groups:
        return None
    sizes = [2 * len(group) for group in groups.values()]
    row = 0.42 if len(runs) == 1 else 0.5
    figure, axes = new_figure(0.5 * len(groups) + row * sum(sizes), rows=len(groups), squeeze=False, height_ratios=sizes)
    for ax, (name, group) in zip(axes[:, 0], groups.items(), strict=True):
        names = [text for run, colour in group for text in _evaluation_rows(ax, run, colour, runs)]
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(axis="y", labelcolor=INK)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
        ax.set_title(name if len(groups) > 1 else "")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.5g}"))
    axes[-1, 0].set_xlabel("return of an episode")
    return figure


def _evaluation_rows(ax: Axes, run: Run, colour: str, runs: Sequence[Run]) -> Iterator[str]:
    """Draw two rows below those that are there, and give their names."""
    evaluations = run.evaluations
    assert evaluations is not None
    for name, number in (("last", len(evaluations.steps) - 1), ("best", evaluations.best)):
        y, returns = len(ax.lines) // 2, evaluations.returns[number]
        ax.plot(returns, np.full(len(returns), y), "o", color=colour, alpha=0.55, markersize=7, markeredgewidth=0)
        ax.plot([returns.mean()] * 2, [y - 0.3, y + 0.3], color=INK, linewidth=2)
        text = f"{name}, step {short(evaluations.steps[number])}"
        yield text if len(runs) == 1 else f"{label(run, runs)}\n{text}"


def by_environment(runs: Sequence[Run]) -> dict[str, list[tuple[Run, str]]]:
    """
    Group runs whose returns can stand on one axis.

    :param runs: the runs
    :return: runs with their colour, by environment
    """
    groups: dict[str, list[tuple[Run, str]]] = {}
    for run, colour in coloured(runs):
        groups.setdefault(run.environment, []).append((run, colour))
    return groups


def churn(runs: Sequence[Run]) -> Figure | None:
    """
    Draw the share of links that each topology update changed, for each layer.

    :param runs: the runs, one row each
    """
    known = [(run, colour) for run, colour in coloured(runs) if run.churn("actor") or run.churn("critic")]
    if not known:
        return None
    figure, axes = new_figure(0.75 + 1.9 * len(known), rows=len(known), columns=2, squeeze=False, sharex=True, sharey=True)
    for row, (run, colour) in zip(axes, known, strict=True):
        for ax, name in zip(row, ("actor", "critic"), strict=True):
            _churn(ax, run, name, colour)
            ax.set_title(name if len(runs) == 1 else f"{name}, {label(run, runs)}", color=INK if len(runs) == 1 else colour)
        row[0].set_ylabel("links changed")
    for ax in axes[-1]:
        step_axis(ax, runs)
    base = known[0][1] if len(known) == 1 else INK
    deepest = max(layer for run, _ in known for name in ("actor", "critic") for _, layer in run.churn(name))
    shades = [Line2D([], [], color=shade(base, layer, deepest), label=f"layer {layer + 1}") for layer in range(deepest + 1)]
    twins = [Line2D([], [], color=MUTED, linestyle=TWIN_STYLES[n], linewidth=1.3, label=f"critic {n + 1}") for n in (0, 1)]
    limit = [Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), label="drop fraction: most that could change")]
    figure.legend(handles=[*shades, *twins, *limit], loc="outside upper left", ncols=6)
    return figure


def _churn(ax: Axes, run: Run, network: str, colour: str) -> None:
    curves, drop = run.churn(network), run.curve("rlx2/drop_fraction")
    last = max((layer for _, layer in curves), default=0)
    for (number, layer), curve in curves.items():
        ax.plot(
            curve.steps,
            curve.values,
            color=shade(colour, layer, last),
            linestyle=TWIN_STYLES[number % len(TWIN_STYLES)],
            marker="o" if len(curve) <= 60 else "",
            markersize=2.5,
            linewidth=1.3,
        )
    if drop is not None and curves:
        ax.plot(drop.steps, drop.values, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_ylim(bottom=0)


def buffer(runs: Sequence[Run]) -> Figure | None:
    """
    Draw policy distance, size of the replay buffer and n in force over steps.

    :param runs: the runs
    """
    names = ("rlx2/policy_distance", "rlx2/buffer_size", "rlx2/n_steps")
    if not any(run.curve(name) is not None for run in runs for name in names):
        return None
    figure, axes = new_figure(5.0, rows=3, sharex=True, height_ratios=(3, 3, 1.3))
    for run, colour in coloured(runs):
        for ax, name in zip(axes, names, strict=True):
            curve = run.curve(name)
            if curve is not None:
                ax.plot(curve.steps, curve.values, color=colour, drawstyle="default" if ax is axes[1] else "steps-post")
    axes[0].set_ylabel("policy distance")
    axes[1].set_ylabel("buffer, transitions")
    axes[1].yaxis.set_major_formatter(STEPS)
    axes[2].set_ylabel("n in force")
    axes[2].yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes[2].margins(y=0.25)
    for ax in axes[:2]:
        ax.set_ylim(bottom=0)
    step_axis(axes[2], runs)
    _setting_line(axes[0], runs, "policy_distance_threshold", "threshold")
    _setting_line(axes[1], runs, "buffer_min_size", "minimum")
    _setting_line(axes[1], runs, "buffer_size", "capacity")
    figure.align_ylabels()
    return figure


def _setting_line(ax: Axes, runs: Sequence[Run], name: str, text: str) -> None:
    """Mark a setting of the runs where the axis comes near it."""
    values = {run.agent.settings[name] for run in runs if run.agent is not None and name in run.agent.settings}
    for value in values:
        if ax.dataLim.y1 > 0 and value <= 1.6 * ax.dataLim.y1:
            ax.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            place: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
            ax.annotate(f"{text} {value:,}", (0.006, value), (0, 3), color=INK, fontsize=8, **place)
