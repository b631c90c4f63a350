"""What docs/without_python.md shows: its commands are ones, and its C that needs no other project compiles."""

import re
import shlex
from pathlib import Path

import numpy as np

from sb3_rlx2.export import bin as rlx2_file
from sb3_rlx2.export import c, write
from sb3_rlx2.export.__main__ import make_parser
from tests.compilers import STRICT, command, put, run
from tests.exported import agent, by_hand, exported

PAGE = (Path(__file__).parent.parent / "docs/without_python.md").read_text()
STUBS = """
extern "C" { int analogRead(int); void analogWrite(int, int); void delay(int); }
enum { A0 = 14 };
struct { void begin(long) {} void println(const char *) {} } Serial;
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_commands_are_commands():
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 4
    for program, name, *arguments in commands:
        assert (program, name) == ("rlx2", "export")
        make_parser().parse_args(arguments)


def test_control_loop_compiles(tmp_path):
    (tmp_path / "loop.c").write_text(blocks("c")[0])
    put(tmp_path, c.source(by_hand()))
    run([*command("gcc"), "-c", "loop.c", "policy.c"], tmp_path)


def test_sketch_compiles(tmp_path):
    (tmp_path / "sketch.cpp").write_text(STUBS + blocks("cpp")[0])
    put(tmp_path, c.source(by_hand()))
    command("gcc, C++")
    run(["g++", *STRICT, "-c", "sketch.cpp"], tmp_path)


def test_script_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, vecnormalize = agent("RLx2TD3")
    exec(blocks("python")[0], {"model": model, "vecnormalize": vecnormalize})
    assert (tmp_path / "hopper.h").exists()


def test_reader_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    policy = exported("RLx2TD3", "fp16")
    write(policy, tmp_path / "hopper.rlx2", "bin")
    names = {"observation": np.zeros(11)}
    exec(blocks("python")[1], names)
    np.testing.assert_array_equal(names["action"], policy(np.zeros(11)))
    assert set(rlx2_file.readers()) <= {path.name for path in tmp_path.iterdir()}
