"""The command line of ``rlx2 compress``; options that ``rlx2 train`` has too are spelled as there."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_zoo3.utils import StoreDict

from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.compress.search import FRESH_SEEDS
from sb3_rlx2.compress.training import OBJECTIVES
from sb3_rlx2.validation import check_integer, check_number

NOTHING_WITHIN_TOLERANCE = 3
DESCRIPTION = """Find the smallest agent whose return stays within a tolerance of dense. The same command continues an
interrupted search; run elsewhere with the same --storage, it takes part in it."""
EXIT_STATUS = f"""exit status: 0 if an agent was found; {NOTHING_WITHIN_TOLERANCE} if none is within tolerance (table and
plot are written all the same); 1 or 2 after an error; 130 after Ctrl-C"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser."""
    parser = argparse.ArgumentParser(prog="rlx2 compress", description=DESCRIPTION, epilog=EXIT_STATUS)
    _add_training(parser.add_argument_group("trainings, as in rlx2 train"))
    _add_search(parser.add_argument_group("search"))
    _add_dense(parser.add_argument_group("dense reference").add_mutually_exclusive_group())
    return parser


def _add_search(group: Any) -> None:
    add, whole, seeds = group.add_argument, _checked(check_integer, float, 1), _checked(_check_seeds, int)
    density = _checked(check_number, float, 1e-4, 1.0)
    tolerance = _checked(check_number, float, 0.0, 1.0, high_included=False)
    add("--tolerance", type=tolerance, default=0.03, help="share of dense's score that may be lost (%(default)s)")
    add("--n-trials", type=seeds, default=30, help="trainings of the search, over all workers (%(default)s)")
    add("--n-seeds", type=seeds, default=5, help="fresh seeds of a finalist, and seeds of the dense reference (%(default)s)")
    add("--n-finalists", type=whole, default=8, help="finalists at most (%(default)s)")
    add("--min-density", type=density, default=0.01, help="lowest density of a network (%(default)s)")
    add("--max-density", type=density, default=0.5, help="highest density of a network (%(default)s)")
    what = "what is to be small: all networks with their targets, or the actor alone, which is deployed (%(default)s)"
    add("--objective", choices=[*OBJECTIVES], default="all", help=what)
    add("--max-bytes", type=whole, metavar="BYTES", help="bytes that the parameters of it may have (as many as it takes)")
    add("-f", "--log-folder", default="logs/compress", help="folder of results (%(default)s)")
    add("--storage", help="postgresql://..., sqlite:///FILE.db or FILE.log that workers share (a journal among the results)")
    add("--study-name", help="name of the search in the storage (ALGO-ENV)")


def _add_dense(group: Any) -> None:
    returns = "mean return of the dense agent, one per seed, instead of training it"
    group.add_argument("--dense-return", type=float, nargs="+", default=[], metavar="RETURN", help=returns)
    logs = "folder that holds, in it or below, evaluations.npz of dense runs, instead of training them"
    group.add_argument("--dense-logs", type=Path, metavar="FOLDER", help=logs)


def _add_training(group: Any) -> None:
    add, whole = group.add_argument, _checked(check_integer, float, 1)
    add("--algo", choices=list(ALGORITHMS), required=True, help="algorithm")
    add("--env", required=True, help="environment ID")
    add("-n", "--n-timesteps", type=whole, default=0, help="steps of one training (those of the hyper-parameter file)")
    add("--n-evaluations", type=whole, default=10, help="evaluations, at which a hopeless training is stopped (%(default)s)")
    add("--eval-episodes", type=whole, default=10, help="episodes of an evaluation (%(default)s)")
    add("--seed", type=_checked(check_integer, int, 0), default=0, help="first seed (%(default)s)")
    add("-conf", "--conf-file", help="hyper-parameter file (ours)")
    params = "replace hyper-parameters, e.g. learning_rate:0.01"
    add("-params", "--hyperparams", nargs="+", action=StoreDict, default={}, metavar="NAME:VALUE", help=params)
    add("--env-kwargs", nargs="+", action=StoreDict, default={}, metavar="NAME:VALUE", help="arguments of the environment")
    add("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    add("--vec-env", choices=["dummy", "subproc"], default="dummy", help="vectorised environment (%(default)s)")
    add("--device", default="auto", help="PyTorch device (%(default)s)")
    deployed = "judge the policies that a callback of sb3_rlx2.deploy has chosen, instead of the last ones"
    add("--deployed", action="store_true", help=deployed)
    add("--num-threads", type=int, default=-1, help="threads of PyTorch (-1: its default)")


def _checked(check: Callable[..., Any], convert: Callable[[str], Any], *limits: Any, **more: Any) -> Callable[[str], Any]:
    """Make a check one that argparse calls, and reports with the option's name."""

    def parse(text: str) -> Any:
        try:
            return check("value", convert(text), *limits, **more)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def _check_seeds(argument: str, value: int) -> int:
    if not 2 <= value < FRESH_SEEDS:
        raise ValueError(f"{argument}={value!r} must be an integer in [2, {FRESH_SEEDS})")
    return value
