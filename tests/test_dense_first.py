"""Methods that need a dense network first: what each trains, that a killed stage changes nothing, and what the table says."""

import json
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.returns import agents, dense_first, distilling, report, tickets, training
from benchmarks.returns.cells import CELLS, SETS, TICKETS, Cell
from benchmarks.returns.results import Results
from benchmarks.returns.training import CHECKPOINTS, MODEL, TICKET, cell_before, make_env
from sb3_rlx2 import metrics
from sb3_rlx2.checkpoint import generations
from sb3_rlx2.distributions import erdos_renyi
from tests import apart
from tests.checks import assert_equal
from tests.test_returns_report import result
from tests.test_returns_runner import ROOT, learned, places, small, wait_for  # noqa: F401  a fixture

pytestmark = pytest.mark.filterwarnings("ignore:backend='auto' takes 'masked'", "ignore:learning_starts=1000")
PAPER = {"Hopper-v4": (0.02, 0.05), "HalfCheetah-v4": (0.1, 0.15)}  # densities of actor and critics


def of(method, env="Hopper-v4", steps=1_000_000):
    return Cell(method, "td3", env, 0, steps, steps // 3 if steps < 10_000 else 10_000)


def make(cell, agent=None):
    return agents.make(cell, DummyVecEnv([lambda: Monitor(make_env(cell.env))]), agent)


def mlps(model):
    return [mlp for name in ("actor", "critic") for mlp in metrics.sparse_mlps(getattr(model.policy, name))]


# what is trained


@pytest.mark.parametrize("rounds", TICKETS)
@pytest.mark.parametrize("env", PAPER)
def test_each_round_leaves_the_same_share_and_the_last_one_what_the_paper_has(rounds, env):
    names = [*(f"ticket-{rounds}-round-{number}" for number in range(1, rounds)), f"ticket-{rounds}"]
    for keyword, density in zip(("actor_sparsity", "critic_sparsity"), PAPER[env], strict=True):
        densities = [1.0, *(1 - of(name, env).arguments[keyword] for name in names)]
        shares = [after / before for before, after in pairwise(densities)]
        assert shares == pytest.approx([density ** (1 / rounds)] * rounds, rel=1e-4)
        assert of(f"ticket-{rounds}-anew", env).arguments[keyword] == of("static", env).arguments[keyword]
    shapes = [(256, 11), (256, 256), (3, 256)]
    counts = [erdos_renyi(shapes, of(name, env).arguments["actor_sparsity"]) for name in names]
    assert all(after <= before for pair in pairwise(counts) for before, after in zip(*pair, strict=True))


def test_every_stage_is_the_cell_of_the_round_before():
    chain = [of("ticket-4")]
    while chain[-1] is not None:
        chain.append(cell_before(chain[-1]))
    names = [cell.method for cell in chain[:-1]]
    assert names == ["ticket-4", "ticket-4-round-3", "ticket-4-round-2", "ticket-4-round-1", "dense"]
    assert cell_before(of("ticket-4-anew")).method == "ticket-4-round-3"
    assert {cell_before(of(method)).name for method in ("ticket-1", "ticket-1-anew", "ticket-11-round-1", "distilled")} == {
        "td3_Hopper-v4_dense_1000000_seed0"
    }
    own = {cell.name for cell in SETS["dense-first"]}
    assert not any(cell.method == "live" for cell in SETS["dense-first"])  # that waits for the screening
    assert all(cell_before(after) != before for before, after in pairwise(SETS["dense-first"]))
    assert all(cell_before(cell) is None or cell_before(cell).name in own for cell in SETS["dense-first"])
    assert own <= CELLS.keys()


def test_baselines_have_neither_n_steps_nor_a_dynamic_buffer():
    for method in ("snip", "pruning", "distilled", "ticket-1", "ticket-4-round-1", "ticket-4-anew", "static"):
        arguments = of(method).arguments
        assert (arguments["n_steps"], arguments["policy_distance_threshold"]) == (1, float("inf"))


def test_a_ticket_has_the_dense_agents_largest_links_and_its_first_weights(tmp_path):
    cell, anew = of("ticket-1", "Pendulum-v1"), of("ticket-1-anew", "Pendulum-v1")
    dense = make(of("dense", "Pendulum-v1"))
    first = [[weight.clone() for weight in weights] for weights in tickets.dense_weights(dense)]
    generator = th.Generator().manual_seed(0)
    for parameter in dense.policy.parameters():  # what training does
        parameter.data += 0.1 * th.randn(parameter.shape, generator=generator)
    trained = list(tickets.dense_weights(dense))
    assert len(trained) == 3
    tickets.write(cell, dense.get_env(), dense, tmp_path / TICKET)
    ticket, control = (make(each, str(tmp_path / TICKET)) for each in (cell, anew))
    for mlp, other, weights, before in zip(mlps(ticket), mlps(control), trained, first, strict=True):
        for number, (layer, weight) in enumerate(zip(mlp.layers, weights, strict=True)):
            assert set(mlp.layer_index(number).tolist()) == set(weight.abs().flatten().topk(layer.nnz).indices.tolist())
        assert th.equal(mlp.index, other.index)
        assert th.equal(mlp.values, th.cat([weight.flatten() for weight in before])[mlp.index.long()])
        assert (mlp.values == other.values).float().mean() < 0.01


def test_a_round_takes_from_what_the_round_before_has_left(tmp_path):
    cells = [of("ticket-4-round-2", "Pendulum-v1"), of("ticket-4-round-3", "Pendulum-v1")]
    earlier = make(cells[0])
    tickets.write(cells[1], earlier.get_env(), earlier, tmp_path / TICKET)
    for mlp, before in zip(mlps(make(cells[1], str(tmp_path / TICKET))), mlps(earlier), strict=True):
        assert mlp.nnz < before.nnz
        assert th.isin(mlp.index, before.index).all()


def test_largest_by_hand():
    weight = th.tensor([[0.0, -3.0, 1.0], [2.0, 0.0, -0.5]])
    assert tickets.largest(weight, 2).tolist() == [1, 3]
    with pytest.raises(ValueError, match="count=5 must be at most 4, the links that there are"):
        tickets.largest(weight, 5)


def test_a_teachers_states_are_its_own_with_noise():
    teacher = make(of("dense", "Pendulum-v1"))
    seen = distilling.states(teacher, make_env("Pendulum-v1"), 450, seed=0)
    assert seen.shape == (450, 3)
    np.testing.assert_array_equal(seen, distilling.states(teacher, make_env("Pendulum-v1"), 450, seed=0))
    assert not np.array_equal(seen, distilling.states(teacher, make_env("Pendulum-v1"), 450, seed=1))
    first, _ = make_env("Pendulum-v1").reset(seed=0)
    np.testing.assert_array_equal(seen[0], first)
    assert len(np.unique(seen, axis=0)) == 450


# stages


@pytest.mark.usefixtures("small")
def test_all_of_them_run_and_every_stage_is_trained_once(tmp_path, monkeypatch):
    trained, train = [], training.Run.train
    monkeypatch.setattr(training.Run, "train", lambda run: (trained.append(run.cell.method), train(run))[1])
    shared = places(tmp_path)
    found = {cell.method: training.train(cell, shared) for cell in reversed(SETS["dense-first-smoke"])}
    assert sorted(trained) == sorted(cell.method for cell in SETS["dense-first-smoke"])
    for method, one in found.items():
        assert one["class"] == ("TD3" if method == "dense" else "RLx2TD3")
        assert one["curve"][-1]["step"] == 1_200
    links = {method: one["cost"]["weights"] for method, one in found.items()}
    last = ("static", "ticket-1", "ticket-1-anew", "ticket-4", "ticket-4-anew", "distilled", "pruning", "snip", "rlx2")
    assert {links[method] for method in last} == {links["static"]}
    rounds = [links[method] for method in ("dense", *TICKETS[4])][:-1]
    assert rounds == sorted(set(rounds), reverse=True)
    flops = [row["flops"] for row in found["pruning"]["curve"]]
    assert flops == sorted(flops, reverse=True)
    assert flops[-1] < flops[0]
    lesson = found["distilled"]["distillation"]
    assert (lesson["observations"], lesson["gradient_steps"]) == (120, 120)
    assert [row["step"] for row in found["distilled"]["curve"]] == [1_200]
    assert all("flops" in row for method, one in found.items() if method != "distilled" for row in one["curve"])


def code(cell, tmp_path, before=""):
    return (
        "from pathlib import Path; from benchmarks.returns.cells import Cell; from benchmarks.returns.training import *\n"
        f"{before}train({cell!r}, Places(Path({str(tmp_path / 'work')!r}), Path({str(tmp_path / 'results')!r})), 50)"
    )


@pytest.mark.slow
def test_stages_that_are_killed_go_on_as_if_nothing_had_happened(tmp_path):
    """SIGKILL behind a checkpoint of each of three stages."""
    cell = of("ticket-4-round-2", "Pendulum-v1", 1_200)
    chain = [of(method, "Pendulum-v1", 1_200) for method in ("dense", "ticket-4-round-1", "ticket-4-round-2")]
    training.train(cell, places(tmp_path / "undisturbed"))
    for stage in chain:
        folder = tmp_path / "work" / stage.name / CHECKPOINTS
        process = apart.Process(code(cell, tmp_path), cwd=ROOT)
        try:
            wait_for(lambda folder=folder, process=process: _reached(folder, 1_050) or process.poll() is not None)
        finally:
            process.kill()
        assert process.result().returncode == -signal.SIGKILL, process.result().stderr
    training.train(cell, places(tmp_path))
    for stage in chain:
        files = [places(folder).result(stage) for folder in (tmp_path, tmp_path / "undisturbed")]
        own, expected = (json.loads(file.read_text()) for file in files)
        assert own["interruptions"] == 1
        assert learned(own) == learned(expected)
        _assert_same_agent(stage, tmp_path, tmp_path / "undisturbed")


def _reached(folder, at_least):
    names = [generations.NAME.fullmatch(each.name) for each in (folder.iterdir() if folder.exists() else ())]
    return any(name is not None and int(name["step"]) >= at_least for name in names)


def _assert_same_agent(cell, *folders):
    weights = [agents.agent_class(cell).load(folder / "work" / cell.name / MODEL).policy.state_dict() for folder in folders]
    assert_equal(*weights)


@pytest.mark.slow
def test_a_student_that_is_killed_learns_the_same_once_more(tmp_path):
    cell = of("distilled", "Pendulum-v1", 1_200)
    expected = training.train(cell, places(tmp_path / "undisturbed"))
    die = (
        "from benchmarks.returns import distilling; import os; real = distilling.distill;"
        "distilling.distill = lambda *given: (real(*given), os.kill(os.getpid(), 9));"
    )
    killed = apart.run(code(cell, tmp_path, die), cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert not places(tmp_path).result(cell).exists()
    dense = places(tmp_path).result(cell_before(cell))
    before = dense.stat().st_mtime_ns
    assert learned(training.train(cell, places(tmp_path))) == learned(expected)
    assert dense.stat().st_mtime_ns == before
    _assert_same_agent(cell, tmp_path, tmp_path / "undisturbed")


# what the table says


def run(method, seed, score, flops, **more):
    cost = {"weights": 10, "training_flops": flops}
    return result(method, seed, score, cost=cost, dense_cost={"weights": 100, "training_flops": 1_000}, **more)


def rows(text):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def chain(seed, score):
    flops = {"ticket-4-round-1": 500, "ticket-4-round-2": 300, "ticket-4-round-3": 200}
    return [*(run(method, seed, 50, each) for method, each in flops.items()), run("ticket-4", seed, score, 100)]


def test_costs_in_all_by_hand():
    found = [run("dense", seed, 100, 1_000) for seed in (0, 1)] + [one for seed in (0, 1) for one in chain(seed, 90 + seed)]
    found += [run("rlx2", seed, 90 + seed, 50) for seed in (0, 1)] + [run("ticket-1", 0, 80, 100)]
    shown = rows(dense_first.table(Results(found), "Hopper-v4"))
    assert shown["Dense"][3:6] == ["1.000", "2.00", "1"]
    assert shown["RLx2"][3:6] == ["0.050", "0.50", "1"]
    assert shown["Ticket, 4 rounds"][:1] + shown["Ticket, 4 rounds"][2:6] == ["0.100", "90, 91", "2.100", "10.00", "5"]
    assert shown["Ticket, one shot"][3:6] == ["1.100", "4.00", "2"]
    assert shown["SNIP"] == ["missing", *["-"] * 7]
    assert "Ticket, 11 rounds" not in shown
    without = [one for one in found if (one.method, one.seed) != ("ticket-4-round-2", 1)]
    assert rows(dense_first.table(Results(without), "Hopper-v4"))["Ticket, 4 rounds"][3:6] == ["-", "-", "-"]


def test_links_that_fall_are_counted_while_they_are_there():
    noted = {20_000: 9e9, 50_000: 1_000, 100_000: 500}
    one = run("pruning", 0, 1, 500, steps=100_000)
    one.about["curve"] = [{"step": step, "returns": [1.0], "flops": flops} for step, flops in noted.items()]
    one = type(one)(one.about)
    assert one.flops == (100_000 - 25_000) * 256 * 750
    old = run("pruning", 0, 1, 500)
    old.about["arguments"]["actor_start_sparsity"] = 0.0
    assert old.flops is None
    student = run("distilled", 0, 1, 500, distillation={"flops": 7.0})
    assert student.flops == 7.0


@pytest.mark.parametrize(
    ("scores", "flops", "said"),
    [
        ((95, 96), 2_000, "higher: a trade"),
        ((95, 96), 10, "higher: it"),
        ((89, 96), 2_000, "not told apart: RLx2"),
        ((89, 96), 10, "not told apart: it"),
        ((80, 81), 2_000, "lower: RLx2"),
        ((80, 81), 10, "lower: a trade"),
        ((80,), 10, "not yet"),
    ],
)
def test_what_is_preferred_by_hand(scores, flops, said):
    found = [run("snip", seed, score, flops) for seed, score in enumerate(scores)]
    found += [run("rlx2", seed, 90 + seed, 50) for seed in (0, 1)]
    assert dense_first.beside(Results(found), "snip", "rlx2", "Hopper-v4") == said
    assert dense_first.beside(Results(found), "snip", "live", "Hopper-v4") == "not yet"
    assert dense_first.beside(Results(found), "static", "rlx2", "Hopper-v4") == "-"


def test_the_papers_argument_by_hand():
    baselines = ("pruning", "snip", "distilled", "ticket-1")
    found = [run(method, seed, 90 + seed, 2_000) for method in ("dense", *baselines) for seed in (0, 1)]
    found += [one for seed in (0, 1) for one in chain(seed, 90 + seed)]
    assert dense_first.preferred(Results(found), "Hopper-v4") == "not yet"
    rlx2 = [run("rlx2", seed, 90 + seed, 50) for seed in (0, 1)]
    assert dense_first.preferred(Results(found + rlx2), "Hopper-v4") == "yes"
    better = [run("snip", seed, 95 + seed, 2_000) if one.method == "snip" else one for one in found for seed in [one.seed]]
    assert dense_first.preferred(Results(better + rlx2), "Hopper-v4") == "no"


def test_what_makes_a_ticket_by_hand():
    scores = {"ticket-1": 90, "static": 80, "ticket-1-anew": 90}
    found = [run(method, seed, score + seed, 1) for method, score in scores.items() for seed in (0, 1)]
    lines = [line for line in dense_first.tickets(Results(found)).splitlines() if "Hopper-v4" in line]
    assert lines == [
        "| Hopper-v4 | Ticket, one shot | higher | not told apart |",
        "| Hopper-v4 | Ticket, 4 rounds | not yet | not yet |",
    ]


def test_the_section_names_what_is_missing():
    text = "\n".join(dense_first.section(Results([run("dense", 0, 100, 1_000)])))
    assert "| dense-first | 1 | " in text
    assert "Hopper-v4: dense 1, rlx2 2, static 2, snip 2, pruning 2, distilled 2, ticket-1 2" in text
    assert "| dense-first-live | 0 | 4 | Hopper-v4: live 2; HalfCheetah-v4: live 2 |" in text
    assert "### HalfCheetah-v4" in text
    # The page is what the report gives: tests/test_returns_report.py.
    assert report.RESULTS_MD.read_text().count("## Methods that need a dense network first") == 1
