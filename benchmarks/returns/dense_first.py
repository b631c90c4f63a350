"""Methods that need a dense network first beside RLx2, with all that they cost, by the rules of DENSE_FIRST.md."""

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from benchmarks.readme import markdown
from benchmarks.returns.cells import METHODS, MILLION, SETS, TICKETS, Cell
from benchmarks.returns.results import Result, Results
from benchmarks.returns.tables import NONE, missing, return_cell
from benchmarks.returns.training import cell_before

ENVS = ("HalfCheetah-v4", "Hopper-v4")
RECIPES = ("rlx2", "live")
BASELINES = ("pruning", "snip", "distilled", "ticket-1", "ticket-4", "ticket-11")
CONTROLS = ("static", "ticket-1-anew", "ticket-4-anew", "ticket-11-anew")
SLOW = ("ticket-11", "ticket-11-anew")  # shown once there is one
KEY = ("method", "algorithm", "env", "seed", "steps", "sparsity")  # of a cell; when evaluations were is no matter
SEEDS = 2  # of each side, before anything is said
HIGHER, LOWER, ALIKE, NOT_YET = "higher", "lower", "not told apart", "not yet"
ANSWER = {(HIGHER, True): "it", (ALIKE, True): "it", (ALIKE, False): "RLx2", (LOWER, False): "RLx2"}  # else it is a trade
TRADE = "a trade"
TEXT = (
    "What the paper sets itself against needs a dense network first; here it counts. By the protocol of "
    "[DENSE_FIRST.md](DENSE_FIRST.md): sizes as in Table 2, a million steps. *In all*: with the dense agent and all rounds, "
    "where a method needs them. FLOPs are of gradient steps as this code does them, relative to a whole training of dense, "
    "means over seeds; hours are wall clock, on machines that did other work too. *Beside RLx2* and *beside RLx2-live*: "
    "whether all seeds score higher, or lower, than all of its, and which of the two is to be preferred, by return and FLOPs."
)
TRAINED_BY = (
    "Trained by `python -m benchmarks.returns run dense-first`; and by `run dense-first-live`, once the screening has decided "
    "what RLx2-live is."
)
TICKETS_TEXT = (
    "What makes a ticket: its links, if it scores higher than as many random ones in each layer (SS), or its first weights, "
    "if it scores higher than with others."
)


def section(results: Results) -> list[str]:
    """
    Give the section of ``RESULTS.md``.

    :param results: finished cells
    """
    cells = {_key(cell) for name in ("dense-first", "dense-first-live", "dense-first-slow") for cell in SETS[name]}
    results = Results([one for one in results.found if _key(one) in cells])  # with the seeds of the protocol, and no others
    parts = [TEXT, TRAINED_BY]
    for env in ENVS:
        parts += [f"### {env}", table(results, env), f"Is RLx2 to be preferred to all of them? {preferred(results, env)}."]
    return [
        *parts,
        "### Tickets",
        TICKETS_TEXT,
        tickets(results),
        "### Missing of these",
        missing(["dense-first", "dense-first-live"], results),
    ]


def _key(one: Cell | Result) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in KEY)


def _found(results: Results, method: str, env: str) -> list[Result]:
    return results.where(method=method, algorithm="td3", env=env, steps=MILLION, sparsity=None)


def _find(results: Results, cell: Cell) -> Result | None:
    found = results.where(**dict(zip(KEY, _key(cell), strict=True)))
    return found[0] if found else None


def stages(results: Results, one: Result) -> list[Result] | None:
    """
    Give a run and all that it needs, None if one of them is missing.

    :param results: finished cells
    :param one: the run
    """
    before = cell_before(Cell(one.method, one.algorithm, one.env, one.seed, one.steps, 0, one.sparsity))
    if before is None:
        return [one]
    earlier = _find(results, before)
    found = None if earlier is None else stages(results, earlier)
    return None if found is None else [*found, one]


