"""Files appear whole or not at all, by one way of writing them."""

import argparse
import ast
import errno
import os
import sys
import threading
from pathlib import Path

import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rlx2 import files
from sb3_rlx2.commands.patches import applied
from sb3_rlx2.files import filling, replacing, write_text
from tests import apart
from tests.faults import ERRORS, failing

ROOT = Path(__file__).parent.parent


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def put(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "new" / "page.html"
    for text in ("first", "second"):
        write_text(path, text)
        assert contents(tmp_path) == {"new/page.html": text}
        assert list(path.parent.iterdir()) == [path]


def test_nobody_sees_a_file_before_it_is_whole(tmp_path):
    write_text(tmp_path / "agent.zip", "old")
    with replacing(tmp_path / "agent.zip") as unfinished:
        unfinished.write_text("half")
        assert unfinished.name == "agent.zip"  # by its suffix SB3 and matplotlib choose a format
        assert unfinished.stat().st_dev == tmp_path.stat().st_dev
        assert [*tmp_path.glob("*.zip")] == [tmp_path / "agent.zip"]  # of this pattern `rlx2 report` finds agents
        assert (tmp_path / "agent.zip").read_text() == "old"
        unfinished.write_text("new")
    assert contents(tmp_path) == {"agent.zip": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_in_the_middle_leaves_the_old_file(error, tmp_path):
    write_text(tmp_path / "file", "old")

    def write():
        with replacing(tmp_path / "file") as unfinished:
            unfinished.write_text("half")
            raise error("of the writer")

    with pytest.raises(error, match=r"^of the writer$"):
        write()
    assert contents(tmp_path) == {"file": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("owner", "name"), [(Path, "write_text"), (os, "fsync"), (os, "replace")])
def test_a_full_disk_leaves_the_old_file_and_names_it(owner, name, tmp_path, monkeypatch):
    write_text(tmp_path / "file", "old")
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OSError, match=rf"^\[Errno 28\] No space left on device: '{tmp_path}.*'$"):
        write_text(tmp_path / "file", "new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"file": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"), replacing(tmp_path / "file"):
        (tmp_path / "missing").read_text()


def test_a_folder_is_never_replaced_by_a_file(tmp_path):
    put(tmp_path, {"runs/agent": "old"})
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "runs", "page")
    assert contents(tmp_path) == {"runs/agent": "old"}


def test_the_disk_has_a_file_before_it_takes_its_place(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        done.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def note_replace(old, new):
        done.append(("replace", Path(new).name))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text(tmp_path / "file", "new")
    assert done == [("fsync", "file"), ("replace", "file"), ("fsync", tmp_path.name)]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "file", "old")
    code = (
        "import os, pathlib, signal, sys\nfrom sb3_rlx2.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert apart.run(code, tmp_path / "file", cwd=tmp_path).returncode == -9
    assert (tmp_path / "file").read_text() == "old"
    (left,) = (path for path in tmp_path.iterdir() if path.name != "file")
    assert left.name.startswith(files.UNFINISHED)


def test_of_several_writers_at_a_time_one_wins_whole(tmp_path):
    path = tmp_path / "file"
    texts = [str(number) * 100_000 for number in range(4)]
    write_text(path, texts[0])
    start = threading.Barrier(5)

    def write(text):
        start.wait()
        for _ in range(5):
            write_text(path, text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        assert path.read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    put(tmp_path, {"run/agent.zip": "old", "run/deep/er": "old", "other": "stays"})
    with replacing(tmp_path / "run") as unfinished:
        put(unfinished, {"agent.zip": "new"})
    assert contents(tmp_path) == {"run/agent.zip": "new", "other": "stays"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run"]


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path, monkeypatch):
    put(tmp_path, {"run/agent.zip": "old"})
    calls = iter([os.replace, full, os.replace])  # the old one aside, the new one in, the old one back
    monkeypatch.setattr(os, "replace", lambda old, new: next(calls)(old, new))
    with pytest.raises(OSError, match="No space"), replacing(tmp_path / "run") as unfinished:
        put(unfinished, {"agent.zip": "new"})
    assert contents(tmp_path) == {"run/agent.zip": "old"}
    assert next(calls, None) is None


def test_several_files_come_together_the_named_one_last(tmp_path, monkeypatch):
    put(tmp_path, {"b.zip": "old", "deep/er": "stays", "other": "stays"})
    order = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: order.append(Path(new).name) or replace(old, new))
    with filling(tmp_path, last="*.zip") as unfinished:
        put(unfinished, {"b.zip": "new", "c.pkl": "new", "d.pkl": "new"})
        assert contents(unfinished.parent)["b.zip"] == "old"
    assert sorted(order) == ["b.zip", "c.pkl", "d.pkl"]
    assert order[-1] == "b.zip"
    assert contents(tmp_path) == {"b.zip": "new", "c.pkl": "new", "d.pkl": "new", "deep/er": "stays", "other": "stays"}


def test_nothing_comes_if_one_of_several_fails(tmp_path):
    put(tmp_path, {"a": "old"})

    def fill():
        with filling(tmp_path) as unfinished:
            put(unfinished, {"a": "new", "b": "new"})
            full()

    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}'"):
        fill()
    assert contents(tmp_path) == {"a": "old"}


