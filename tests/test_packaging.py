"""The wheel, installed into an environment of its own, works without the repository."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ZOO_COMMANDS = [
    "enjoy",
    "record_video",
    "record_training",
    "plot_train",
    "all_plots",
    "plot_from_file",
    "load_from_hub",
    "push_to_hub",
]


def run(*command, cwd):
    """Run a command that cannot see the repository."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)  # an sdist, and the wheel from the sdist
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_is_complete(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "sb3_rlx2").rglob("*.py")}
    configs = {f"sb3_rlx2/hyperparams/{path.name}" for path in (ROOT / "hyperparams").glob("*.yml")}
    assert modules | configs | {"sb3_rlx2/py.typed", "sb3_rlx2/report/page.html"} == {
        name for name in names if ".dist-info/" not in name
    }
    assert len(configs) == 4


def test_wheel_in_its_own_environment(wheel, tmp_path):
    """With the dependencies of the environment that runs the tests."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--no-deps", wheel, cwd=tmp_path)
    site_packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    check(site_packages, tmp_path)


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="installs every dependency, which takes minutes; CI=true does it")
def test_wheel_with_its_dependencies(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    site_packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    check(site_packages, tmp_path)


def check(site_packages, folder):
    """Import the installed package, train an agent with the packaged hyper-parameters, and play it."""
    python, rlx2 = folder / "venv/bin/python", folder / "venv/bin/rlx2"
    assert run(python, "-c", "import sb3_rlx2; print(sb3_rlx2.__file__)", cwd=folder).startswith(str(site_packages))
    for command in ZOO_COMMANDS:  # what each imports is declared
        assert f"usage: rlx2 {command}" in run(rlx2, command, "--help", cwd=folder)
    task = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs", "-n", "200", "--num-threads", "1"]
    trained = run(rlx2, "train", *task, "--progress", "-params", "learning_starts:150", cwd=folder)
    assert f"Loading hyperparameters from: {site_packages}/sb3_rlx2/hyperparams/rlx2td3.yml" in trained
    assert "Model: logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip" in trained
    assert "Mean reward" in run(rlx2, "enjoy", *task, "--no-render", cwd=folder)
