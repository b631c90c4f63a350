"""The benchmark's report against numbers worked out by hand."""

import json

import numpy as np
import pytest

from benchmarks import readme
from benchmarks.returns import paper, plots, report, statistics, tables
from benchmarks.returns.results import Curve, Result, Results, load


def result(method, seed, score, env="Hopper-v4", algorithm="td3", steps=1_000_000, **more):
    """A run whose return is 0 up to the last 5 % of its steps, and from there on the score on average over ten episodes."""
    every = steps // 100
    rows = [{"step": step, "returns": [0.0] * 10} for step in range(every, steps - 5 * every + 1, every)]
    rows += [{"step": steps - k * every, "returns": [score - 1, score + 1] * 5} for k in range(4, -1, -1)]
    if method == "rlx2":
        rows = [row | {"buffer": min(row["step"], 100_000), "policy_distance": None} for row in rows]
        rows[-1]["policy_distance"] = 0.2
    about = {"method": method, "algorithm": algorithm, "env": env, "seed": seed, "steps": steps, "sparsity": None}
    arguments = {"actor_sparsity": 0.98, "critic_sparsity": 0.95}
    return Result(about | {"arguments": arguments, "seconds": 1800 if method == "rlx2" else 7200, "curve": rows} | more)


@pytest.fixture
def results():
    names = ("weights", "paper_training_flops", "training_flops", "inference_flops", "disk_bytes", "memory_bytes")
    cost, dense_cost = dict(zip(names, (40, 43, 45, 20, 4_000, 5_000), strict=True)), dict.fromkeys(names, 1_000)
    sparse = [result("rlx2", seed, score, cost=cost, dense_cost=dense_cost) for seed, score in enumerate((80, 100, 120))]
    return Results([*sparse, result("dense", 0, 90), result("dense", 1, 110), result("rigl", 0, 50)])


def test_score_is_the_mean_of_the_last_twentieth():
    curve = Curve(range(10, 1001, 10), [0.0] * 95 + [1.0, 2.0, 3.0, 4.0, 5.0])
    assert curve.score() == 3.0
    assert curve.score(990) == 2.0  # 0.95 of 990 is 940.5, so of steps 950 to 990: 0, 1, 2, 3, 4
    with pytest.raises(ValueError, match="end=1010"):
        curve.score(1010)


def test_table_2_by_hand(results):
    header, _, row, papers = (line.strip("| ").split(" | ") for line in tables.table_2(results, 1_000_000).splitlines())
    shown, figures = (dict(zip(header, line[1:], strict=True)) for line in (row, papers))  # the first header is empty
    assert shown["sparsity of actor / critic"] == "98% / 95%"
    assert (shown["total size"], figures["total size"]) == ("0.040", "0.04")
    assert (shown["FLOPs, training"], figures["FLOPs, training"]) == ("0.043", "0.043")
    assert (shown["exactly"], figures["exactly"]) == ("0.045", "-")
    assert (shown["FLOPs, inference"], figures["FLOPs, inference"]) == ("0.020", "0.02")
    assert (shown["hours"], shown["hours, dense"]) == ("0.50", "2.00")
    assert shown["Dense, return"] == "100 (90 to 110, 2 seeds)"
    assert (shown["RigL, %"], figures["RigL, %"]) == ("**50.0** (1 seed)", "90.6")
    assert (shown["Tiny, %"], figures["Tiny, %"]) == ("-", "64.5")
    assert shown["RLx2, %"].startswith("**100.0** (")
    assert shown["RLx2, %"].endswith(", 3 seeds)")


def test_a_cell_without_a_dense_partner_says_so():
    table, note = tables.table_2(Results([result("rlx2", 0, 100)]), 1_000_000).split("\n\n")
    row = table.splitlines()[2]
    assert row.endswith(f"100 (1 seed) {tables.ALONE} |")
    assert "missing" in row
    assert note == f"{tables.ALONE} a return, not a share: there is no dense partner yet."


def test_what_was_noted_at_evaluations():
    traced = result("rlx2", 0, 100)
    assert traced.trace("buffer")[-1] == 100_000
    assert np.isnan(traced.trace("policy_distance")[:-1]).all()
    assert traced.trace("policy_distance")[-1] == 0.2
    assert result("dense", 0, 100).trace("buffer") is None


def test_bootstrap_intervals_by_hand():
    # Means of three draws from {80, 100, 120}: 80 has a probability of 1/27 = 3.7 %, and so has 120.
    assert statistics.mean([80, 100, 120]) == statistics.Estimate(100.0, 80.0, 120.0, 3)
    assert statistics.share_of_dense([80, 100, 120], [50, 50]) == statistics.Estimate(2.0, 1.6, 2.4, 3)
    # Dense is 90 on average with a probability of 1/4, and so is 110: the quotient's tails hold both.
    assert statistics.share_of_dense([100, 100], [90, 110]) == statistics.Estimate(1.0, 100 / 110, 100 / 90, 2)
    assert statistics.share_of_dense([50], [90, 110]) == statistics.Estimate(0.5, None, None, 1)


