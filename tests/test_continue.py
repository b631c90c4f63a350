"""Runs that go on from a saved agent or a checkpoint (`rlx2 train -i`), and what a checkpoint holds."""

import pickle
from pathlib import Path

import pytest
import yaml
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rlx2 import RLx2DQN, RLx2TD3, SparseTD3Policy
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.checkpoint import resume
from sb3_rlx2.zoo import agents
from tests.command import TINY, TINY_PARAMETERS

pytestmark = pytest.mark.filterwarnings("ignore")
FIRST = Path("logs/rlx2td3/Pendulum-v1_1")
STOCK_YAML = """
Pendulum-v1:
  n_timesteps: 100
  policy: sb3_rlx2.SparseTD3Policy
  policy_kwargs: "dict(net_arch=[16], actor_sparsity={sparsity}, critic_sparsity=0.8)"
  buffer_size: 1000
  learning_starts: 50
  replay_buffer_class: "importlib.import_module('sb3_rlx2').RLx2ReplayBuffer"
  replay_buffer_kwargs: "dict(n_steps=3, buffer_min_size=10)"
  callback: [sb3_rlx2.RLx2Callback]
"""


@pytest.fixture
def random_actions(monkeypatch):
    """Count the steps of random warm-up."""
    steps = []
    sample = RLx2TD3._sample_action

    def counted(model, learning_starts, *args, **kwargs):
        steps.append(model.num_timesteps < learning_starts)
        return sample(model, learning_starts, *args, **kwargs)

    for algorithm in (*ALGORITHMS.values(), TD3):
        monkeypatch.setattr(algorithm, "_sample_action", counted)
    return steps


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_no_second_warm_up(algo, rlx2, random_actions):
    env = "CartPole-v1" if algo.endswith("dqn") else "Pendulum-v1"
    arguments = {"env": env, "parameters": ["train_freq:1", "gradient_steps:1"]}
    rlx2.train(algo, "-n", "80", "--save-replay-buffer", **arguments)
    assert sum(random_actions) == 50
    random_actions.clear()
    path = f"logs/{algo}/{env}_1/{env}.zip"
    output = rlx2.train(algo, "-n", "60", "-i", path, "--save-replay-buffer", **arguments)
    assert sum(random_actions) == 0
    assert "Training goes on from 80 transitions, 0 steps of warm-up to do" in output
    first, second = (ALGORITHMS[algo].load(f"logs/{algo}/{env}_{n}/{env}.zip") for n in (1, 2))
    assert second._n_updates == first._n_updates + 60
    with open(f"logs/{algo}/{env}_2/replay_buffer.pkl", "rb") as file:
        assert pickle.load(file).size() == 140


def test_the_rest_of_a_warm_up(rlx2, random_actions):
    rlx2.train("rlx2td3", "-n", "30", "--save-replay-buffer")
    random_actions.clear()
    output = rlx2.train("rlx2td3", "-n", "60", "-i", FIRST / "Pendulum-v1.zip")
    assert "20 steps of warm-up to do" in output
    assert sum(random_actions) == 20


def test_without_a_buffer_there_is_a_warm_up(rlx2, random_actions):
    rlx2.train("rlx2td3", "-n", "60")
    random_actions.clear()
    rlx2.train("rlx2td3", "-n", "60", "-i", FIRST / "Pendulum-v1.zip")
    assert sum(random_actions) == 50


def names(folder, pattern):
    return sorted(path.name for path in folder.glob(pattern))


def test_agents_at_steps(rlx2):
    normalized = "normalize:dict(norm_obs=True, norm_reward=True)"
    rlx2.train("rlx2td3", "-n", "90", "--save-freq", "30", parameters=[normalized])
    assert names(FIRST, "*.zip") == ["Pendulum-v1.zip", *(f"rl_model_{step}_steps.zip" for step in (30, 60, 90))]
    assert len(names(FIRST, "rl_model_*.pkl")) == 3
    assert not names(FIRST, ".unfinished-*")

    # Goes on with the statistics that were saved with the agent, not with those of the run's end.
    counts = [VecNormalize.load(str(FIRST / path), environment()).obs_rms.count for path in STATISTICS]
    assert counts[0] < counts[1]
    path = FIRST / "rl_model_30_steps.zip"
    rlx2.train("rlx2td3", "-n", "20", "-i", path, "--save-freq", "20", parameters=[normalized])
    second = VecNormalize.load("logs/rlx2td3/Pendulum-v1_2/rl_model_vecnormalize_20_steps.pkl", environment())
    assert second.obs_rms.count == pytest.approx(counts[0] + 21)


STATISTICS = ["rl_model_vecnormalize_30_steps.pkl", "rl_model_vecnormalize_90_steps.pkl"]


def environment():
    return make_vec_env("Pendulum-v1")


