"""
Sparse networks on given data: ``python -m benchmarks.offline run [ENV ...]``, ``report``.

``run`` collects data that are not there and trains what is in no file of results/ yet, one run after the other; PROTOCOL.md
says what. What was killed begins anew, with the same result; the agent that collects goes on. ``report`` writes the page.
"""

import argparse
import warnings
from pathlib import Path

from benchmarks.offline import report
from benchmarks.offline.data import RECIPES, collect
from benchmarks.offline.runs import HERE, RESULTS, RUNS, stored, train


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.offline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train what is missing")
    running.add_argument("envs", nargs="*", metavar="ENV", help=f"of {', '.join(RECIPES)} (default: all)")
    running.add_argument("--results", type=Path, default=RESULTS, help="folder to store results in")
    running.add_argument("--folder", type=Path, default=HERE / "work", help="folder of data and of what collects them")
    commands.add_parser("report", help="write docs/results/offline.md")
    args = parser.parse_args(arguments)
    if args.command == "report":
        report.write()
        return
    for env in args.envs:
        if env not in RECIPES:
            parser.error(f"ENV={env!r} must be one of {', '.join(RECIPES)}")
    warnings.filterwarnings("ignore")
    for env in args.envs or RECIPES:
        print(f"data of {env} ...", flush=True)
        episodes, about = collect(RECIPES[env], args.folder, args.results)
        done = stored(args.results)
        for run in RUNS:
            if run.env == env and run not in done:
                print(f"{run.name} ...", flush=True)
                train(run, RECIPES[env], episodes, about, args.results)


if __name__ == "__main__":
    main()
