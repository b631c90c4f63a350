"""The page of short runs, from stored results."""

from typing import Any

import numpy as np

from benchmarks.budgets.runs import QUICK_START, RESULTS, ROUNDS, Comparison, Run, stored
from benchmarks.readme import README, markdown
from benchmarks.readme import write as write_page

PAGE = README.parent / "docs/results/budgets.md"
TOLERANCE = 0.1  # of the way from random to what is compared with
ENOUGH = 0.8  # of the way from random to SB3's
LABELS = {"first quick": "RLx2, first defaults,", "quick": "RLx2", "sb3": "SB3"}
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
    rounds = [part for title, comparisons in ROUNDS.items() for part in (f"## {title}", _round(found, comparisons))]
    return "\n\n".join([*rounds, "## Quick start", _quick_start(found)])


def _of(found: Found, compared: Comparison) -> dict[str, list[dict[str, Any]]]:
    return {arm: [found[run] for run in compared.of(arm) if run in found] for arm in compared.arms}


def _round(found: Found, comparisons: list[Comparison]) -> str:
    rows = []
    for compared in comparisons:
        arms = _of(found, compared)
        own, other = compared.arms[:2]
        complete = all(len(arms[arm]) == len(compared.seeds) for arm in (own, other))
        verdict = _not_worse(arms[own], arms[other], other) if complete else ""
        for arm, results in arms.items():
            about = [compared.algorithm.upper(), compared.env, f"{compared.steps:,}", arm]
            rows.append([*about, *_numbers(list(map(score, results))), _updates(results), verdict if arm == own else ""])
    header = ["", "environment", "steps", "arm", "mean score", "scores by seed", "updates (actor, critic)", "not worse?"]
    return markdown(header, rows)


def _not_worse(own: list[dict[str, Any]], other: list[dict[str, Any]], name: str) -> str:
    mean, reference = (float(np.mean(list(map(score, results)))) for results in (own, other))
    way = reference - float(np.mean([result["random"] for result in (*own, *other)]))
    word = "yes" if mean >= reference - TOLERANCE * way else "no"
    return f"{word} ({round(100 * (mean - reference) / way):+d} % of the way, beside {name})"


def _updates(results: list[dict[str, Any]]) -> str:
    counts = sorted({tuple(result["updates"].values()) for result in results})
    return "; ".join(", ".join(map(str, each)) for each in counts)


def _numbers(scores: list[float]) -> list[str]:
    return [f"{np.mean(scores):,.0f}" if scores else "not run", ", ".join(f"{each:,.0f}" for each in scores)]


def _quick_start(found: Found) -> str:
    rows = []
    for compared in QUICK_START:
        arms = _of(found, compared)
        for arm, results in arms.items():
            complete = len(results) == len(arms["sb3"]) == len(compared.seeds)
            verdict = _learns(results, arms["sb3"]) if arm != "sb3" and complete else ""
            name = f"{LABELS[arm]} {compared.algorithm.upper()}"
            rows.append([name, *_numbers(list(map(last, results))), _updates(results), verdict])
    return markdown(["", "mean of the last evaluations", "by seed", "updates (actor, critic)", "learns?"], rows)


def _learns(own: list[dict[str, Any]], host: list[dict[str, Any]]) -> str:
    random = float(np.mean([result["random"] for result in (*own, *host)]))
    share = (np.mean(list(map(last, own))) - random) / (np.mean(list(map(last, host))) - random)
    return f"{'yes' if share >= ENOUGH else 'no'} ({100 * share:.0f} % of SB3's way from random)"


def write() -> None:
    """Write the page."""
    write_page("budgets", text(stored(RESULTS)), PAGE)
