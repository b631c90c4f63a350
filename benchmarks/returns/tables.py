"""The tables, from stored results and nothing else."""

from collections.abc import Sequence
from statistics import median

from benchmarks.readme import markdown
from benchmarks.returns import paper, statistics
from benchmarks.returns.cells import METHODS, MUJOCO, PENDULUM, PENDULUM_SEARCH, PENDULUM_SPARSITY, SETS, TABLE_3_TOPOLOGY
from benchmarks.returns.results import BASELINES, Result, Results, baseline
from benchmarks.returns.statistics import Estimate

NONE = "-"
SPARSE = ("tiny", "static", "set", "rigl", "rlx2")  # the paper's columns
BELOW = 0.97  # share of dense that the paper reaches on average, and below which a result needs a reason


def percent(estimate: Estimate, reference: float | None = None) -> str:
    """Show a share of dense, its interval, its seeds, and the paper's figure."""
    interval = "" if estimate.low is None else f" ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
    shown = f"**{100 * estimate.value:.1f}**{interval}, {_seeds(estimate.seeds)}"
    return shown if reference is None else f"{shown}; {paper_says(reference)}"


def paper_says(figure: float) -> str:
    return f"paper {figure:g}"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _scores(found: Sequence[Result]) -> list[float]:
    return [one.score for one in found]


def return_cell(results: Results, method: str, algorithm: str, env: str, steps: int) -> str:
    """Show a method's return relative to dense; what is missing is said to be."""
    group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
    own, dense = (_scores(results.where(method=name, **group)) for name in (method, "dense"))
    reference = paper.returns(algorithm, env, method)
    if not own:
        return NONE if reference is None else f"{NONE}; {paper_says(reference)}"
    if not dense:
        return f"{_mean(own)}, no dense partner" + ("" if reference is None else f"; {paper_says(reference)}")
    return percent(statistics.share_of_dense(own, dense), reference)


def _mean(scores: Sequence[float]) -> str:
    estimate = statistics.mean(scores)
    interval = "" if estimate.low is None else f" ({estimate.low:,.0f} to {estimate.high:,.0f})"
    return f"return {estimate.value:,.0f}{interval}, {_seeds(estimate.seeds)}"


def lengths(results: Results) -> list[int]:
    """Give the numbers of steps for which there is a MuJoCo cell of the tables."""
    return sorted({one.steps for one in results.found if one.env in MUJOCO and one.steps >= 1_000_000})


def rows_of(results: Results, steps: int) -> list[tuple[str, str]]:
    """Give the pairs of algorithm and environment that have a cell of this length, in the paper's order."""
    pairs = [(algorithm, env) for algorithm in ("td3", "sac") for env in MUJOCO]
    return [pair for pair in pairs if results.where(algorithm=pair[0], env=pair[1], steps=steps)]


def table_2(results: Results, steps: int) -> str:
    """Lay out the paper's Table 2, with wall-clock time and the dense agent's return besides."""
    header = ["", "actor / critic sparsity", "total size", "FLOPs, training", "FLOPs, inference", "hours, RLx2 / dense"]
    header += ["Dense"] + [f"{METHODS[method].label}, %" for method in SPARSE]
    rows = []
    for algorithm, env in rows_of(results, steps):
        group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
        dense = _scores(results.where(method="dense", **group))
        row = [f"{algorithm.upper()} {env}", *_costs(results, group), _mean(dense) if dense else "missing"]
        rows.append(row + [return_cell(results, method, algorithm, env, steps) for method in SPARSE])
    return markdown(header, rows)


def _costs(results: Results, group: dict[str, object]) -> list[str]:
    """Show sparsities, size, FLOPs and hours of RLx2 (of another sparse method where it has not been trained)."""
    found = [one for method in ("rlx2", "rigl", "set", "static") for one in results.where(method=method, **group)]
    if not found:
        return [NONE] * 5
    one = found[0]
    sparsities = " / ".join(f"{one.about['arguments'][f'{name}_sparsity']:.0%}" for name in ("actor", "critic"))
    cost = {
        "size": one.relative_cost("weights"),
        "training": one.relative_cost("paper_training_flops"),
        "inference": one.relative_cost("inference_flops"),
    }
    shown = []
    for what, value in cost.items():
        reference = paper.cost(one.algorithm, one.env, what)
        parts = [f"{value:.3f}"] if value is not None else []
        exact = one.relative_cost("training_flops") if what == "training" else None
        parts += [f"exactly {exact:.3f}"] if exact is not None else []
        shown.append("; ".join([", ".join(parts) or NONE, *([paper_says(reference)] if reference else [])]))
    hours = [_hours(results.where(method=method, **group)) for method in ("rlx2", "dense")]
    return [sparsities, *shown, " / ".join(hours)]


def _hours(found: Sequence[Result]) -> str:
    return f"{median(one.about['seconds'] for one in found) / 3600:.2f}" if found else NONE


def aggregate(results: Results, steps: int) -> str:
    """Lay out the interquartile mean of each method over environments."""
    rows = []
    for algorithm in ("td3", "sac"):
        for method in SPARSE:
            shares = shares_of_dense(results, method, algorithm, steps)
            if shares:
                shown = percent(statistics.interquartile_mean(list(shares.values())))
                rows.append([algorithm.upper(), METHODS[method].label, shown, ", ".join(shares)])
    return markdown(["", "", "interquartile mean, % of dense", "over"], rows) if rows else "No cell has a dense partner yet."


