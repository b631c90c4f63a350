"""Writes ``INTERPLAY_RESULTS.md`` and its pictures, from stored results and nothing else."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.readme import markdown
from benchmarks.returns import statistics
from benchmarks.returns.cells import SETS
from benchmarks.returns.choose import score
from benchmarks.returns.interplay import (
    ARMS,
    AS_PUBLISHED,
    MAIN,
    REGIMES,
    RUNS,
    SETTINGS,
    STRUCTURES,
)
from benchmarks.returns.results import HERE, RESULTS, Result, load_suite
from benchmarks.returns.statistics import Estimate

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

FILE = "INTERPLAY_RESULTS.md"
EQUAL = ("random", "active", "spatial", "predictive", "l1-extract")  # the structures that the tests are about
CONTROL = {"learned": "dense-p", "fixed": "dense-n"}
EVOLVE = ("l1-penalise", "rigl", "rlx2")  # whose links are shown as they were at first, too
COLOURS = dict(zip(STRUCTURES, plt.get_cmap("tab20").colors[::2] + plt.get_cmap("tab20").colors[1::2], strict=False))
READING = """\
By the protocol of [INTERPLAY.md](INTERPLAY.md): sparse structures of equal size in DQN's hidden layer, with hidden weights
learned or fixed. These are effect sizes, not a reproduction: the sizes, seeds and curves of "On the Interplay Between
Sparsity and Training in Deep Reinforcement Learning" are not known to us.

- A score is the mean return of the last 100 training episodes, with epsilon 0.1. *Greedy* is the last evaluation's.
- In brackets: a 95 % bootstrap interval over seeds, and their number. From five seeds or fewer it is too narrow: from two or
  three it is little more than their range.
- *Trained* counts the parameters that learn, biases included, without the target network.
- p-values are of permutation tests and not corrected: there are six for each environment.
- What is not equal: *L1, extracted* comes behind an agent that has trained on as many frames, and has that agent's weights
  as they were at first; *Active* leaves out inputs that are never on, and *Predictive* those that do not vary. *RigL* and
  *RLx2* have as many links, but not as many for each unit. The *convolution* is the games' own, three times as large. The
  last three are in no test.
- Fixed hidden weights have what learned ones have not: four times the step size, and a bias that is tuned, in standard
  deviations of one weight, which is less of what a dense unit reads than of what a sparse one does.
