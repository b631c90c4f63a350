"""The benchmark's report against numbers worked out by hand."""

import json
import math
from dataclasses import fields

import numpy as np
import pytest
from matplotlib.colors import to_hex

from benchmarks import readme
from benchmarks.returns import goal, paper, plots, report, screening, statistics, tables
from benchmarks.returns.agents import arguments
from benchmarks.returns.cells import CELLS, COMBINATIONS, INTERVALS, LIVE, METHODS, OURS, Cell
from benchmarks.returns.probes import PROBES
from benchmarks.returns.results import Curve, Result, Results, load
from benchmarks.returns.training import make_env


def result(method, seed, score, env="Hopper-v4", algorithm="td3", steps=1_000_000, **more):
    """A run whose return is 0 up to the last 5 % of its steps, and from there on the score on average over ten episodes."""
    every = steps // 100
    rows = [{"step": step, "returns": [0.0] * 10} for step in range(every, steps - 5 * every + 1, every)]
    rows += [{"step": steps - k * every, "returns": [score - 1, score + 1] * 5} for k in range(4, -1, -1)]
    if method == "rlx2":
        rows = [row | {"buffer": min(row["step"], 100_000), "policy_distance": None} for row in rows]
        rows[-1]["policy_distance"] = 0.2
    about = {"method": method, "algorithm": algorithm, "env": env, "seed": seed, "steps": steps, "sparsity": None}
    arguments = {"learning_starts": 25_000, "actor_sparsity": 0.98, "critic_sparsity": 0.95}
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
    assert (shown["RigL"], figures["RigL"]) == ("**50.0 %** (1 / 2 seeds)", "90.6")
    assert (shown["Tiny"], figures["Tiny"]) == ("-", "64.5")
    assert shown["RLx2"].startswith("**100.0 %** (")
    assert shown["RLx2"].endswith(", 3 / 2 seeds)")


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
    assert statistics.share_of_dense([80, 100, 120], [50, 50]) == statistics.Estimate(2.0, 1.6, 2.4, 3, 2)
    # Dense is 90 on average with a probability of 1/4, and so is 110: the quotient's tails hold both.
    assert statistics.share_of_dense([100, 100], [90, 110]) == statistics.Estimate(1.0, 100 / 110, 100 / 90, 2, 2)
    assert statistics.share_of_dense([50], [90, 110]) == statistics.Estimate(0.5, None, None, 1, 2)


def test_interquartile_mean_and_profile_by_hand():
    pairs = [([20, 80], [100, 100]), ([500, 800], [400, 600])]  # shares 0.2, 0.8, 1.0 and 1.6
    assert statistics.interquartile_mean(pairs).value == pytest.approx(0.9)  # without the lowest and the highest
    unlike = [([20, 80, 90], [100]), ([800], [500])]
    assert statistics.interquartile_mean(unlike).value == pytest.approx(0.85)
    above, interval = statistics.performance_profile(pairs, np.array([0.0, 0.5, 0.8, 1.2, 2.0]))
    assert above.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert (interval[0] <= above).all()
    assert (above <= interval[1]).all()


def test_dense_seeds_are_drawn_anew_for_means_over_environments():
    """The dense mean is 90 with a probability of 1/4, and so is 110."""
    estimate = statistics.interquartile_mean([([100, 100], [90, 110])])
    assert (estimate.low, estimate.high) == pytest.approx((100 / 110, 100 / 90))
    thresholds = np.array([100 / 105])
    _, interval = statistics.performance_profile([([100, 100], [90, 110])], thresholds)
    assert interval.ravel().tolist() == [0.0, 1.0]


