"""The page of short runs, from stored results."""

from typing import Any

import numpy as np

from benchmarks.budgets.runs import ARMS, BUDGETS, OWN, QUICK_START, RESULTS, Run, stored
from benchmarks.readme import README, markdown
from benchmarks.readme import write as write_page

PAGE = README.parent / "docs/results/budgets.md"
TOLERANCE = 0.1  # of the way from random to hand-set
ENOUGH = 0.8  # of the way from random to SB3's
LABELS = {"quick": "RLx2", "sb3": "SB3"}
Found = dict[Run, dict[str, Any]]


def score(result: dict[str, Any]) -> float:
    """Give the mean return of the evaluations in the last quarter of the steps."""
    return float(np.mean([row["returns"] for row in result["curve"] if row["step"] > 0.75 * result["steps"]]))


def last(result: dict[str, Any]) -> float:
    """Give the mean return of the last evaluation."""
    return float(np.mean(result["curve"][-1]["returns"]))


def text(found: Found) -> str:
    """
    Lay out what the page says.

    :param found: results by run
    """
    return "\n\n".join([_budgets(found), "## Quick start", _quick_start(found)])


def _of(found: Found, arm: str, algorithm: str, env: str, steps: int, seeds: int) -> list[dict[str, Any]]:
    runs = [Run(arm, algorithm, env, steps, seed) for seed in range(seeds)]
    return [found[run] for run in runs if run in found]


def _budgets(found: Found) -> str:
    rows = []
    for algorithm, env, steps, seeds in BUDGETS:
        arms = {arm: _of(found, arm, algorithm, env, steps, seeds) for arm in ARMS}
        complete = all(len(arms[arm]) == seeds for arm in ARMS[:2])
        for arm, results in arms.items():
            verdict = _not_worse(arms["defaults"], arms["hand-set"]) if arm == "defaults" and complete else ""
            rows.append(
                [algorithm.upper(), env, f"{steps:,}", arm, *_numbers(list(map(score, results))), _updates(results), verdict]
            )
    header = ["", "environment", "steps", "arm", "mean score", "scores by seed", "updates (actor, critic)", "not worse?"]
    return markdown(header, rows)


def _not_worse(defaults: list[dict[str, Any]], hand_set: list[dict[str, Any]]) -> str:
    own, other = (float(np.mean(list(map(score, results)))) for results in (defaults, hand_set))
    way = other - float(np.mean([result["random"] for result in (*defaults, *hand_set)]))
    word = "yes" if own >= other - TOLERANCE * way else "no"
    return f"{word} ({100 * (own - other) / way:+.0f} % of the way)"


def _updates(results: list[dict[str, Any]]) -> str:
    counts = sorted({tuple(result["updates"].values()) for result in results})
    return "; ".join(", ".join(map(str, each)) for each in counts)


def _numbers(scores: list[float]) -> list[str]:
    return [f"{np.mean(scores):,.0f}" if scores else "not run", ", ".join(f"{each:,.0f}" for each in scores)]


def _quick_start(found: Found) -> str:
    rows = []
    for algorithm in OWN:
        arms = {arm: _of(found, arm, algorithm, *QUICK_START) for arm in LABELS}
        for arm, results in arms.items():
            complete = all(len(each) == QUICK_START[-1] for each in arms.values())
            verdict = _learns(arms["quick"], arms["sb3"]) if arm == "quick" and complete else ""
            name = f"{LABELS[arm]} {algorithm.upper()}"
            rows.append([name, *_numbers(list(map(last, results))), _updates(results), verdict])
    return markdown(["", "mean of the last evaluations", "by seed", "updates (actor, critic)", "learns?"], rows)


def _learns(own: list[dict[str, Any]], host: list[dict[str, Any]]) -> str:
    random = float(np.mean([result["random"] for result in (*own, *host)]))
    share = (np.mean(list(map(last, own))) - random) / (np.mean(list(map(last, host))) - random)
    return f"{'yes' if share >= ENOUGH else 'no'} ({100 * share:.0f} % of SB3's way from random)"


def write() -> None:
    """Write the page."""
    write_page("budgets", text(stored(RESULTS)), PAGE)
