"""
Tries faults, many of them: ``python -m benchmarks.torture run [CLASS ...] --minutes M``, ``case CLASS NUMBER``, ``report``.

``run`` may be ended and started again at any time: it goes on behind the cases that are stored, until there are as many as a
whole torture has (days). ``case`` runs one again, with its traceback. ``report`` writes the page and the README's row.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.torture import report
from benchmarks.torture.faults import FAULTS, run_case
from benchmarks.torture.results import RESULTS, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="try faults")
    running.add_argument("classes", nargs="*", metavar="CLASS", help=f"of {', '.join(FAULTS)} (all)")
    running.add_argument("--minutes", type=float, default=float("inf"), help="how long (until all are done)")
    running.add_argument("--results", type=Path, default=RESULTS, help="folder to store results in")
    one = commands.add_parser("case", help="run one case")
    one.add_argument("name", choices=FAULTS)
    one.add_argument("number", type=int)
    commands.add_parser("report", help="write the page and the README's row")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as work:
        if args.command == "run":
            unknown = set(args.classes) - FAULTS.keys()
            if unknown:
                parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(FAULTS)}")
            if not args.minutes > 0:
                parser.error(f"--minutes {args.minutes} must be > 0")
            run(args.classes or list(FAULTS), args.minutes, Path(work), args.results)
        elif args.command == "case":
            print(dict(run_case(args.name, args.number, Path(work, args.name))))
        else:
            report.write()


if __name__ == "__main__":
    main()