- Settings were tuned on two seeds of 200,000 frames, of which 20,000 are warm-up, and L1's coefficient at one step size.
- An episode of Freeway has 2,500 frames: its last hundred are the last half of a run."""


class Group:
    """
    The finished runs of one kind on one environment.

    :param kind: ``MAIN`` or ``AS_PUBLISHED``
    :param env: the environment
    :param steps: environment steps
    :param found: the runs
    """

    def __init__(self, kind: str, env: str, steps: int, found: Sequence[Result]) -> None:
        self.kind, self.env, self.steps = kind, env, steps
        self.runs = {(arm.structure, arm.regime): [one for one in found if RUNS[one.method].arm == arm] for arm in ARMS}

    @property
    def name(self) -> str:
        """Name of its pictures."""
        return f"{self.kind}_{self.env.replace('/', '-')}_{self.steps}"

    def scores(self, structure: str, regime: str) -> list[float]:
        """Give the scores of a structure in a regime, by seed."""
        return [score(one) for one in sorted(self.runs.get((structure, regime), []), key=lambda one: one.seed)]

    def expected(self) -> int:
        """Give the number of seeds that each structure is to have."""
        seeds = {
            cell.seed
            for cells in SETS.values()
            for cell in cells
            if cell.method in RUNS and (RUNS[cell.method].kind, cell.env, cell.steps) == (self.kind, self.env, self.steps)
        }
        return max(len(seeds) or max(map(len, self.runs.values())), 2)  # of no set: as many as any has

    def has_all(self, structure: str, regime: str) -> bool:
        """Say whether all seeds of a structure are there."""
        return len(self.scores(structure, regime)) >= self.expected()

    def is_whole(self, regime: str) -> bool:
        """Say whether all seeds of the compared structures are there."""
        return all(self.has_all(structure, regime) for structure in EQUAL)


def groups(folder: Path) -> list[Group]:
    """Give what there is, by kind and environment."""
    results = load_suite(folder).found
    keys = dict.fromkeys((RUNS[one.method].kind, one.env, one.steps) for one in results)
    kinds = [key for kind in (MAIN, AS_PUBLISHED) for key in sorted(keys) if key[0] == kind]
    return [Group(*key, [one for one in results if (RUNS[one.method].kind, one.env, one.steps) == key]) for key in kinds]


def report(folder: Path = RESULTS) -> str:
    """Give the report on a folder of results."""
    parts = ["# Which sparse structure is best?", READING, _progress(folder)]
    for group in groups(folder):
        title = f"## {group.env}, {group.steps:,} frames" + (", as published" if group.kind == AS_PUBLISHED else "")
        parts += [title, _table(group), *_findings(group)]
        parts += [f"![{name}](plots/interplay/{name}.png)" for name in pictures(group)]
    return "\n\n".join(parts) + "\n"


def _progress(folder: Path) -> str:
    finished = {(one.method, one.env, one.seed, one.steps) for one in load_suite(folder).found}
    rows = []
    for name, cells in SETS.items():
        if name.startswith("interplay") and name != "interplay-smoke":
            count = sum((cell.method, cell.env, cell.seed, cell.steps) in finished for cell in cells)
            rows.append([name, str(count), str(len(cells) - count)])
    tuned = (
        "Settings are those that tuning has chosen (`interplay.json`)."
        if SETTINGS.exists()
        else "Nothing has been tuned yet: settings are the centre of what tuning tries."
    )
    others = sum(
        one.about.get("setting") != asdict(RUNS[one.method].setting_for(one.env))
        for one in load_suite(folder).found
        if RUNS[one.method].kind == MAIN
    )
    differing = [f"**{others} runs have other settings.**"] if others else []
    return "\n\n".join([markdown(["set", "finished", "missing"], rows), " ".join([tuned, *differing])])


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def shown(estimate: Estimate, sign: str = "") -> str:
    """Write an estimate with its interval."""
    interval = "" if estimate.low is None else f"{estimate.low:{sign}.1f} to {estimate.high:{sign}.1f}, "
    return f"{estimate.value:{sign}.1f} ({interval}{estimate.seeds})"


def _table(group: Group) -> str:
    header = ["structure", *(f"{regime}{what}" for regime in REGIMES for what in (", score", ", greedy", ", trained"))]
    rows = []
    for name, structure in STRUCTURES.items():
        row = [structure.label]
        for regime in REGIMES:
            found = group.runs.get((name, regime), [])
            if not found:
                row += ["not defined" if regime not in structure.regimes else "missing", "", ""]
                continue
            greedy = np.mean([one.curve.returns[-1] for one in found])
            row += [shown(statistics.mean(group.scores(name, regime))), f"{greedy:.1f}", _trained(found)]
        rows.append(row)
    return markdown(header, rows)


def _trained(found: Sequence[Result]) -> str:
    counts = sorted({one.about["trained_parameters"] for one in found})
    return " to ".join(f"{count:,}" for count in {counts[0], counts[-1]})


def _findings(group: Group) -> list[str]:
    whole = {regime: group.is_whole(regime) for regime in REGIMES}
    lines = [_structure_matters(group, regime) for regime in REGIMES if whole[regime]]
    lines += [
        f"Hidden weights {regime}: not all {group.expected()} seeds of {_labels(EQUAL)} are there, so nothing is said."
        for regime in REGIMES
        if not whole[regime]
    ]
    if all(whole.values()):
        lines += [_depends_on_the_regime(group), _fixed_against_learned(group)]
    lines += [_against_dense(group, regime) for regime in REGIMES if whole[regime]]
    l1 = [one.about["topology"][0]["links_above_0.001"] for one in group.runs["l1-penalise", "learned"]]
    if l1:
        links = group.runs["l1-penalise", "learned"][0].about["links_of_equal_size"]
        lines.append(f"The penalty left {_span(l1)} hidden weights above 0.001, where a sparse layer has {links:,} links.")
    extracted = [one.about for regime in REGIMES for one in group.runs["l1-extract", regime]]
    kept = [about["links_above_0.001_before"] for about in extracted if "links_above_0.001_before" in about]
    if kept:
        lines.append(
            f"Of the links of {STRUCTURES['l1-extract'].label}, {_span(kept)} had a weight above 0.001 in the agent before: "
            "the penalty empties whole units, which have as many links as any other again."
        )
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _span(counts: Sequence[int]) -> str:
    return f"{min(counts):,}" if len(set(counts)) == 1 else f"{min(counts):,} to {max(counts):,}"


def _labels(structures: Sequence[str]) -> str:
    return ", ".join(STRUCTURES[name].label for name in structures)


def _means(group: Group, regime: str) -> dict[str, float]:
    return {name: float(np.mean(group.scores(name, regime))) for name in EQUAL}


def _structure_matters(group: Group, regime: str) -> str:
    means = _means(group, regime)
    best, worst = (choose(means, key=means.__getitem__) for choose in (max, min))
    scores = {name: group.scores(name, regime) for name in EQUAL}
    p, without = (
        statistics.structure_test([each for name, each in scores.items() if name != left_out])
        for left_out in ("", "l1-extract")
    )
    return (
        f"*Structure matters*, hidden weights {regime}: means range from {means[worst]:.1f} ({STRUCTURES[worst].label}) to "
        f"{means[best]:.1f} ({STRUCTURES[best].label}); {_p(p)}, without {STRUCTURES['l1-extract'].label} {_p(without)}."
    )


def _depends_on_the_regime(group: Group) -> str:
    pairs = [tuple(group.scores(name, regime) for regime in REGIMES) for name in EQUAL]
    levels = [float(np.mean(np.concatenate(scores))) or 1.0 for scores in zip(*pairs, strict=True)]
    relative = [tuple(np.divide(scores, level) for scores, level in zip(pair, levels, strict=True)) for pair in pairs]
    chance = statistics.chance(len(EQUAL), group.expected()).best_differs
    best = [max(means, key=means.__getitem__) for means in (_means(group, regime) for regime in REGIMES)]
    labels = [STRUCTURES[name].label for name in best]
    other = f"too ({labels[1]})" if best[0] == best[1] else f"not, but {labels[1]}"
    own, share = (_p(statistics.interaction_test(scores)) for scores in (pairs, relative))
    return (
        f"*The best structure depends on the regime*: with learned weights {labels[0]} is best, with fixed ones {other}; the "
        f"bootstrap probability that they differ is {statistics.best_differs(pairs):.2f}, and {chance:.2f} on average where "
        f"nothing differs. Interaction, that is, whether structures differ by as much in both regimes: {own}; in shares of "
        f"each regime's mean {share}."
    )


def _fixed_against_learned(group: Group) -> str:
    both = [name for name in STRUCTURES if all(group.has_all(name, regime) for regime in REGIMES)]
    gains = [statistics.difference(group.scores(name, "fixed"), group.scores(name, "learned")) for name in both]
    shares = [f"{STRUCTURES[name].label} {shown(gain, '+')}" for name, gain in zip(both, gains, strict=True)]
    return f"*Fixed weights do better than learned ones*, by: {'; '.join(shares)}."


def _against_dense(group: Group, regime: str) -> str:
    label = STRUCTURES[CONTROL[regime]].label
    if not group.has_all(CONTROL[regime], regime):
        return f"*Sparse beats dense*, hidden weights {regime}: not all seeds of {label} are there, so nothing is said."
    control, scores = group.scores(CONTROL[regime], regime), {name: group.scores(name, regime) for name in EQUAL}
    best = statistics.best_against(list(scores.values()), control)
    gains = {STRUCTURES[name].label: statistics.difference(each, control) for name, each in scores.items()}
    own = "; ".join(f"{name} {shown(gain, '+')}" for name, gain in gains.items())
    chance = statistics.chance(len(EQUAL), group.expected()).best_is_above
    return (
        f"*Sparse beats dense*, hidden weights {regime}: the best structure is {shown(best, '+')} above {label}. Where "
        f"nothing differs, {chance:.0%} of such intervals lie above 0, since the best of {len(EQUAL)} is chosen; each on its "
        f"own: {own}."
    )


def pictures(group: Group) -> dict[str, Any]:
    """Give what draws each of a group's pictures, by name."""
    drawn = {f"{group.name}_curves": partial(_curves, group)}
    if any(_maps(group)):
        drawn[f"{group.name}_links"] = partial(_links, group)
    return drawn


