"""How the pictures of `rlx2 report` look. A colour is a run, on every picture."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from sb3_rlx2.report.run_folder import Run

INK, MUTED, GRID = "#1f2430", "#6a7180", "#e6e7ea"
COLOURS = ("#2b5c8a", "#d0622f", "#3a8f6d", "#8b5a9f", "#b8932a", "#3c9db0", "#b3476b", "#767b85")
WIDTH = 8.6  # inches; the page scales all pictures alike
FONTS = ["Inter", "Segoe UI", "Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"]
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": FONTS,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#b6bac2",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",  # text in the font of the page
    "figure.constrained_layout.use": True,
}
STEPS = FuncFormatter(lambda value, _: short(value))


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in the report's style, whatever the user's own is."""
    with mpl.rc_context({**mpl.rcParamsDefault, "backend": mpl.rcParams["backend"], **STYLE}):  # type: ignore[dict-item]
        yield


def short(number: float) -> str:
    """
    Write a count in few characters.

    :param number: such as 1500000
    :return: such as 1.5M
    """
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"


def label(run: Run, runs: Sequence[Run]) -> str:
    """
    Give a run's name, as short as it can be among others: its folder below the one that holds all of them.

    :param run: the run
    :param runs: all runs of the page
    """
    holder = os.path.commonpath([other.folder.resolve().parent for other in runs])
    return run.folder.resolve().relative_to(holder).as_posix()


def colour_of(run: Run, runs: Sequence[Run]) -> str:
    """
    Give a run's colour.

    :param run: the run
    :param runs: all runs of the page
    """
    return COLOURS[list(runs).index(run) % len(COLOURS)]


def coloured(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    """
    Give each run with its colour.

    :param runs: all runs of the page
    """
    return ((run, COLOURS[number % len(COLOURS)]) for number, run in enumerate(runs))


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Make a figure without pyplot, which would keep it and want a display."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots(rows, columns, **options)


def step_axis(ax: Axes, runs: Sequence[Run]) -> None:
    """
    Make an axis of environment steps, long enough for all runs.

    :param ax: where
    :param runs: all runs of the page
    """
    ax.set_xlabel("environment steps")
    ax.set_xlim(0, 1.012 * max(run.steps for run in runs) or 1)
    ax.xaxis.set_major_formatter(STEPS)


def percent(share: float) -> str:
    """
    Write a share in three digits.

    :param share: in ``[0, 1]``
    """
    return f"{100 * share:.3g}%"


def shade(colour: str, layer: int, last: int) -> Any:
    """Lighten a colour for the layers near the input."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    return tuple(1 - (1 - rgb) * (1.0 if last == 0 else 0.4 + 0.6 * layer / last))


def share_bars(
    ax: Axes, names: Sequence[str], series: Sequence[tuple[str, Mapping[int, tuple[float, str]]]], fontsize: float
) -> None:
    """
    Draw shares of a whole as bars, with a text on or beside each.

    :param ax: where
    :param names: name of each group of bars
    :param series: for each run its colour and, by number of the group, share in ``[0, 1]`` and text
    :param fontsize: of the texts
    """
    height = 0.8 / len(series)
    for row, (colour, bars) in enumerate(series):
        for group, (share, text) in bars.items():
            y, inside = group + (row + 0.5) * height, share > 0.55
            ax.barh(y, 100, 0.84 * height, color="#f0f1f3")
            ax.barh(y, 100 * share, 0.84 * height, color=colour)
            ax.annotate(
                f"{percent(share)} · {text}",
                (100 * share, y),
                (-6 if inside else 6, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
                color="white" if inside else INK,
                fontsize=fontsize,
            )
    ax.set_yticks([group + 0.4 for group in range(len(names))], names)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xlim(0, 100)
    ax.xaxis.set_major_formatter(PercentFormatter(decimals=0))
