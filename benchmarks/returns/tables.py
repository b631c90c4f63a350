"""The tables, from stored results and nothing else."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean, median

from benchmarks.readme import markdown
from benchmarks.returns import paper, statistics
from benchmarks.returns.cells import (
    ABLATIONS,
    METHODS,
    MILLION,
    MUJOCO,
    OURS,
    PENDULUM,
    PENDULUM_SEARCH,
    PENDULUM_SPARSITY,
    SETS,
    TABLE_3_TOPOLOGY,
)
from benchmarks.returns.results import FINAL_SHARE, Result, Results
from benchmarks.returns.statistics import Estimate, Pair

NONE = "-"
ALONE = "\N{DAGGER}"  # marks a return that has no dense partner
PAPER = "paper"  # heads a row of its figures
SPARSE = ("tiny", "static", "set", "rigl", "rlx2")  # the paper's columns
BELOW = 0.97  # share of dense that RLx2 reaches in each of the paper's TD3 rows, and below which a result needs a reason


def percent(estimate: Estimate) -> str:
    """Show a share of dense in percent, its interval and its seeds."""
    return f"**{100 * estimate.value:.1f} %** ({_interval(estimate, lambda share: f'{100 * share:.1f}')})"


def _mean(scores: Sequence[float]) -> str:
    estimate = statistics.mean(scores)
    return f"{estimate.value:,.0f} ({_interval(estimate, '{:,.0f}'.format)})"


def _interval(estimate: Estimate, show: Callable[[float], str]) -> str:
    of_dense = "" if estimate.dense_seeds is None else f" / {estimate.dense_seeds}"
    seeds = f"{estimate.seeds}{of_dense} seed{'' if estimate.seeds == 1 and not of_dense else 's'}"
    return seeds if estimate.low is None else f"{show(estimate.low)} to {show(estimate.high)}, {seeds}"


def _scores(found: Sequence[Result]) -> list[float]:
    return [one.score for one in found]


def pair(results: Results, method: str, algorithm: str, env: str, steps: int) -> Pair:
    """Give the scores of a method and of its dense partner, empty where there is none."""
    group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
    return _scores(results.where(method=method, **group)), _scores(results.where(method="dense", **group))


def return_cell(results: Results, method: str, algorithm: str, env: str, steps: int) -> str:
    """Show a method's return relative to dense, or as it is and marked if there is no dense partner."""
    own, dense = pair(results, method, algorithm, env, steps)
    if not own:
        return NONE
    return percent(statistics.share_of_dense(own, dense)) if dense else f"{_mean(own)} {ALONE}"


def paper_cell(figure: float | None) -> str:
    """Show a figure of the paper."""
    return NONE if figure is None else f"{figure:g}"