def test_table_3_puts_the_papers_figures_below_ours(results):
    found = Results([*results.found, result("rlx2-n1", 0, 75), result("rlx2-buffer-unlimited", 0, 85)])
    first, second = tables.table_3(found, 1_000_000).split("\n\n")
    header, _, row, papers = (line.strip("| ").split(" | ") for line in first.splitlines())
    cells, figures = (dict(zip(header, line, strict=True)) for line in (row, papers))
    assert (cells["n=1"], figures["n=1"]) == ("**75.0 %** (1 / 2 seeds)", "77.9")
    assert (cells["SS"], figures["SS"]) == ("-", "84.2")
    assert cells["n=3 (= RLx2)"] == cells["RigL (= RLx2)"]
    assert second.splitlines()[0] == "| share of dense | RLx2 | unlimited buffer |"
    assert second.endswith("**85.0 %** (1 / 2 seeds) |")
    assert "buffer" not in tables.table_3(results, 1_000_000)  # none has been trained


def test_what_falls_short_of_the_paper_is_listed():
    dense = [result("dense", seed, 100) for seed in (0, 1)]
    first = result("rlx2", 0, 90)
    for own, expected in (
        ([first, result("rlx2", 1, 96)], "yes: TD3 Hopper-v4 **93.0 %** (90.0 to 96.0, 2 / 2 seeds)"),
        ([first, result("rlx2", 1, 98)], "no: TD3 Hopper-v4 **94.0 %** (90.0 to 98.0, 2 / 2 seeds)"),
        ([first], "not to be said, for want of seeds: TD3 Hopper-v4"),
    ):
        assert tables.below_the_paper(Results([*dense, *own]), 1_000_000) == expected
    assert tables.below_the_paper(Results([first]), 1_000_000).startswith("not to be said")


def test_a_goal_is_reached_when_the_mean_over_a_window_is():
    curve = Curve(range(10, 101, 10), [0, 9, 0, 6, 6, 0, 0, 6, 6, 6])
    assert curve.first_score(6, 20) == 50
    assert curve.first_score(6, 30) == 100
    assert curve.first_score(9, 10) == 20
    assert curve.first_score(7, 30) is None
    assert Curve(range(10, 1001, 10), [1.0] * 50 + [2.0] * 50).score(500) == 1.0


def test_what_rlx2_lacks_on_walker():
    group = {"env": "Walker2d-v4"}
    long = result("rlx2", 0, 100, steps=3_000_000, **group, cost={"weights": 1}, dense_cost={"weights": 25})
    found = [long, result("dense", 0, 100, **group), result("rlx2", 0, 40, **group), result("rlx2-n1", 1, 98, **group)]
    found.append(result("rlx2", 1, 60, **group, sparsity=0.85))
    rows = [line.strip("| ").split(" | ") for line in tables.walker_causes(Results(found)).splitlines()[2:]]
    labels = [row[0] for row in rows]
    assert rows == [
        ["Dense", "1,000,000", "-", "100 (1 seed)", "-", "1,000,000"],
        ["RLx2", "1,000,000", "-", "40 (1 seed)", "-", "never"],
        ["n=1", "1,000,000", "-", "98 (1 seed)", "-", "1,000,000"],
        ["RLx2 at 85%", "1,000,000", "-", "60 (1 seed)", "-", "never"],
        ["RLx2", "3,000,000", "0.040", "0 (1 seed)", "100 (1 seed)", "2,910,000"],
    ]
    assert "walker_causes" in plots.picture_names(Results(found))
    assert list(plots.curve_groups(Results(found))["walker_causes"]) == [*labels[:-1], "RLx2, 3,000,000 steps"]
    assert tables.walker_causes(Results([long])) is None
    assert "walker_causes" not in plots.picture_names(Results([long]))


def test_hours_until_a_return_is_held():
    curve = [{"step": 10 * k, "returns": [float(k)] * 10} for k in range(1, 101)]  # the last five are at k - 2 on average
    about = {"method": "rlx2", "algorithm": "td3", "env": "Hopper-v4", "seed": 0, "steps": 1_000, "sparsity": None}
    older = Result(about | {"seconds": 36_000, "curve": curve})
    assert older.hours_to(48) == pytest.approx(5.0)  # at 500 of 1,000 steps
    assert older.hours_to(99) is None
    curve[49]["seconds"] = 7_200
    assert Result(about | {"seconds": 36_000, "curve": curve}).hours_to(48) == 2.0


