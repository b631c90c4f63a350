"""The tables, from stored results and nothing else."""

from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.readme import markdown
from benchmarks.returns import paper, statistics
from benchmarks.returns.cells import METHODS, MUJOCO, PENDULUM, PENDULUM_SEARCH, PENDULUM_SPARSITY, SETS, TABLE_3_TOPOLOGY
from benchmarks.returns.results import BASELINES, Result, Results, baseline
from benchmarks.returns.statistics import Estimate

NONE = "-"
ALONE = "\N{DAGGER}"  # marks a return that has no dense partner
PAPER = "paper"  # heads a row of its figures
SPARSE = ("tiny", "static", "set", "rigl", "rlx2")  # the paper's columns
BELOW = 0.97  # share of dense that the paper reaches on average, and below which a result needs a reason


def percent(estimate: Estimate) -> str:
    """Show a share of dense in percent, its interval and its seeds."""
    return f"**{100 * estimate.value:.1f}** ({_interval(estimate, lambda share: f'{100 * share:.1f}')})"


def _mean(scores: Sequence[float]) -> str:
    estimate = statistics.mean(scores)
    return f"{estimate.value:,.0f} ({_interval(estimate, '{:,.0f}'.format)})"


def _interval(estimate: Estimate, show: Callable[[float], str]) -> str:
    seeds = f"{estimate.seeds} seed{'' if estimate.seeds == 1 else 's'}"
    return seeds if estimate.low is None else f"{show(estimate.low)} to {show(estimate.high)}, {seeds}"


def _scores(found: Sequence[Result]) -> list[float]:
    return [one.score for one in found]


def return_cell(results: Results, method: str, algorithm: str, env: str, steps: int) -> str:
    """Show a method's return relative to dense, or as it is and marked if there is no dense partner."""
    group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
    own, dense = (_scores(results.where(method=name, **group)) for name in (method, "dense"))
    if not own:
        return NONE
    return percent(statistics.share_of_dense(own, dense)) if dense else f"{_mean(own)} {ALONE}"


def paper_cell(figure: float | None) -> str:
    """Show a figure of the paper."""
    return NONE if figure is None else f"{figure:g}"


def _table(header: list[str], rows: list[list[str]]) -> str:
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


def table_2(results: Results, steps: int) -> str:
    """Lay out the paper's Table 2, with wall-clock time and the dense agent's return besides, over the paper's figures."""
    header = ["", "sparsity of actor / critic", "total size", "FLOPs, training", "exactly", "FLOPs, inference", "hours"]
    header += ["hours, dense", "Dense, return", *(f"{METHODS[method].label}, %" for method in SPARSE)]
    rows = []
    for algorithm, env in rows_of(results, steps):
        group = {"algorithm": algorithm, "env": env, "steps": steps, "sparsity": None}
        dense = _scores(results.where(method="dense", **group))
        row = [f"{algorithm.upper()} {env}", *_costs(results, group), _mean(dense) if dense else "missing"]
        rows.append(row + [return_cell(results, method, algorithm, env, steps) for method in SPARSE])
        size, training, inference = (
            paper_cell(paper.cost(algorithm, env, what)) for what in ("size", "training", "inference")
        )
        row = [PAPER, NONE, size, training, NONE, inference, NONE, NONE, NONE]
        rows.append(row + [paper_cell(paper.returns(algorithm, env, method)) for method in SPARSE])
    return _table(header, rows)


def _costs(results: Results, group: dict[str, object]) -> list[str]:
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
    tables = [_table(["% of dense", *labels], rows)]
    trained = {one.method for one in results.where(steps=steps)}
    methods = [name for name in METHODS if name.startswith(("rlx2-buffer", "rlx2-delay")) and name in trained]
    if methods:
        having = [env for env in envs if any(results.where(env=env, steps=steps, method=method) for method in methods)]
        labels = [METHODS[method].label for method in ("rlx2", *methods)]
        tables.append(_table(["% of dense", *labels], [row(env, ["rlx2", *methods]) for env in having]))
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