def _curves(group: Group) -> Figure:
    """Draw the mean training return over seeds, and each seed faintly, a regime beside the other."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
    for regime, axis in zip(REGIMES, axes, strict=True):
        for name in STRUCTURES:
            curves = [one.training for one in group.runs.get((name, regime), [])]
            if not curves:
                continue
            for curve in curves:
                axis.plot(curve.steps, curve.returns, color=COLOURS[name], alpha=0.2, linewidth=0.7)
            shared = sorted(set.intersection(*(set(curve.steps.tolist()) for curve in curves)))
            mean = [np.mean([curve.returns[curve.steps == step][0] for curve in curves]) for step in shared]
            axis.plot(shared, mean, color=COLOURS[name], linewidth=1.6, label=f"{STRUCTURES[name].label} ({len(curves)})")
        axis.set(title=f"{group.env}, hidden weights {regime}", xlabel="frames")
        axis.legend(fontsize="x-small", title="seeds in brackets", title_fontsize="x-small")
    axes[0].set(ylabel="return of the last 100 training episodes")
    return figure


def _maps(group: Group) -> list[tuple[str, np.ndarray]]:
    """Give the mean share of links by cell and channel, with labels; of structures that evolve also at first."""
    maps = []
    for name, structure in STRUCTURES.items():
        found = [one.about["connections"] for one in group.runs.get((name, "learned"), []) if one.about.get("connections")]
        if not found or (structure.network.startswith("dense") and name not in EVOLVE):
            continue
        for moment in ("first", "last") if name in EVOLVE else ("last",):
            when = f", {'at first' if moment == 'first' else 'at the end'}" if name in EVOLVE else ""
            maps.append((structure.label + when, np.mean([each[moment] for each in found], axis=0)))
    return maps


def _links(group: Group) -> Figure:
    """Draw what each structure connects: a row for each, a column for each channel; each row has a scale of its own."""
    maps = _maps(group)
    channels = maps[0][1].shape[2]
    figure, axes = plt.subplots(
        len(maps), channels, figsize=(1.1 * channels + 1.6, 1.15 * len(maps)), layout="constrained", squeeze=False
    )
    for (label, shares), row in zip(maps, axes, strict=True):
        for channel, axis in enumerate(row):
            axis.imshow(shares[..., channel], vmin=0, vmax=shares.max(), cmap="viridis")
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="x-small")
    for channel, axis in enumerate(axes[0]):
        axis.set_title(f"channel {channel}", fontsize="x-small")
    return figure


def write(folder: Path = RESULTS) -> None:
    """Write the report and its pictures: of the repository's own results beside them, of others into their folder."""
    if not load_suite(folder).found:
        return
    place = HERE if folder.resolve() == RESULTS.resolve() else folder
    (place / "plots" / "interplay").mkdir(parents=True, exist_ok=True)
    for group in groups(folder):
        for name, draw in pictures(group).items():
            figure = draw()
            figure.savefig(place / "plots" / "interplay" / f"{name}.png", dpi=110)
            plt.close(figure)
    (place / FILE).write_text(report(folder))
    print(f"{place / FILE}: {len(load_suite(folder).found)} runs of the Interplay suite")
