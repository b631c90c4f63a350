"""The page on given data, from stored results."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.offline.data import MEDIUM, RECIPES
from benchmarks.offline.runs import ARMS, RESULTS, SEEDS, Run, score, stored, stored_data
from benchmarks.readme import README, markdown
from benchmarks.readme import write as write_page
from benchmarks.returns import statistics
from benchmarks.returns.statistics import Estimate

PAGE = README.parent / "docs/results/offline.md"
HOLDS = 0.95  # of dense's mean score
NOT_YET = "not yet: runs are missing"
Data = dict[str, dict[str, Any]]
Found = dict[Run, dict[str, Any]]


def text(found: Found, data: Data) -> str:
    """
    Lay out what the page says.

    :param found: results by run
    :param data: what is stored about data, by environment
    """
    missing = [run.name for env in RECIPES for arm in ARMS for run in _runs(env, arm) if run not in found]
    names = ", ".join(f"`{name}`" for name in missing) or "none"
    return "\n\n".join([_scores(found, data), f"Missing: {names}.", "## Data", _data(data)])


def _runs(env: str, arm: str) -> list[Run]:
    return [Run(env, arm, seed) for seed in SEEDS]


def relative(value: float, about: dict[str, Any]) -> float:
    """
    Give a return in units of the behaviour policy's: 0 is that of random actions, 1 its own.

    :param value: the return
    :param about: what is stored about its data
    """
    return (value - about["random"]) / (about["behaviour"] - about["random"])


def scores(found: Found, data: Data, env: str, arm: str) -> list[float]:
    """
    Give the scores of an arm's seeds, relative to the behaviour policy.

    :param found: results by run
    :param data: what is stored about data, by environment
    :param env: environment
    :param arm: key of ``ARMS``
    :raises ValueError: if a run had other data
    """
    results = [found[run] for run in _runs(env, arm) if run in found]
    for result in results:
        if result["data"] != data[env]["sha256"]:
            raise ValueError(f"{env}_{arm}_seed{result['seed']} had other data than data_{env}.json is about")
    return [relative(score(result), data[env]) for result in results]


def _scores(found: Found, data: Data) -> str:
    rows = []
    for env in RECIPES:
        by_arm = {arm: scores(found, data, env, arm) for arm in ARMS}
        for arm, own in by_arm.items():
            results = [found[run] for run in _runs(env, arm) if run in found]
            verdict = _holds(by_arm) if arm == "sparse" else ""
            returns = ", ".join(f"{score(result):,.0f}" for result in results)
            rows.append([env, arm, _mean(own), returns or "-", _links(results), _minutes(results), verdict])
    header = ["environment", "", "score, relative to the behaviour policy", "returns, by seed", "links", "minutes"]
    return markdown([*header, "holds dense's?"], rows)


def _holds(by_arm: dict[str, list[float]]) -> str:
    if any(len(own) < len(SEEDS) for own in by_arm.values()):
        return NOT_YET
    dense, sparse = (float(np.mean(by_arm[arm])) for arm in ("dense", "sparse"))
    return f"{'yes' if sparse >= HOLDS * dense else 'no'} ({sparse / dense:.0%} of dense's)"


def _mean(own: Sequence[float]) -> str:
    if not own:
        return "missing"
    estimate: Estimate = statistics.mean(own)
    interval = "" if estimate.low is None else f"{estimate.low:.2f} to {estimate.high:.2f}, "
    return f"{estimate.value:.2f} ({interval}{len(own)} seed{'s' if len(own) > 1 else ''})"


def _links(results: Sequence[dict[str, Any]]) -> str:
    if not results:
        return "-"
    live, size = (sum(counts[at] for counts in results[0]["weights"].values()) for at in (0, 1))
    return f"{live / size:.0%}"


def _minutes(results: Sequence[dict[str, Any]]) -> str:
    return f"{np.median([result['seconds'] for result in results]) / 60:.1f}" if results else "-"


def _data(data: Data) -> str:
    rows = []
    for env, recipe in RECIPES.items():
        about = data.get(env)
        if about is None:
            rows.append([env, "not collected", *["-"] * 6])
            continue
        agent, share = about["agent"], about["share"]
        within = "" if MEDIUM[0] <= share <= MEDIUM[1] else ", outside a third to a half"
        rows.append(
            [
                env,
                f"seed {agent['seed']}, {agent['step']:,} steps",
                f"{agent['evaluation']:,.0f}",
                f"{about['behaviour']:,.0f}",
                f"{about['random']:,.0f} / {recipe.whole:,.0f}",
                f"{share:.0%}{within}",
                f"{about['transitions']:,} in {about['episodes']:,} episodes",
                f"`{about['sha256'][:16]}`",
            ]
        )
    header = ["environment", "agent", "its evaluation", "return of the data", "random / whole", "of the way", "transitions"]
    return markdown([*header, "SHA-256 begins with"], rows)


def write() -> None:
    """Write the page."""
    write_page("offline", text(stored(RESULTS), stored_data(RESULTS)), PAGE)
