"""What docs/structures.md shows is run, and its tables are the code's."""

import re
import shlex
from pathlib import Path

import pytest
import torch as th

from benchmarks.returns.__main__ import parse
from benchmarks.returns.cells import CELLS, SETS
from sb3_rlx2.distributions import DISTRIBUTIONS
from sb3_rlx2.inits import INITS
from sb3_rlx2.sparse_mlp import WEIGHT_SCALES
from sb3_rlx2.topology import TOPOLOGIES
from tests.compilers import needs

PAGE = (Path(__file__).parent.parent / "docs/structures.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_tables_name_what_there_is():
    tables = {"init": INITS, "distribution": DISTRIBUTIONS, "topology": TOPOLOGIES, "weight_scale": WEIGHT_SCALES}
    for argument, table in tables.items():
        (row,) = re.findall(rf"^\| `{argument}` \|.*$", PAGE, flags=re.MULTILINE)
        assert set(re.findall(r'"(\w+)"', row)) == table.keys() - {"erk"}


def test_script(tmp_path, monkeypatch):
    needs("minatar")
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[0], names := {})
    mlp = names["model"].policy.q_net.q_net
    assert (mlp.frozen_layers, mlp.layers[0].nnz) == (1, 1024 * 36)
    assert (tmp_path / "breakout.zip").exists()


def test_new_init(monkeypatch):
    monkeypatch.setattr("sb3_rlx2.inits.INITS", dict(INITS))
    exec(blocks("python")[1], names := {})
    rows = th.zeros(64 * 4).index_fill(0, names["model"].policy.q_net.q_net.layer_index(0), 1.0).view(64, 4)
    assert (rows.sum(1) == 2).all()
    assert ((rows * rows.roll(1, dims=1)).sum(1) == 1).all()  # the two are neighbours


def test_new_topology(monkeypatch):
    monkeypatch.setattr("sb3_rlx2.topology.TOPOLOGIES", dict(TOPOLOGIES))
    exec(blocks("python")[2], names := {})
    inputs = th.randn(50, 2, 4) * th.tensor([1.0, 9.0, 0.0, 5.0])
    links = names["TOPOLOGIES"]["lively"].warm_up_links(inputs, None, [2, 1], None)
    assert links.tolist() == [1, 3, 4 + 1]


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_commands_are_commands(line):
    sets, cells = dict(SETS), dict(CELLS)
    needs("minatar")
    program, _, module, *arguments = shlex.split(line, comments=True)
    try:
        assert (program, module) == ("python", "benchmarks.returns")
        parse(["CartPole-v1" if argument == "LunarLander-v3" else argument for argument in arguments])  # the test has no Box2D
    finally:
        for now, before in ((SETS, sets), (CELLS, cells)):
            now.clear()
            now.update(before)
