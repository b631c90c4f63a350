"""The sections of the page of `rlx2 report`: pictures, what to see on them, and what is missing."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from sb3_rlx2.report import networks, training
from sb3_rlx2.report.run_folder import Run
from sb3_rlx2.report.style import label

NO_AGENT = "no saved agent (*.zip) of TD3 or SAC in the folder"
NO_PROGRESS = "not recorded (no progress.csv, or not trained sparse)"
CHURN = (
    "Share of a layer's links that each topology update replaced. Links that were dropped and grew back at once do not count, "
    "so the curves stay below the drop fraction."
)
DISTANCE = (
    "How far the policy has moved from the one that acted in the oldest transitions (half the mean squared difference of "
    "actions in [-1, 1]). Above the threshold the oldest tenth of the buffer leaves, a step down in its size."
)


@dataclass(frozen=True)
class Section:
    """
    A section of the page.

    :param title: its heading
    :param caption: paragraphs that say what to see
    :param pictures: SVG documents with what they show in words
    :param missing: what is not on the pictures, and why
    """

    title: str
    caption: Sequence[str]
    pictures: Sequence[tuple[str, str]]
    missing: Sequence[str] = field(default=())


def _missing(runs: Sequence[Run], absent: Sequence[Run], what: str) -> list[str]:
    return [what if len(runs) == 1 else f"{label(run, runs)}: {what}" for run in absent]


def _svg(figure: Figure | None, words: str) -> list[tuple[str, str]]:
    if figure is None:
        return []
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return [(base64.b64encode(file.getvalue()).decode(), words)]


def learning(runs: Sequence[Run]) -> Section:
    """Returns over training."""
    caption = ["Return over training. The line: without exploration noise. The thin line: the episodes it learns from."]
    missing = _missing(runs, [run for run in runs if run.evaluations is None], "no evaluations.npz (train with --eval-freq)")
    untrained = [run for run in runs if training.training_returns(run) is None]
    missing += _missing(runs, untrained, "no training episodes (neither monitor file nor progress.csv)")
    return Section("Learning curve", caption, _svg(training.learning_curve(runs), "Return over environment steps"), missing)


def evaluation(runs: Sequence[Run]) -> Section:
    """The last evaluation, and the best."""
    caption = ["Each dot is an episode, each bar their mean. The best evaluation is the best of many, so it flatters."]
    for run in runs:
        if run.evaluations is not None:
            last, best = run.evaluations.returns[-1], run.evaluations.returns[run.evaluations.best]
            head = "Last" if len(runs) == 1 else f"{label(run, runs)}: last"
            over = f"over {len(last)} episodes"
            caption.append(
                f"{head} {last.mean():,.5g} ± {last.std():,.3g} {over}, best {best.mean():,.5g} ± {best.std():,.3g}."
            )
    missing = _missing(runs, [run for run in runs if run.evaluations is None], "no evaluations.npz (train with --eval-freq)")
    return Section("Final evaluation", caption, _svg(training.final_evaluation(runs), "Returns of the episodes"), missing)


def costs(runs: Sequence[Run]) -> Section:
    """FLOPs and bytes against dense."""
    caption = ["What the sparse networks compute and store, against dense ones of the same shape: the shorter, the cheaper."]
    index = [run.agent.index_bytes for run in runs if run.agent is not None and run.agent.is_sparse]
    if index:
        amounts = " and ".join(f"{size / 1e3:,.1f} kB" for size in dict.fromkeys(index))
        caption.append(f"The positions of the links, 32-bit integers, are not in the bytes: {amounts} more.")
    missing = _missing(runs, [run for run in runs if run.agent is None or not run.agent.networks], NO_AGENT)
    dense = [run for run in runs if run.agent is not None and run.agent.networks and not run.agent.is_sparse]
    missing += _missing(runs, dense, "the agent is dense")
    unlogged = [run for run in runs if run.curve("rlx2/flops_ratio") is None and run not in dense]
    missing += _missing(runs, unlogged, f"training FLOPs: {NO_PROGRESS}")
    return Section("FLOPs and bytes", caption, _svg(networks.costs(runs), "Costs as share of dense"), missing)


def density(runs: Sequence[Run]) -> Section:
    """Density of each layer."""
    caption = [
        "Links that live, of those that a dense layer has. Erdős-Rényi gives small layers a larger share.",
        "The counts stay what they are over training; only which links live changes.",
    ]
    missing = _missing(runs, [run for run in runs if run.agent is None or not run.agent.networks], NO_AGENT)
    return Section("Density of each layer", caption, _svg(networks.density(runs), "Density of each layer"), missing)


def links(runs: Sequence[Run]) -> Section:
    """Which links live."""
    caption = [
        "Each row is a unit, each column what it listens to. White: no link. Blue: positive, red: negative, grey: weak.",
        "Empty rows are units without input, empty columns inputs (or units of the layer before) that nobody hears.",
    ]
    agents = [run.agent for run in runs if run.agent is not None and run.agent.networks]
    widest = max((max(w.shape) for agent in agents for net in agent.networks for w in net.weights), default=0)
    if widest > networks.CELLS:
        caption.append(f"In layers wider than {networks.CELLS}, several links share a cell, which shows the strongest.")
    pictures = []
    for number in range(max((len(agent.networks) for agent in agents), default=0)):
        name = next(agent.networks[number].name for agent in agents if len(agent.networks) > number)
        pictures += _svg(networks.live_links(runs, number), f"{name[0].upper()}{name[1:]}")
    missing = _missing(runs, [run for run in runs if run.agent is None or not run.agent.networks], NO_AGENT)
    return Section("Which links live", caption, pictures, missing)


def inputs(runs: Sequence[Run]) -> Section:
    """Which inputs matter."""
    caption = [
        "Live links of each input in the first layer: what the topology found worth looking at. Dashed: the average input."
    ]
    for run, agent, _ in networks.with_networks(runs):
        links = agent.networks[0].input_links
        if agent.observations is not None and links.min() < links.max():
            listed = ", ".join(f"{i} ({links[i]} links)" for i in links.argsort()[::-1][:3])
            unread = f"; {int((links == 0).sum())} have none" if (links == 0).any() else ""
            head = "Most links in the actor" if len(runs) == 1 else f"{label(run, runs)}, most links in the actor"
            caption.append(f"{head}: dimensions {listed}{unread}.")
    missing = _missing(runs, [run for run in runs if run.agent is None or not run.agent.networks], NO_AGENT)
    hidden = [run for run in runs if run.agent is not None and run.agent.networks and run.agent.observations is None]
    missing += _missing(runs, hidden, "the inputs are features of an extractor, not observation dimensions")
    return Section("Input importance", caption, _svg(networks.input_importance(runs), "Live links of each input"), missing)


def churn(runs: Sequence[Run]) -> Section:
    """What the topology updates did."""
    caption = [
        f"{CHURN} They fall with it, or sooner if the topology settles.",
        "A layer that is fully live has nothing to move.",
    ]
    absent = [run for run in runs if not run.churn("actor") and not run.churn("critic")]
    missing = _missing(runs, absent, "no topology update was recorded (none happened, or no progress.csv)")
    pictures = _svg(training.churn(runs), "Churn over environment steps")
    return Section("Churn at each topology update", caption, pictures, missing)


def buffer(runs: Sequence[Run]) -> Section:
    """The replay buffer and n."""
    caption = [DISTANCE, "At the bottom: the n of the n-step target."]
    missing = []
    names = {"policy distance": "rlx2/policy_distance", "buffer size": "rlx2/buffer_size", "n": "rlx2/n_steps"}
    for what, name in names.items():
        missing += _missing(runs, [run for run in runs if run.curve(name) is None], f"{what} was not recorded")
    pictures = _svg(training.buffer(runs), "Policy distance, buffer size and n")
    return Section("Replay buffer and n-step targets", caption, pictures, missing)


SECTIONS: Sequence[Callable[[Sequence[Run]], Section]] = (learning, evaluation, costs, density, links, inputs, churn, buffer)
