"""Finds the dense twins of a run: ``rlx2 train --dense-twin`` with the same hyper-parameters, beside it in the log folder."""

from pathlib import Path
from typing import Any

import numpy as np

from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.report.groups import Group
from sb3_rlx2.report.run_folder import Run, read_run
from sb3_rlx2.settings import read_settings


def dense_twins(run: Run) -> list[Run]:
    """
    Find the runs that a sparse one is to be measured against: its hyper-parameters, environment and steps, but for what dense
    agents do not have, on whatever seeds.

    :param run: the run
    :return: its twins that have been evaluated
    """
    if run.arguments.get("algo") not in ALGORITHMS:
        return []
    files = sorted(run.folder.resolve().parents[1].glob("*/*/*/args.yml"))
    twins = [_read(path) for path in files]
    return [twin for twin in twins if twin is not None and twin.evaluations is not None and _shared(twin) == _shared(run)]


def _read(arguments: Path) -> Run | None:
    try:
        return read_run(arguments.parents[1]) if read_settings(arguments).get("dense_twin") else None
    except ValueError:  # another run's damage is not this one's
        return None


def _shared(run: Run) -> dict[str, Any]:
    """Give all that a run and its dense twins have in common."""
    algo = run.arguments.get("dense_twin") or run.arguments.get("algo")
    own = ALGORITHMS[algo].rlx2_keywords() if algo in ALGORITHMS else set()
    settings = {name: value for name, value in run.settings.items() if name not in own}
    return settings | run.environment_arguments | {"algo": algo, "env": run.environment, "n_timesteps": run.total_steps}


def against_dense(group: Group) -> tuple[str, str] | None:
    """
    Say how far a run, or the seeds of a group, is from its dense twins, by the last evaluations.

    :param group: the run, or runs of several seeds
    :return: the difference of the mean returns, and what to know about it; None without twins, or evaluations
    """
    returns = [twin.evaluations.returns[-1].mean() for twin in dense_twins(group.first) if twin.evaluations is not None]
    if group.evaluations is None or not returns:
        return None
    dense = float(np.mean(returns))
    seeds = "its dense twin" if len(returns) == 1 else f"{len(returns)} dense twins"
    return f"{group.evaluations.returns[-1].mean() - dense:+,.4g}", f"return, to the {dense:,.5g} of {seeds}"
