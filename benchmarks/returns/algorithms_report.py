"""Writes ``ALGORITHMS_RESULTS.md``, by the rules of ALGORITHMS.md, from stored results and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.readme import markdown
from benchmarks.returns import statistics
from benchmarks.returns.cells import METHODS, SETS
from benchmarks.returns.results import FINAL_SHARE, HERE, RESULTS, Result, Results, load_algorithms
from benchmarks.returns.statistics import Estimate
from benchmarks.returns.tables import percent

FILE = "ALGORITHMS_RESULTS.md"
READING = f"""\
By the protocol of [ALGORITHMS.md](ALGORITHMS.md): RLx2 on TQC, DDPG, CrossQ, DQN and QR-DQN, with the settings of
`hyperparams/`.

- A score is the mean return of ten greedy episodes, over the evaluations of the last {FINAL_SHARE:.0%} of the steps.
- In brackets: a 95 % bootstrap interval over seeds, and their number. From two or three seeds it is little
  more than their range.
- Minutes are wall clock with evaluations, the median over seeds, on a machine that did other work too."""
THRESHOLDS = {"0.9": "rlx2", "0.5": "threshold-0.5", "inf": "threshold-inf"}
DEFAULT = "0.9"
DECIDED_BY = ("CartPole-v1", "LunarLander-v3")
NOT_YET = "not yet: cells are missing"


@dataclass(frozen=True)
class Rule:
    """
    What is asked of a method.

    :param asked: in words
    :param holds: whether the scores of its seeds, and of dense's, satisfy it
    :param method: key of ``METHODS``
    """

    asked: str
    holds: Callable[[Sequence[float], Sequence[float]], bool]
    method: str = "rlx2"


def _at_least(score: float) -> Rule:
    return Rule(f"mean at least {score:g}", lambda own, dense: statistics.mean(own).value >= score)


RULES = {
    ("tqc", "HalfCheetah-v4"): Rule(
        "at least 90 % of dense", lambda own, dense: statistics.share_of_dense(own, dense).value >= 0.9, method="tqc-85"
    ),
    ("dqn", "LunarLander-v3"): Rule(
        "not below dense's interval", lambda own, dense: statistics.mean(own).value >= (statistics.mean(dense).low or 0.0)
    ),
    ("dqn", "CartPole-v1"): _at_least(400.0),
    ("qrdqn", "CartPole-v1"): _at_least(400.0),
    **{(algorithm, "Pendulum-v1"): _at_least(-250.0) for algorithm in ("tqc", "ddpg", "crossq")},
}


def report(folder: Path = RESULTS) -> str:
    """
    Give ``ALGORITHMS_RESULTS.md``.

    :param folder: stored results
    """
    results = load_algorithms(folder)
    cells = SETS["algorithms"]
    found = {(one.algorithm, one.env, one.method, one.seed) for one in results.found}
    missing = [cell.name for cell in cells if (cell.algorithm, cell.env, cell.method, cell.seed) not in found]
    parts = [
        "# More algorithms",
        "Written by `python -m benchmarks.returns report` from `results/`; `... run algorithms` trains.",
        READING,
        "## What was asked",
        verdicts(results),
        beside_arrays(results),
        "## The threshold for discrete actions",
        thresholds(results),
        decision(results),
        "## All cells",
        all_cells(results),
        f"Missing: {', '.join(f'`{name}`' for name in missing) or 'none'}.",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def expected(algorithm: str, env: str, method: str) -> int:
    """Give the number of seeds that a method is to have."""
    return sum((cell.algorithm, cell.env, cell.method) == (algorithm, env, method) for cell in SETS["algorithms"])


def verdicts(results: Results) -> str:
    """Lay out what was asked of each algorithm, and whether it holds; nothing is said before all its runs are there."""
    rows = []
    for (algorithm, env), rule in RULES.items():
        own, dense = (_scores(results, algorithm, env, method) for method in (rule.method, "dense"))
        wanted = [expected(algorithm, env, method) for method in (rule.method, "dense")]
        whole = (len(own), len(dense)) == tuple(wanted)
        verdict = ("yes" if rule.holds(own, dense) else "**no**") if whole else NOT_YET
        rows.append([f"{algorithm.upper()} {env}", _mean(own), _mean(dense), rule.asked, verdict])
    return markdown(["", "RLx2", "dense", "asked", "holds"], rows)


def beside_arrays(results: Results) -> str:
    """Compare with dense agents in arrays, which decide nothing."""
    lines = []
    for (algorithm, env), rule in RULES.items():
        own, dense = (_scores(results, algorithm, env, method) for method in (rule.method, "dense-arrays"))
        if own and dense:
            share = percent(statistics.share_of_dense(own, dense))
            lines.append(
                f"{algorithm.upper()} {env}: {share} of the same dense agent in this project's arrays, {_mean(dense)}, which "
                "decides nothing here."
            )
    return "\n".join(lines)


def thresholds(results: Results) -> str:
    """Lay out the returns of each threshold, and how much of the buffer was kept."""
    rows = []
    for threshold, method in THRESHOLDS.items():
        row = [threshold]
        for env in DECIDED_BY:
            found = results.where(algorithm="dqn", env=env, method=method)
            row += [_mean([one.score for one in found]), _kept(found)]
        rows.append(row)
    rows.append(["dense", *(text for env in DECIDED_BY for text in (_mean(_scores(results, "dqn", env, "dense")), "-"))])
    return markdown(["threshold", *(text for env in DECIDED_BY for text in (env, "transitions at the end"))], rows)


def decision(results: Results) -> str:
    """Say which threshold the rule of the protocol gives, and why."""
    groups = {
        threshold: [_scores(results, "dqn", env, method) for env in DECIDED_BY] for threshold, method in THRESHOLDS.items()
    }
    dense = [_scores(results, "dqn", env, "dense") for env in DECIDED_BY]
    if any(len(scores) < 3 for group in [*groups.values(), dense] for scores in group):
        return f"Decision: {NOT_YET}."
    differences = {
        threshold: statistics.difference_over(list(zip(group, groups[DEFAULT], dense, strict=True)))
        for threshold, group in groups.items()
        if threshold != DEFAULT
    }
    better = {name: one.value for name, one in differences.items() if one.low is not None and one.low > 0}
    chosen = max(better, key=lambda name: better[name]) if better else DEFAULT
    shown = "; ".join(
        f"{name}: {_signed(100 * one.value)} % of dense ({_signed(100 * (one.low or 0))} to {_signed(100 * (one.high or 0))})"
        for name, one in differences.items()
    )
    return f"Decision: **{chosen}**. Differences to {DEFAULT}, averaged over the two environments: {shown}."


def all_cells(results: Results) -> str:
    """List the finished runs by algorithm, environment and method."""
    rows = []
    for algorithm, env, steps, method in results.keys(lambda one: (one.algorithm, one.env, one.steps, one.method)):
        found = results.where(algorithm=algorithm, env=env, steps=steps, method=method)
        rows.append(
            [
                algorithm.upper(),
                env,
                f"{steps:,}",
                METHODS[method].label,
                ", ".join(f"{one.score:,.0f}" for one in found),
                _share(found, "weights"),
                _share(found, "training_flops"),
                f"{median(one.about['seconds'] for one in found) / 60:.1f}",
            ]
        )
    header = [
        "",
        "environment",
        "steps",
        "method",
        "scores, by seed",
        "weights, of dense",
        "training FLOPs, of dense",
        "minutes",
    ]
    return markdown(header, rows) if rows else "No cell is finished yet."


def _scores(results: Results, algorithm: str, env: str, method: str) -> list[float]:
    return [one.score for one in results.where(algorithm=algorithm, env=env, method=method)]


def _mean(scores: Sequence[float]) -> str:
    if not scores:
        return "-"
    estimate: Estimate = statistics.mean(scores)
    seeds = f"{estimate.seeds} seed{'s' if estimate.seeds > 1 else ''}"
    interval = seeds if estimate.low is None else f"{estimate.low:,.0f} to {estimate.high:,.0f}, {seeds}"
    return f"{estimate.value:,.0f} ({interval})"


def _kept(found: Sequence[Result]) -> str:
    kept = [trace[-1] for one in found if (trace := one.trace("buffer")) is not None]
    return ", ".join(f"{int(each):,}" for each in kept) or "-"


def _share(found: Sequence[Result], name: str) -> str:
    share = found[0].relative_cost(name)
    return "-" if share is None else f"{share:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.1f}"


def write(folder: Path = RESULTS) -> None:
    """
    Write the report, of other results than the repository's into their folder.

    :param folder: stored results
    """
    if load_algorithms(folder).found:
        (HERE if folder.resolve() == RESULTS.resolve() else folder).joinpath(FILE).write_text(report(folder))