def in_all(results: Results, found: Sequence[Result], what: Callable[[Result], float | None]) -> float | None:
    """
    Give the mean over seeds of a cost with that of all that comes before; None where a part of it is not known.

    :param results: finished cells
    :param found: the seeds
    :param what: gives the cost of one run
    """
    totals = [_total(stages(results, one) or [], what) for one in found]
    return mean(totals) if totals and None not in totals else None


def _total(run: Sequence[Result], what: Callable[[Result], float | None]) -> float | None:
    costs = [what(one) for one in run]
    return sum(costs) if costs and None not in costs else None


def table(results: Results, env: str) -> str:
    """Lay out returns and costs of all methods in an environment."""
    dense = _found(results, "dense", env)
    whole = in_all(results, dense, lambda one: one.flops)
    header = ["", "links, of dense", "return, of dense", "scores, by seed", "FLOPs in all", "hours in all", "trainings"]
    header += [f"beside {METHODS[recipe].label}" for recipe in RECIPES]
    rows = []
    for method in ("dense", *RECIPES, *BASELINES, *CONTROLS):
        found = _found(results, method, env)
        if found or method not in SLOW:
            rows.append([METHODS[method].label, *_row(results, method, env, found, whole)])
    return markdown(header, rows)


def _row(results: Results, method: str, env: str, found: list[Result], whole: float | None) -> list[str]:
    if not found:
        return ["missing", *[NONE] * (5 + len(RECIPES))]
    links = found[0].relative_cost("weights")
    flops, seconds = (in_all(results, found, what) for what in (lambda one: one.flops, lambda one: one.about["seconds"]))
    return [
        NONE if links is None else f"{links:.3f}",
        return_cell(results, method, "td3", env, MILLION),
        ", ".join(f"{one.score:,.0f}" for one in found),
        NONE if flops is None or whole is None else f"{flops / whole:.3f}",
        NONE if seconds is None else f"{seconds / 3600:.2f}",
        str(len(stages(results, found[0]) or ())) if flops is not None else NONE,
        *(beside(results, method, recipe, env) for recipe in RECIPES),
    ]


def compare(own: Sequence[Result], other: Sequence[Result]) -> str:
    """
    Say whether all seeds of a method score higher, or lower, than all of another.

    :param own: its seeds
    :param other: those of the other
    """
    if min(len(own), len(other)) < SEEDS:
        return NOT_YET
    scores, others = ([one.score for one in side] for side in (own, other))
    return HIGHER if min(scores) > max(others) else LOWER if max(scores) < min(others) else ALIKE


def beside(results: Results, method: str, recipe: str, env: str) -> str:
    """
    Compare a baseline with RLx2, by return and by FLOPs in all.

    :param results: finished cells
    :param method: the baseline
    :param recipe: ``"rlx2"`` or ``"live"``
    :param env: environment
    """
    if method not in BASELINES:
        return NONE
    sides = [_found(results, each, env) for each in (method, recipe)]
    said = compare(*sides)
    own, other = (in_all(results, side, lambda one: one.flops) for side in sides)
    if said == NOT_YET or own is None or other is None:
        return said
    return f"{said}: {ANSWER.get((said, own < other), TRADE)}"


def preferred(results: Results, env: str) -> str:
    """Say whether RLx2 is to be preferred to all baselines, the slow one aside: the argument of the paper."""
    said = [beside(results, method, "rlx2", env) for method in BASELINES if method not in SLOW]
    if any(":" not in each for each in said):
        return NOT_YET
    return "yes" if all(each.endswith(": RLx2") for each in said) else "no"


def tickets(results: Results) -> str:
    """Lay out whether links and first weights of tickets matter."""
    rows = [
        [env, METHODS[name].label, *(compare(_found(results, name, env), _found(results, other, env)) for other in others)]
        for env in ENVS
        for rounds in TICKETS
        for name, others in [(f"ticket-{rounds}", ("static", f"ticket-{rounds}-anew"))]
        if name not in SLOW or _found(results, name, env)
    ]
    return markdown(["", "", "than random links", "than other weights"], rows)
