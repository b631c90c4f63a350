"""Checkpoints with known content, what fails or is killed while one is written, and what is damaged behind it."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_rlx2.checkpoint import generations
from sb3_rlx2.checkpoint.transitions import DamagedError, Transitions, ring
from sb3_rlx2.files import UNFINISHED, sweep
from tests.faults import ERRORS, failing
from tests.power import Disk, followed, restore

SIZE = 40


def make_buffer():
    return ReplayBuffer(SIZE, spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (1,)), device="cpu")


def fill(buffer, rows, seed):
    draw = np.random.default_rng(seed)
    for _ in range(rows):
        obs, following = draw.normal(size=(2, 1, 3))
        buffer.add(obs, following, draw.normal(size=(1, 1)), draw.normal(size=1), np.zeros(1), [{}])


def put(folder, rows, buffer, step, added):
    """Write a checkpoint whose state tells the step."""
    segments = rows.write_new(buffer, added)
    state = {"step": step, "numbers": np.full(50, float(step)), "tensor": th.full((3,), step)}
    written = generations.write(folder, step, state, segments, {"rows": rows.total})
    generations.keep(folder, 2)
    return written


def read(generation, folder):
    """Read a checkpoint, and check that all its parts are of the same step."""
    state, buffer = generation.read(), make_buffer()
    Transitions(folder / "rows").read(buffer, generation.segments, generation.manifest["rows"])
    assert np.all(state["numbers"] == state["step"])
    assert state["tensor"].tolist() == [state["step"]] * 3
    assert state["step"] == generation.step
    return state["step"], ring(buffer)


def same(rows, others):
    return all(np.array_equal(rows[name], others[name]) for name in rows)


class Two:
    """Two checkpoints, of steps 10 and 20, what their buffers held, and what it takes to write the third."""

    def __init__(self, place: Path):
        self.place, self.folder = place, place / "checkpoints"
        self.buffer, self.rows = make_buffer(), Transitions(self.folder / "rows")
        self.held = {}
        for step in (10, 20, 30):
            fill(self.buffer, 10, seed=step)
            self.held[step] = {name: array.copy() for name, array in ring(self.buffer).items()}
            if step < 30:
                put(self.folder, self.rows, self.buffer, step, 10)
        self.backup = shutil.copytree(self.folder, place / "backup")
        self.before = list(self.rows.segments), self.rows.total, self.rows.written

    def go_back(self):
        shutil.rmtree(self.folder)
        shutil.copytree(self.backup, self.folder)
        self._forget()

    def _forget(self):
        self.rows.segments, self.rows.total, self.rows.written = list(self.before[0]), *self.before[1:]

    def put(self):
        """Write the third."""
        put(self.folder, self.rows, self.buffer, 30, 10)

    def check(self, steps, folder=None):
        """Check that the newest one is whole, and of one of these steps."""
        folder = folder or self.folder
        step, rows = read(generations.newest(folder), folder)
        assert step in steps
        assert same(rows, self.held[step])
        return step

    def power_fails(self, draw=None):
        """Have the power fail at each moment of a write, and behind it; give how many things the disk may hold then."""
        self.go_back()
        with followed(Disk(self.folder, draw)) as disk:
            self.put()
        behind = {frozenset(state.items()): state for state in disk.states()}
        for number, (steps, state) in enumerate(
            [*(({20, 30}, state) for state in disk.seen.values()), *(({30}, state) for state in behind.values())]
        ):
            folder = self.place / f"power{number}"
            restore(state, folder)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.check(steps, folder)
            shutil.rmtree(folder)
        return len(disk.seen) + len(behind)

    def check_sweep(self):
        sweep(self.folder)
        assert not list(self.folder.rglob(f"{UNFINISHED}*"))

    def damage_is_found(self):
        """Whether damage was found; it may not go unnoticed."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                self.check({10, 20})
            except DamagedError:
                return True
        return bool(said)

    def fail_each(self, error, once):
        """Have each thing that a write asks of the file system fail; give how many there were, and how many it survived."""

        def fail():
            raise ERRORS[error]

        n, survived, over = 0, 0, False
        while not over:
            n += 1
            self.go_back()
            with failing(self.folder, fail, n, once) as faults:
                try:
                    self.put()
                    over = faults.count < n
                    survived += 1
                except (OSError, KeyboardInterrupt):
                    pass
            self.check({20, 30})
            self.check_sweep()
            self._forget()
            self.put()  # there is room again
            self.check({30})
        return n - 1, survived

    def kill_at_each(self):
        """End a process at each thing that it asks of the file system; give how many there were, and what was there then."""
        n, status, reached = 0, 137, set()
        while status == 137:
            n += 1
            self.go_back()
            child = os.fork()
            if child == 0:
                with failing(self.folder, lambda: os._exit(137), n):
                    self.put()
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, 137)
            reached.add(self.check({20, 30}))
            self.check_sweep()
        return n - 1, reached


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
