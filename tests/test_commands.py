"""The table of commands: what each imports, what it changes in its host, and what it says where packages are missing."""

import pkgutil
import subprocess
import sys
from contextlib import suppress

import pytest

from sb3_rlx2.commands import COMMANDS, run
from sb3_rlx2.commands.patches import PATCHES
from sb3_rlx2.extras import MODULES, MissingExtra, require
from sb3_rlx2.patching import patched
from sb3_rlx2.studies.storage import open_storage
from tests.command import TINY, TINY_PARAMETERS

pytestmark = pytest.mark.filterwarnings("ignore")
# What the extras bring beside the default installation, where RL Zoo brings the rest.
BEYOND_DEFAULT = ("matplotlib", "pandas", "plotly", "psycopg", "rliable", "scipy", "seaborn", "tensorboard")


def run_python(code):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        (None, "rl_zoo3 optuna matplotlib huggingface_hub"),
        ("report", "rl_zoo3 optuna huggingface_hub plotly sqlalchemy"),
        ("train", "sb3_rlx2.tuning sb3_rlx2.studies sb3_rlx2.compress"),
    ],
)
def test_commands_import_what_they_need(command, heavy):
    result = run_python(f"""
import sys
from sb3_rlx2 import __main__
sys.argv = {["rlx2", command, "--help"] if command else ["rlx2", "--help"]}
try:
    __main__.main()
except SystemExit:
    print("imported:", [name for name in {heavy.split()} if name in sys.modules])
""")
    assert result.stdout.splitlines()[-1] == "imported: []", result.stderr


def test_training_goes_on_without_torchs_compiler(tmp_path, monkeypatch):
    """Which torch imports for its optimizers, in seconds, and which `csr` does without."""
    monkeypatch.chdir(tmp_path)
    begin = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-n", "80", *TINY, "--checkpoint-every", "40"]
    go_on = ["--resume", "logs/rlx2td3/Pendulum-v1_1", "-n", "120"]
    result = run_python(f"""
import sys
from sb3_rlx2 import __main__
for arguments in {[[*begin, "-params", *TINY_PARAMETERS], go_on]}:
    sys.argv = ["rlx2", "train", *arguments]
    __main__.main()
    print("imported:", "torch._dynamo" in sys.modules)
""")
    assert [line for line in result.stdout.splitlines() if line.startswith("imported:")] == ["imported: False"] * 2, result


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.target)
def test_patches_are_of_things_that_are_there(patch):
    place, _, name = patch.target.rpartition(".")
    assert name in vars(pkgutil.resolve_name(place))
    assert callable(pkgutil.resolve_name(patch.replacement))
    assert set(patch.commands) <= COMMANDS.keys()


def host():
    """Give all that commands replace."""
    places = {patch.target: pkgutil.resolve_name(patch.target.rpartition(".")[0]) for patch in PATCHES}
    return {target: vars(place)[target.rpartition(".")[2]] for target, place in places.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_stays_patched(command):
    before, arguments, paths = host(), sys.argv, sys.path
    with suppress(SystemExit):
        run(command, ["--help"])
    assert host() == before
    assert (sys.argv, sys.path) == (arguments, paths)


def test_patched_while_it_lasts():
    class Owner:
        name = 1

    with suppress(KeyError), patched(Owner, name=2):
        assert Owner.name == 2
        raise KeyError
    assert Owner.name == 1
    with pytest.raises(KeyError), patched(Owner, nothing=2):
        pass


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.extra])
def test_missing_extra(command, rlx2, monkeypatch):
    extra = COMMANDS[command].extra
    module = MODULES[extra][-1]
    monkeypatch.setitem(sys.modules, module, None)
    message = f"rlx2 {command} needs {module}: pip install 'sb3_rlx2[{extra}]'"
    assert rlx2.error(command, "--help") == message


TASK = ["train", "--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs"]


@pytest.mark.parametrize(
    ("options", "module", "message"),
    [
        (["-tb", "runs"], "tensorboard", "--tensorboard-log needs tensorboard: pip install 'sb3_rlx2[tensorboard]'"),
        (["-optimize"], "plotly", "-optimize needs plotly: pip install 'sb3_rlx2[tuning]'"),
        (["--trial-id", "0"], "pandas", "--trial-id needs pandas: pip install 'sb3_rlx2[tuning]'"),
    ],
)
def test_option_whose_extra_is_missing(options, module, message, rlx2, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    assert rlx2.error(*TASK, *options) == f"rlx2 train {message}"
    assert not (tmp_path / "logs").exists()


def test_storage_whose_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"storage='postgresql://me:\*\*\*@host/studies' needs psycopg: pip install"):
        open_storage("postgresql://me:secret@host/studies")


def test_extra_that_is_there():
    require("report", "rlx2 report")


def test_default_installation_trains_and_plays(tmp_path):
    """The wheel's own test installs one; here, what the extras bring is hidden."""
    task = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", str(tmp_path), "-n", "200", "--num-threads", "1"]
    result = run_python(f"""
import sys
sys.modules.update(dict.fromkeys({BEYOND_DEFAULT}))
from sb3_rlx2 import __main__
for command, own in (("train", ["-params", "learning_starts:150"]), ("enjoy", ["--no-render"])):
    sys.argv = ["rlx2", command, *{task}, *own]
    __main__.main()
""")
    assert "Mean reward" in result.stdout, result.stdout + result.stderr
