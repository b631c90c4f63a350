"""
The paper's tables, trained and written: ``run NAME ...``, ``status``, ``report``.

A NAME is a set of cells (see ``cells.py``) or one cell. ``run`` can be killed at any moment and started again; a cell whose
file is in ``results/`` is never run twice. ``report`` writes RESULTS.md, the plots and the README's part from ``results/``; of
other --results it only prints that part. Several machines share a grid when they run the same names with the same --storage
(postgresql://..., or a journal file on a shared file system); give them the same --folder too if they can share one. To train
a finished cell again, delete its file in results/ and what --folder and --storage have of it.

Methods that need a dense network first (DENSE_FIRST.md) are ``run dense-first``; RESULTS.md has them too.

Of algorithms that the paper does not have (ALGORITHMS.md, ``run algorithms``), ``report`` writes ALGORITHMS_RESULTS.md.

The Interplay suite (INTERPLAY.md): ``run interplay-tune``, ``choose`` the settings, ``run interplay``, ``report``, which
writes INTERPLAY_RESULTS.md, for other --results into their folder. --env has all four be about an environment of your own.
"""

import argparse
import difflib
import importlib
import sys
import warnings
from pathlib import Path

import gymnasium as gym

from benchmarks.returns.cells import CELLS, SETS, Cell, use_env
from benchmarks.returns.interplay import MAIN, RUNS, is_tuned

HERE = Path(__file__).parent


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[Cell]]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.returns", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "status", "report", "choose", "work"], help="`work` is what `run` starts")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a cell, or a set: {', '.join(SETS)}")
    parser.add_argument("--cores", type=int, default=1, help="cells to train side by side, one thread each (default: 1)")
    parser.add_argument("--storage", help="what machines share (default: a journal in --folder)")
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints", help="checkpoints and trained models")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="files of finished cells")
    parser.add_argument("--checkpoint-every", type=int, default=10_000, help="steps between checkpoints (default: 10,000)")
    parser.add_argument(
        "--env", help="the environment that the sets of the Interplay suite are about, in place of MinAtar's games"
    )
    parser.add_argument("--gym-packages", nargs="+", default=[], metavar="MODULE", help="modules that register environments")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # of `work`: the process that it may not outlive
    args = parser.parse_args(arguments)
    _find_env(args, parser)
    if args.command in ("run", "work") and not args.names:
        parser.error(f"{args.command} needs the name of a set ({', '.join(SETS)}) or of a cell")
    for option in ("cores", "checkpoint_every"):
        if getattr(args, option) < 1:
            parser.error(f"--{option.replace('_', '-')}={getattr(args, option)} must be at least 1")
    for name in args.names:
        if name not in SETS and name not in CELLS:
            near = difflib.get_close_matches(name, [*SETS, *CELLS], n=1)
            parser.error(f"NAME={name!r} is neither a set nor a cell" + (f"; did you mean {near[0]!r}?" if near else ""))
    cells = [cell for name in args.names for cell in SETS.get(name, [CELLS.get(name)])]
    if args.command == "status" and args.storage and "://" not in args.storage and not Path(args.storage).exists():
        parser.error(f"--storage={args.storage!r} is not there")
    args.storage = args.storage or str(args.folder / "grid.log")
    return args, list(dict.fromkeys(cells))


def _find_env(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    for package in args.gym_packages:
        importlib.import_module(package)
    if args.env is not None:
        try:
            use_env(args.env)
        except (ValueError, gym.error.Error) as error:
            parser.error(f"--env={args.env!r}: {error}")


def own_env(args: argparse.Namespace) -> list[str]:
    """Give the arguments that say which environment the suite is about."""
    packages = ["--gym-packages", *args.gym_packages] if args.gym_packages else []
    return [*(["--env", args.env] if args.env else []), *packages]


def refuse_untuned(cells: list[Cell]) -> None:
    """
    Refuse runs that are to have the settings that tuning has chosen, before it has.

    :param cells: what is to be run
    :raises ValueError: if there are such
    """
    for cell in cells:
        run = None if cell in SETS["interplay-smoke"] else RUNS.get(cell.method)
        if run is not None and run.kind == MAIN and not is_tuned(cell.env, run.arm):
            raise ValueError(f"{cell.name} has no settings yet: `run interplay-tune`, then `choose`")


def main() -> int:
    args, cells = parse()
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", "no checkpoint at step|the run in .* goes on, but")
    if args.command == "report":
        from benchmarks import pages
        from benchmarks.returns import algorithms_report, interplay_report, report

        report.write(args.results)
        interplay_report.write(args.results)
        algorithms_report.write(args.results)
        pages.write()
        return 0
    from benchmarks.returns import grid, status
    from benchmarks.returns.training import Places

    places = Places(args.folder, args.results)
    try:
        if args.command in ("run", "work"):
            refuse_untuned(cells)
        if args.command == "choose":
            from benchmarks.returns.choose import choose

            print(choose(args.results))
            return 0
        if args.command == "status":
            print(status.overview(args.names or list(SETS), places, args.storage))
            return 0
        shared = grid.Grid(args.names, cells, args.storage, places, args.checkpoint_every, own_env(args))
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
