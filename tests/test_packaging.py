"""The wheel, installed into an environment of its own, works without the repository."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.commands import COMMANDS
from sb3_rlx2.extras import MODULES

ROOT = Path(__file__).parents[1]
CI = os.environ.get("CI") == "true"


def run(*command, cwd, returncode=0):
    """Run a command that cannot see the repository, and give what it printed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == returncode, result.stdout + result.stderr
    return result.stdout if returncode == 0 else result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)  # an sdist, and the wheel from the sdist
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_is_complete(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "sb3_rlx2").rglob("*.py")}
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "sb3_rlx2/export/templates").iterdir()}
    configs = {f"sb3_rlx2/hyperparams/{path.name}" for path in (ROOT / "hyperparams").glob("*.yml")}
    assert modules | configs | templates | {
        "sb3_rlx2/py.typed",
        "sb3_rlx2/report/page.html",
        "sb3_rlx2/advise/measured.json",
    } == {name for name in names if ".dist-info/" not in name}
    assert configs >= {f"sb3_rlx2/hyperparams/{algo}.yml" for algo in ALGORITHMS}


@pytest.mark.skipif(CI, reason="the next test proves the same with dependencies of its own")
def test_wheel_in_its_own_environment(wheel, tmp_path):
    """With the dependencies of the environment that runs the tests."""
    python = make_environment(tmp_path)
    run(python, "-m", "pip", "install", "--no-deps", wheel, cwd=tmp_path)
    (site_packages(python) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    check(python)
    check_help(python, COMMANDS)


@pytest.mark.skipif(not CI, reason="installs every dependency, which takes minutes; CI=true does it")
def test_wheel_with_its_dependencies(wheel, tmp_path):
    """First those of the default installation, to which then all extras come."""
    python = make_environment(tmp_path)
    # What is imported is compiled then.
    install = [python, "-m", "pip", "install", "--no-compile", "--constraint", ROOT / "constraints.txt"]
    run(*install, wheel, cwd=tmp_path)
    check(python)
    check_help(python, ["train", "enjoy"])
    for command in ("plot_train", "all_plots", "plot_from_file", "report", "compress"):
        message = run(python.parent / "rlx2", command, "--help", cwd=tmp_path, returncode=1)
        assert re.fullmatch(rf"rlx2 {command} needs \w+: pip install 'sb3_rlx2\[{COMMANDS[command].extra}\]'\n", message)
    run(*install, f"{wheel}[all]", cwd=tmp_path)
    check_help(python, COMMANDS)


def make_environment(folder):
    """Make one, and give its interpreter."""
    venv.create(folder / "venv", with_pip=True)
    return folder / "venv/bin/python"


def site_packages(python):
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(run(python, "-c", code, cwd=python.parent).strip())


# Each in a process of its own, forked from one that has imported what all of them need.
HELP = """
import os, sys
import stable_baselines3
from sb3_rlx2.__main__ import main
for command in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv = ["rlx2", command, "--help"]
        sys.exit(main())
    assert os.wait()[1] == 0, command
"""


def check_help(python, commands):
    """What a command imports before it parses its arguments is there."""
    printed = run(python, "-c", HELP, *commands, cwd=python.parent)
    assert [line.split()[2] for line in printed.splitlines() if line.startswith("usage: rlx2 ")] == [*commands]


def check(python):
    """Import the installed package, train an agent with the packaged hyper-parameters, and play it."""
    rlx2, installed, folder = python.parent / "rlx2", site_packages(python), python.parents[2]
    assert run(python, "-c", "import sb3_rlx2; print(sb3_rlx2.__file__)", cwd=folder).startswith(str(installed))
    task = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs", "-n", "200", "--num-threads", "1"]
    trained = run(rlx2, "train", *task, "--progress", "-params", "learning_starts:150", cwd=folder)
    assert f"Loading hyperparameters from: {installed}/sb3_rlx2/hyperparams/rlx2td3.yml" in trained
    assert "Model: logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip" in trained
    assert "Mean reward" in run(rlx2, "enjoy", *task, "--no-render", cwd=folder)


def extras():
    """Read what pyproject.toml asks for, by extra, as the names of modules."""
    tomllib = pytest.importorskip("tomllib")
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {extra: [re.match(r"[\w-]+", line).group().lower().replace("-", "_") for line in table[extra]] for extra in table}
    return table, names


def test_extras_are_those_that_messages_name():
    _, names = extras()
    for extra, modules in MODULES.items():
        assert sorted(names[extra]) == sorted(modules), extra
    assert {command.extra for command in COMMANDS.values()} - {None} <= MODULES.keys()


def test_all_extras():
    table, names = extras()
    everything = ",".join(
        name for name in names if name not in ("all", "dev", "docs", "minari", "minatar")
    )  # no command needs the one; the other is under GPL-3: only where asked for
    assert table["all"] == [f"sb3_rlx2[{everything}]"]
    assert list(table) == sorted(table)
