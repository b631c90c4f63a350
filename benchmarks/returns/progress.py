"""Shows how far cells are: bars on a terminal, a line now and then in a log."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.returns.cells import Cell
from benchmarks.returns.training import PROGRESS, Places

LINE_EVERY = 60.0  # seconds, in a log
SILENT_AFTER = 300.0  # seconds without a note after which nobody seems to be training a cell


@dataclass(frozen=True)
class State:
    """
    How far a cell is.

    :param finished: whether its file is there
    :param running: whether a worker of this machine is training it
    :param step: environment steps
    :param latest: mean return of the latest evaluation
    """

    finished: bool
    running: bool
    step: int
    latest: float | None


def state_of(cell: Cell, places: Places) -> State:
    """
    Look at a cell's files.

    :param cell: the cell
    :param places: where they are
    """
    if places.result(cell).exists():
        return State(True, False, cell.steps, None)
    try:
        note = json.loads((places.work / cell.name / PROGRESS).read_text())
    except FileNotFoundError:
        return State(False, False, 0, None)
    return State(False, time.time() - note["time"] < SILENT_AFTER, note["step"], note["return"])


class Display:
    """
    Progress of cells.

    :param cells: the cells
    :param places: where their files are
    """

    def __init__(self, cells: Sequence[Cell], places: Places) -> None:
        self.cells, self.places = cells, places
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Progress(*columns, TextColumn("{task.fields[latest]}"))
        self.interactive = self.bars.console.is_terminal
        self.tasks: dict[str, Any] = {}
        self.finished: set[str] = set()
        self.next_line = 0.0

    def __enter__(self) -> "Display":
        if self.interactive:
            self.bars.start()
        self.total = self.bars.add_task("cells", total=len(self.cells), latest="")
        self.finished = {cell.name for cell in self.cells if state_of(cell, self.places).finished}
        return self

    def __exit__(self, *_: object) -> None:
        if self.interactive:
            self.bars.stop()

    def update(self) -> None:
        """Look at the files again."""
        states = {cell: state_of(cell, self.places) for cell in self.cells}
        self.bars.update(self.total, completed=sum(state.finished for state in states.values()))
        for cell, state in states.items():
            if state.finished and cell.name not in self.finished:
                self.finished.add(cell.name)
                self.bars.console.print(f"finished {cell.name} ({len(self.finished)} of {len(self.cells)})", highlight=False)
            if self.interactive:
                self._bar(cell, state)
        if not self.interactive and time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + LINE_EVERY
            for cell, state in states.items():
                if state.running:
                    print(f"{cell.name} {state.step:,} of {cell.steps:,}{_shown(state)}", flush=True)

    def _bar(self, cell: Cell, state: State) -> None:
        if state.running and cell.name not in self.tasks:
            self.tasks[cell.name] = self.bars.add_task(cell.name, total=cell.steps, completed=state.step, latest="")
        elif cell.name in self.tasks and not state.running:
            self.bars.remove_task(self.tasks.pop(cell.name))
        elif cell.name in self.tasks:
            self.bars.update(self.tasks[cell.name], completed=state.step, latest=_shown(state))


def _shown(state: State) -> str:
    return "" if state.latest is None else f" return {state.latest:,.0f}"
