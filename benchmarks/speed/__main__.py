"""
Measures speed against stock SB3 and SBX: ``python -m benchmarks.speed run [SECTION ...]``, then ``report``.

Each section ends with a JSON of its own in ``results/``. ``report`` writes the README's table and ``RESULTS.md`` from them.
"""

import argparse
from pathlib import Path

from benchmarks.speed.measure import RESULTS, Bench, find_sbx
from benchmarks.speed.sections import SECTIONS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--repeats", type=int, default=7, help="rounds in which the variants take turns (default: 7)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual work; 0.02 to see whether it runs")
    parser.add_argument("--earlier", type=Path, metavar="CHECKOUT", help="of an earlier commit, for the section of this name")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to store results in")
    args = parser.parse_args()
    unknown = set(args.sections) - SECTIONS.keys()
    if unknown:
        parser.error(f"unknown sections {sorted(unknown)}; there are {', '.join(SECTIONS)}")
    if args.repeats < 1 or not 0 < args.scale <= 1:
        parser.error(f"--repeats {args.repeats} must be >= 1, and --scale {args.scale} in (0, 1]")
    if args.command == "report":
        from benchmarks.speed.report import write

        write(args.results)
        return
    if args.earlier is None and "earlier" in args.sections:
        parser.error("the section earlier needs --earlier CHECKOUT, of an earlier commit")
    bench = Bench(args.repeats, args.scale, args.results, find_sbx(), args.earlier and args.earlier.resolve())
    for name in args.sections or [each for each in SECTIONS if each != "earlier" or args.earlier]:
        print(f"{name} ...", flush=True)
        bench.store(name, SECTIONS[name])


if __name__ == "__main__":
    main()
