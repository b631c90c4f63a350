"""The sections of the page of `rlx2 report`: pictures, what to see on them, and what is missing."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sb3_rlx2.progress_log import BUFFER_SIZE, FLOPS_RATIO, N_STEPS, POLICY_DISTANCE
from sb3_rlx2.report import networks, training
from sb3_rlx2.report.groups import Group, by_environment
from sb3_rlx2.report.heat_map import CELLS
from sb3_rlx2.report.run_folder import Run

NO_AGENT = "no saved agent (*.zip) of an off-policy algorithm in the folder"
NO_EVALUATIONS = "no evaluations.npz (train with --eval-freq; in a script, give EvalCallback a log_path)"
NO_PROGRESS = 'no progress.csv (in a script, call model.set_logger(configure(folder, ["stdout", "csv"])))'
DENSE = "the agent is dense"
CHURN = (
    "Share of a layer's links that each topology update replaced. Links that were dropped and grew back at once do not count, "
    "so the curves stay below the drop fraction."
)
DISTANCE = (
    "How far the policy has moved from the one that acted in the oldest transitions ({}). Above the threshold the oldest "
    "tenth of the buffer leaves, a step down in its size."
)
DISTANCES = {
    False: "half the mean squared difference of actions in [-1, 1]",
    True: "the share of greedy actions that are others now, over the share that chance would make so",
}


@dataclass(frozen=True)
class Section:
    """
    A section of the page.

    :param title: its heading
    :param caption: paragraphs that say what to see
    :param pictures: HTML with what it shows in words
    :param missing: what is not on the pictures, and why
    """

    title: str
    caption: Sequence[str]
    pictures: Sequence[tuple[str, str]]
    missing: Sequence[str] = field(default=())


def _said(groups: Sequence[Group], found: Iterable[tuple[Group, str | None]]) -> list[str]:
    """Give what is missing, with the group's name where there are several, and each text once."""
    texts = [text if len(groups) == 1 else f"{group.label}: {text}" for group, text in found if text is not None]
    return list(dict.fromkeys(texts))


def _picture(html: str | None, words: str) -> list[tuple[str, str]]:
    return [] if html is None else [(html, words)]


def _without_agent(groups: Sequence[Group]) -> list[str]:
    return _said(groups, [(group, NO_AGENT if group.agent is None else None) for group in groups])


def _without_evaluations(groups: Sequence[Group]) -> list[str]:
    return _said(groups, [(group, NO_EVALUATIONS if group.evaluations is None else None) for group in groups])


def learning(groups: Sequence[Group]) -> Section:
    """Returns over training."""
    caption = ["Return over training. The line: without exploration noise. The thin line: the episodes it learns from."]
    if any(len(group.runs) > 1 for group in groups):
        caption.append("Several seeds are one line, at the steps at which all have been evaluated.")
    untrained = [group for group in groups if all(training.training_returns(run) is None for run in group.runs)]
    missing = _without_evaluations(groups)
    missing += _said(groups, [(group, "no training episodes (neither monitor file nor progress.csv)") for group in untrained])
    pictures = _picture(training.learning_curve(groups), "Return over environment steps")
    return Section("Learning curve", caption, pictures, missing)


def evaluation(groups: Sequence[Group]) -> Section:
    """The last evaluation, and the best."""
    caption = [
        "Each dot is an episode, of several seeds the mean of one; each stroke is their mean.",
        "The best evaluation is the best of many, so it flatters.",
    ]
    for group in groups:
        if group.evaluations is not None:
            last, best = group.evaluations.returns[-1], group.evaluations.returns[group.evaluations.best]
            head = "Last" if len(groups) == 1 else f"{group.label}: last"
            means = [f"{each.mean():,.5g} ± {float(group.spread(each)):,.3g}" for each in (last, best)]
            caption.append(f"{head} {means[0]} over {group.over}, best {means[1]}.")
    pictures = _picture(training.final_evaluation(groups), "Returns of the episodes")
    return Section("Final evaluation", caption, pictures, _without_evaluations(groups))


