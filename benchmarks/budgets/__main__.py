"""
What RLx2 does in the short runs of users: ``python -m benchmarks.budgets run``, ``report``.

``run`` trains what is in no file of results/ yet, one run after the other; PROTOCOL.md says what. ``report`` writes the page.
"""

import argparse
import warnings
from pathlib import Path

from benchmarks.budgets import report
from benchmarks.budgets.runs import RESULTS, RUNS, stored, train


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budgets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train what is missing")
    running.add_argument("--results", type=Path, default=RESULTS, help="folder to store results in")
    commands.add_parser("report", help="write docs/results/budgets.md")
    args = parser.parse_args()
    if args.command == "report":
        report.write()
        return
    warnings.filterwarnings("ignore")
    done = stored(args.results)
    for run in RUNS:
        if run not in done:
            print(f"{run.name} ...", flush=True)
            train(run, args.results)


if __name__ == "__main__":
    main()
