"""What the README and the pages of commands show is run: the scripts, the zoo's command lines, and the make targets."""

import re
import shlex
from pathlib import Path

import pytest

from sb3_rlx2 import commands
from tests import apart
from tests.hub_server import serve

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [(ROOT / f"docs/{name}.md").read_text() for name in ("zoo", "report", "tuning", "compress", "sparsity")]


def blocks(language, text):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


PYTHON = blocks("python", README)
COMMANDS = [line for page in PAGES for block in blocks("bash", page) for line in block.splitlines()]


# The search with less of everything, which then may find nothing (status 3).
SHORTER = [
    "-n",
    "1200",
    "--n-trials",
    "2",
    "--n-seeds",
    "2",
    "--eval-episodes",
    "1",
    "--dense-return",
    "-150",
    "--num-threads",
    "1",
]


def run(command, folder, statuses=(0,), **variables):
    result = apart.run(*command, cwd=folder, variables={"OMP_NUM_THREADS": "1"} | variables)
    assert result.returncode in statuses, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder, with our hyper-parameters beside it as in a clone."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "hyperparams").symlink_to(ROOT / "hyperparams")
    return folder


def test_readme_shows_what_is_tested():
    assert len(PYTHON) == 1
    assert {command.split()[0] for command in COMMANDS} == {"rlx2", "python"}
    assert commands.COMMANDS.keys() <= {command.split()[1] for command in COMMANDS}


def test_script(folder):
    run([PYTHON[0]], folder)
    assert (folder / "rlx2_pendulum.zip").exists()


def test_zoo_commands(folder):
    outputs = {}
    with serve() as hub:  # push_to_hub and load_from_hub reach a stand-in
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hub"), "HF_TOKEN": "hf_me", "HF_HUB_DISABLE_XET": "1"}
        for command in COMMANDS:
            program, *arguments = shlex.split(command)
            module, *arguments = arguments[1:] if program == "python" else ["sb3_rlx2", *arguments]  # `python -m module`
            shorter, statuses = (SHORTER, (0, 3)) if arguments[0] == "compress" else ([], (0,))
            outputs.setdefault(arguments[0], []).append(run([module, *arguments, *shorter], folder, statuses, **online))
    assert "live weights" in outputs["train"][0]
    assert "Mean reward" in outputs["enjoy"][0]
    run_folder = folder / "logs/rlx2td3/Hopper-v5_1"
    assert (run_folder / "videos/training.mp4").exists()
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {
        *("Training_Episodic_Reward", "Results_Hopper_v5", "Sensitivity_plot", "Median", "Normalized_Score_tau"),
    }
    copy = folder / "downloads/rlx2td3/Hopper-v5_1/Hopper-v5.zip"
    assert copy.read_bytes() == (folder / "logs/rlx2td3/Hopper-v5_2/Hopper-v5.zip").read_bytes()
    assert "| agent | actor sparsity |" in outputs["compress"][0]
    assert "Report: " in outputs["report"][0]
    assert any("Number of trials: 3" in output for output in outputs["train"])
    assert any("Hyperparameters of trial 1 of study pendulum" in output for output in outputs["train"])


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
