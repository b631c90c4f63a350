"""The Interplay suite: what is compared, how settings are chosen, what the report says, and that all of it runs."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.returns import agents, choose, interplay, interplay_report, statistics, training
from benchmarks.returns.__main__ import main, parse
from benchmarks.returns.cells import CELLS, METHODS, SETS, Cell
from benchmarks.returns.interplay import ARMS, RUNS, STRUCTURES, TUNE, Arm, Setting
from benchmarks.returns.results import Result, load, load_suite
from benchmarks.returns.training import MODEL, Places
from sb3_rlx2 import RLx2DQN
from tests.compilers import needs
from tests.envs import PixelEnv

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date", "ignore:backend='auto' takes 'masked'")


@pytest.fixture
def games():
    needs("minatar")


@pytest.fixture
def untuned(monkeypatch, tmp_path):
    """Settings as if nothing had been tuned."""
    for module in (interplay, interplay_report):
        monkeypatch.setattr(module, "SETTINGS", tmp_path / "interplay.json")
    return tmp_path / "interplay.json"


# what is compared


def test_eighteen_arms():
    both = {"random", "active", "spatial", "predictive", "l1-extract", "dense-p", "dense-n"}
    assert {arm.structure for arm in ARMS if arm.regime == "fixed"} == both
    assert {arm.structure for arm in ARMS if arm.regime == "learned"} == both | {"l1-penalise", "rigl", "rlx2", "conv"}
    assert {arm.structure for arm in ARMS} == STRUCTURES.keys()
    assert set(interplay_report.EQUAL) <= both


def test_names_of_cells_are_names_of_files():
    for name, cell in CELLS.items():
        assert "/" not in name
        assert cell.name == name


def test_a_games_settings_are_not_the_zoos():
    cell = CELLS["dqn_MinAtar-Breakout-v0_interplay_random-learned_500000_seed0"]
    assert (cell.arguments["learning_starts"], cell.arguments["exploration_fraction"]) == (50_000, 0.3)
    assert "n_timesteps" not in cell.arguments


@pytest.mark.parametrize(("channels", "actions", "width"), [(4, 6, 108), (6, 6, 103), (4, 3, 101)])
def test_equal_parameters_by_hand(channels, actions, width):
    # 1024 units with 36 or 54 links, their biases and the output layer; a dense unit has 400 or 600 links, a bias and outputs
    inputs, shape = 100 * channels, (10, 10, channels)
    sparse = 1024 * (9 * inputs // 100 + 1 + actions) + actions
    dense = {w: w * (inputs + 1 + actions) + actions for w in (width - 1, width, width + 1)}
    assert min(dense, key=lambda w: abs(dense[w] - sparse)) == interplay.equal_parameters(shape, actions) == width


def test_links_of_a_unit_by_hand():
    assert interplay.links_of_a_unit((10, 10, 6)) == 9 * 6
    assert interplay.links_of_a_unit((8, 20, 3)) == 4 * 3  # 0.3 of 8 is 2.4
    assert interplay.links_of_a_unit((200,)) == 18
    assert interplay.links_of_a_unit((4,)) == interplay.links_of_a_unit((2, 2, 1)) == 1


def test_images_of_another_size(untuned):
    env = PixelEnv((3, 12, 10))  # channels first, as SB3 sees by the sizes
    for method in ("interplay_spatial-learned", "interplay_predictive-learned", "interplay_conv-learned"):
        model = agents.make(Cell(method, "dqn", "Own-v0", 0, 3_000, 1_500), DummyVecEnv([lambda: env]))
        if "conv" not in method:
            assert model.q_net.q_net.layers[0].nnz == 1024 * 27


@pytest.mark.parametrize("game", ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"])
def test_a_patch_of_every_game_is_a_patch_in_all_channels(game, games, untuned):
    # Seaquest has ten channels, and SB3 takes the first of three equal sizes for them.
    env = f"MinAtar/{game}-v0"
    _, model = make("interplay_spatial-learned", env)
    *size, channels = model.observation_space.shape
    assert size == [10, 10]
    units = model.q_net.q_net.dense_weights()[0].detach().view(1024, 10, 10, channels) != 0
    assert units[0, :3, :3].all()
    assert units.flatten(1).sum(1).unique().tolist() == [9 * channels]
    _, model = make("interplay_conv-learned", env)
    assert model.q_net.features_extractor.cnn[0].weight.shape == (16, channels, 3, 3)
    shown = th.zeros(1, 10, 10, channels)
    shown[0, 0, 0] = 1.0  # all channels of a corner, which the filters see in their first place alone
    features = [model.q_net.features_extractor(each).view(16, 8, 8) for each in (shown, th.zeros_like(shown))]
    assert (features[0] != features[1]).any(0).nonzero().tolist() == [[0, 0]]


def make(method, env="MinAtar/Breakout-v1", **more):
    cell = Cell(method, "dqn", env, 0, 3_000, 1_500)
    one = training.make_env(env)
    return cell, agents.make(cell, DummyVecEnv([lambda: one]), **more)


def test_structures_of_equal_size(games, untuned):
    sizes, trained = {}, {}
    for name in ("random", "active", "spatial", "predictive", "rigl", "dense-p", "dense-n", "conv"):
        for regime in STRUCTURES[name].regimes:
            _, model = make(f"interplay_{name}-{regime}")
            sizes[name] = sum(each.numel() for each in model.q_net.parameters())
            trained[name, regime] = training.links.trained_parameters(model)
    for name in ("random", "active", "spatial", "predictive", "rigl"):
        assert sizes[name] == 1024 * (36 + 1 + 3) + 3 == trained[name, "learned"]
        assert trained.get((name, "fixed"), 3_075) == 3 * 1024 + 3
    assert abs(sizes["dense-p"] - sizes["random"]) < 405 / 2  # half a unit
    assert trained["dense-n", "fixed"] == 3_075
    assert trained["dense-p", "fixed"] == 3 * 101 + 3
    assert trained["conv", "learned"] == 16 * 9 * 4 + 16 + 1024 * 128 + 128 + 128 * 3 + 3


def test_what_is_said_of_optimizers_and_biases(games, untuned):
    cell, model = make(tuning_method("random", "fixed", Setting(bias=-2.0)))
    assert isinstance(model.policy.optimizer, th.optim.Adam)
    assert model.policy.optimizer.param_groups[0]["eps"] == 3.125e-4
    assert model.learning_rate == 4 * 2**-11
    hidden = model.q_net.q_net
    deviation = hidden.values[: hidden.hidden_nnz].std().item()
    assert hidden.bias[0].item() == pytest.approx(-2 * deviation, rel=0.05)
    _, published = make("published_conv-learned")
    assert isinstance(published.policy.optimizer, th.optim.RMSprop)
    assert (published.train_freq.frequency, published.max_grad_norm, published.learning_rate) == (1, 1e9, 2.5e-4)
    untuned.write_text(json.dumps({interplay.OTHERS: {"random-fixed": asdict(Setting(bias=-2.0))}}))
    assert make("interplay_random-fixed")[1].hidden_bias < 0
    assert make("published_random-fixed")[1].hidden_bias == 0.0
    assert json.dumps(agents.all_arguments(cell, training.make_env(cell.env)))


def tuning_method(structure, regime, setting):
    return interplay.Run(Arm(structure, regime), TUNE, setting).method


def test_tuning_changes_one_thing_at_a_time():
    for arm in ARMS:
        settings = list(arm.settings())
        assert len(settings) == len(set(settings)) == 3 + 2 * (arm.regime == "fixed") + 3 * (arm.structure == "l1-penalise")
        for setting in settings[1:]:
            assert sum(asdict(setting)[name] != value for name, value in asdict(settings[0]).items()) == 1
        names = [interplay.Run(arm, TUNE, setting).method for setting in settings]
        assert set(names) <= RUNS.keys()


def test_no_seed_that_was_tuned_on_is_reported():
    seeds = {name: {cell.seed for cell in SETS[name]} for name in SETS if name.startswith("interplay")}
    tuned = seeds.pop("interplay-tune")
    assert not tuned & set.union(*seeds.values())


def test_an_agent_comes_before_those_that_need_it():
    for name in ("interplay", "interplay-smoke", "interplay-tune", "interplay-published"):
        place = {cell: at for at, cell in enumerate(SETS[name])}
        for cell in SETS[name]:
            before = training.cell_before(cell)
            assert (before is None) == ("l1-extract" not in cell.method)
            assert before is None or place[before] < place[cell]


# all of it runs


@pytest.mark.parametrize("cell", SETS["interplay-smoke"], ids=lambda cell: cell.method)
def test_smoke(cell, games, untuned, tmp_path):
    if METHODS[cell.method].needs is None:  # those that do have a test of their own
        short = replace(cell, steps=1_040, eval_every=520)
        result = training.train(short, Places(tmp_path / "work", tmp_path / "results"))
        assert [row["step"] for row in result["curve"]] == [520, 1_040]
        assert all(isinstance(row["training"], float) for row in result["curve"])
        image = METHODS[cell.method].network != "conv"
        assert (result["connections"] is not None) == image
        if image:
            assert np.array(result["connections"]["last"]).shape == (10, 10, 4)
            assert np.sum(result["connections"]["last"]) == pytest.approx(1.0, abs=5e-3)


def test_the_links_of_l1s_agent(games, untuned, tmp_path):
    places = Places(tmp_path / "work", tmp_path / "results")
    cell = Cell("interplay_l1-extract-fixed", "dqn", "MinAtar/Breakout-v1", 3, 1_040, 1_040)
    stored = training.train(cell, places)
    before = training.cell_before(cell)
    assert (before.method, before.seed, before.steps) == ("interplay_l1-penalise-learned", 3, 1_040)
    penalised, extracted = (RLx2DQN.load(places.folder(one) / MODEL).q_net.q_net for one in (before, cell))
    weight = penalised.dense_weights()[0].detach().abs()
    expected = th.zeros_like(weight, dtype=th.bool).scatter(1, weight.topk(36, dim=1).indices, True)
    assert th.equal(extracted.dense_weights()[0].detach() != 0, expected)
    assert stored["links_above_0.001_before"] == int((weight[expected] > 1e-3).sum())
    assert stored["setting"] == asdict(Setting())


# settings


def result(method, seed=0, score=1.0, env="MinAtar/Breakout-v0", steps=200_000, large=36_864):
    rows = [{"step": steps, "seconds": 1.0, "returns": [score + 1], "training": score}]
    layers = [{"layer": "q_net.0.0", "shape": [1024, 400], "links": 36_864, "links_above_0.001": large}]
    shares = np.full((10, 10, 4), 1 / 400).tolist()
    about = asdict(Cell(method, "dqn", env, seed, steps, steps)) | {"curve": rows, "topology": layers}
    return about | {
        "setting": asdict(Setting()),
        "links_above_0.001_before": 12_345,
        "links_of_equal_size": 36_864,
        "trained_parameters": 5,
        "connections": {"first": shares, "last": shares},
        "cost": {},
        "seconds": 1.0,
    }


def store(folder, abouts):
    folder.mkdir(exist_ok=True)
    for about in abouts:
        name = Cell(**{key: about[key] for key in ("method", "algorithm", "env", "seed", "steps", "eval_every")}).name
        (folder / f"{name}.json").write_text(json.dumps(about))


def tuned(env, scores):
    """All runs of an environment's tuning; scores by (structure, regime, setting), 1 where there is none."""
    for cell in SETS["interplay-tune"]:
        if cell.env == env:
            run = RUNS[cell.method]
            score, large = scores.get((run.arm.structure, run.arm.regime, run.setting), (1.0, 36_864))
            yield result(cell.method, cell.seed, score + (cell.seed - 100) / 10, env, large=large)


