"""Writes ``RESULTS.md``, the pictures and the README's part, from stored results and nothing else."""

from pathlib import Path

from benchmarks import readme
from benchmarks.returns import plots, tables
from benchmarks.returns.cells import PENDULUM, PENDULUM_SPARSITY
from benchmarks.returns.results import FINAL_SHARE, HERE, RESULTS, Results, load

PLOTS = HERE / "plots"
RESULTS_MD = HERE / "RESULTS.md"
ISSUE_SETS = ("learning", "pendulum-search", "pendulum", "table-2", "table-3", "walker", "sac", "ant", "table-3-rest")
NOT_YET = "No cell of this length is finished yet."
HOW = (
    f"A run's score is its mean return over the last {FINAL_SHARE:.0%} of its steps (ten episodes without exploration at each "
    "evaluation), as in the paper, whose runs have 3M steps. Percentages are ratios of mean scores to the dense agent's; in "
    "brackets the 95 % bootstrap interval over the seeds of both (rliable; with two or three seeds it is hardly more than "
    "their range, and a single dense seed adds no spread). Total size and FLOPs of training are counted as the paper does; "
    '"exactly" is what a gradient step of this code multiplies and adds.'
)
EQUAL_STEPS = (
    "Dense TD3 of stock SB3, one seed, see [baselines](baselines/README.md). A sparse run that is longer than the comparison "
    "is not finished there: its topology still moves."
)


def report(folder: Path = RESULTS) -> str:
    """Give the README's part."""
    results = load(folder)
    parts = []
    if "motivation" in plots.picture_names(results):
        parts += [_motivation(results), f"![Learning curves]({_picture('motivation', 'benchmarks/returns/')})"]
    for steps in tables.lengths(results):
        parts += [f"Table 2 of the paper, at {steps:,} steps:", tables.table_2(results, steps)]
        parts += [f"Table 3 of the paper, at {steps:,} steps:", tables.table_3(results, steps)]
    parts += ["Learning checks, TD3, relative to stock SB3's dense agent at the same step:", tables.learning(results)]
    return "\n\n".join(parts)


def full_report(folder: Path = RESULTS) -> str:
    """Give ``RESULTS.md``."""
    results = load(folder)
    names = plots.picture_names(results)
    parts = [
        "# Returns",
        "Written by `python -m benchmarks.returns report` from `results/`; `python -m benchmarks.returns run NAME` trains.",
        HOW,
        f"## The motivating experiment: TD3 on {PENDULUM['env']}",
        _motivation(results),
        *_shown(names, lambda name: name == "motivation"),
        "The sparsity at which a static topology clearly fails was looked for here:",
        tables.pendulum_search(results),
    ]
    for steps in tables.lengths(results):
        parts += _length(results, steps)
    if not tables.lengths(results):
        parts += ["## Tables 2 and 3", NOT_YET]
    parts += [
        "## At equal steps with dense runs that stop early",
        EQUAL_STEPS,
        tables.equal_steps(results),
        "## Learning checks",
        tables.learning(results),
        "## Learning curves",
        *_shown(names, lambda name: name != "motivation" and not name.startswith("profile")),
        "## Missing cells",
        tables.missing(ISSUE_SETS, results),
        "## All cells",
        tables.all_cells(results),
    ]
    return "\n\n".join(parts) + "\n"


def _length(results: Results, steps: int) -> list[str]:
    below = tables.below_the_paper(results, steps)
    return [
        f"## Table 2, {steps:,} steps",
        tables.table_2(results, steps),
        f"RLx2's interval lies wholly under {tables.BELOW:.0%} of dense: {'; '.join(below) or 'nowhere'}.",
        f"### Over environments, {steps:,} steps",
        tables.aggregate(results, steps),
        *_shown(plots.picture_names(results), lambda name: name.startswith("profile") and name.endswith(f"_{steps}")),
        f"## Table 3, {steps:,} steps",
        tables.table_3(results, steps),
    ]


def _motivation(results: Results) -> str:
    text = (
        f"TD3 on {PENDULUM['env']}, {PENDULUM['steps']:,} steps, actor and critics at {PENDULUM_SPARSITY:.0%} sparsity. "
        "RigL + Q* bootstraps from the frozen critics of a dense agent that was trained first (`teacher.py` says how)."
    )
    return "\n\n".join([text, tables.pendulum(results), *tables.teachers(results)])


def _picture(name: str, base: str = "") -> str:
    return f"{base}{PLOTS.name}/{name}.png"


def _shown(names: list[str], wanted) -> list[str]:
    return [f"![{name}]({_picture(name)})" for name in names if wanted(name)]


def write(folder: Path = RESULTS) -> None:
    """Write all of it."""
    plots.write(load(folder), PLOTS)
    RESULTS_MD.write_text(full_report(folder))
    readme.write("returns", report(folder))
    print(report(folder))
