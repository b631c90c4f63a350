"""Reads the command line of `rlx2 report`, and lays out the page."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from tqdm import tqdm

from sb3_rlx2 import __version__
from sb3_rlx2.report.networks import cost_rows
from sb3_rlx2.report.run_folder import Run, RunError, read_run
from sb3_rlx2.report.sections import SECTIONS
from sb3_rlx2.report.style import colour_of, label, short, style


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="rlx2 report", description="Write one self-contained HTML page of a run, or of several side by side."
    )
    parser.add_argument("folders", metavar="LOGDIR", nargs="+", type=Path, help="folder of a run, as logs/rlx2td3/Hopper-v5_1")
    parser.add_argument("-o", "--output", type=Path, help="the page (default: report.html in the folder that holds all runs)")
    args = parser.parse_args()
    try:
        runs = [read_run(folder) for folder in {folder.resolve(): folder for folder in args.folders}.values()]
        output = args.output or Path(os.path.commonpath([folder.resolve() for folder in args.folders])) / "report.html"
        if not output.parent.is_dir():
            raise RunError(f"--output={output}: the folder {output.parent} does not exist")
        write(output, page(runs))
    except (RunError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    print(f"Report: {output} ({output.stat().st_size / 1e3:,.0f} kB)")


def write(path: Path, text: str) -> None:
    """
    Write a file whole or not at all.

    :param path: the file
    :param text: its content
    """
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def page(runs: Sequence[Run]) -> str:
    """
    Make the page.

    :param runs: the runs, in the order in which they are to stand
    :return: HTML that needs no other file
    """
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    with style():
        sections = [section(runs) for section in tqdm(SECTIONS, desc="pictures", leave=False)]
    algorithms = sorted({run.algorithm for run in runs})
    environments = sorted({run.environment for run in runs})
    return environment.get_template("page.html").render(
        facts=list(dict.fromkeys(name for run in runs for name in _facts(run))),
        title=f"{' and '.join(algorithms)} on {' and '.join(environments)}",
        runs=[_describe(run, runs) for run in runs],
        sections=sections,
        settings=_settings(runs),
        version=__version__,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _describe(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """Give what stands at the head of the page for a run."""
    return {
        "label": label(run, runs),
        "colour": colour_of(run, runs),
        "folder": str(run.folder),
        "algorithm": run.algorithm,
        "environment": run.environment,
        "seed": run.arguments.get("seed", (run.agent.settings if run.agent else {}).get("seed")),
        "status": _status(run),
        "facts": _facts(run),
    }


def _facts(run: Run) -> dict[str, tuple[str, str]]:
    """Give the key figures: name, value, what to know about it."""
    facts: dict[str, tuple[str, str]] = {}
    if run.evaluations is not None:
        last, best = run.evaluations.returns[-1], run.evaluations.best
        facts["Last evaluation"] = f"{last.mean():,.5g}", f"± {last.std():,.3g} over {len(last)} episodes"
        facts["Best evaluation"] = f"{run.evaluations.means[best]:,.5g}", f"at step {short(run.evaluations.steps[best])}"
    if run.agent is not None and run.agent.networks:
        layers = [layer for network in run.agent.networks for layer in network.layers]
        live, size = (sum(counts) for counts in zip(*layers, strict=True))
        facts["Live weights"] = f"{live / size:.1%}", f"{short(live)} of {short(size)}"
    facts |= {name[0].upper() + name[1:]: (f"{share:.1%}", "of dense") for name, share, _ in cost_rows(run)}
    if run.seconds is not None:
        here = 0 if run.episodes is None else run.episodes.steps[-1]  # without what a continued run did elsewhere
        facts["Wall clock"] = _duration(run.seconds), f"{here / max(run.seconds, 1e-9):,.0f} steps/s"
    return facts


def _status(run: Run) -> str:
    """Say how far the run is, and which agent the pictures show."""
    steps, total = f"{run.steps:,}", run.total_steps
    of_total = f"step {steps} of {total:,} ({run.steps / total:.0%})" if total else f"step {steps}"
    if run.agent is None:
        text = f"no agent saved yet, {of_total}"
    elif run.agent.is_final:
        text = f"trained for {steps} steps" if not total or run.steps >= total else f"ended early, at {of_total}"
        text += f"; networks as in {run.agent.path.name}"
    else:
        text = f"still running or cut off, at {of_total}; networks as in {run.agent.path.name}, of step {run.agent.steps:,}"
    return text + (f"; continues {run.continues}, whose own steps are in its own folder" if run.continues else "")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _settings(runs: Sequence[Run]) -> list[tuple[str, list[str], bool]]:
    """Give the zoo's settings: name, value in each run, whether they differ."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    rows = [(name, [str(run.settings.get(name, "-")) for run in runs]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in rows]


if __name__ == "__main__":
    main()
