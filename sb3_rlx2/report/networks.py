"""Pictures of agents' networks and of what they cost, for `rlx2 report`; None where no run has the data."""

from collections.abc import Sequence
from html import escape
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from sb3_rlx2.progress_log import FLOPS_RATIO
from sb3_rlx2.report.agent_file import Agent, Network
from sb3_rlx2.report.groups import CONFIDENCE, Group
from sb3_rlx2.report.heat_map import heat_map
from sb3_rlx2.report.plot import Axis, Plot, facets, percent, share_bars
from sb3_rlx2.report.run_folder import Run

ACTION = "var(--quiet)"  # colour of the critics' inputs that are actions


class Cost(NamedTuple):
    """
    What an agent costs.

    :param amount: how much
    :param dense: how much a dense agent of its shape costs
    :param unit: what is counted, and its factor
    """

    amount: float
    dense: float
    unit: tuple[str, float]


ACTING_BYTES = ", bytes"  # ends the name of what is deployed
KB, KFLOP = ("kB", 1e3), ("kFLOP", 1e3)


def with_networks(groups: Sequence[Group]) -> list[tuple[Group, Agent]]:
    """
    Give the groups whose networks are known, with the agent that stands for all.

    :param groups: the groups
    """
    return [(group, group.agent) for group in groups if group.agent is not None]


def cost_of(run: Run) -> dict[str, Cost]:
    """
    Give what is known of what a run's agent costs, by name; the agent that acts comes first.

    :param run: the run
    """
    agent, ratio = run.agent, run.curve(FLOPS_RATIO)
    if agent is None or not agent.networks:
        return (
            {} if ratio is None else {"training FLOPs, of its own shape": Cost(float(ratio.values[-1]), 1.0, ("dense", 1.0))}
        )
    acting = agent.networks[0].kind
    costs = {
        f"{acting}{ACTING_BYTES}": Cost(*agent.acting_bytes, KB),
        "inference FLOPs": Cost(*agent.inference_flops, KFLOP),
        "parameter bytes": Cost(*agent.parameter_bytes, KB),
    }
    dense = agent.dense_step_flops
    if dense is not None and (ratio is not None or not agent.is_sparse):
        share = 1.0 if ratio is None else float(ratio.values[-1])
        costs["training FLOPs"] = Cost(share * dense, dense, KFLOP)
    return costs


def yardstick(groups: Sequence[Group], environment: str) -> dict[str, float]:
    """
    Give the dense costs that all agents of an environment are measured against: the largest shape's.

    :param groups: all groups of the page
    :param environment: name of the environment
    """
    largest: dict[str, float] = {}
    for group in groups:
        if group.environment == environment:
            for name, cost in cost_of(group.first).items():
                largest[name] = max(cost.dense, largest.get(name, 0.0))
    return largest


def costs(groups: Sequence[Group]) -> str | None:
    """
    Draw FLOPs and bytes against dense.

    :param groups: the groups
    """
    known = [(group, cost_of(group.first), yardstick(groups, group.environment)) for group in groups]
    names = list(dict.fromkeys(name for _, found, _ in known for name in found))
    rows = []
    for name in names:
        bars = [
            (group.colour, found[name].amount / dense[name], _of(found[name], dense[name], group if len(groups) > 1 else None))
            for group, found, dense in known
            if name in found
        ]
        rows.append((name[0].upper() + name[1:], bars))
    return share_bars(rows) if rows else None


def _of(cost: Cost, dense: float, group: Group | None) -> str:
    unit, factor = cost.unit
    text = f"{cost.amount / factor:,.1f} of {dense / factor:,.1f} {unit}"
    return text if group is None else f"{text} · {group.label}"


