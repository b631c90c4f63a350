"""MinAtar's games: as their own package has them, in the zoo, and resumed to the last bit."""

import colorsys
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest
import yaml
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from sb3_rlx2 import RLx2DQN, minatar
from sb3_rlx2.checkpoint import Checkpoints
from sb3_rlx2.zoo import agents, hyperparams_file
from tests.checks import assert_equal
from tests.compilers import needs
from tests.runs import Cut, CutAt

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")  # v0, which has the paper's actions
IDS = [
    f"MinAtar/{game}-v{version}"
    for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
    for version in (0, 1)
]
ACTIONS = {"Asterix": 5, "Breakout": 3, "Freeway": 3, "Seaquest": 6, "SpaceInvaders": 4}


@pytest.fixture(autouse=True, scope="module")
def games():
    needs("minatar")


@pytest.mark.filterwarnings("ignore")  # the checkers say that a Box of zeros and ones needs no normalisation, and the like
@pytest.mark.parametrize("name", IDS)
def test_games_are_registered(name):
    env = gym.make(name)
    check_env(env.unwrapped, skip_render_check=True)
    check_env_for_sb3(env, skip_render_check=True)
    assert env.action_space.n == (6 if name.endswith("-v0") else ACTIONS[name[8:-3]])
    assert env.observation_space.dtype == bool
    assert env.spec.max_episode_steps == 10_000


@pytest.mark.parametrize("name", IDS)
def test_games_are_minatars_own(name):
    """The same observations and rewards as in MinAtar itself, from the same seed; an episode into the next."""
    from minatar import Environment

    env = gym.make(name)
    game = Environment(env.unwrapped.game.env_name)
    game.seed(5)
    game.reset()
    np.testing.assert_array_equal(env.reset(seed=5)[0], game.state())
    env.action_space.seed(0)
    for _ in range(400):
        action = env.action_space.sample()
        observation, reward, terminated, _, _ = env.step(action)
        expected = game.act(env.unwrapped.actions[action])
        assert type(reward) is float
        assert (reward, terminated) == expected
        np.testing.assert_array_equal(observation, game.state())
        if terminated:
            game.reset()
            np.testing.assert_array_equal(env.reset()[0], game.state())


def test_arguments_of_a_game():
    env = gym.make("MinAtar/Breakout-v1", sticky_action_prob=0.0, difficulty_ramping=False)
    assert env.unwrapped.game.sticky_action_prob == 0.0


def test_unseeded_games_differ_and_have_one_generator():
    games = [gym.make("MinAtar/Seaquest-v1").unwrapped for _ in range(2)]
    assert all(env.game.random is env.game.env.random for env in games)
    assert games[0].game.random.rand() != games[1].game.random.rand()


def test_frames():
    assert gym.make("MinAtar/Breakout-v1").unwrapped.render() is None
    env = gym.make("MinAtar/Breakout-v1", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert (frame.shape, frame.dtype) == ((160, 160, 3), np.uint8)
    state = env.unwrapped.game.state()
    lit = frame[::16, ::16].any(axis=2)
    np.testing.assert_array_equal(lit, state.any(axis=2))
    assert (frame[16:64] == [round(255 * part) for part in colorsys.hsv_to_rgb(3 / 4, 0.7, 1.0)]).all()  # the bricks
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) == 3  # paddle, bricks (that hide the ball at first), nothing


def test_import_does_not_import_the_games():
    code = "import sys, sb3_rlx2.zoo, sb3_rlx2.minatar; print('minatar' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True).strip() == "False"


def test_an_error_where_the_games_are_missing(monkeypatch, rlx2):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    error = rlx2.error("train", "--algo", "rlx2dqn", "--env", "MinAtar/Breakout-v1")
    assert error == "--env MinAtar/Breakout-v1, a game under GPL-3, needs minatar: pip install 'sb3_rlx2[minatar]'"


def test_unknown_games():
    with pytest.raises(ValueError, match=r"--env MinAtar/Pong-v1 is unknown; did you mean MinAtar/"):
        agents.check_env("MinAtar/Pong-v1", [])


@pytest.mark.parametrize("algorithm", ["rlx2dqn", "rlx2qrdqn", "dqn", "qrdqn"])
def test_hyper_parameters_for_all_games(algorithm):
    stored = yaml.safe_load(hyperparams_file("rlx2dqn").with_name(f"{algorithm}.yml").read_text())
    assert {name for name in stored if name.startswith(minatar.PREFIX)} == set(IDS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", ["rlx2dqn", "rlx2qrdqn"])
def test_zoo(rlx2, algorithm):
    arguments = ["--algo", algorithm, "--env", "MinAtar/Breakout-v1", "-f", "logs"]
    short = ["-n", "120", "--eval-freq", "60", "--eval-episodes", "1", "--n-eval-envs", "1", "--num-threads", "1"]
    rlx2("train", *arguments, *short, "-params", "learning_starts:50", "buffer_size:1000", "buffer_min_size:100")
    assert "Mean reward" in rlx2("enjoy", *arguments, "-n", "60", "--no-render")
    if algorithm == "rlx2dqn":
        rlx2("record_video", *arguments, "-n", "10")
        (video,) = Path("logs/rlx2dqn/MinAtar-Breakout-v1_1/videos").glob("*.mp4")
        frames = imageio.imread(video)
        assert frames.shape[1:] == (160, 160, 3)
        assert frames[-1][20:60].mean() > 100  # bricks


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    """To the last bit: weights, buffer and what the game does next."""
    settings = {
        "policy_kwargs": {"net_arch": [64]},
        "sparsity": 0.91,
        "distribution": "dense_output",
        "init": "fan_in",
        "topology": "predictive",
        "learning_starts": 1_000,
        "buffer_size": 2_000,
        "buffer_min_size": 1_000,
        "seed": 3,
        "device": "cpu",
    }

    def learn(folder, *others):
        model = RLx2DQN("MlpPolicy", gym.make("MinAtar/SpaceInvaders-v1"), train_freq=1, **settings)
        return model.learn(2_000, [Checkpoints(folder, 700), *others])

    whole = learn(tmp_path / "whole")
    with pytest.raises(Cut):
        learn(tmp_path / "cut", CutAt(1_700))
    resumed = learn(tmp_path / "cut")
    assert resumed.num_timesteps == whole.num_timesteps
    assert_equal(resumed.policy.state_dict(), whole.policy.state_dict())
    np.testing.assert_array_equal(resumed.replay_buffer.observations, whole.replay_buffer.observations)
    games = [model.get_env().envs[0].unwrapped.game for model in (whole, resumed)]
    numbers = [game.random.get_state() for game in games]
    np.testing.assert_array_equal(numbers[0][1], numbers[1][1])
    assert numbers[0][2:] == numbers[1][2:]
    assert games[0].last_action == games[1].last_action
    np.testing.assert_array_equal(*(game.state() for game in games))