def test_settings_by_their_rules(tmp_path, untuned):
    breakout, invaders = interplay.GAMES
    store(
        tmp_path / "results",
        [
            *tuned(
                breakout,
                {
                    ("random", "learned", Setting(rate=-10)): (3.0, 0),
                    ("random", "fixed", Setting(rate=-12)): (2.0, 0),
                    ("random", "fixed", Setting(bias=-1.0)): (1.5, 0),
                    ("l1-penalise", "learned", Setting()): (1.0, 400_000),
                    ("l1-penalise", "learned", Setting(l1=3e-5)): (0.0, 40_000),
                    ("l1-penalise", "learned", Setting(l1=1e-6)): (9.0, 410_000),
                    ("l1-penalise", "learned", Setting(l1=3e-6)): (9.0, 300_000),
                },
            ),
            *tuned(invaders, {("random", "learned", Setting(rate=-12)): (1.2, 0)}),
            # of another length, so not of the tuning
            result(tuning_method("random", "learned", Setting()), 100, 99.0, breakout, steps=1_000),
        ],
    )
    message = choose.choose(tmp_path / "results", untuned)
    assert message == f"interplay.json: settings of {breakout}, {invaders}, others"
    assert interplay.chosen(breakout, Arm("random", "learned")) == Setting(rate=-10)
    assert interplay.chosen(breakout, Arm("random", "fixed")) == Setting(rate=-12, bias=-1.0)
    assert interplay.chosen(breakout, Arm("l1-penalise", "learned")) == Setting(
        l1=3e-5
    )  # nearest to 36,864, whatever its score
    assert interplay.chosen(breakout, Arm("spatial", "learned")) == Setting()  # of equals the centre
    assert interplay.chosen(invaders, Arm("random", "learned")) == Setting(rate=-12)
    # -10 has 1 and 1/1.2 of the best, -12 1/3 and 1
    assert interplay.chosen("MinAtar/Asterix-v0", Arm("random", "learned")) == Setting(rate=-10)