def density(groups: Sequence[Group]) -> str | None:
    """
    Draw the share of live links of each layer as bars.

    :param groups: the groups
    """
    known = with_networks(groups)
    parts = []
    for kind in range(max((len(agent.kinds) for _, agent in known), default=0)):
        networks = [(group, agent.kinds[kind][0]) for group, agent in known if len(agent.kinds) > kind]
        name = networks[0][1].kind
        rows = []
        for number in range(max(len(network.weights) for _, network in networks)):
            there = [(group, network) for group, network in networks if number < len(network.weights)]
            named = {layer_name(number, network) for _, network in there}
            bars = [(group.colour, *_density(group, network, number, len(groups) > 1)) for group, network in there]
            rows.append((named.pop() if len(named) == 1 else f"layer {number + 1}", bars))
        parts.append(f"<div><h3>{f'each {name}' if name == 'critic' else name}</h3>{share_bars(rows)}</div>")
    return facets(parts, len(parts)) if parts else None


def _density(group: Group, network: Network, number: int, several: bool) -> tuple[float, str]:
    live, size = network.layers[number]
    return live / size, f"{live:,} of {size:,}{f' · {group.label}' if several else ''}"


def live_links(groups: Sequence[Group], number: int) -> str | None:
    """
    Draw every layer of a network as a heat map, live links in the colour of their weight.

    :param groups: the groups, one row each
    :param number: number of the network among the agent's
    """
    known = [(group, agent.networks[number]) for group, agent in with_networks(groups) if len(agent.networks) > number]
    parts = []
    for group, network in known:
        maps = []
        for layer in range(len(network.weights)):
            shown = [other.weights[layer] for _, other in known if layer < len(other.weights)]
            scale = max(float(np.nanquantile(np.abs(weight), 0.98)) for weight in shown if np.isfinite(weight).any()) or 1.0
            maps.append(_layer_map(network, layer, scale))
        name = f'<h3 style="color:{group.colour}">{escape(group.label)}</h3>' if len(groups) > 1 else ""
        parts.append(name + facets(maps, len(maps)))
    return "".join(parts) or None


def _layer_map(network: Network, number: int, scale: float) -> str:
    weight, (live, size) = network.weights[number], network.layers[number]
    outputs, inputs = weight.shape
    first, last = number == 0, number == len(network.weights) - 1
    heard, reached = network.units[number], network.units[number + 1]
    title = (
        f"{live:,} of {size:,} links; {heard:,} of {inputs:,} {'inputs' if first else 'units'} and {reached:,} of {outputs:,} "
        f"{'outputs' if last else 'units'} on a path"
    )
    picture = heat_map(weight, network.alive[number], scale)
    image = f'<img alt="{title}" title="{title}" src="{picture}" style="height:{_height(outputs)}px">'
    axes = f"→ {'input' if first else 'hidden unit'} (of {inputs:,}), ↓ {'output' if last else 'hidden unit'} (of {outputs:,})"
    bar = f'<p class="weights"><span>-{scale:.2g}</span><i></i><span>{scale:.2g}</span></p>'
    name = f"{layer_name(number, network)} · {percent(live / size)} live"
    return f'<div class="map"><h3>{name}</h3>{image}<p class="axis">{axes}</p>{bar}</div>'


def _height(outputs: int) -> int:
    return int(np.clip(14 * outputs, 42, 240))


class Chance(NamedTuple):
    """
    The links that inputs would have if chance had placed them.

    :param mean: of an input
    :param band: how far from it chance leaves all inputs, with a confidence of 95 %
    """

    mean: float
    band: float


def chance(networks: Sequence[Network], seeds: int) -> Chance:
    """
    Say how many links of the first layer chance gives to an input: drawn from all places without replacement, their number is
    hypergeometric. The band is for all inputs together (Bonferroni).

    :param networks: the networks whose links are summed
    :param seeds: what their sum is divided by
    """
    outputs, inputs = networks[0].weights[0].shape
    size, share = outputs * inputs, 1 / inputs
    live = [network.layers[0][0] for network in networks]
    variance = sum(n * share * (1 - share) * (size - n) / max(size - 1, 1) for n in live)
    quantile = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * inputs))
    return Chance(sum(live) * share / seeds, quantile * float(variance) ** 0.5 / seeds)


