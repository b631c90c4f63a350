"""Writes ``RESULTS.md``, the pictures, the README's parts, and what ``rlx2 advise`` knows, from stored results alone."""

from collections.abc import Collection
from pathlib import Path

from benchmarks import readme, summary
from benchmarks.returns import dense_first, goal, lessons, plots, screening, tables
from benchmarks.returns.cells import ABLATIONS, PENDULUM, PENDULUM_SPARSITY, SETS, TABLE_2
from benchmarks.returns.results import FINAL_SHARE, HERE, RESULTS, Results, load

PLOTS = HERE / "plots"
RESULTS_MD = HERE / "RESULTS.md"
NOT_SHOWN = ("paper", "interplay", "algorithms", "dense-first")  # or not there
SHOWN_SETS = tuple(name for name in SETS if name != "smoke" and not name.startswith(NOT_SHOWN))
NOT_YET = "No cell of this length is finished yet."
RUN = "python -m benchmarks.returns run"
READING = f"""\
- A score is the mean return over the last {FINAL_SHARE:.0%} of the steps; an evaluation is ten episodes without exploration.
- A percentage is a ratio of mean scores to the dense agent's.
- In brackets: a 95 % bootstrap interval over the seeds of both, and their numbers (own / dense; over environments, the fewest
  of one). A single seed of a method has none. From few seeds it is too narrow: from two or three it is little more than their
  range (a single dense seed adds nothing to it), and holds the true ratio much less often than its 95 % say.
- Sizes and FLOPs are relative to dense and counted by weights, as in the paper (its weighting of actor and critics is
  inferred from TD3's figures; SAC's follow none, hence the dash); "exactly" is what a gradient step of this code multiplies
  and adds, relative to SB3's, which also computes a gradient that it throws away. Hours are wall clock with evaluations, on
  machines that did other work too. With an MKL as on Intel (`benchmarks/speed/mkl.py`) were trained the dense cells of
  HalfCheetah and Hopper from seed 1 on, and those whose file says that a library was preloaded.
- The paper's rows are of 3M steps, eight seeds and v3 environments. Up to 1M steps a buffer of a million never forgets."""
MOTIVATION = (
    "In the paper's figure (InvertedPendulum-v2) RigL + Q* is best and RLx2 close to it; whether that order shows here, the "
    "intervals say. The Q* is an approximation: how far it is from what its policy really earns is given below. The sparsity "
    "was chosen by what the static topology does there."
)
WALKER = (
    "At the paper's sparsities and a million steps RLx2 stays below dense on Walker2d-v4. One thing was changed at a time "
    f"(`{RUN} walker-causes`). Neither the n-step targets nor the buffer hold it back: with one-step targets it stays within "
    "the spread of its seeds, with an unlimited buffer it is worse. So few links learn more slowly: at the paper's number of "
    "steps the same agent comes near dense's return of a million, and with more links it gets there sooner than dense."
)
CELL_SIZES = (
    "On disk: the saved agent. In training: parameters, indices, targets and moments of the networks, without what the "
    "kernels of `csr` derive from the indices and keep besides. Before revision d1e220d3b5c5 an index had 64 bits per "
    "link, not 32, and each target network one of its own."
)
GOAL = (
    "As good as dense at a million steps, in each cell of the paper's Table 2, by the rule of [PROTOCOL.md](PROTOCOL.md) "
    f"(B2): at least {goal.SEEDS} seeds of both sides, the lower end of the interval at {tables.BELOW:.0%} or above, the mean "
    "at 100% or above. Numbers of seeds are own / dense. The deployed policy is judged beside dense's by the same rule, once "
    "the screening has decided which it is."
)
HOURS = (
    f"Hours until a run first holds {tables.BELOW:.0%} of dense's mean score, as the mean of its evaluations over "
    f"{FINAL_SHARE:.0%} of the steps, at the paper's sparsities; the median over runs, one that never does counting as "
    "longest. Dense is stock SB3. Wall clock with evaluations, on machines that did other work too; runs that did not note "
    "when each evaluation was are taken to have been as fast at any time."
)
SCREENING = "Which changes bring RLx2 to dense's return, by the design and the rules of [PROTOCOL.md](PROTOCOL.md) (A)."
BUFFERS = "At each evaluation: return, policy distance (above the dashed line the buffer shrinks), and transitions kept."