def test_nothing_is_chosen_before_all_runs_are_there(tmp_path, untuned, capsys):
    store(tmp_path / "results", list(tuned(interplay.GAMES[0], {}))[1:])
    count = len(SETS["interplay-tune"])
    with pytest.raises(
        ValueError, match=f"{count // 2 + 1} of {count} runs of interplay-tune are missing, such as dqn_MinAtar-B"
    ):
        choose.choose(tmp_path / "results", untuned)
    assert not untuned.exists()


# statistics


def test_structure_test_by_hand():
    # Six ways to deal 1, 2, 3, 4 out to two pairs, two of which have means as far apart.
    assert statistics.structure_test([[1, 2], [3, 4]]) == pytest.approx(2 / 6, abs=0.02)
    assert statistics.structure_test([[1, 1], [1, 1]]) == 1.0
    assert statistics.structure_test([[0.0, 0.1, 0.2, 0.1], [9.0, 9.1, 9.2, 9.1]]) < 0.05


def test_interaction_test_by_hand():
    additive = [([0.0, 1.0], [2.0, 3.0]), ([5.0, 6.0], [7.0, 8.0])]
    assert statistics.interaction_test(additive) == pytest.approx(1.0, abs=0.01)
    crossed = [([0.0, 0.1, 0.2], [9.0, 9.1, 9.2]), ([9.0, 9.1, 9.2], [0.0, 0.1, 0.2])]
    assert statistics.interaction_test(crossed) < 0.05