def why_not_moved(run: Run, network: Network) -> str | None:
    """
    Say why the links of a network's first layer are where they began; None if updates have moved them.

    :param run: the run
    :param network: one of its agent's networks
    """
    agent = run.agent
    assert agent is not None
    live, size = network.layers[0]
    steps, updates = agent.counters.get(network.attribute, (0, 0))
    churn = [float(curve.values.sum()) for (_, layer), curve in run.churn().get(network.attribute, {}).items() if layer == 0]
    reasons = {
        "it is dense": not agent.is_sparse,
        "its first layer is full: there is nothing to choose": live == size,
        "topology='static' leaves links where chance has put them": agent.settings.get("topology") == "static",
        "hidden_weights='fixed' leaves links where they are": agent.settings.get("hidden_weights") == "fixed",
        _no_update(agent, steps): updates == 0 and not agent.has_warm_up_links,
        "no update has moved a link of its first layer": bool(churn) and sum(churn) == 0 and not agent.has_warm_up_links,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _no_update(agent: Agent, steps: int) -> str:
    interval = agent.settings.get("update_interval")
    after = f": the first is due after {interval:,} optimizer steps, and it has had {steps:,}" if interval else ""
    return f"no topology update has come yet{after}"


def input_links(group: Group, kind: int) -> tuple[np.ndarray, np.ndarray, Chance]:
    """
    Give the links and the sum of the weights' magnitudes of each input, means over the seeds, and what chance gives.

    :param group: the group
    :param kind: number of the kind of network, twins are added
    """
    twins = [network for agent in group.agents for network in agent.kinds[kind]]
    links = np.sum([network.input_links for network in twins], axis=0) / len(group.agents)
    weights = np.sum([np.nansum(np.abs(network.weights[0]), axis=0) for network in twins], axis=0) / len(group.agents)
    return links, weights, chance(twins, len(group.agents))


def moved_kinds(group: Group) -> list[int]:
    """
    Give the kinds of networks, by number, whose first layers updates have moved in all seeds.

    :param group: the group
    """
    runs = [run for run in group.runs if run.agent is not None and run.agent.networks]
    kinds = range(len(group.agent.kinds)) if group.agent is not None else ()
    return [kind for kind in kinds if all(why_not_moved(run, run.agent.kinds[kind][0]) is None for run in runs if run.agent)]


def input_importance(groups: Sequence[Group]) -> str | None:
    """
    Draw how many live links each input has, beside what chance gives.

    :param groups: the groups, one row each
    """
    plots = [
        _input_plot(group, agent, kind, len(groups) > 1).__html__()
        for group, agent in with_networks(groups)
        for kind in moved_kinds(group)
    ]
    return facets(plots, 2) if plots else None


def _input_plot(group: Group, agent: Agent, kind: int, several: bool) -> Plot:
    links, weights, expected = input_links(group, kind)
    name = agent.kinds[kind][0].kind
    title = f"{'critics, together' if name == 'critic' else name}{f', {group.label}' if several else ''}"
    what = "feature" if agent.observations is None else "observation dimension"
    x = Axis(-0.7, len(links) - 0.3, what, "{:.0f}".format, whole=True)
    low, high = max(expected.mean - expected.band, 0.0), expected.mean + expected.band
    y = Axis.around([*links, high], "live links", "{:,.4g}".format, zero=True)
    plot = Plot(x, y, title)
    observations = len(links) if agent.observations is None else agent.observations
    says = [
        f"{i if i < observations else f'action {i - observations}'}: {count:,.4g} links, sum of |weights| {weight:.3g}"
        for i, (count, weight) in enumerate(zip(links, weights, strict=True))
    ]
    plot.bars(list(links), [group.colour if i < observations else ACTION for i in range(len(links))], says)
    plot.zone(low, high)
    plot.level(expected.mean)
    return plot


def layer_name(number: int, network: Network) -> str:
    """
    Name a layer.

    :param number: its number
    :param network: the network
    """
    outputs, inputs = network.weights[number].shape
    return f"layer {number + 1}, {inputs}→{outputs}"