def test_enjoy_a_checkpoint_with_its_statistics(rlx2, monkeypatch):
    rlx2.train("rlx2td3", "-n", "90", "--save-freq", "30", parameters=["normalize:True"])
    loaded = []
    load = VecNormalize.load
    monkeypatch.setattr(
        VecNormalize, "load", staticmethod(lambda path, env: loaded.append(Path(path).read_bytes()) or load(path, env))
    )
    play = ["enjoy", "--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs", "--no-render", "-n", "200"]
    assert "Mean reward" in rlx2(*play, "--load-checkpoint", "60")
    assert loaded == [(FIRST / "rl_model_vecnormalize_60_steps.pkl").read_bytes()]
    rlx2(*play, "--load-last-checkpoint")
    assert loaded[-1] == (FIRST / "rl_model_vecnormalize_90_steps.pkl").read_bytes()
    rlx2(*play)
    assert loaded[-1] == (FIRST / "Pendulum-v1/vecnormalize.pkl").read_bytes()


def test_the_best_agent_is_played_with_its_own_statistics(rlx2, monkeypatch):
    returns = iter([[1.0], [3.0], [2.0]])
    monkeypatch.setattr("stable_baselines3.common.callbacks.evaluate_policy", lambda *_, **__: (next(returns), [200]))
    rlx2.train("rlx2td3", "-n", "90", "--eval-freq", "30", "--eval-episodes", "1", parameters=["normalize:True"])
    statistics = {name: VecNormalize.load(str(FIRST / name), environment()) for name in (BEST, LAST)}
    assert {name: round(each.obs_rms.count) for name, each in statistics.items()} == {BEST: 61, LAST: 91}  # and a reset
    play = ("--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs", "--load-best")
    assert BEST in rlx2("export", *play)
    assert agents.beside_checkpoint(FIRST / "best_model.zip", "vecnormalize") == FIRST / BEST


BEST, LAST = "best_model_vecnormalize.pkl", "Pendulum-v1/vecnormalize.pkl"


def test_statistics_that_came_with_a_finished_agent_are_saved(rlx2):
    rlx2.train("rlx2td3", "-n", "60", parameters=["normalize:True"])
    rlx2.train("rlx2td3", "-n", "30", "-i", FIRST / "Pendulum-v1.zip")
    saved = VecNormalize.load(f"logs/rlx2td3/Pendulum-v1_2/{LAST}", environment())
    assert round(saved.obs_rms.count) == 61 + 31


def test_a_checkpoint_of_a_run_that_was_killed_before_its_first_best_agent(rlx2, monkeypatch):
    rlx2.train("rlx2td3", "-n", "90", "--save-freq", "30", parameters=["normalize:True"])
    (FIRST / "Pendulum-v1/vecnormalize.pkl").unlink()
    play = ["enjoy", "--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs", "--no-render", "-n", "200"]
    assert "Mean reward" in rlx2(*play, "--load-checkpoint", "60")
    assert "Pendulum-v1/vecnormalize.pkl not found" in rlx2.error(*play)

    # Its policy knows normalised observations only, so they go on with it though nothing asks for them.
    rlx2.train("rlx2td3", "-n", "20", "-i", FIRST / "rl_model_60_steps.zip")
    second = VecNormalize.load("logs/rlx2td3/Pendulum-v1_2/Pendulum-v1/vecnormalize.pkl", environment())
    first = VecNormalize.load(str(FIRST / "rl_model_vecnormalize_60_steps.pkl"), environment())
    assert second.obs_rms.count == pytest.approx(first.obs_rms.count + 21)
    assert second.training

    # So it is played and exported with them, too.
    assert "Loading running average" in rlx2(*play)
    assert "Pendulum-v1_2/Pendulum-v1/vecnormalize.pkl" in rlx2("export", *play[1:7])


def test_the_users_own_checkpoints(rlx2):
    Path("own.yml").write_text(OWN_CHECKPOINTS)
    rlx2.train("rlx2td3", "-conf", "own.yml", "--save-freq", "50")
    assert names(Path("mine"), "*.zip") == ["my_40_steps.zip", "my_80_steps.zip"]
    assert names(FIRST, "rl_model*.zip") == ["rl_model_100_steps.zip", "rl_model_50_steps.zip"]


OWN_CHECKPOINTS = """
Pendulum-v1:
  n_timesteps: 100
  policy: MlpPolicy
  callback:
    - stable_baselines3.common.callbacks.CheckpointCallback: {save_freq: 40, save_path: mine, name_prefix: my}
"""


