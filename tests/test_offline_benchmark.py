"""The benchmark on given data: whose they are, that they are known again, and what the page says."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import readme
from benchmarks.budgets.runs import make_env
from benchmarks.offline import data, report, runs
from benchmarks.offline.__main__ import main
from benchmarks.offline.data import RECIPES, Episode, OnItsWay, Recipe
from benchmarks.offline.runs import ARMS, RUNS, Run
from benchmarks.returns.agents import HOSTS

pytestmark = pytest.mark.filterwarnings("ignore:backend='auto' takes 'masked'")
TINY = Recipe("Pendulum-v1", -150.0, 400, 50, 100, 350, 40)


@pytest.fixture
def medium(monkeypatch):
    """Have any agent be on its way."""
    monkeypatch.setattr(data, "MEDIUM", (-10.0, 10.0))
    for module in (data, runs):
        monkeypatch.setattr(module, "EPISODES", 1)


# data


def test_training_ends_where_an_agent_is_on_its_way(monkeypatch):
    returns = iter([-1_200.0, -900.0, -400.0, -700.0, -750.0])  # of random, -1200, to -150: 0, 0.29, 0.76, 0.48
    monkeypatch.setattr(data, "evaluate_policy", lambda *_: (next(returns), 0.0))
    watching = OnItsWay(RECIPES["Pendulum-v1"], -1_200.0, 3)
    model = HOSTS["td3"]("MlpPolicy", make_env("Pendulum-v1"), learning_starts=3_000, policy_kwargs={"net_arch": [8]}, seed=0)
    model.learn(3_000, callback=watching)
    assert watching.found == {"seed": 3, "step": 1_400, "evaluation": -700.0}
    assert model.num_timesteps == 1_400


def test_a_policy_plays_whole_episodes_with_noise():
    model = HOSTS["td3"]("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0)
    played = [*data.play(model, gym.make("Pendulum-v1"), 350, seed=1)]
    assert [len(episode.rewards) for episode in played] == [200, 200]
    for episode in played:
        assert episode.observations.shape == (201, 3)
        assert (episode.truncations == (np.arange(200) == 199)).all()
        assert not episode.terminations.any()
        away = episode.actions - model.predict(episode.observations[:-1], deterministic=True)[0]
        assert 0.15 < away.std() < 0.25  # 0.1 of [-1, 1], in [-2, 2]
    assert data.checksum(played) == data.checksum([*data.play(model, gym.make("Pendulum-v1"), 350, seed=1)])
    assert data.checksum(played) != data.checksum([*data.play(model, gym.make("Pendulum-v1"), 350, seed=2)])


def test_a_checksum_is_of_every_number():
    episode = Episode(np.zeros((3, 2)), np.zeros((2, 1)), np.zeros(2), np.zeros(2, bool), np.array([False, True]))
    others = [
        replace(episode, rewards=np.array([0.0, 1e-300])),
        replace(episode, actions=np.zeros((2, 1), np.float32)),
        replace(episode, truncations=np.zeros(2, bool)),
        replace(episode, observations=np.zeros((2, 3))),
    ]
    assert len({data.checksum([each]) for each in (episode, *others)} | {data.checksum([episode, episode])}) == 6


def test_data_are_collected_once_and_known_again(tmp_path, medium, monkeypatch):
    work, results = tmp_path / "work", tmp_path / "results"
    episodes, about = data.collect(TINY, work, results)
    assert about["agent"]["step"] == 150  # the first evaluation behind random actions
    assert (about["episodes"], about["transitions"]) == (2, 400)
    assert about["behaviour"] == pytest.approx(np.mean([each.rewards.sum() for each in episodes]), abs=0.01)
    assert about["share"] == pytest.approx((about["behaviour"] - about["random"]) / (-150 - about["random"]), abs=1e-3)
    assert runs.stored_data(results) == {"Pendulum-v1": about}

    monkeypatch.setattr(data, "_train", lambda *_: pytest.fail("collected again"))
    again, _ = data.collect(TINY, work, tmp_path / "other")
    assert data.checksum(again) == about["sha256"]
    assert runs.stored_data(tmp_path / "other") == {"Pendulum-v1": about}
    path = results / "data_Pendulum-v1.json"
    path.write_text(path.read_text().replace(about["sha256"], "0" * 64))
    with pytest.raises(ValueError, match=r"is about 000000000000: what was learned from both does not belong together"):
        data.collect(TINY, work, results)


def test_an_agent_that_never_is_on_its_way_has_the_next_seed_follow(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(data, "_train", lambda _, __, seed, ___: tried.append(seed))
    with pytest.raises(ValueError, match="no agent of 10 was on its way in Pendulum-v1"):
        data.collect(TINY, tmp_path, tmp_path)
    assert tried == [*range(10)]


# runs


def test_all_of_it_runs(tmp_path, medium, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "Pendulum-v1", TINY)
    given = ["run", "Pendulum-v1", "--results", str(tmp_path / "results"), "--folder", str(tmp_path / "work")]
    main(given)
    found, about = runs.stored(tmp_path / "results"), runs.stored_data(tmp_path / "results")
    assert list(found) == [run for run in RUNS if run.env == "Pendulum-v1"]
    for run, result in found.items():
        assert [row["step"] for row in result["curve"]] == [*range(2, 41, 2)]
        live, size = (sum(counts[at] for counts in result["weights"].values()) for at in (0, 1))
        assert live / size == pytest.approx(1 - ARMS[run.arm], abs=2e-3)
        assert result["data"] == about["Pendulum-v1"]["sha256"]
    assert found[Run("Pendulum-v1", "sparse", 0)]["curve"] != found[Run("Pendulum-v1", "sparse", 1)]["curve"]
    text = report.text(found, about)
    assert "| Pendulum-v1 | sparse |" in text
    assert "Hopper-v4_sparse_seed2" in text

    capsys.readouterr()
    monkeypatch.setattr(runs, "RLx2TD3BC", lambda *_, **__: pytest.fail("trained again"))
    main(given)
    assert capsys.readouterr().out == "data of Pendulum-v1 ...\n"


def test_misuse_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["run", "Pendulum"])
    assert "ENV='Pendulum' must be one of Pendulum-v1, Hopper-v4" in capsys.readouterr().err


# what the page says


ABOUT = {
    "agent": {"seed": 0, "step": 1_500, "evaluation": -700.0},
    **{"random": -1_000.0, "behaviour": -600.0, "share": 0.47, "episodes": 100, "transitions": 20_000, "sha256": "a" * 64},
}


def result(run, value):
    rows = [{"step": step, "returns": [value if step > 15 else 0.0]} for step in range(1, 21)]
    weights = {"actor": (10, 100), "critic": (10, 100)}
    about = {"env": run.env, "arm": run.arm, "seed": run.seed, "data": "a" * 64}
    return about | {"weights": weights, "seconds": 90, "curve": rows}


def found(dense, sparse):
    values = {"dense": dense, "sparse": sparse}
    runs = [run for run in RUNS if run.env == "Pendulum-v1" and run.seed < len(values[run.arm])]
    return {run: result(run, values[run.arm][run.seed]) for run in runs}


@pytest.mark.parametrize(
    ("sparse", "said"),
    [
        ((-216, -216, -216), "yes (98% of dense's)"),  # 1.96 of 2
        ((-280, -240, -240), "no (93% of dense's)"),  # 1.8, 1.9 and 1.9
        ((-216, -216), report.NOT_YET),
    ],
)
def test_what_holds_by_hand(sparse, said):
    text = report.text(found((-200, -200, -200), sparse), {"Pendulum-v1": ABOUT})
    dense, other = (line for line in text.splitlines() if line.startswith("| Pendulum-v1 | ") and " | 10% | " in line)
    assert dense == "| Pendulum-v1 | dense | 2.00 (2.00 to 2.00, 3 seeds) | -200, -200, -200 | 10% | 1.5 |  |"
    assert other.endswith(f" | 10% | 1.5 | {said} |")
    assert "| Pendulum-v1 | seed 0, 1,500 steps | -700 | -600 | -1,000 / -150 | 47% | 20,000 in 100 episodes | `aaaa" in text
    assert "| Hopper-v4 | dense | missing | - | - | - |  |" in text
    assert "| Hopper-v4 | not collected | - |" in text


def test_runs_of_other_data_are_refused():
    with pytest.raises(ValueError, match=r"Pendulum-v1_dense_seed0 had other data than data_Pendulum-v1.json is about"):
        report.text(found((-200,), ()), {"Pendulum-v1": ABOUT | {"sha256": "b" * 64}})


def test_data_that_are_not_quite_on_their_way_are_marked():
    assert "| 52%, outside a third to a half |" in report.text({}, {"Pendulum-v1": ABOUT | {"share": 0.52}})


def test_page_shows_the_stored_results():
    shown = report.PAGE.read_text()
    assert readme.splice("offline", report.text(runs.stored(), runs.stored_data()), shown) == shown
