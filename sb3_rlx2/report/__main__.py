"""Reads the command line of `rlx2 report`, and lays out the page."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from sb3_rlx2 import __version__
from sb3_rlx2.files import write_text
from sb3_rlx2.report.groups import Group, group
from sb3_rlx2.report.heat_map import ENDS
from sb3_rlx2.report.networks import ACTING_BYTES, cost_of, yardstick
from sb3_rlx2.report.plot import percent, short
from sb3_rlx2.report.run_folder import Run, RunError, read_run
from sb3_rlx2.report.sections import SECTIONS, why_untrained
from sb3_rlx2.report.twins import against_dense


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="rlx2 report",
        description="Write one self-contained HTML page of a run, or of several side by side. Runs that differ in nothing but "
        "their seed are taken together.",
    )
    parser.add_argument("folders", metavar="LOGDIR", nargs="+", type=Path, help="folder of a run, as logs/rlx2td3/Hopper-v5_1")
    parser.add_argument("-o", "--output", type=Path, help="the page (default: report.html in the folder that holds all runs)")
    args = parser.parse_args()
    try:
        runs = [read_run(folder) for folder in {folder.resolve(): folder for folder in args.folders}.values()]
        output = args.output or Path(os.path.commonpath([folder.resolve() for folder in args.folders])) / "report.html"
        if not output.parent.is_dir():
            raise RunError(f"--output={output}: the folder {output.parent} does not exist")
        write_text(output, page(runs))
    except (RunError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    print(f"Report: {output} ({output.stat().st_size / 1e3:,.0f} kB)")


def page(runs: Sequence[Run]) -> str:
    """
    Make the page.

    :param runs: the runs, in the order in which they are to stand
    :return: HTML that needs no other file
    """
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    groups = group(runs)
    algorithms = sorted({run.algorithm for run in runs})
    environments = sorted({run.environment for run in runs})
    described = [_describe(each, groups) for each in groups]
    return environment.get_template("page.html").render(
        facts=list(dict.fromkeys(name for each in described for name in each["facts"])),
        title=f"{' and '.join(algorithms)} on {' and '.join(environments)}",
        groups=described,
        folders=[str(run.folder) for run in runs],
        sections=[section(groups) for section in SECTIONS],
        settings=_settings(groups),
        gradient=", ".join(f"rgb({red:.0f} {green:.0f} {blue:.0f})" for red, green, blue in ENDS),
        version=__version__,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _describe(group: Group, groups: Sequence[Group]) -> dict[str, Any]:
    """Give what stands at the head of the page for a group of runs."""
    seeds = [run.seed for run in group.runs if run.seed is not None]
    return {
        "label": group.label,
        "colour": group.colour,
        "folder": ", ".join(str(run.folder) for run in group.runs),
        "algorithm": group.first.algorithm,
        "environment": group.environment,
        "seeds": f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}" if seeds else "",
        "status": list(dict.fromkeys(map(_status, group.runs))),
        "facts": _facts(group, groups),
    }


def _facts(group: Group, groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    """Give the key figures: name, value, what to know about it."""
    facts: dict[str, tuple[str, str]] = {}
    agent, costs, dense = group.agent, cost_of(group.first), yardstick(groups, group.environment)
    if agent is not None:
        size, dense_size = agent.acting_bytes[0] / 1e3, next(iter(dense.values())) / 1e3
        name = agent.networks[0].kind
        index = f", + {agent.index_bytes[0] / 1e3:,.1f} of positions" if agent.is_sparse else ""
        facts[name[0].upper() + name[1:]] = f"{size:,.1f} kB", f"of {dense_size:,.1f} kB dense{index}"
    if group.evaluations is not None:
        returns, best = group.evaluations.returns, group.evaluations.best
        for name, which, note in (
            ("Last evaluation", -1, f"over {group.over}"),
            ("Best evaluation", best, f"at step {short(group.evaluations.steps[best])}"),
        ):
            spread = f"± {float(group.spread(returns[which])):,.3g}, " if which == -1 or len(group.runs) > 1 else ""
            facts[name] = f"{returns[which].mean():,.5g}", f"{spread}{note}"
    twins = against_dense(group)
    if twins is not None:
        facts["Against dense"] = twins
    if agent is not None:
        layers = [layer for network in agent.networks for layer in network.layers]
        live, size = (sum(counts) for counts in zip(*layers, strict=True))
        facts["Live weights"] = percent(live / size), f"{short(live)} of {short(size)}"
        net = agent.networks[0]
        dead = sum(net.shape[1:-1]) - sum(net.units[1:-1])
        facts["Dead units"] = f"{dead:,}", f"on a path: {'-'.join(map(str, net.units))} of {'-'.join(map(str, net.shape))}"
        if agent.counters:
            counts = [f"{name} {updates:,}" for name, (_, updates) in agent.counters.items()]
            facts["Topology updates"] = f"{sum(updates for _, updates in agent.counters.values()):,}", ", ".join(counts)
    shares = {name: percent(cost.amount / dense[name]) for name, cost in costs.items() if not name.endswith(ACTING_BYTES)}
    facts |= {name[0].upper() + name[1:]: (share, "of dense") for name, share in shares.items()}
    return facts | _wall_clock(group)


def _wall_clock(group: Group) -> dict[str, tuple[str, str]]:
    known = [run for run in group.runs if run.seconds is not None]
    if not known:
        return {}
    seconds = float(np.mean([run.seconds for run in known]))
    # Steps without what a continued run did elsewhere.
    rates = [run.episodes.steps[-1] / max(run.seconds or 0.0, 1e-9) for run in known if run.episodes is not None]
    return {"Wall clock": (_duration(seconds), f"{np.mean(rates):,.0f} steps/s" if rates else "")}


def _status(run: Run) -> str:
    """Say how far the run is, and which agent the pictures show."""
    steps, total = f"{run.steps:,}", run.total_steps
    of_total = f"step {steps} of {total:,} ({run.steps / total:.0%})" if total else f"step {steps}"
    if run.agent is None:
        text = f"no agent saved yet, {of_total}{_to_go(run)}"
    elif run.agent.is_final:
        text = f"trained for {steps} steps" if not total or run.steps >= total else f"ended early, at {of_total}"
        text += f"; networks as in {run.agent.path.name}"
    else:
        name, step = run.agent.path.name, run.agent.steps
        text = f"still running or cut off, at {of_total}{_to_go(run)}; networks as in {name}, of step {step:,}"
    text += f"; {untrained}" if (untrained := why_untrained(run)) else ""
    text += f"; continues {run.continues}, whose own steps are in its own folder" if run.continues else ""
    return f"{text[0].upper()}{text[1:]}."


def _to_go(run: Run) -> str:
    if run.seconds is None or run.episodes is None or not run.total_steps or run.steps >= run.total_steps:
        return ""
    return f", {_duration((run.total_steps - run.steps) * run.seconds / int(run.episodes.steps[-1]))} to go if it runs"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _settings(groups: Sequence[Group]) -> list[tuple[str, list[str], bool]]:
    """Give the zoo's settings: name, value in each group, whether they differ."""
    names = dict.fromkeys(name for group in groups for name in group.first.settings)
    rows = [(name, [str(group.first.settings.get(name, "-")) for group in groups]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in rows]


if __name__ == "__main__":
    main()
