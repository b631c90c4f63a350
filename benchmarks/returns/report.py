"""Writes ``RESULTS.md``, the pictures and the README's part, from stored results and nothing else."""

from collections.abc import Collection
from pathlib import Path

from benchmarks import readme
from benchmarks.returns import plots, tables
from benchmarks.returns.cells import METHODS, PENDULUM, PENDULUM_SPARSITY, SETS, TABLE_2
from benchmarks.returns.results import FINAL_SHARE, HERE, RESULTS, Results, load

PLOTS = HERE / "plots"
RESULTS_MD = HERE / "RESULTS.md"
SHOWN_SETS = ("learning", "pendulum-search", "pendulum", "table-2", "table-3", "walker", "sac", "ant", "table-3-rest")
ABLATIONS = [method for method in METHODS if method.startswith("rlx2-")]
NOT_YET = "No cell of this length is finished yet."
RUN = "python -m benchmarks.returns run"
SCORES = (
    f"A score is the mean return over the last {FINAL_SHARE:.0%} of the steps; percentages are ratios of mean scores to the "
    "dense agent's; in brackets stand 95 % bootstrap intervals and numbers of seeds."
)
HOW = (
    f"{SCORES} Scores are the paper's, whose runs have 3M steps and eight seeds; each evaluation is ten episodes without "
    "exploration. Intervals are rliable's, over the seeds of both agents: with two or three seeds they are hardly more than "
    "the range, and a single dense seed adds no spread. Sizes and FLOPs are relative to dense, total size and FLOPs of "
    'training counted as the paper does; "exactly" is what a gradient step of this code multiplies and adds.'
)
EARLY = "Dense TD3 of stock SB3, one seed each, that stops early ([origin]({}baselines/README.md)), at equal steps."
UNFINISHED = "A sparse run that is longer than the comparison is not finished there: its topology still moves."
BUFFERS = "At each evaluation: return, policy distance (above the dashed line the buffer shrinks), and transitions kept."


def report(folder: Path = RESULTS) -> str:
    """Give the README's part."""
    results = load(folder)
    base = "benchmarks/returns/"
    parts = []
    if "motivation" in plots.picture_names(results):
        parts += [_motivation(results), *_shown(["motivation"], base)]
    for steps in tables.lengths(results):
        first, second = (_trained_by(steps, among) for among in (TABLE_2, ABLATIONS))
        parts += [f"Table 2 of the paper, at {steps:,} steps (`{first}`). {SCORES}", tables.table_2(results, steps)]
        parts += _shown([f"{algorithm}_{env}_{steps}" for algorithm, env in tables.rows_of(results, steps)], base)
        parts += [f"Table 3 of the paper, at {steps:,} steps (`{second}`):", tables.table_3(results, steps)]
    return "\n\n".join([*parts, f"{EARLY.format(base)} {UNFINISHED}", tables.equal_steps(results)])


def full_report(folder: Path = RESULTS) -> str:
    """Give ``RESULTS.md``."""
    results = load(folder)
    names = plots.picture_names(results)
    parts = [
        "# Returns",
        f"Written by `python -m benchmarks.returns report` from `results/`; `{RUN} NAME` trains.",
        HOW,
        f"## The motivating experiment: TD3 on {PENDULUM['env']}",
        _motivation(results),
        *_shown([name for name in names if name == "motivation"]),
        "The sparsity at which a static topology clearly fails was looked for here:",
        tables.pendulum_search(results),
    ]
    for steps in tables.lengths(results):
        parts += _length(results, steps)
    if not tables.lengths(results):
        parts += ["## Tables 2 and 3", NOT_YET]
    parts += [
        "## At equal steps with dense runs that stop early",
        f"{EARLY.format('')} {UNFINISHED}",
        tables.equal_steps(results),
        "## Learning checks",
        tables.learning(results),
        "## Learning curves",
        *_shown([name for name in names if not name.startswith(("motivation", "profile")) and not name.endswith("_buffer")]),
        "## Dynamic buffers",
        BUFFERS,
        *_shown([name for name in names if name.endswith("_buffer")]),
        "## Missing cells",
        tables.missing(SHOWN_SETS, results),
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
        *_shown([name for name in plots.picture_names(results) if name.startswith("profile") and name.endswith(f"_{steps}")]),
        f"## Table 3, {steps:,} steps",
        tables.table_3(results, steps),
    ]


def _trained_by(steps: int, methods: Collection[str]) -> str:
    """Give the command that trains all cells of some methods and of this length."""
    sets = [name for name, cells in SETS.items() if any(cell.steps == steps and cell.method in methods for cell in cells)]
    return " ".join([RUN, *sets])


def _motivation(results: Results) -> str:
    text = (
        f"TD3 on {PENDULUM['env']}, {PENDULUM['steps']:,} steps, actor and critics at {PENDULUM_SPARSITY:.0%} sparsity "
        f"(`{RUN} pendulum`). In brackets stand 95 % bootstrap intervals and numbers of seeds. "
        "RigL + Q* bootstraps from the frozen critics of a dense agent that was trained first (`teacher.py` says how)."
    )
    return "\n\n".join([text, tables.pendulum(results), *tables.teachers(results)])


def _shown(names: list[str], base: str = "") -> list[str]:
    return [f"![{name}]({base}{PLOTS.name}/{name}.png)" for name in names]


def write(folder: Path = RESULTS) -> None:
    """Write all of it."""
    plots.write(load(folder), PLOTS)
    RESULTS_MD.write_text(full_report(folder))
    readme.write("returns", report(folder))
    print(report(folder))
