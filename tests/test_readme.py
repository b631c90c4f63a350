"""What the README shows is run: the scripts, the zoo's command lines, and its list of make targets."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_rlx2.topology import TOPOLOGIES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


PYTHON = blocks("python")
COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if not line.startswith("make ")]


def run(command, folder):
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder, with our hyper-parameters beside it as in a clone."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "hyperparams").symlink_to(ROOT / "hyperparams")
    return folder


def test_readme_shows_what_is_tested():
    assert len(PYTHON) == 3
    assert [command.split()[0] for command in COMMANDS] == ["rlx2", "rlx2", "python", "rlx2", "rlx2", "rlx2"]


@pytest.mark.parametrize("number", range(2))
def test_scripts(number, folder):
    run([sys.executable, "-c", PYTHON[number]], folder)
    if number == 0:
        assert (folder / "rlx2_hopper.zip").exists()


def test_new_topology(monkeypatch):
    monkeypatch.setattr("sb3_rlx2.topology.TOPOLOGIES", dict(TOPOLOGIES))
    names: dict = {}
    exec(PYTHON[2], names)
    assert list(names["TOPOLOGIES"]) == [*TOPOLOGIES, "smallest"]


def test_zoo_commands(folder):
    outputs = []
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        prefix = [sys.executable] if program == "python" else [sys.executable, "-m", "sb3_rlx2"]
        outputs.append(run([*prefix, *arguments], folder))
    assert "live weights" in outputs[0]
    assert "Mean reward" in outputs[1]
    assert "Report: " in outputs[3]
    assert "Number of trials: 3" in outputs[4]
    assert "Hyperparameters of trial 1 of study pendulum" in outputs[5]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