def shares_of_dense(results: Results, method: str, algorithm: str, steps: int) -> dict[str, list[float]]:
    """Give each seed's score relative to the dense mean, by environment, where there is a dense partner."""
    shares = {}
    for env in MUJOCO:
        group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
        own, dense = (_scores(results.where(method=name, **group)) for name in (method, "dense"))
        if own and dense:
            shares[env] = [score / (sum(dense) / len(dense)) for score in own]
    return shares


def table_3(results: Results, steps: int) -> str:
    """Lay out the paper's Table 3, and below it the buffers and delays of which the paper has curves only."""
    first = [*TABLE_3_TOPOLOGY, "rlx2", *(f"rlx2-n{n}" for n in (1, 2)), "rlx2", *(f"rlx2-n{n}" for n in (4, 5))]
    labels = ["Tiny", "SS", "SET", "RigL (= RLx2)", "n=1", "n=2", "n=3 (= RLx2)", "n=4", "n=5"]
    more = [name for name in METHODS if name.startswith(("rlx2-buffer", "rlx2-delay"))]
    envs = [env for algorithm, env in rows_of(results, steps) if algorithm == "td3"]
    tables = []
    for methods, header in ((first, labels), (["rlx2", *more], [METHODS[method].label for method in ("rlx2", *more)])):
        rows = [[env, *(return_cell(results, method, "td3", env, steps) for method in methods)] for env in envs]
        tables.append(markdown(["TD3, % of dense", *header], rows))
    return "\n\n".join(tables)


def below_the_paper(results: Results, steps: int) -> list[str]:
    """List where the interval of RLx2's mean lies wholly under 97 % of dense."""
    found = []
    for algorithm, env in rows_of(results, steps):
        group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
        own, dense = (_scores(results.where(method=name, **group)) for name in ("rlx2", "dense"))
        if own and dense:
            estimate = statistics.share_of_dense(own, dense)
            if (estimate.high or estimate.value) < BELOW:
                found.append(f"{algorithm.upper()} {env}: {percent(estimate)}")
    return found


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


def equal_steps(results: Results) -> str:
    """Compare TD3 with the dense curves that stop early, up to the last step that both have."""
    rows = []
    for env in BASELINES:
        dense = baseline(env)
        for method, steps in sorted({(one.method, one.steps) for one in results.where(algorithm="td3", env=env)}):
            found = results.where(algorithm="td3", env=env, method=method, steps=steps, sparsity=None)
            end = min(steps, int(dense.steps[-1]))
            own, reference = [one.curve.score(end) for one in found], dense.score(end)
            row = [env, METHODS[method].label, f"{steps:,}", f"{end:,}", ", ".join(f"{score:,.0f}" for score in own)]
            rows.append([*row, f"{reference:,.0f}", f"{sum(own) / len(own) / reference:.0%}"])
    return markdown(["", "method", "steps of the run", "compared at", "return, per seed", "dense, 1 seed", "share"], rows)


def learning(results: Results) -> str:
    """Lay out the short runs that show whether a change still learns."""
    groups = list(dict.fromkeys((cell.env, cell.method, cell.steps) for cell in SETS["learning"]))
    rows = []
    for env, method, steps in groups:
        found = results.where(algorithm="td3", env=env, method=method, steps=steps, sparsity=None)
        scores = ", ".join(f"{score:,.0f}" for score in _scores(found)) or "missing"
        share = NONE
        if found and env in BASELINES:
            dense = baseline(env).score(steps)
            share = f"{sum(_scores(found)) / len(found) / dense:.0%} (of {dense:,.0f}, 1 seed)"
        rows.append([f"{env}, {METHODS[method].label}", f"{steps:,}", scores, share])
    return markdown(["run", "steps", "return over the last 5 % of the steps, per seed", "share of dense at that step"], rows)


def all_cells(results: Results) -> str:
    """List every finished cell."""
    rows = []
    for one in sorted(results.found, key=lambda r: (r.algorithm, r.env, r.steps, r.method, r.sparsity or 0, r.seed)):
        sparsity = "" if one.sparsity is None else f" at {one.sparsity:.0%}"
        about = one.about
        size = f"{about['cost']['disk_bytes'] / 1e3:,.0f}" if "cost" in about else NONE
        memory = f"{about['cost']['memory_bytes'] / 1e3:,.0f}" if "cost" in about else NONE
        rows.append(
            [
                f"{one.algorithm.upper()} {one.env}",
                METHODS[one.method].label + sparsity,
                f"{one.steps:,}",
                str(one.seed),
                f"{one.score:,.0f}",
                f"{about['seconds'] / 60:,.0f}",
                size,
                memory,
                about.get("revision", NONE),
            ]
        )
    header = ["", "method", "steps", "seed", "return", "minutes", "kB on disk", "kB in memory", "revision"]
    return markdown(header, rows)


def missing(names: Sequence[str], results: Results) -> str:
    """Count what sets lack."""
    have = {(r.algorithm, r.env, r.method, r.steps, r.seed, r.sparsity) for r in results.found}
    rows = []
    for name in names:
        absent = [c for c in SETS[name] if (c.algorithm, c.env, c.method, c.steps, c.seed, c.sparsity) not in have]
        shown = ", ".join(cell.name for cell in absent) if len(absent) <= 12 else f"{len(absent)} of {len(SETS[name])}"
        rows.append([name, str(len(SETS[name]) - len(absent)), shown or "none"])
    return markdown(["set", "finished", "missing"], rows)