def test_time_to_dense_by_hand():
    """A run holds dense's score of 100 when the last of its five good evaluations is there: at its end, after all its time."""
    found = [result("dense", seed, 100) for seed in (0, 1)] + [result("rlx2", seed, 100) for seed in (0, 1, 2)]
    found[-1] = result("rlx2", 2, 90)
    (row,) = goal.hours_to_dense(Results(found)).splitlines()[2:]
    assert row == "| TD3 Hopper-v4 | 97 | 2.00 h (2 of 2 runs) | 0.50 h (2 of 3 runs) | - |"
    (row,) = goal.hours_to_dense(Results([*found[:3], found[-1], result("rlx2", 3, 90)])).splitlines()[2:]
    assert row.endswith("| not held (1 of 3 runs) | - |")
    assert goal.hours_to_dense(Results(found[2:])) is None


def test_the_goal_by_its_rule():
    dense = [100.0] * 3
    assert goal.verdict([99.0, 102.0, 105.0], dense).startswith("reached: **102.0 %** (99.0 to 105.0, 3 / 3 seeds)")
    assert goal.verdict([90.0, 110.0, 106.0], dense).startswith("not reached: **102.0 %** (90.0 to")
    assert goal.verdict([98.0, 99.0, 100.0], dense).startswith("not reached: **99.0 %** (98.0 to")  # its mean is below
    assert goal.verdict([120.0, 130.0], dense).startswith("too few seeds: **125.0 %** (120.0 to 130.0, 2 / 3 seeds)")
    assert goal.verdict([120.0] * 5, dense[:2]).startswith("too few seeds: **120.0 %**")
    assert goal.verdict([], dense) == "too few seeds (0 / 3)"


def screened(effects, gains=None, noise=100.0):
    """
    All runs of the screening.

    :param effects: returns that terms at + have above them at -
    :param gains: returns by which policies are above the current one
    :param noise: returns by which the first seed is above the second
    """
    found = []
    for letters in COMBINATIONS:
        score = 2_000 + sum(value / 2 * screening._sign(term, letters) for term, value in effects.items())
        for seed, change in ((10, noise / 2), (11, -noise / 2)):
            one = result(f"screening-{letters or 'none'}", seed, 0.0, env="Walker2d-v4")
            for row in one.about["curve"]:
                row["returns"] = [score + change] * 10
                if row["step"] > 900_000:
                    row["deployed"] = {name: [score + change + gain] * 10 for name, gain in (gains or {}).items()}
            found.append(Result(one.about))
    return Results(found)


def test_effects_of_the_screening_by_hand():
    point = screening.UNIT / 100
    found = screening.responses(screened({"S": 20 * point, "G": -12 * point, "PL": 9 * point}, noise=8 * point))
    estimated = {effect.term: effect for effect in screening.effects(found)}
    assert len(estimated) == 5 + 10
    # Two seeds that are 8 points apart have a variance of 32; a difference of two means of 16 runs one of 32 / 8.
    for term, value, accepted in (("S", 20, True), ("G", -12, False), ("PL", 9, True), ("P", 0, False), ("SU", 0, False)):
        assert estimated[term].value == pytest.approx(value, abs=1e-9)
        assert estimated[term].t == pytest.approx(value / 2, abs=1e-9)
        assert estimated[term].accepted is accepted
    predicted = screening.predictions(found)
    assert len(predicted) == 32
    middle = 2_000 / point
    assert predicted["SPL"] == pytest.approx(middle + 10 + 4.5)
    assert predicted["SPGLU"] == predicted["SPL"]  # what is not accepted makes no difference
    assert predicted["SP"] == pytest.approx(middle + 10 - 4.5)
    assert screening.setting(found) == "S"  # P and L together are as good at -