def costs(groups: Sequence[Group]) -> Section:
    """FLOPs and bytes against dense."""
    caption = [
        "What the networks compute and store, against dense ones: the shorter, the cheaper.",
        "What acts, which is all that is deployed, comes first.",
    ]
    caption += _yardsticks(groups)
    index = {agent.index_bytes for _, agent in networks.with_networks(groups) if agent.is_sparse}
    if index:
        sizes = [f"{acting / 1e3:,.1f} kB ({every / 1e3:,.1f} of all networks)" for acting, every in sorted(index)]
        caption.append(f"The positions of the links, 32-bit integers, are not in the bytes: {' and '.join(sizes)} more.")
    missing = _without_agent(groups)
    dense = [group for group in groups if group.agent is not None and not group.agent.is_sparse]
    missing += _said(groups, [(group, DENSE) for group in dense])
    unlogged = [group for group in groups if group.first.curve(FLOPS_RATIO) is None and group not in dense]
    missing += _said(groups, [(group, f"training FLOPs: {why_not_logged(group.first)}") for group in unlogged])
    return Section("FLOPs and bytes", caption, _picture(networks.costs(groups), "Costs as share of dense"), missing)


def _yardsticks(groups: Sequence[Group]) -> list[str]:
    """Say what agents of several shapes are measured against."""
    said = []
    for name, members in by_environment(groups):
        shapes = {
            "-".join(map(str, agent.networks[0].shape)): agent.acting_bytes[1] for _, agent in networks.with_networks(members)
        }
        if len(shapes) > 1:
            largest = max(shapes, key=lambda shape: shapes[shape])
            said.append(f"All agents on {name} are measured against the largest dense one, {largest}.")
    return said


def density(groups: Sequence[Group]) -> Section:
    """Density of each layer."""
    caption = [
        "Links that live, of those that a dense layer has. Erdős-Rényi gives small layers a larger share.",
        "The counts stay what they are over training, unless links are pruned; which links live changes.",
    ]
    pictures = _picture(networks.density(groups), "Density of each layer")
    return Section("Density of each layer", caption, pictures, _without_agent(groups))


def links(groups: Sequence[Group]) -> Section:
    """Which links live."""
    known = networks.with_networks(groups)
    caption = [
        "Each row is a unit, each column what it listens to. Empty: no link. Blue: positive, red: negative, grey: weak.",
        "Faint: on no path from an input to an output, so that it does nothing.",
    ]
    widest = max((max(w.shape) for _, agent in known for net in agent.networks for w in net.weights), default=0)
    if widest > CELLS:
        caption.append(f"In layers wider than {CELLS}, several links share a cell, which shows the strongest.")
    caption += [
        f"{group.label + ', ' if len(groups) > 1 else ''}{net.name}: {'-'.join(map(str, net.units))} of "
        f"{'-'.join(map(str, net.shape))} units on a path, {net.idle_links:,} of {sum(n for n, _ in net.layers):,} links idle."
        for group, agent in known
        if agent.is_sparse
        for net in agent.networks
    ]
    caption += [f"{group.label}: shown is {group.first.folder.name}." for group in groups if len(group.runs) > 1]
    pictures = []
    for number in range(max((len(agent.networks) for _, agent in known), default=0)):
        name = next(agent.networks[number].name for _, agent in known if len(agent.networks) > number)
        pictures += _picture(networks.live_links(groups, number), f"{name[0].upper()}{name[1:]}")
    return Section("Which links live", caption, pictures, _without_agent(groups))


def inputs(groups: Sequence[Group]) -> Section:
    """Which inputs matter."""
    caption = [
        "Live links of each input in the first layer, where topology updates have moved them.",
        "Shaded: where chance would leave all inputs in 95 of 100 cases; dashed: the average.",
    ]
    for group, agent in networks.with_networks(groups):
        if agent.observations is not None:
            caption += [_outside(group, agent.networks[0].name, len(groups) > 1)] if 0 in networks.moved_kinds(group) else []
    missing = _without_agent(groups)
    for group, agent in networks.with_networks(groups):
        unmoved = [(twins[0].kind, networks.why_not_moved(group.first, twins[0])) for twins in agent.kinds]
        missing += _said(groups, [(group, f"{kind}: {why}") for kind, why in unmoved if why is not None])
        if agent.observations is None:
            missing += _said(groups, [(group, "the inputs are features of an extractor, not observation dimensions")])
    pictures = _picture(networks.input_importance(groups), "Live links of each input")
    return Section("Input importance", caption, pictures, missing)


