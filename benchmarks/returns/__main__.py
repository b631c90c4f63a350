"""
The paper's tables, trained and written: ``run NAME ...``, ``status``, ``report``.

A NAME is a set of cells (see ``cells.py``) or one cell. ``run`` can be killed at any moment and started again; a cell whose
file is in ``results/`` is never run twice. ``report`` writes RESULTS.md, the plots and the README's part from ``results/``; of
other --results it only prints that part. Several machines share a grid when they run the same names with the same --storage
(postgresql://..., or a journal file on a shared file system); give them the same --folder too if they can share one. To train
a finished cell again, delete its file in results/ and what --folder and --storage have of it.
"""

import argparse
import difflib
import sys
import warnings
from pathlib import Path

from benchmarks.returns.cells import CELLS, SETS, Cell

HERE = Path(__file__).parent


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[Cell]]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.returns", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "status", "report", "work"], help="`work` is what `run` starts")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a cell, or a set: {', '.join(SETS)}")
    parser.add_argument("--cores", type=int, default=1, help="cells to train side by side, one thread each (default: 1)")
    parser.add_argument("--storage", help="what machines share (default: a journal in --folder)")
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints", help="checkpoints and trained models")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="files of finished cells")
    parser.add_argument("--checkpoint-every", type=float, default=300.0, help="seconds between checkpoints (default: 300)")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # of `work`: the process that it may not outlive
    args = parser.parse_args(arguments)
    if args.command in ("run", "work") and not args.names:
        parser.error(f"{args.command} needs the name of a set ({', '.join(SETS)}) or of a cell")
    if args.cores < 1:
        parser.error(f"--cores={args.cores} must be at least 1")
    for name in args.names:
        if name not in SETS and name not in CELLS:
            near = difflib.get_close_matches(name, [*SETS, *CELLS], n=1)
            parser.error(f"NAME={name!r} is neither a set nor a cell" + (f"; did you mean {near[0]!r}?" if near else ""))
    cells = [cell for name in args.names for cell in SETS.get(name, [CELLS.get(name)])]
    if args.command == "status" and args.storage and "://" not in args.storage and not Path(args.storage).exists():
        parser.error(f"--storage={args.storage!r} is not there")
    args.storage = args.storage or str(args.folder / "grid.log")
    return args, list(dict.fromkeys(cells))


def main() -> int:
    args, cells = parse()
    warnings.filterwarnings("ignore")
    if args.command == "report":
        from benchmarks.returns.report import write

        write(args.results)
        return 0
    from benchmarks.returns import grid, status
    from benchmarks.returns.training import Places

    places = Places(args.folder, args.results)
    try:
        if args.command == "status":
            print(status.overview(args.names or list(SETS), places, args.storage))
            return 0
        shared = grid.Grid(args.names, cells, args.storage, places, args.checkpoint_every)
    except (ValueError, ConnectionError) as error:  # of the storage
        print(f"python -m benchmarks.returns: error: {error}", file=sys.stderr)
        return 2
    if args.command == "work":
        grid.behave_as_child(args.parent)
        try:
            shared.work()
        except KeyboardInterrupt:
            return 130
        return 0
    return shared.run(args.cores)


if __name__ == "__main__":
    sys.exit(main())
