"""The README's one table of results, from what is stored of returns and of speed."""

import math
from collections.abc import Sequence

from benchmarks import readme
from benchmarks.returns import goal, tables
from benchmarks.returns.cells import MILLION
from benchmarks.returns.results import Result, Results
from benchmarks.returns.results import load as load_returns
from benchmarks.speed.measure import RESULTS as SPEED
from benchmarks.speed.results import Row, ratio
from benchmarks.speed.results import load as load_speed
from benchmarks.speed.tables import ENVIRONMENT_STEPS

SPEEDS = ("times SB3's", "times SB3's, MKL as on Intel", "times SBX's")
OPPONENTS = dict(zip(ENVIRONMENT_STEPS[:3], SPEEDS, strict=True))  # RLx2 is the last
HEADER = [
    "",
    "zeros, actor / critics",
    "return, of dense's",
    f"hours until a run first holds {tables.BELOW:.0%} of dense's return, RLx2 / dense",
]
READING = (
    "A million steps, networks of 256-256. In brackets: a 95 % bootstrap interval, and seeds of RLx2 / of dense SB3; hours "
    "are medians over runs that did evaluations too, and a run may lose that return later. The other columns are environment "
    "steps a second, one gradient step for each, on one core of AMD's or Intel's, beside SB3's and SBX's. MKL, with which "
    "torch multiplies matrices, leaves its AVX code unused where a processor is not Intel's, hence the column with an MKL "
    "that was [made to use it](benchmarks/speed/mkl.py)."
)

SPREAD = ", ratios with the spread over repeats in brackets"  # which this table leaves out


def table() -> str:
    """Lay out a row for each cell of the paper's Table 2 that has been trained or timed."""
    returns = load_returns()
    speed = [sections["end_to_end"] for sections in load_speed(SPEED).values() if "end_to_end" in sections]
    timed = [(section, opponent) for section in speed for opponent in OPPONENTS if opponent in section.rows[0]["seconds"]]
    header = [*HEADER, *(f"{section.maker}: {OPPONENTS[opponent]}" for section, opponent in timed)]
    rows = []
    for algorithm, env in goal.CELLS:
        against = [_against(section.where(algorithm=algorithm.upper(), env=env), opponent) for section, opponent in timed]
        row = [*_learned(returns, algorithm, env), *against]
        if {*row} != {tables.NONE}:
            rows.append([f"{algorithm.upper()} {env}", *row])
    return "\n\n".join([tables.noted(header, rows), READING, *(section.conditions.replace(SPREAD, "") for section in speed)])


def write() -> None:
    """Write it."""
    readme.write("results", table())


def _learned(results: Results, algorithm: str, env: str) -> list[str]:
    group = {"algorithm": algorithm, "env": env, "steps": MILLION, "sparsity": None}
    sparsities, *_ = tables.costs(results, group)
    return [sparsities, tables.return_cell(results, "rlx2", algorithm, env, MILLION), _hours(results, group)]


def _hours(results: Results, group: dict[str, object]) -> str:
    dense, own = (results.where(method=method, **group) for method in ("dense", "rlx2"))
    if not dense:
        return tables.NONE
    aim = goal.aim(dense)
    return " / ".join(_shown(found, aim) for found in (own, dense))


def _shown(found: Sequence[Result], aim: float) -> str:
    if not found:
        return tables.NONE
    hours = goal.median_hours(found, aim)
    return "not held" if math.isinf(hours) else f"{hours:.2f}"


def _against(rows: list[Row], opponent: str) -> str:
    timed = [row for row in rows if opponent in row["seconds"]]
    return f"{ratio(timed[0], opponent, 'rlx2'):.1f}x" if timed else tables.NONE