def test_interquartile_mean_and_profile_by_hand():
    shares = [[0.2, 0.8], [1.0, 1.6]]
    assert statistics.interquartile_mean(shares).value == pytest.approx(0.9)  # without the lowest and the highest
    assert statistics.interquartile_mean([[0.2, 0.8, 0.9], [1.6]]).value == pytest.approx(0.85)  # unlike numbers of seeds
    above, interval = statistics.performance_profile(shares, np.array([0.0, 0.5, 0.8, 1.2, 2.0]))
    assert above.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert (interval[0] <= above).all()
    assert (above <= interval[1]).all()


def test_table_3_puts_the_papers_figures_below_ours(results):
    found = Results([*results.found, result("rlx2-n1", 0, 75), result("rlx2-buffer-unlimited", 0, 85)])
    first, second = tables.table_3(found, 1_000_000).split("\n\n")
    header, _, row, papers = (line.strip("| ").split(" | ") for line in first.splitlines())
    cells, figures = (dict(zip(header, line, strict=True)) for line in (row, papers))
    assert (cells["n=1"], figures["n=1"]) == ("**75.0** (1 seed)", "77.9")
    assert (cells["SS"], figures["SS"]) == ("-", "84.2")
    assert cells["n=3 (= RLx2)"] == cells["RigL (= RLx2)"]
    assert second.splitlines()[0] == "| % of dense | RLx2 | unlimited buffer |"
    assert second.endswith("**85.0** (1 seed) |")
    assert "buffer" not in tables.table_3(results, 1_000_000)  # none has been trained


def test_what_falls_short_of_the_paper_is_listed():
    dense = [result("dense", seed, 100) for seed in (0, 1)]
    assert tables.below_the_paper(Results([*dense, result("rlx2", 0, 90), result("rlx2", 1, 96)]), 1_000_000) == [
        "TD3 Hopper-v4: **93.0** (90.0 to 96.0, 2 seeds)"
    ]
    assert tables.below_the_paper(Results([*dense, result("rlx2", 0, 90), result("rlx2", 1, 98)]), 1_000_000) == []


def test_early_dense_runs_are_compared_at_equal_steps():
    rows = tables.equal_steps(Results([result("rlx2", 0, 4_000, steps=500_000)])).splitlines()
    cells = rows[-1].strip("| ").split(" | ")
    assert cells[:5] == ["Hopper-v4", "RLx2", "500,000", "500,000", "4,000"]
    assert float(cells[6].rstrip("%")) / 100 == pytest.approx(4_000 / float(cells[5].replace(",", "")), abs=0.005)


def test_pictures_are_drawn_for_what_there_is(results, tmp_path):
    drawn = plots.write(results, tmp_path)
    names = ["td3_Hopper-v4_1000000", "td3_Hopper-v4_1000000_buffer", "profile_td3_1000000"]
    assert [path.stem for path in drawn] == plots.picture_names(results) == names
    assert all(path.stat().st_size > 5_000 for path in drawn)


def test_papers_averages():
    """The tables were copied right: their columns' means are those that the paper prints."""
    td3 = [paper.TABLE_2["td3", env] for env in paper.TABLE_3]
    for method, average in {"tiny": 57.0, "static": 59.3, "set": 65.2, "rigl": 71.4, "rlx2": 99.7}.items():
        assert np.mean([row[method] for row in td3]) == pytest.approx(average, abs=0.051)
    sac = [row for (algorithm, _), row in paper.TABLE_2.items() if algorithm == "sac"]
    for method, average in {"tiny": 76.9, "static": 72.4, "set": 93.6, "rigl": 93.2, "rlx2": 105.2}.items():
        assert np.mean([row[method] for row in sac]) == pytest.approx(average, abs=0.051)
    averages = {"rlx2-tiny": 70.1, "rlx2-static": 83.6, "rlx2-set": 90.4, "rlx2-n1": 88.1, "rlx2-n2": 98.1, "rlx2-n5": 94.6}
    for method, average in averages.items():
        assert np.mean([row[method] for row in paper.TABLE_3.values()]) == pytest.approx(average, abs=0.051)


def test_stored_results_are_shown():
    """README.md and RESULTS.md are what the report makes of the stored results, and each picture that they show is there."""
    assert report.RESULTS_MD.read_text() == report.full_report()
    shown = readme.README.read_text()
    assert readme.splice("returns", report.report(), shown) == shown
    assert {path.stem for path in report.PLOTS.glob("*.png")} == set(plots.picture_names(load()))


def test_results_are_plain_json():
    for path in (report.RESULTS).glob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda name, path=path: pytest.fail(f"{path.name} holds {name}"))