# Fills a folder under a lock of its own, of a name that the next process empties, and looks at checksums when it reads.
ELSEWHERE = {"sb3_rlx2/kernels/compile.py"}
SOURCES = [
    path
    for folder in ("sb3_rlx2", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if str(path.relative_to(ROOT)) not in ELSEWHERE | {"sb3_rlx2/files.py"}
]


def puts_in_place(node):
    """Tell whether a piece of code puts a file in another one's place by itself."""
    match node:
        case ast.Attribute(attr="rename" | "renames" | "NamedTemporaryFile" | "mkstemp"):
            return True
        case ast.Attribute(ast.Name("os"), "replace"):
            return True
        case ast.Call(ast.Attribute(attr="replace"), [_], []):  # Path's; str's takes two, dataclasses' and datetime's keywords
            return True
        case ast.ImportFrom(module="os" | "tempfile", names=names):
            return bool({name.name for name in names} & {"replace", "rename", "NamedTemporaryFile", "mkstemp"})
    return False


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_there_is_no_other_way(path):
    assert not [node.lineno for node in ast.walk(ast.parse(path.read_text())) if puts_in_place(node)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("os.replace(a, b)", True),
        ("path.replace(other)", True),
        ("path.rename(other)", True),
        ("from os import replace", True),
        ("tempfile.NamedTemporaryFile()", True),
        ("text.replace('a', 'b')", False),
        ("dataclasses.replace(cell, seed=1)", False),
        ("shutil.rmtree(path)", False),
    ],
)
def test_another_way_would_be_found(line, expected):
    assert any(map(puts_in_place, ast.walk(ast.parse(line)))) == expected


def save_all(folder, seed):
    """Save what SB3 writes in place, as `rlx2 train` has it do: an agent, statistics."""
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    with applied("train", argparse.Namespace()):
        TD3("MlpPolicy", env, buffer_size=10, seed=seed, policy_kwargs={"net_arch": [8]}).save(folder / "agent")
        env.save(str(folder / "vecnormalize.pkl"))


def test_the_command_has_the_host_write_whole_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["rlx2 train"])
    folder = tmp_path / "run"
    save_all(folder, 0)
    names, at, failed = ["agent.zip", "vecnormalize.pkl"], 0, True

    def full():
        raise ERRORS["ENOSPC"]

    while failed:
        at += 1
        assert sorted(path.name for path in folder.iterdir() if path.is_file()) == names
        with failing(folder, full, at) as faults:
            try:
                save_all(folder, at)
            except OSError:
                assert TD3.load(folder / "agent").seed <= at  # whole, this one or one before
                VecNormalize.load(str(folder / "vecnormalize.pkl"), make_vec_env("Pendulum-v1"))
        failed = faults.count >= at
    assert at > 9
    assert TD3.load(folder / "agent").seed == at
