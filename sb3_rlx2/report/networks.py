"""Pictures of an agent's networks and of what they cost, for `rlx2 report`; None where no run has the data."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from sb3_rlx2.report.agent_file import Agent, Network
from sb3_rlx2.report.run_folder import Run
from sb3_rlx2.report.style import INK, coloured, label, new_figure, percent, share_bars

# From strong negative over weak (grey, which unlike white is not the paper's colour) to strong positive.
WEIGHTS = LinearSegmentedColormap.from_list("weights", ["#8c1d1d", "#d6593f", "#c9c7c4", "#3f84c4", "#123f73"])
CELLS = 256  # rows and columns of a heat map; of a wider layer several links share a cell


class Cost(NamedTuple):
    """
    What an agent costs.

    :param name: what of
    :param share: of a dense agent's, in ``[0, 1]``
    :param amount: in words
    """

    name: str
    share: float
    amount: str


def with_networks(runs: Sequence[Run]) -> list[tuple[Run, Agent, str]]:
    """
    Give the runs whose networks are known, with agent and colour.

    :param runs: the runs
    """
    return [(run, run.agent, colour) for run, colour in coloured(runs) if run.agent is not None and run.agent.networks]


def density(runs: Sequence[Run]) -> Figure | None:
    """
    Draw the share of live links of each layer as bars.

    :param runs: the runs
    """
    known = with_networks(runs)
    if not known:
        return None
    layers = max(len(agent.networks[0].weights) for _, agent, _ in known)
    figure, axes = new_figure(0.75 + layers * (0.34 + 0.2 * len(known)), columns=2, sharex=True)
    for kind, ax in enumerate(axes):
        networks = [(colour, agent.networks[kind]) for _, agent, colour in known]
        series = [(colour, {i: _density_bar(*sizes) for i, sizes in enumerate(net.layers)}) for colour, net in networks]
        share_bars(ax, _layer_names([net for _, net in networks]), series, fontsize=8)
        ax.set(title=("actor", "each critic")[kind], xlabel="share of the layer's links that live")
    return figure


def _density_bar(live: int, size: int) -> tuple[float, str]:
    return live / size, f"{live:,} of {size:,}"


def _layer_names(networks: Sequence[Network]) -> list[str]:
    """Name the layers with their shape where all networks share it."""
    names = []
    for number in range(max(len(network.weights) for network in networks)):
        named = {_layer_name(number, net.weights) for net in networks if number < len(net.weights)}
        names.append(named.pop() if len(named) == 1 else f"layer {number + 1}")
    return names


def cost_rows(run: Run) -> list[Cost]:
    """
    Give what is known of what a run's agent costs.

    :param run: the run
    """
    rows = []
    agent, ratio = run.agent, run.curve("rlx2/flops_ratio")
    if agent is not None and agent.inference_flops is not None:
        own, dense = agent.inference_flops
        rows.append(Cost("inference FLOPs", own / dense, f"{own / 1e3:,.1f} of {dense / 1e3:,.1f} kFLOP an action"))
    if ratio is not None:
        rows.append(Cost("training FLOPs", float(ratio.values[-1]), "of a gradient step, with n in force"))
    if agent is not None and agent.networks:
        size, dense_size = agent.parameter_bytes
        rows.append(
            Cost("parameter bytes", size / dense_size, f"{size / 1e3:,.1f} of {dense_size / 1e3:,.1f} kB, targets too")
        )
    return rows


def costs(runs: Sequence[Run]) -> Figure | None:
    """
    Draw FLOPs and bytes against dense.

    :param runs: the runs
    """
    known = [(colour, cost_rows(run)) for run, colour in coloured(runs) if cost_rows(run)]
    if not known:
        return None
    names = list(dict.fromkeys(cost.name for _, costs in known for cost in costs))
    figure, ax = new_figure(0.5 + len(names) * (0.22 + 0.27 * len(known)))
    series = [(colour, {names.index(cost.name): (cost.share, cost.amount) for cost in costs}) for colour, costs in known]
    share_bars(ax, names, series, fontsize=8.5)
    ax.set_xlabel("share of the dense agent's")
    return figure


def live_links(runs: Sequence[Run], network: int) -> Figure | None:
    """
    Draw every layer of a network as a heat map, live links in the colour of their weight.

    :param runs: the runs, one row each
    :param network: 0 is the actor, then the critics
    """
    known = [
        (run, agent.networks[network], colour) for run, agent, colour in with_networks(runs) if len(agent.networks) > network
    ]
    if not known:
        return None
    nets = [net for _, net, _ in known]
    columns = max(len(net.weights) for net in nets)
    figure, axes = new_figure(0.35 + 2.75 * len(nets), rows=len(nets), columns=columns, squeeze=False)
    for layer in range(columns):
        shown = [net.weights[layer] for net in nets if layer < len(net.weights)]
        scale = max(float(np.nanquantile(np.abs(weight), 0.98)) for weight in shown) or 1.0
        for row, (run, net, colour) in enumerate(known):
            ax = axes[row][layer]
            if layer >= len(net.weights):
                ax.set_axis_off()
                continue
            image = _heat_map(ax, net, layer, scale)
            if layer == 0 and len(runs) > 1:
                ax.annotate(label(run, runs), (0, 1.16), xycoords="axes fraction", weight="bold", color=colour)
        bar = figure.colorbar(image, ax=axes[:, layer], orientation="horizontal", shrink=0.6, aspect=28, pad=0.03)
        bar.set_label("weight", fontsize=8)
        bar.outline.set_visible(False)
        bar.ax.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
        bar.ax.tick_params(labelsize=7.5)
    return figure


def _heat_map(ax: Axes, net: Network, layer: int, scale: float) -> Any:
    weight = net.weights[layer]
    outputs, inputs = weight.shape
    ax.set_title(f"{_layer_name(layer, net.weights)} · {percent(net.layers[layer][0] / weight.size)} live", pad=6)
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)
    ax.set_xlabel(f"{'input' if layer == 0 else 'hidden unit'} (of {inputs})")
    ax.set_ylabel(f"{'output' if layer == len(net.weights) - 1 else 'hidden unit'} (of {outputs})")
    for axis, size in ((ax.xaxis, inputs), (ax.yaxis, outputs)):
        axis.set_major_locator(FixedLocator(range(size)) if size <= 8 else MaxNLocator(5, integer=True))
    area = (-0.5, inputs - 0.5, outputs - 0.5, -0.5)
    cells = np.ma.masked_invalid(strongest(weight, CELLS))
    return ax.imshow(cells, WEIGHTS, aspect="auto", vmin=-scale, vmax=scale, interpolation="none", extent=area)


def strongest(weight: np.ndarray, cells: int) -> np.ndarray:
    """
    Shrink a layer so that no live link gets lost: of the links that share a cell, the one of largest magnitude is kept.

    :param weight: weights, NaN where there is no link, ``[out, in]``
    :param cells: rows and columns to keep at most
    :return: the same, or smaller
    """
    blocks = [-(-size // cells) for size in weight.shape]
    padding = [(0, -size % block) for size, block in zip(weight.shape, blocks, strict=True)]
    padded = np.pad(weight, padding, constant_values=np.nan)
    rows, columns = (size // block for size, block in zip(padded.shape, blocks, strict=True))
    parts = padded.reshape(rows, blocks[0], columns, blocks[1]).swapaxes(1, 2).reshape(rows, columns, -1)
    best = np.nan_to_num(np.abs(parts), nan=-1.0).argmax(axis=2)
    return np.take_along_axis(parts, best[..., None], axis=2)[..., 0]


def input_importance(runs: Sequence[Run]) -> Figure | None:
    """
    Draw how many live links each input has.

    :param runs: the runs, one row each
    """
    known = with_networks(runs)
    if not known:
        return None
    figure, axes = new_figure(0.5 + 1.9 * len(known), rows=len(known), columns=2, squeeze=False, sharey="col")
    for row, (run, agent, colour) in enumerate(known):
        actor, *critics = agent.networks
        counts = (actor.input_links, sum((critic.input_links for critic in critics), np.zeros(1, int)))
        for ax, links, name in zip(axes[row], counts, ("actor", "critics, together"), strict=True):
            first_action = agent.observations
            colours = [colour if first_action is None or i < first_action else "#b6bac2" for i in range(len(links))]
            ax.bar(np.arange(len(links)), links, 0.8, color=colours)
            ax.axhline(links.mean(), color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            ax.grid(visible=False, axis="x")
            ax.set_xlim(-0.7, len(links) - 0.3)
            ax.xaxis.set_major_locator(MaxNLocator(9, integer=True))
            ax.set_ylabel("live links")
            ax.set_title(name if len(runs) == 1 else f"{name}, {label(run, runs)}", color=INK if len(runs) == 1 else colour)
            if row == len(known) - 1:
                ax.set_xlabel("observation dimension" if first_action is not None else "feature")
        if agent.observations is not None:
            actions = len(counts[1]) - agent.observations
            keys = [Patch(color="#b6bac2", label=f"actions (the last {actions})" if actions > 1 else "action (the last)")]
            axes[row][1].legend(handles=keys, loc="upper left", ncols=1)
            axes[row][1].set_ylim(top=max(axes[row][1].get_ylim()[1], counts[1].max() * 1.25))
    return figure


def _layer_name(number: int, weights: Sequence[np.ndarray]) -> str:
    outputs, inputs = weights[number].shape
    return f"layer {number + 1}, {inputs}→{outputs}"