def pictures(folder: Path = RESULTS) -> str:
    """Give the README's part on returns: learning curves."""
    results = load(folder)
    names = [
        f"{algorithm}_{env}_{steps}" for steps in tables.lengths(results) for algorithm, env in tables.rows_of(results, steps)
    ]
    names += [name for name in ("walker_causes",) if name in plots.picture_names(results)]
    return "\n".join(_shown(names, "benchmarks/returns/")) or NOT_YET


def full_report(folder: Path = RESULTS) -> str:
    """Give ``RESULTS.md``."""
    results = load(folder)
    names = plots.picture_names(results)
    parts = [
        "# Returns",
        f"Written by `python -m benchmarks.returns report` from `results/`; `{RUN} NAME` trains.",
        READING,
        f"## The motivating experiment: TD3 on {PENDULUM['env']}",
        _motivation(results),
        *_shown([name for name in names if name == "motivation"]),
        "The sparsity at which a static topology clearly fails was looked for here:",
        tables.pendulum_search(results),
    ]
    for steps in tables.lengths(results):
        parts += _length(results, steps)
    parts += ["## Methods that need a dense network first", *dense_first.section(results)]
    if (hours := goal.hours_to_dense(results)) is not None:
        parts += ["## Time to dense's return", HOURS, hours, "## As good as dense", GOAL, goal.verdicts(results)]
    if screened := screening.section(results):
        parts += ["## Screening", SCREENING, *screened]
    if walker := _walker(results):
        parts += ["## What RLx2 lacks on Walker2d-v4", *walker]
    if not tables.lengths(results):
        parts += ["## Tables 2 and 3", NOT_YET]
    parts += [
        "## Learning curves",
        *_shown([name for name in names if name.startswith(("td3_", "sac_")) and not name.endswith("_buffer")]),
        "## Dynamic buffers",
        BUFFERS,
        *_shown([name for name in names if name.endswith("_buffer")]),
        "## Missing cells",
        tables.missing(SHOWN_SETS, results),
        "## All cells",
        CELL_SIZES,
        tables.all_cells(results),
    ]
    return "\n\n".join(parts) + "\n"


def _length(results: Results, steps: int) -> list[str]:
    profiles = [name for name in plots.picture_names(results) if name.startswith("profile") and name.endswith(f"_{steps}")]
    below = tables.below_the_paper(results, steps)
    parts = [
        f"## Table 2, {steps:,} steps",
        f"Trained by `{_trained_by(steps, TABLE_2)}`.",
        tables.table_2(results, steps),
        f"Does the interval of RLx2's mean lie under {tables.BELOW:.0%} of dense as a whole? {below}.",
        f"### Over environments, {steps:,} steps",
        tables.aggregate(results, steps),
        *_shown(profiles),
    ]
    if tables.has_ablations(results, steps):
        parts += [
            f"## Table 3, {steps:,} steps",
            f"Trained by `{_trained_by(steps, ABLATIONS)}`.",
            tables.table_3(results, steps),
        ]
    return parts


def _trained_by(steps: int, methods: Collection[str]) -> str:
    """Give the command that trains all cells of some methods and of this length."""
    cells = [(name, cell) for name, group in SETS.items() if not name.startswith("dense-first") for cell in group]
    sets = dict.fromkeys(name for name, cell in cells if cell.steps == steps and cell.method in methods)
    return " ".join([RUN, *sets])


def _walker(results: Results) -> list[str]:
    table = tables.walker_causes(results)
    return [] if table is None else [WALKER, table, *_shown(["walker_causes"])]


def _motivation(results: Results) -> str:
    text = (
        f"TD3 on {PENDULUM['env']}, {PENDULUM['steps']:,} steps, actor and critics at {PENDULUM_SPARSITY:.0%} sparsity "
        f"(`{RUN} pendulum`). In brackets stand 95 % bootstrap intervals and numbers of seeds. RigL + Q* bootstraps from the "
        f"frozen critics of a dense agent that was trained first (`teacher.py` says how). {MOTIVATION}"
    )
    return "\n\n".join([text, tables.pendulum(results), *tables.teachers(results)])


def _shown(names: list[str], base: str = "") -> list[str]:
    return [f"![{name}]({base}{PLOTS.name}/{name}.png)" for name in names]


def write(folder: Path = RESULTS) -> None:
    """Show the report; write it and the README's parts if it is made of the repository's own results."""
    if folder.resolve() == RESULTS.resolve():
        plots.write(load(), PLOTS)
        RESULTS_MD.write_text(full_report())
        readme.write("returns", pictures())
        summary.write()
        lessons.write(load())
    print(full_report(folder))
