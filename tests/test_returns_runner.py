"""The benchmark's runner: what is killed goes on as if nothing had happened, and nothing is trained twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from benchmarks.returns import grid, training
from benchmarks.returns.cells import SETS, Cell
from benchmarks.returns.grid import Grid
from benchmarks.returns.training import CHECKPOINT, MODEL, Places

ROOT = Path(__file__).parent.parent
SMOKE = SETS["smoke"]
TIMING = {"seconds", "checkpoint_seconds", "date", "interruptions", "revision"}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def places(folder):
    return Places(folder / "work", folder / "results")


def learned(result):
    return {name: value for name, value in result.items() if name not in TIMING}


def start(folder, *names, cores=1):
    command = [sys.executable, "-m", "benchmarks.returns", "run", *names, "--cores", str(cores), "--checkpoint-every", "0"]
    command += ["--folder", str(folder / "work"), "--results", str(folder / "results")]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("cell", [SMOKE[0], Cell("dense", "sac", "Pendulum-v1", 0, 1_300, 200)], ids=lambda cell: cell.method)
def test_a_killed_cell_goes_on_as_if_nothing_had_happened(cell, tmp_path):
    """Killed with SIGKILL behind a checkpoint, and once more in its second process."""
    expected = training.train(cell, places(tmp_path / "undisturbed"))
    code = (
        "from pathlib import Path; from benchmarks.returns.training import Places, train; from benchmarks.returns.cells import Cell;"
        f"train({cell!r}, Places(Path({str(tmp_path / 'work')!r}), Path({str(tmp_path / 'results')!r})), 0.0)"
    )
    path = tmp_path / "work" / cell.name / CHECKPOINT
    for at_least in (1, 1_150):

        def reached(at_least=at_least):
            return path.exists() and training.checkpoint.read(path)["run"]["rows"][-1]["step"] >= at_least

        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT)
        wait_for(lambda: reached() or process.poll() is not None)  # noqa: B023
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not places(tmp_path).result(cell).exists()
    result = training.train(cell, places(tmp_path))
    assert result["interruptions"] == 2
    assert learned(result) == learned(expected)
    assert not path.exists()
