"""Says which cells are finished, which are running, and which failed."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.readme import markdown
from benchmarks.returns.cells import CELLS, SETS
from benchmarks.returns.grid import collect, failures, studies
from benchmarks.returns.progress import state_of
from benchmarks.returns.training import Places
from sb3_rlx2.studies.storage import open_storage


def overview(names: Sequence[str], places: Places, storage: str) -> str:
    """
    Lay out how far sets are, then the cells in progress and those that failed.

    :param names: sets or cells
    :param places: where files are
    :param storage: what machines share; a journal that is not there is not made
    """
    errors: dict[str, str] = {}
    if "://" in storage or Path(storage).exists():
        opened = open_storage(storage)
        collect(opened, places)
        for study in studies(opened):
            errors |= failures(study)
    rows, lines = [], []
    for name in names:
        states = {cell: state_of(cell, places) for cell in SETS.get(name, [CELLS.get(name)])}
        finished, running = (sum(getattr(state, what) for state in states.values()) for what in ("finished", "running"))
        failed = sum(cell.name in errors and not state.finished for cell, state in states.items())
        missing = len(states) - finished - running
        rows.append([name, *(str(count) for count in (len(states), finished, running, missing, failed))])
        lines += [
            f"{cell.name}: step {state.step:,} of {cell.steps:,}, {'running' if state.running else 'interrupted'}"
            for cell, state in states.items()
            if state.step and not state.finished
        ]
        lines += [
            f"{cell.name} failed: {errors[cell.name]}"
            for cell, state in states.items()
            if cell.name in errors and not state.finished
        ]
    table = markdown(["set", "cells", "finished", "running", "missing", "of which failed"], rows)
    return "\n".join([table, "", *dict.fromkeys(lines)]).strip()