def test_the_setting_by_its_rule():
    point = screening.UNIT / 100
    for effects, expected in (
        ({}, "SP"),  # nothing is accepted
        ({"S": 6 * point}, "S"),
        ({"L": 6 * point}, "SP"),  # of L 8 points are asked
        ({"L": 9 * point, "P": 6 * point}, "PL"),
        ({"G": 20 * point, "S": 10 * point}, "SG"),
        ({"G": 20 * point, "S": 130 * point}, "S"),  # 97 points without G are enough
        # a pair accepts no factor, least of all one that does harm
        ({"G": -20 * point, "GU": -9 * point}, "SP"),
        ({"L": -20 * point, "U": 10 * point, "LU": 15 * point}, ""),  # U harms where L is at -
        ({"S": 15 * point, "L": -30 * point, "SL": 13 * point}, "S"),
        ({"SP": -12 * point}, "SP"),
    ):
        assert screening.setting(screening.responses(screened(effects, noise=8 * point))) == expected
    noisy = screening.responses(screened({"S": 6 * point, "L": 9 * point}, noise=20 * point))  # a standard error of 5 points
    assert screening.setting(noisy) == "S"


def test_the_policy_to_deploy_by_its_rule():
    point = screening.UNIT / 100
    better = screened({}, {"average 0.999": 4 * point, "checkpoint 5": 5 * point})
    assert screening.deployed(better) == "checkpoint 5"
    assert screening.deployed(screened({}, {"average 0.999": 2.9 * point})) is None
    for losses, expected in ((3, "checkpoint 5"), (4, None)):
        found = screened({}, {"checkpoint 5": 20 * point})
        for one in found.found[:losses]:
            for row in one.about["curve"][-10:]:
                row["deployed"]["checkpoint 5"] = [row["returns"][0] - 3.1 * point] * 10
        assert screening.deployed(found) == expected


def test_nothing_is_decided_before_all_runs_are_there():
    found = screened({"S": 900.0}, {"checkpoint 5": 900.0})
    lacking = Results(found.found[:-1])
    assert screening.responses(lacking) is None
    assert screening.deployed(lacking) is None
    assert screening.section(lacking)[0].startswith("31 of 32 runs are there: nothing is decided.")
    assert screening.section(Results([])) == []
    elsewhere = result("screening-none", 10, 0.0, env="Hopper-v4")
    assert screening.responses(Results([*found.found, Result(elsewhere.about)])) == screening.responses(found)
    found.found[0].about["curve"][-1]["deployed"]["of one run"] = [9_000.0] * 10
    assert screening.deployed(found) == "checkpoint 5"
    text = "\n".join(screening.section(found))
    assert "The setting (A2): S, predicted at" in text
    assert f"where the code still has {LIVE}" in text
    assert "The policy to deploy (A3): checkpoint 5." in text


def test_the_deployed_policy_is_judged_beside_denses():
    found = screened({}, {"checkpoint 5": 900.0}).found
    for method, gain in (("live", 100.0), ("dense", 20.0)):
        for seed in range(3):
            one = result(method, seed, 100.0)
            for row in one.about["curve"][-10:]:
                row["deployed"] = {"checkpoint 5": [100.0 + gain] * 10}
            found.append(Result(one.about))
    found.append(result("dense", 3, 100.0))  # of before policies were scored
    header, _, *rows = (line.strip("| ").split(" | ") for line in goal.verdicts(Results(found)).splitlines())
    shown = dict(zip(header, rows[1][1:], strict=True))
    assert shown["RLx2-live, current policy"] == "reached: **100.0 %** (100.0 to 100.0, 3 / 4 seeds)"
    assert shown["RLx2-live, deployed policy (checkpoint 5)"] == "reached: **166.7 %** (166.7 to 166.7, 3 / 3 seeds)"


def test_the_recipe_is_what_the_screening_chose():
    found = screening.responses(load())
    assert (screening.FALLBACK if found is None else screening.setting(found)) == LIVE
    assert screening.deployed(load()) in (None, *PROBES)