def test_whether_the_best_differs():
    assert statistics.best_differs([([1, 1], [4, 4]), ([2, 2], [3, 3])]) == 1.0
    assert statistics.best_differs([([1, 1], [3, 3]), ([2, 2], [4, 4])]) == 0.0
    # In one regime the first wins if it draws 3 at least once: 3 of 4 draws; in the other the second always does.
    assert statistics.best_differs([([1, 3], [0, 0]), ([1.5, 1.5], [1, 1])]) == pytest.approx(3 / 4, abs=0.04)


def test_what_choosing_the_best_does_where_nothing_differs():
    one = statistics.chance(1, 5)  # nothing is chosen: the rest is what five seeds are too few for
    assert one.best_differs == 0.0
    assert 0.02 < one.best_is_above < 0.1
    five = statistics.chance(5, 5)
    assert 0.28 < five.best_is_above < 0.4
    assert 0.75 < five.best_differs < 0.83


def test_differences_by_hand():
    assert statistics.difference([3, 5], [1, 1]) == statistics.Estimate(3.0, 2.0, 4.0, 2)
    assert statistics.difference([3], [1, 1]) == statistics.Estimate(2.0, None, None, 1)
    best = statistics.best_against([[0, 4], [3, 3]], [1, 1])
    assert (best.value, best.low, best.high) == (2.0, 2.0, 3.0)


# the report


def test_a_report_of_what_there_is(tmp_path, untuned, capsys):
    runs = [
        result(f"interplay_{name}-{regime}", seed, 10 * at + seed, steps=500_000)
        for at, name in enumerate(interplay_report.EQUAL)
        for regime in ("learned", "fixed")
        for seed in range(5)
        if (name, regime, seed) != ("spatial", "fixed", 4)
    ]
    store(tmp_path / "results", [*runs, result("interplay_dense-p-learned", 0, 5.0, steps=500_000)])
    interplay_report.write(tmp_path / "results")
    text = (tmp_path / "results" / "INTERPLAY_RESULTS.md").read_text()
    assert "effect sizes, not a reproduction" in text
    assert "| interplay | 50 | 130 |" in text
    assert "| Predictive | 32.0 (30.8 to 33.2, 5) | 33.0 | 5 | 32.0 (30.8 to 33.2, 5) | 33.0 | 5 |" in text
    assert "| RigL | missing |  |  | not defined |  |  |" in text
    assert (
        "*Structure matters*, hidden weights learned: means range from 2.0 (Random) to 42.0 (L1, extracted); p < 0.001, "
        "without L1, extracted p < 0.001." in text
    )
    assert "Hidden weights fixed: not all 5 seeds of" in text
    assert "depends on the regime" not in text  # a seed is missing, so nothing is said
    assert "*Sparse beats dense*, hidden weights learned: not all seeds of Dense, equal parameters are there" in text
    assert "Of the links of L1, extracted, 12,345 had a weight above 0.001 in the agent before" in text
    assert "other settings" not in text
    assert "Nothing has been tuned yet" in text
    drawn = {path.name for path in (tmp_path / "results" / "plots" / "interplay").iterdir()}
    assert drawn == {f"interplay_MinAtar-Breakout-v0_500000_{what}.png" for what in ("curves", "links")}
    others = [result("interplay_dense-p-learned", seed, 5.0 + seed, steps=500_000) for seed in range(1, 5)]
    store(tmp_path / "results", [result("interplay_spatial-fixed", 4, 99.0, steps=500_000), *others])
    whole = interplay_report.report(tmp_path / "results")
    assert "with learned weights L1, extracted is best, with fixed ones too (L1, extracted)" in whole
    assert "Random +0.0 (" in whole
    assert "and 0.79 on average where nothing differs" in whole
    assert "the best structure is +35.0 (+33.2 to +36.8, 5) above Dense, equal parameters. Where nothing differs, 3" in whole
    assert "each on its own: Random -5.0 (" in whole
    untuned.write_text(json.dumps({interplay.GAMES[0]: {"random-fixed": asdict(Setting(rate=-12))}}))
    assert "**5 runs have other settings.**" in interplay_report.report(tmp_path / "results")
    assert load(tmp_path / "results").found == []  # the paper's tables know nothing of the suite