def _outside(group: Group, name: str, several: bool) -> str:
    """Name the inputs of what acts that have more or fewer links than chance gives."""
    counts, _, expected = networks.input_links(group, 0)
    order = counts.argsort()[::-1]
    more = [f"{i} ({counts[i]:,.4g} links)" for i in order if counts[i] > expected.mean + expected.band]
    fewer = [f"{i} ({counts[i]:,.4g})" for i in order[::-1] if counts[i] < expected.mean - expected.band]
    head = f"{group.label}, {name}: " if several else f"{name[0].upper()}{name[1:]}: "
    if not more and not fewer:
        return f"{head}no input has more or fewer links than chance would give."
    parts = [
        f"{what} links than chance gives: {', '.join(found[:5])}"
        for what, found in (("more", more), ("fewer", fewer))
        if found
    ]
    return f"{head}{'; '.join(parts)}."


def churn(groups: Sequence[Group]) -> Section:
    """What the topology updates did."""
    caption = [
        f"{CHURN} They fall with it, or sooner if the topology settles.",
        "A layer that is fully live has nothing to move.",
    ]
    missing = _said(groups, [(group, _why_no_churn(group.first)) for group in groups if not group.first.churn()])
    pictures = _picture(training.churn(groups), "Churn over environment steps")
    return Section("Churn at each topology update", caption, pictures, missing)


def _why_no_churn(run: Run) -> str:
    if run.agent is not None and run.agent.networks:
        reasons = [networks.why_not_moved(run, twins[0]) for twins in run.agent.kinds]
        if all(reasons):
            return str(reasons[0])
    return why_not_logged(run) or "no topology update was recorded"


def buffer(groups: Sequence[Group]) -> Section:
    """The replay buffer and n."""
    distances = [DISTANCES[discrete] for discrete in sorted({_values_actions(group.first) for group in groups})]
    caption = [DISTANCE.format("; or ".join(distances)), "At the bottom: the n of the n-step target."]
    missing = []
    for what, name in {"policy distance": POLICY_DISTANCE, "buffer size": BUFFER_SIZE, "n": N_STEPS}.items():
        absent = [group for group in groups if group.first.curve(name) is None]
        missing += _said(groups, [(group, f"{what} was not recorded: {_why_not(group.first, name)}") for group in absent])
    pictures = _picture(training.buffer(groups), "Policy distance, buffer size and n")
    return Section("Replay buffer and n-step targets", caption, pictures, missing)


def _values_actions(run: Run) -> bool:
    """Tell whether the agent values discrete actions."""
    return run.agent is not None and any(network.attribute in ("q_net", "quantile_net") for network in run.agent.networks)


def _why_not(run: Run, name: str) -> str:
    """Say why a column of the log is not there."""
    settings = {} if run.agent is None else run.agent.settings
    if name == POLICY_DISTANCE and run.progress and settings.get("topology") is not None:
        if settings.get("policy_distance_threshold") == math.inf:
            return "policy_distance_threshold=inf asks for none"
        interval = settings.get("buffer_check_interval")
        if isinstance(interval, int) and interval > run.steps:
            return f"the first look is due at step {interval:,}, and the run has {run.steps:,}"
    return why_not_logged(run)


def why_not_logged(run: Run) -> str:
    """
    Say why something that a sparse run logs is not there.

    :param run: the run
    """
    agent = run.agent
    if agent is not None and agent.networks and not agent.is_sparse:
        return DENSE
    if not run.progress:
        return NO_PROGRESS
    untrained = why_untrained(run)
    return untrained or "the log holds none (its replay buffer is not RLx2's, or no episode has ended)"


def why_untrained(run: Run) -> str | None:
    """
    Say why a run has done no gradient step; None if it has, or nobody knows.

    :param run: the run
    """
    starts = None if run.agent is None else run.agent.settings.get("learning_starts")
    if isinstance(starts, int) and starts >= run.steps:
        return f"nothing has been trained: learning_starts={starts:,}, and the run has {run.steps:,} steps"
    return None


SECTIONS: Sequence[Callable[[Sequence[Group]], Section]] = (
    learning, evaluation, costs, density, links, inputs, churn, buffer,
)  # fmt: skip