def test_our_own_methods_have_columns_where_there_is_a_run(results):
    assert "RLx2-live" not in tables.table_2(results, 1_000_000)
    found = Results([*results.found, *(result(method, 20, 110) for method in OURS)])
    header, _, row, papers = (line.strip("| ").split(" | ") for line in tables.table_2(found, 1_000_000).splitlines())
    assert dict(zip(header, row[1:], strict=True))["Pruning"] == "**110.0 %** (1 / 2 seeds)"
    assert dict(zip(header, papers[1:], strict=True))["RLx2-live, half the size"] == "-"
    assert list(plots.curve_groups(found)["td3_Hopper-v4_1000000"])[-3:] == [METHODS[method].label for method in OURS]


def test_table_3_is_shown_at_lengths_that_have_an_ablation(results, monkeypatch):
    monkeypatch.setattr(report, "load", lambda _: Results([*results.found, result("rlx2", 0, 90, steps=3_000_000)]))
    assert "## Table 2, 3,000,000 steps" in report.full_report()
    assert "## Table 3" not in report.full_report()
    monkeypatch.setattr(report, "load", lambda _: Results([*results.found, result("rlx2-n1", 0, 90)]))
    assert report.full_report().count("## Table 3") == 1


def test_what_is_missing_is_counted():
    (row,) = tables.missing(["walker"], Results([result("rlx2", 1, 100, env="Walker2d-v4")])).splitlines()[2:]
    assert row == "| walker | 1 | 6 | Walker2d-v4: rlx2 1, rigl 2, static 2, dense 1 |"


def test_another_folders_results_are_only_shown(tmp_path, capsys):
    pictures = (path for path in report.PLOTS.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in (report.RESULTS_MD, readme.README, *pictures)}
    report.write(tmp_path)
    assert report.NOT_YET in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before


def test_pictures_are_drawn_for_what_there_is(results, tmp_path):
    drawn = plots.write(results, tmp_path)
    names = ["td3_Hopper-v4_1000000", "td3_Hopper-v4_1000000_buffer", "profile_td3_1000000"]
    assert [path.stem for path in drawn] == plots.picture_names(results) == names
    assert all(path.stat().st_size > 5_000 for path in drawn)


def test_all_ablations_have_colours_of_their_own(tmp_path):
    methods = ["rlx2", *(method for method in METHODS if method.startswith("rlx2-"))]
    found = Results([result(method, 0, 100) for method in methods])
    drawn = [path.stem for path in plots.write(found, tmp_path)]
    assert "td3_Hopper-v4_1000000_ablations" in drawn
    figure = plots._pictures(found)["td3_Hopper-v4_1000000_ablations"]()
    colours = [to_hex(line.get_color()) for line in figure.axes[0].get_lines() if "(1)" in line.get_label()]
    assert len(set(colours)) == len(colours) == len(methods)


def test_stale_pictures_go(results, tmp_path):
    (tmp_path / "stale.png").write_bytes(b"")
    plots.write(results, tmp_path)
    assert not (tmp_path / "stale.png").exists()


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
    assert readme.splice("returns", report.pictures(), shown) == shown
    assert {path.stem for path in report.PLOTS.glob("*.png")} == set(plots.picture_names(load()))


def test_results_are_plain_json():
    for path in (report.RESULTS).glob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda name, path=path: pytest.fail(f"{path.name} holds {name}"))


def test_stored_cells_are_those_of_the_grid():
    """A finished cell was trained with the arguments that the grid gives it today."""
    for one in load().found:
        cell = Cell(**{field.name: one.about[field.name] for field in fields(Cell)})
        assert cell.name in CELLS
        stored = one.about["arguments"]
        # The first cells stored no defaults, which were the intervals that are written into all cells now.
        own = [(name, value) for name, value in arguments(cell, make_env(cell.env)).items() if name in stored]
        assert arguments(cell, make_env(cell.env)).keys() - stored.keys() <= INTERVALS.keys()
        assert {name: "inf" if value == math.inf else value for name, value in own} == {name: stored[name] for name, _ in own}
