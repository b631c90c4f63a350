"""The report on algorithms that the paper does not have: its rules, worked by hand."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.returns import algorithms_report, results, statistics
from benchmarks.returns.cells import SETS
from tests.every import VALUE_BASED

ROOT = Path(__file__).parents[1]


def stored(folder, scores):
    """Write a file for each cell of the set whose score `scores(cell)` is not None."""
    for cell in SETS["algorithms"]:
        score = scores(cell)
        if score is not None:
            row = {"step": cell.steps, "returns": [score], "buffer": 1_000}
            about = cell.as_dict() | {"seconds": 60.0, "cost": {"weights": 1}, "dense_cost": {"weights": 4}, "curve": [row]}
            (folder / f"{cell.name}.json").write_text(json.dumps(about))
    return folder


def rows(text):
    return [[each.strip() for each in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_what_was_asked_by_hand(tmp_path):
    def scores(cell):
        if cell.env == "Pendulum-v1":
            return -240.0 if cell.algorithm == "tqc" else -260.0
        if cell.env == "HalfCheetah-v4":
            return {"dense": 1_000.0, "tqc-85": 890.0, "rlx2": 2_000.0}.get(cell.method, 1_100.0)
        if cell.env == "LunarLander-v3":  # dense: 100, 110, 120
            return 100.0 + 10 * cell.seed if cell.method == "dense" else 99.0
        return 401.0 if cell.algorithm == "dqn" else 399.0

    found = results.load_algorithms(stored(tmp_path, scores))
    verdicts = {row[0]: row[-1] for row in rows(algorithms_report.verdicts(found))[2:]}
    assert verdicts == {
        "TQC HalfCheetah-v4": "**no**",
        "DQN LunarLander-v3": "**no**",
        "DQN CartPole-v1": "yes",
        "QRDQN CartPole-v1": "**no**",
        "TQC Pendulum-v1": "yes",
        "DDPG Pendulum-v1": "**no**",
        "CROSSQ Pendulum-v1": "**no**",
    }


def test_dense_in_arrays_is_shown_and_decides_nothing(tmp_path):
    shown = {"tqc-85": 800.0, "dense-arrays": 1_000.0}
    found = results.load_algorithms(stored(tmp_path, lambda cell: shown.get(cell.method)))
    line = algorithms_report.beside_arrays(found)
    assert line.startswith("TQC HalfCheetah-v4: **80.0 %**")
    assert line in algorithms_report.report(tmp_path)
    assert rows(algorithms_report.verdicts(found))[2][-1] == algorithms_report.NOT_YET


def test_nothing_is_said_before_all_runs_are_there(tmp_path):
    found = results.load_algorithms(stored(tmp_path, lambda cell: 1_000.0 if cell.seed == 0 else None))
    assert {row[-1] for row in rows(algorithms_report.verdicts(found))[2:]} == {algorithms_report.NOT_YET}
    assert algorithms_report.decision(found) == f"Decision: {algorithms_report.NOT_YET}."
    assert "`qrdqn_CartPole-v1_dense_50000_seed2`" in algorithms_report.report(tmp_path).splitlines()[-1]


@pytest.mark.parametrize(("better", "chosen"), [(None, "0.9"), ("threshold-0.5", "0.5"), ("threshold-inf", "inf")])
def test_the_threshold_by_its_rule(better, chosen, tmp_path):
    def scores(cell):
        return 200.0 + cell.seed + (50.0 if cell.method == better else 0.0) - (10.0 if cell.method == "threshold-inf" else 0.0)

    found = results.load_algorithms(stored(tmp_path, scores))
    assert algorithms_report.decision(found).startswith(f"Decision: **{chosen}**.")


def test_a_better_mean_whose_interval_holds_zero_decides_nothing(tmp_path):
    def scores(cell):
        return 200.0 + (100.0 if cell.method == "threshold-0.5" and cell.seed == 0 else 0.0)

    assert algorithms_report.decision(results.load_algorithms(stored(tmp_path, scores))).startswith("Decision: **0.9**.")


def test_differences_in_shares_of_dense_by_hand():
    estimate = statistics.difference_over([([30.0, 30.0], [20.0, 20.0], [100.0]), ([5.0, 5.0], [6.0, 6.0], [10.0, 10.0])])
    assert (estimate.value, estimate.low, estimate.high) == (pytest.approx(0.0), pytest.approx(0.0), pytest.approx(0.0))
    assert statistics.difference_over([([30.0], [20.0], [100.0])]).value == pytest.approx(0.1)


def test_other_results_go_into_their_folder(tmp_path):
    algorithms_report.write(tmp_path)
    assert not list(tmp_path.iterdir())
    stored(tmp_path, lambda cell: 1.0 if cell.env == "Pendulum-v1" else None)
    algorithms_report.write(tmp_path)
    text = (tmp_path / algorithms_report.FILE).read_text()
    assert "| TQC | Pendulum-v1 | 15,000 | RLx2 | 1, 1, 1 | 0.250 | - | 1.0 |" in text


def test_stored_results_are_shown():
    path = results.HERE / algorithms_report.FILE
    assert not path.exists() or path.read_text() == algorithms_report.report()


def test_the_default_threshold_is_what_was_decided():
    decided = re.match(r"Decision: \*\*(.+)\*\*", algorithms_report.decision(results.load_algorithms()))[1]
    for algorithm in VALUE_BASED:
        assert algorithm.sparse_policy_class.distance_threshold == float(decided)
    for page in ("docs/algorithms/dqn.md", "docs/how_it_works.md"):
        assert re.search(rf"threshold\s+is {re.escape(decided)}\b", (ROOT / page).read_text()), page
