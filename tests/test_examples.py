"""The examples run."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests import apart
from tests.compilers import needs

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "rlx2_in_three_minutes.ipynb"
# What each prints at its end. Those that train for more than some seconds are slow.
LAST = {
    "drop_in_td3": r"return of ten episodes: -\d+ \+- \d+",
    "parts_in_stock_sb3": r"critic: 5 topology updates, .*",
    "sparse_dqn_on_cartpole": r"return of ten episodes, 500 at most: \d+ \+- \d+",
    "export_to_c": r"[\d,]+ bytes of C have earned -\d+ in an episode",
    "many_agents": r"return of an episode: -\d+\.\d before, -\d+\.\d after training",
    "killed_and_resumed": "resumed and whole have the same weights: True",
    "structures": r"return of ten episodes with links in bands: \d+ \+- \d+",
}
QUICK = ("export_to_c", "killed_and_resumed")


def run(code, folder, warnings="error"):
    strict = f"import warnings\nwarnings.simplefilter('{warnings}')\n{code}"
    result = apart.run(strict, cwd=folder, variables={"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def cells(kind):
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_examples_are_those_that_are_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == LAST.keys()
    assert [path.name for path in EXAMPLES.glob("*.ipynb")] == [NOTEBOOK.name]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in LAST])
def test_scripts(name, tmp_path):
    if name == "export_to_c" and shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    last = run((EXAMPLES / f"{name}.py").read_text(), tmp_path).splitlines()[-1]
    assert re.fullmatch(LAST[name], last), last


@pytest.mark.parametrize("name", [*(name for name in LAST if name not in QUICK), "the notebook"])
def test_they_run_with_fewer_steps(name, tmp_path):
    needs("matplotlib")
    code = "\n".join(cells("code")) if name == "the notebook" else (EXAMPLES / f"{name}.py").read_text()
    shorter, found = re.subn(r"\.learn\([\d_]+", ".learn(300", code)
    assert found == 1
    assert run(shorter, tmp_path, warnings="ignore")  # of parts that would not act so soon


@pytest.mark.slow
def test_notebook(tmp_path):
    needs("matplotlib")
    assert "links have moved" in run("\n".join(cells("code")), tmp_path)


def test_notebook_is_stored_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
        compile("".join(cell["source"]), "cell", "exec") if cell["cell_type"] == "code" else None
    assert "pip install" in "".join(cells("markdown"))
