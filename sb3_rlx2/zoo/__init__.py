"""RL Zoo with our algorithms: importing this package (``--gym-packages sb3_rlx2.zoo``) makes them known to it."""

from pathlib import Path

from rl_zoo3 import ALGOS

from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.zoo import search_space


def register() -> None:
    """Make the algorithms and their search spaces known to rl_zoo3, whose modules all share one dictionary."""
    ALGOS.update(ALGORITHMS)
    search_space.register()


def hyperparams_file(algo: str) -> Path:
    """
    Find our hyper-parameters: beside the modules (installed) or at the root of the repository (a clone), as the zoo does.

    :param algo: name of the algorithm in the zoo
    """
    package = Path(__file__).parents[1]
    folder = package / "hyperparams"
    return (folder if folder.is_dir() else package.parent / "hyperparams") / f"{algo}.yml"


register()