def noted(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a table, and say below it what a mark in it means."""
    table = markdown(header, rows)
    return f"{table}\n\n{ALONE} a return, not a share: there is no dense partner yet." if ALONE in table else table


def lengths(results: Results) -> list[int]:
    """Give the numbers of steps for which there is a MuJoCo cell of the tables."""
    return sorted({one.steps for one in results.found if one.env in MUJOCO and one.steps >= 1_000_000})


def rows_of(results: Results, steps: int) -> list[tuple[str, str]]:
    """Give the pairs of algorithm and environment that have a cell of this length, in the paper's order."""
    pairs = [(algorithm, env) for algorithm in ("td3", "sac") for env in MUJOCO]
    return [pair for pair in pairs if results.where(algorithm=pair[0], env=pair[1], steps=steps)]


def sparse_methods(results: Results, steps: int) -> list[str]:
    """Give the columns of Table 2: the paper's, and those of ours that have a cell of this length."""
    return [*SPARSE, *(method for method in OURS if results.where(method=method, steps=steps))]


def table_2(results: Results, steps: int) -> str:
    """Lay out the paper's Table 2, with wall-clock time and the dense agent's return besides, over the paper's figures."""
    header = ["", "sparsity of actor / critic", "total size", "FLOPs, training", "exactly", "FLOPs, inference", "hours"]
    methods = sparse_methods(results, steps)
    header += ["hours, dense", "Dense, return", *(METHODS[method].label for method in methods)]
    rows = []
    for algorithm, env in rows_of(results, steps):
        group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
        dense = _scores(results.where(method="dense", **group))
        row = [f"{algorithm.upper()} {env}", *costs(results, group), _mean(dense) if dense else "missing"]
        rows.append(row + [return_cell(results, method, algorithm, env, steps) for method in methods])
        size, training, inference = (
            paper_cell(paper.cost(algorithm, env, what)) for what in ("size", "training", "inference")
        )
        row = [PAPER, NONE, size, training, NONE, inference, NONE, NONE, NONE]
        rows.append(row + [paper_cell(paper.returns(algorithm, env, method)) for method in methods])
    return noted(header, rows)


def costs(results: Results, group: dict[str, object]) -> list[str]:
    """Show sparsities, size, FLOPs and hours of RLx2 (of another sparse method where it has not been trained)."""
    found = [one for method in ("rlx2", "rigl", "set", "static") for one in results.where(method=method, **group)]
    hours = [_hours(results.where(method=method, **group)) for method in ("rlx2", "dense")]
    if not found:
        return [NONE] * 5 + hours
    one = found[0]
    sparsities = " / ".join(f"{one.about['arguments'][f'{name}_sparsity']:.0%}" for name in ("actor", "critic"))
    costs = [one.relative_cost(f) for f in ("weights", "paper_training_flops", "training_flops", "inference_flops")]
    return [sparsities, *(NONE if cost is None else f"{cost:.3f}" for cost in costs), *hours]


def _hours(found: Sequence[Result]) -> str:
    return f"{median(one.about['seconds'] for one in found) / 3600:.2f}" if found else NONE


def aggregate(results: Results, steps: int) -> str:
    """Lay out the interquartile mean of each method over environments."""
    rows = []
    for algorithm in ("td3", "sac"):
        for method in sparse_methods(results, steps):
            pairs = pairs_with_dense(results, method, algorithm, steps)
            if pairs:
                shown = percent(statistics.interquartile_mean(list(pairs.values())))
                rows.append([algorithm.upper(), METHODS[method].label, shown, ", ".join(pairs)])
    return markdown(["", "", "interquartile mean, of dense", "over"], rows) if rows else "No cell has a dense partner yet."


def pairs_with_dense(results: Results, method: str, algorithm: str, steps: int) -> dict[str, Pair]:
    """Give the scores of a method and of dense by environment, where there are both."""
    pairs = {env: pair(results, method, algorithm, env, steps) for env in MUJOCO}
    return {env: both for env, both in pairs.items() if all(both)}


def table_3(results: Results, steps: int) -> str:
    """
    Lay out the paper's Table 3 over the paper's figures, and below it those buffers and delays that have been trained, of
    which the paper has curves only.
    """
    envs = [env for algorithm, env in rows_of(results, steps) if algorithm == "td3"]

    def row(env: str, methods: Sequence[str]) -> list[str]:
        return [f"TD3 {env}", *(return_cell(results, method, "td3", env, steps) for method in methods)]

    methods = [*TABLE_3_TOPOLOGY, "rlx2", *(f"rlx2-n{n}" for n in (1, 2)), "rlx2", *(f"rlx2-n{n}" for n in (4, 5))]
    labels = ["Tiny", "SS", "SET", "RigL (= RLx2)", "n=1", "n=2", "n=3 (= RLx2)", "n=4", "n=5"]
    rows = []
    for env in envs:
        rows += [row(env, methods), [PAPER, *(paper_cell(paper.returns("td3", env, method)) for method in methods)]]
    tables = [noted(["share of dense", *labels], rows)]
    trained = {one.method for one in results.where(steps=steps)}
    methods = [name for name in METHODS if name.startswith(("rlx2-buffer", "rlx2-delay")) and name in trained]
    if methods:
        having = [env for env in envs if any(results.where(env=env, steps=steps, method=method) for method in methods)]
        labels = [METHODS[method].label for method in ("rlx2", *methods)]
        tables.append(noted(["share of dense", *labels], [row(env, ["rlx2", *methods]) for env in having]))
    return "\n\n".join(tables)


def has_ablations(results: Results, steps: int) -> bool:
    """Say whether there is a cell of this length for Table 3 that Table 2 does not have."""
    return any(one.method in ABLATIONS for one in results.where(steps=steps))


def below_the_paper(results: Results, steps: int) -> str:
    """Say whether the interval of RLx2's mean lies wholly under 97 % of dense, for each environment that has both."""
    groups: dict[str, list[str]] = {"yes": [], "no": [], "not to be said, for want of seeds": []}
    for algorithm, env in rows_of(results, steps):
        name = f"{algorithm.upper()} {env}"
        own, dense = pair(results, "rlx2", algorithm, env, steps)
        estimate = statistics.share_of_dense(own, dense) if own and dense else None
        if estimate is None or estimate.high is None:
            groups["not to be said, for want of seeds"].append(name)
        else:
            groups["yes" if estimate.high < BELOW else "no"].append(f"{name} {percent(estimate)}")
    return "; ".join(f"{answer}: {', '.join(names)}" for answer, names in groups.items() if names)


def walker_causes(results: Results) -> str | None:
    """Lay out what RLx2 lacks on Walker2d; None without dense."""
    groups = walker_groups(results)
    if not groups:
        return None
    goal = BELOW * mean(_scores(groups[0]))
    rows = []
    for found in groups:
        one = found[0]
        size = one.relative_cost("weights")
        early = _mean([each.curve.score(MILLION) for each in found])
        late = _mean(_scores(found)) if one.steps > MILLION else NONE
        reached = [each.curve.first_score(goal, int(FINAL_SHARE * MILLION)) for each in found]
        first = ", ".join("never" if step is None else f"{step:,}" for step in reached)
        rows.append([label(one), f"{one.steps:,}", NONE if size is None else f"{size:.3f}", early, late, first])
    header = [
        "",
        "steps",
        "total size",
        f"return at {MILLION:,} steps",
        "at the end",
        f"first at {BELOW:.0%} of dense, by seed",
    ]
    return markdown(header, rows)


def walker_groups(results: Results) -> list[list[Result]]:
    """Give seeds of dense, RLx2 and what differs from it in one thing on Walker2d, group by group; nothing without dense."""
    rlx2 = SETS["walker-causes"][0]
    compared = dict.fromkeys(replace(cell, seed=0) for cell in [replace(rlx2, method="dense"), *SETS["walker-causes"]])
    fields = ("method", "algorithm", "env", "steps", "sparsity")
    groups = [results.where(**{name: getattr(cell, name) for name in fields}) for cell in compared]
    return [found for found in groups if found] if groups[0] else []


def label(one: Result) -> str:
    """Name a cell's method, with the sparsity if it is not the paper's."""
    return METHODS[one.method].label + ("" if one.sparsity is None else f" at {one.sparsity:.0%}")


def pendulum(results: Results) -> str:
    """Lay out the motivating experiment: scores, and the mean over all evaluations, which shows who learns sooner."""
    rows = []
    for method, sparsity in [("dense", None), *((m, PENDULUM_SPARSITY) for m in ("static", "rigl", "rigl-q*", "rlx2"))]:
        found = results.where(method=method, sparsity=sparsity, env=PENDULUM["env"], steps=PENDULUM["steps"])
        whole = [float(one.curve.returns.mean()) for one in found]
        rows.append([METHODS[method].label, *([_mean(_scores(found)), _mean(whole)] if found else ["missing"] * 2)])
    return markdown(["", "last 5 % of the steps", "mean over all evaluations"], rows)


def teachers(results: Results) -> list[str]:
    """Say how far the agents that gave the true values had converged."""
    about = {one.about["teacher"]["cell"]: one.about["teacher"] for one in results.where(method="rigl-q*")}
    return [
        f"Q* is from {name}, whose mean return is {of_one['mean_return']:,.0f}; its value of the states that episodes start "
        f"from is {of_one['value_at_start']:.1f} on average, and what it earns from there, discounted, "
        f"{of_one['discounted_return']:.1f}."
        for name, of_one in about.items()
    ]


def pendulum_search(results: Results) -> str:
    """Lay out where the sparsity was looked for at which a static topology clearly fails."""
    rows = []
    for sparsity in sorted(PENDULUM_SEARCH):
        found = [
            results.where(method=method, sparsity=sparsity, env=PENDULUM["env"], steps=PENDULUM["steps"])
            for method in ("static", "rlx2")
        ]
        rows.append([f"{sparsity:.0%}", *(_mean(_scores(one)) if one else "missing" for one in found)])
    return markdown(["sparsity", "SS", "RLx2"], rows)


def all_cells(results: Results) -> str:
    """List every finished cell."""
    rows = []
    for one in sorted(results.found, key=lambda r: (r.algorithm, r.env, r.steps, r.method, r.sparsity or 0, r.seed)):
        about = one.about
        size = f"{about['cost']['disk_bytes'] / 1e3:,.0f}" if "cost" in about else NONE
        memory = f"{about['cost']['memory_bytes'] / 1e3:,.0f}" if "cost" in about else NONE
        rows.append(
            [
                f"{one.algorithm.upper()} {one.env}",
                label(one),
                f"{one.steps:,}",
                str(one.seed),
                f"{one.score:,.0f}",
                f"{about['seconds'] / 60:,.0f}",
                size,
                memory,
                about.get("revision", NONE),
            ]
        )
    header = ["", "method", "steps", "seed", "return", "minutes", "kB on disk", "kB in training", "revision"]
    return markdown(header, rows)


def missing(names: Sequence[str], results: Results) -> str:
    """Count what sets lack, by environment and method."""
    have = {(r.algorithm, r.env, r.method, r.steps, r.seed, r.sparsity) for r in results.found}
    rows = []
    for name in names:
        absent = [c for c in SETS[name] if (c.algorithm, c.env, c.method, c.steps, c.seed, c.sparsity) not in have]
        counts = Counter((cell.env, cell.method) for cell in absent)
        by_env = [
            f"{env}: " + ", ".join(f"{method} {count}" for (of_env, method), count in counts.items() if of_env == env)
            for env in dict.fromkeys(env for env, _ in counts)
        ]
        rows.append([name, str(len(SETS[name]) - len(absent)), str(len(absent)), "; ".join(by_env)])
    return markdown(["set", "finished", "missing", "of which"], rows)