def test_a_report_of_nothing(tmp_path, capsys):
    interplay_report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_smoke_runs_are_not_reported(tmp_path):
    store(tmp_path / "results", [result(SETS["interplay-smoke"][0].method, env="MinAtar/Breakout-v1", steps=3_000)])
    (path,) = (tmp_path / "results").iterdir()
    path.rename(path.with_name(f"{SETS['interplay-smoke'][0].name}.json"))
    assert load_suite(tmp_path / "results").found == []


def test_results_know_training_returns():
    one = Result(result("interplay_random-learned", score=4.5))
    assert choose.score(one) == 4.5
    one.about["curve"].insert(0, {"step": 1, "returns": [0.0], "training": None})
    assert one.training.steps.tolist() == [200_000]


# an environment of one's own


def test_an_environment_of_ones_own(games):
    sets, cells = dict(SETS), dict(CELLS)
    try:
        args, chosen = parse(["run", "interplay", "--env", "CartPole-v1"])
        assert {cell.env for cell in chosen} == {"CartPole-v1"}
        structures = {RUNS[cell.method].arm.structure for cell in chosen}
        assert structures == STRUCTURES.keys() - {"spatial", "conv"}  # an observation of four numbers is no image
        assert len(chosen) == 5 * 15
        assert args.env == "CartPole-v1"
        assert {"interplay-tune", "interplay"} <= SETS.keys()
        _, games = parse(["run", "interplay-smoke", "--env", "MinAtar/Seaquest-v1"])
        assert len(games) == len(ARMS)
    finally:
        for now, before in ((SETS, sets), (CELLS, cells)):
            now.clear()
            now.update(before)


@pytest.mark.parametrize(("env", "message"), [("Pendulum-v1", "actions must be Discrete"), ("Nope-v0", "doesn't exist")])
def test_environments_that_do_not_do(env, message, capsys):
    with pytest.raises(SystemExit):
        parse(["run", "interplay", "--env", env])
    assert message in capsys.readouterr().err


def test_runs_with_chosen_settings_wait_for_them(untuned, monkeypatch, capsys):
    for names, code in (
        (["interplay-smoke", "interplay"], 2),
        (["interplay-smoke", "interplay-tune", "interplay-published"], 0),
    ):
        monkeypatch.setattr("sys.argv", ["returns", "run", *names])
        monkeypatch.setattr("benchmarks.returns.grid.Grid.run", lambda grid, cores: 0)
        assert main() == code
    untuned.write_text(json.dumps({interplay.OTHERS: {"random-learned": asdict(Setting())}}))
    monkeypatch.setattr("sys.argv", ["returns", "run", "interplay"])
    assert main() == 2
    assert "interplay_random-fixed_500000_seed0 has no settings yet" in capsys.readouterr().err
    untuned.unlink()
    assert main() == 2
    message = "interplay_random-learned_500000_seed0 has no settings yet: `run interplay-tune`, then `choose`"
    assert message in capsys.readouterr().err


def test_choose_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["returns", "choose", "--results", str(tmp_path)])
    assert main() == 2
    assert "runs of interplay-tune are missing" in capsys.readouterr().err


def test_a_small_environment(untuned, tmp_path):
    cell = Cell("interplay_random-fixed", "dqn", "CartPole-v1", 0, 1_040, 1_040)
    stored = training.train(cell, Places(tmp_path / "work", tmp_path / "results"))
    assert stored["topology"][0]["links"] == 1024 * 1  # 0.36 of a link of four
    assert stored["connections"] is None
