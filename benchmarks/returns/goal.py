"""Whether agents are as good as dense, and how long it takes them: by the rules of PROTOCOL.md (B2 and its last paragraph)."""

import math
from collections.abc import Callable, Sequence
from statistics import mean, median

from benchmarks.readme import markdown
from benchmarks.returns import screening, statistics
from benchmarks.returns.cells import METHODS, MILLION, MUJOCO
from benchmarks.returns.results import Result, Results
from benchmarks.returns.tables import BELOW, NONE, percent

SEEDS = 3  # of each side, at least
JUDGED = ("rlx2", "live")
CELLS = [(algorithm, env) for algorithm in ("td3", "sac") for env in MUJOCO]  # of the paper's Table 2


def verdict(scores: Sequence[float], dense: Sequence[float]) -> str:
    """
    Say whether the goal is reached.

    :param scores: of each seed
    :param dense: of each seed of the dense agent, by the same rule
    """
    lacking = [name for name, side in (("own", scores), ("dense", dense)) if len(side) < SEEDS]
    if not (scores and dense):
        return f"too few seeds ({len(scores)} / {len(dense)})"
    estimate = statistics.share_of_dense(scores, dense)
    if lacking:
        return f"too few seeds: {percent(estimate)}"
    assert estimate.low is not None
    reached = estimate.value >= 1.0 and estimate.low >= BELOW
    return f"{'reached' if reached else 'not reached'}: {percent(estimate)}"


def verdicts(results: Results) -> str:
    """Lay out the verdict on each of the eight cells, for the current policy and for the deployed one."""
    chosen = screening.deployed(results)
    ways: list[tuple[str, str, Callable[[Result], float | None]]] = [
        (f"{METHODS[method].label}, current policy", method, lambda one: one.score) for method in JUDGED
    ]
    if chosen is not None:
        ways += [
            (f"{METHODS[method].label}, deployed policy ({chosen})", method, lambda one: _deployed_score(one, chosen))
            for method in JUDGED
        ]
    rows = []
    for algorithm, env in CELLS:
        row = [f"{algorithm.upper()} {env}"]
        for _, method, score in ways:
            own, dense = (
                [value for one in _found(results, each, algorithm, env) if (value := score(one)) is not None]
                for each in (method, "dense")
            )
            row.append(verdict(own, dense))
        rows.append(row)
    return markdown(["", *(label for label, _, _ in ways)], rows)


def _deployed_score(one: Result, name: str) -> float | None:
    return one.deployed[name].score() if name in one.deployed else None


def _found(results: Results, method: str, algorithm: str, env: str) -> list[Result]:
    return results.where(method=method, algorithm=algorithm, env=env, steps=MILLION, sparsity=None)


def hours_to_dense(results: Results) -> str | None:
    """Lay out the hours until runs hold the return of dense, of dense and of sparse agents; None without a dense agent."""
    rows = []
    for algorithm, env in CELLS:
        dense = _found(results, "dense", algorithm, env)
        if not dense:
            continue
        goal = aim(dense)
        found = [_hours(_found(results, method, algorithm, env), goal) for method in ("dense", *JUDGED)]
        rows.append([f"{algorithm.upper()} {env}", f"{goal:,.0f}", *found])
    header = ["", f"{BELOW:.0%} of dense's return", *(METHODS[method].label for method in ("dense", *JUDGED))]
    return markdown(header, rows) if rows else None


def aim(dense: Sequence[Result]) -> float:
    """Give the return that is to be held."""
    return BELOW * mean(one.score for one in dense)


def median_hours(found: Sequence[Result], goal: float) -> float:
    """Give the hours until runs hold a return, infinity for one that never does."""
    return median(math.inf if each is None else each for each in (one.hours_to(goal) for one in found))


def _hours(found: Sequence[Result], goal: float) -> str:
    if not found:
        return NONE
    held = sum(one.hours_to(goal) is not None for one in found)
    middle = median_hours(found, goal)
    return f"{'not held' if math.isinf(middle) else f'{middle:.2f} h'} ({held} of {len(found)} runs)"
