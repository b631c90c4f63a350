"""Pictures of how runs went, for `rlx2 report`; None where no run has the data."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sb3_rlx2.progress_log import BUFFER_SIZE, DROP_FRACTION, N_STEPS, POLICY_DISTANCE
from sb3_rlx2.report.agent_file import network_name
from sb3_rlx2.report.groups import Group, by_environment
from sb3_rlx2.report.plot import Axis, Plot, facets, key, short
from sb3_rlx2.report.run_folder import Curve, Run

EPISODES = 100  # SB3 averages training returns over that many
INK, MUTED = "var(--ink)", "var(--muted)"


def step_axis(groups: Sequence[Group]) -> Axis:
    """
    Make an axis of environment steps, long enough for all runs.

    :param groups: the groups
    """
    return Axis(0, 1.01 * max(run.steps for group in groups for run in group.runs) or 1, "environment steps", short)


def learning_curve(groups: Sequence[Group]) -> str | None:
    """
    Draw returns over steps: evaluations as a line with what they scatter, training returns thin.

    :param groups: the groups
    """
    plots = []
    for name, members in by_environment(groups):
        lines = [(group, curve) for group in members for curve in _thin_lines(group)]
        returns = [float(value) for _, curve in lines for value in curve.values]
        returns += [edge for group in members for edge in _edges(group)]
        if not returns:
            continue
        several = len(list(by_environment(groups))) > 1
        plot = Plot(step_axis(members), Axis.around(returns, "return of an episode", _amount), name if several else "", 260)
        for group, curve in lines:
            plot.curve(curve.steps, curve.values, group.colour, "thin")
        for group in members:
            _draw_evaluations(plot, group, len(groups) > 1)
        plots.append(plot.__html__())
    if not plots:
        return None
    spread = "mean ± standard deviation over episodes"
    if any(len(group.runs) > 1 for group in groups):
        spread += "; of several seeds: mean and 95 % confidence interval"
    thin = f"training, mean of the last {EPISODES} episodes"
    return key([(MUTED, "", 1, f"evaluation, {spread}"), (MUTED, "thin", 1, thin)]) + "".join(plots)


def _thin_lines(group: Group) -> Iterator[Curve]:
    for run in group.runs:
        curve = training_returns(run)
        if curve is not None:
            yield curve


def _edges(group: Group) -> list[float]:
    if group.evaluations is None:
        return []
    means, spread = group.evaluations.means, group.spread(group.evaluations.returns)
    return [*(means - spread).tolist(), *(means + spread).tolist()]


def _draw_evaluations(plot: Plot, group: Group, several: bool) -> None:
    if group.evaluations is None:
        return
    steps, means, spread = group.evaluations.steps, group.evaluations.means, group.spread(group.evaluations.returns)
    around = dict(zip(steps.tolist(), spread.tolist(), strict=True))
    whose = f"{group.label}, " if several else ""
    plot.band(steps, means - spread, means + spread, group.colour)
    plot.curve(steps, means, group.colour, "", lambda x, y: f"{whose}step {short(x)}: {_amount(y)} ± {around[int(x)]:,.3g}")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"


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


def final_evaluation(groups: Sequence[Group]) -> str | None:
    """
    Draw the return of each episode, or the mean of each seed, of the last and of the best evaluation.

    :param groups: the groups
    """
    plots = []
    for name, members in by_environment(groups):
        rows = [row for group in members for row in _evaluation_rows(group, len(groups) > 1)]
        if not rows:
            continue
        x = Axis.around([float(value) for _, _, returns in rows for value in returns], "return of an episode", _amount)
        y = Axis(len(rows) - 0.4, -0.6)  # down
        plot = Plot(x, y, name if len(list(by_environment(groups))) > 1 else "", 50 * len(rows))
        plot.rows([text for _, text, _ in rows])
        for number, (group, _, returns) in enumerate(rows):
            for value in returns:
                plot.dot(float(value), number + 0.1, group.colour, _amount(float(value)))
            plot.mark(float(returns.mean()), number + 0.1)
        plots.append(plot.__html__())
    return "".join(plots) if plots else None


def _evaluation_rows(group: Group, several: bool) -> Iterator[tuple[Group, str, np.ndarray]]:
    evaluations = group.evaluations
    if evaluations is None:
        return
    for name, number in (("last", len(evaluations.steps) - 1), ("best", evaluations.best)):
        text = f"{name}, step {short(evaluations.steps[number])}"
        yield group, f"{group.label}, {text}" if several else text, evaluations.returns[number]


def churn(groups: Sequence[Group]) -> str | None:
    """
    Draw the share of links that each topology update changed, for each layer.

    :param groups: the groups; of several seeds the first
    """
    known = [group for group in groups if group.first.churn()]
    if not known:
        return None
    networks = list(dict.fromkeys(network for group in known for network in group.first.churn()))
    found = [curve for group in known for layers in group.first.churn().values() for curve in layers.values()]
    found += [curve for group in known if (curve := group.first.curve(DROP_FRACTION)) is not None]
    y = Axis.around([float(curve.values.max()) for curve in found], "links changed", "{:.0%}".format, zero=True)
    plots = [
        _churn(Plot(step_axis(groups), y, _network_title(name, group, groups), 180), group, name)
        for group in known
        for name in networks
        if name in group.first.churn()
    ]
    places = [place for group in known for layers in group.first.churn().values() for place in layers]
    deepest, twins = max(layer for _, layer in places), max(number for number, _ in places) + 1
    shades = [(INK, "", _shade(layer, deepest), f"layer {layer + 1}") for layer in range(deepest + 1)]
    dashes = [(INK, "dash" if number else "", 1.0, f"critic {number + 1}") for number in range(min(twins, 2)) if twins > 1]
    limit = (MUTED, "dots", 1.0, "drop fraction: most that could change")
    return key([*shades, *dashes, limit]) + facets([plot.__html__() for plot in plots], len(networks))


def _network_title(name: str, group: Group, groups: Sequence[Group]) -> str:
    return network_name(name) if len(groups) == 1 else f"{network_name(name)}, {group.label}"


def _churn(plot: Plot, group: Group, network: str) -> Plot:
    curves, drop = group.first.churn()[network], group.first.curve(DROP_FRACTION)
    deepest = max(layer for _, layer in curves)
    if drop is not None:
        plot.curve(drop.steps, drop.values, MUTED, "dots")
    for (number, layer), curve in curves.items():
        say = _saying(f"layer {layer + 1}{f' of critic {number + 1}' if network == 'critic' else ''}")
        plot.curve(curve.steps, curve.values, group.colour, "dash" if number % 2 else "", say, _shade(layer, deepest))
    return plot


def _saying(what: str, write: Callable[[float], str] = "{:.1%}".format) -> Callable[[float, float], str]:
    return lambda x, y: f"step {short(x)}, {what}: {write(y)}"


def _shade(layer: int, deepest: int) -> float:
    """Fade the layers near the input."""
    return 1.0 if deepest == 0 else 0.4 + 0.6 * layer / deepest


def buffer(groups: Sequence[Group]) -> str | None:
    """
    Draw policy distance, size of the replay buffer and n in force over steps.

    :param groups: the groups, each run a line
    """
    plots = []
    for name, title, height, write, settings in (
        (POLICY_DISTANCE, "policy distance", 170, "{:.3g}".format, {"policy_distance_threshold": "threshold"}),
        (BUFFER_SIZE, "transitions in the buffer", 170, short, {"buffer_min_size": "minimum", "buffer_size": "capacity"}),
        (N_STEPS, "n in force", 70, "{:.0f}".format, {}),
    ):
        curves = [(group, curve) for group in groups for run in group.runs if (curve := run.curve(name)) is not None]
        if not curves:
            continue
        highest = max(float(curve.values.max()) for _, curve in curves)
        levels = [level for level in _levels(groups, settings) if level[0] <= 1.6 * highest]
        y = Axis.around([highest, *(value for value, _ in levels)], title, write, zero=True)
        plot = Plot(step_axis(groups), y if name != N_STEPS else Axis(0, highest + 1, title, write, whole=True), height=height)
        for group, curve in curves:
            whose = f"{group.label}, {title}" if len(groups) > 1 else title
            plot.curve(curve.steps, curve.values, group.colour, "", _saying(whose, write), stairs=name != BUFFER_SIZE)
        for value, text in levels:
            plot.level(value, f"{text} {value:,}")
        plots.append(plot.__html__())
    return "".join(plots) if plots else None


def _levels(groups: Sequence[Group], settings: dict[str, str]) -> list[tuple[float, str]]:
    agents = [agent for group in groups for agent in group.agents]
    found = {(agent.settings[name], text) for agent in agents for name, text in settings.items() if name in agent.settings}
    return sorted(found)