def test_a_full_disk_does_not_end_the_run(rlx2, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CheckpointCallback, "_on_step", full)
    with pytest.warns(UserWarning, match="no agent is saved at step 30: .* No space left"):
        rlx2.train("rlx2td3", "-n", "60", "--save-freq", "30")
    assert names(FIRST, "*.zip") == ["Pendulum-v1.zip"]


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("actor_sparsity:0.5", "actor_sparsity=0.5 differs from the 0.8 of"),
        ("critic_sparsity:0.1", "critic_sparsity=0.1 differs from the 0.8 of"),
        ("policy_kwargs:dict(net_arch=[16], critic_sparsity=0.1)", "critic_sparsity=0.1 differs from the 0.8 of"),
        ("distribution:'uniform'", "distribution='uniform' differs from the 'erdos_renyi' of"),
        ("policy_kwargs:dict(net_arch=[64])", r"net_arch=[64] differs from the [16] of"),
        ("policy_kwargs:'dict(net_arch=[64])'", r"net_arch=[64] differs from the [16] of"),
    ],
)
def test_other_networks_are_refused(parameter, message, rlx2, dense_and_sparse):
    arguments = ["--algo", "rlx2td3", "--env", "Pendulum-v1", *TINY, "-i", dense_and_sparse / "rlx2td3.zip", "-n", "60"]
    assert message in rlx2.error("train", *arguments, "-params", parameter)
    assert not Path("logs").exists() or not list(Path("logs").rglob("Pendulum-v1_*"))


def test_what_the_agent_has_by_default_may_be_asked_for(rlx2, dense_and_sparse):
    arguments = ["--algo", "rlx2td3", "--env", "Pendulum-v1", *TINY, "-i", dense_and_sparse / "rlx2td3.zip", "-n", "60"]
    rlx2("train", *arguments, "-params", *TINY_PARAMETERS[1:], "policy_kwargs:dict(n_critics=2)")
    message = rlx2.error("train", *arguments, "-params", "policy_kwargs:dict(n_critics=3)")
    assert "n_critics=3 differs from the 2 of" in message


def test_another_sparsity_of_a_q_network_is_refused(tmp_path):
    RLx2DQN("MlpPolicy", "CartPole-v1", buffer_size=10, sparsity=0.8).save(tmp_path / "agent.zip")
    resume.check_networks(str(tmp_path / "agent.zip"), {"sparsity": 0.8})
    with pytest.raises(ValueError, match=r"sparsity=0.5 differs from the 0.8 of .*agent.zip"):
        resume.check_networks(str(tmp_path / "agent.zip"), {"sparsity": 0.5})


def test_the_same_distribution_by_another_name(dense_and_sparse):
    resume.check_networks(str(dense_and_sparse / "rlx2td3.zip"), {"distribution": "erk", "actor_sparsity": 0.8})


@pytest.mark.parametrize(("agent", "message"), [("td3_0.8", "differs from the 0.8 of"), ("dense", "is a dense agent")])
def test_other_networks_of_stock_algorithms_are_refused(agent, message, rlx2, dense_and_sparse):
    Path("mine.yml").write_text(STOCK_YAML.format(sparsity=0.5))
    arguments = ["--algo", "td3", "--env", "Pendulum-v1", *TINY, "-conf", "mine.yml"]
    assert message in rlx2.error("train", *arguments, "-i", dense_and_sparse / f"{agent}.zip")


def test_stock_algorithms_go_on(rlx2, dense_and_sparse, random_actions):
    Path("mine.yml").write_text(STOCK_YAML.format(sparsity=0.8))
    arguments = ["--algo", "td3", "--env", "Pendulum-v1", *TINY, "-conf", "mine.yml", "-n", "60"]
    rlx2("train", *arguments, "--save-replay-buffer")
    random_actions.clear()
    rlx2("train", *arguments, "-i", "logs/td3/Pendulum-v1_1/Pendulum-v1.zip")
    assert sum(random_actions) == 0


@pytest.fixture(scope="module")
def dense_and_sparse(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents")
    sparsities = {"actor_sparsity": 0.8, "critic_sparsity": 0.8}
    kwargs = {"buffer_size": 10, "policy_kwargs": {"net_arch": [16]}}
    RLx2TD3("MlpPolicy", "Pendulum-v1", **kwargs, **sparsities).save(folder / "rlx2td3.zip")
    TD3("MlpPolicy", "Pendulum-v1", **kwargs).save(folder / "dense.zip")
    kwargs["policy_kwargs"] |= sparsities
    TD3(SparseTD3Policy, "Pendulum-v1", **kwargs).save(folder / "td3_0.8.zip")
    return folder


@pytest.mark.parametrize("keep", [0, 30, 0.5])
def test_a_damaged_buffer(keep, rlx2):
    rlx2.train("rlx2td3", "-n", "30", "--save-replay-buffer")
    path = FIRST / "replay_buffer.pkl"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    arguments = ["--algo", "rlx2td3", "--env", "Pendulum-v1", *TINY, "-i", FIRST / "Pendulum-v1.zip"]
    message = rlx2.error("train", *arguments, "-params", *TINY_PARAMETERS)
    assert f"{path} is damaged" in message
    assert names(Path("logs/rlx2td3"), "*") == ["Pendulum-v1_1"]  # nothing of the second run


def test_args_hold_no_path_of_ours(rlx2):
    """They are uploaded to the hub."""
    rlx2.train("rlx2td3", "-n", "10")
    assert yaml.unsafe_load((FIRST / "Pendulum-v1/args.yml").read_text())["conf_file"] is None
