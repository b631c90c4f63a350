"""What a user gets wrong ends with one line that says so, and exit status 1 (2 for the command line itself)."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_rlx2 import RLx2TD3
from sb3_rlx2.algorithms.table import ALGORITHMS
from tests.command import TINY
from tests.every import is_discrete, keywords

pytestmark = pytest.mark.filterwarnings("ignore")
PLAYING = ["enjoy", "record_video", "record_training", "push_to_hub"]
TASK = ["--algo", "rlx2td3", "--env", "Pendulum-v1"]

NEAREST = {"Pendulm-v1": "Pendulum-v1", "pendulum-v1": "Pendulum-v1", "Hopper-v9": "Hopper-v"}


def arguments(command, algo="rlx2td3", env="Pendulum-v1", folder="logs"):
    return [command, "--algo", algo, "--env", env, "-f", folder, *(["-orga", "me"] if "hub" in command else [])]


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """A run of each of two algorithms."""
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    for algo, algorithm in (("rlx2td3", RLx2TD3), ("td3", TD3)):
        folder = tmp_path / f"logs/{algo}/Pendulum-v1_1"
        folder.mkdir(parents=True)
        algorithm("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [4]}).save(folder / "Pendulum-v1.zip")
    return tmp_path / "logs"


@pytest.mark.parametrize("command", ["train", *PLAYING])
@pytest.mark.parametrize(
    ("env", "nearest"), [("Pendulm-v1", "Pendulum-v1"), ("pendulum-v1", "Pendulum-v1"), ("Hopper-v9", "Hopper-v")]
)
def test_unknown_environment(command, env, nearest, rlx2, logs):
    message = rlx2.error(*arguments(command, env=env))
    assert f"rlx2 {command}: error: --env {env} is unknown; did you mean {nearest}" in message


@pytest.mark.parametrize("command", PLAYING)
def test_missing_agents(command, rlx2, logs, monkeypatch):
    monkeypatch.setattr("sb3_rlx2.zoo.videos.has_screen", lambda: True)
    assert rlx2.error(*arguments(command, folder="nowhere")).endswith("--folder nowhere does not exist")
    assert "logs has no folder rlx2sac; it holds rlx2td3, td3" in rlx2.error(*arguments(command, algo="rlx2sac"))
    assert "logs/rlx2td3 has no run of Hopper-v5; it holds Pendulum-v1_1" in rlx2.error(*arguments(command, env="Hopper-v5"))
    assert "logs/rlx2td3 has no run 7 of Pendulum-v1; it holds Pendulum-v1_1" in rlx2.error(
        *arguments(command), "--exp-id", "7"
    )


@pytest.mark.parametrize("option", [["--load-best"], ["--load-checkpoint", "5"], ["--load-last-checkpoint"]])
def test_missing_files(option, rlx2, logs):
    assert "found for rlx2td3 on Pendulum-v1, path: logs/rlx2td3/Pendulum-v1_1" in rlx2.error(*arguments("enjoy"), *option)


def damage_nothing_left(path):
    path.write_bytes(b"")


def damage_torn(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def damage_flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_nothing_left, damage_torn, damage_flipped])
def test_damaged_zip(damage, rlx2, logs):
    path = Path("logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip")
    damage(path)
    before = sorted(logs.rglob("*"))
    for command in ("enjoy", "record_video", "push_to_hub"):
        assert f"error: {path} is damaged" in rlx2.error(*arguments(command), "--seed", "1")
    assert f"error: {path} is damaged" in rlx2.error("train", *TASK, *TINY, "-i", path)
    assert set(logs.rglob("*")) <= {*before, logs / "rlx2td3/Pendulum-v1_1/videos"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["-i", "nothing.zip"], "nothing.zip does not exist"),
        (["-conf", "nothing.yml"], "--conf-file nothing.yml does not exist"),
        (["-params", "actor_sparsity:1.5"], "actor_sparsity=1.5 must be a number in [0, 1)"),
        (["-params", "actor_sparcity:0.5"], "actor_sparcity=0.5 is no argument of RLx2TD3; did you mean actor_sparsity"),
        (["-params", "learning_rat:0.5"], "learning_rat=0.5 is no argument of RLx2TD3; did you mean learning_rate"),
        (["-params", "normalize:True", "frame_stack:2"], "VecNormalize must come last, around what changes the shape"),
        (["--gym-packages", "no_such_package"], "No module named 'no_such_package'"),
    ],
)
def test_training(given, message, rlx2):
    assert message in rlx2.error("train", *TASK, *TINY, "-n", "60", *given)
    assert not Path("logs/rlx2td3").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("actor_sparsity:0.9", "actor_sparsity=0.9 is no argument of RLx2DQN; did you mean sparsity?"),
        ("sparsity:1.0", "sparsity=1.0 must be a number in [0, 1)"),
    ],
)
def test_training_of_value_based_agents(given, message, rlx2):
    arguments = ["--algo", "rlx2dqn", "--env", "CartPole-v1", *TINY, "-n", "60"]
    assert message in rlx2.error("train", *arguments, "-params", given)


@pytest.mark.parametrize("pair", ["learning_rate=1", "policy:CnnPolicy"])
def test_malformed_hyperparameters(pair, rlx2):
    message = rlx2.error("train", *TASK, "-params", pair, status=2)
    assert f"argument -params: {pair} must be name:value, where the value is a Python expression" in message


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_sparsities_of_each_algorithm(algo, rlx2):
    discrete = is_discrete(ALGORITHMS[algo])
    arguments = ["--algo", algo, "--env", "CartPole-v1" if discrete else "Pendulum-v1", *TINY, "-n", "60"]
    for keyword in keywords(ALGORITHMS[algo]):
        assert f"{keyword}=1.0 must be a number in [0, 1)" in rlx2.error("train", *arguments, "-params", f"{keyword}:1.0")
    message = f"densities=0.9 is no argument of {ALGORITHMS[algo].__name__}"
    assert message in rlx2.error("train", *arguments, "-params", "densities:0.9")


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_actions_of_the_other_kind(algo, rlx2):
    algorithm, env = ALGORITHMS[algo], "CartPole-v1"
    message = f"which must be a Box: {algorithm.__name__} is for continuous actions; for discrete ones there are RLx2DQN"
    if is_discrete(algorithm):
        message = f"must be Discrete: {algorithm.__name__} is for discrete actions; for continuous ones there are RLx2TD3"
        env = "Pendulum-v1"
    for command in (["train", *TINY], ["compress"]):
        assert message in rlx2.error(*command, "--algo", algo, "--env", env, "-n", "60")


def test_no_screen(rlx2, monkeypatch):
    """MuJoCo would abort the process."""
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "no screen to show the agent on: --no-render" in rlx2.error(*arguments("enjoy", env="Hopper-v5"))


def test_folder_of_the_zoos_agents(rlx2, monkeypatch):
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    assert "rl-trained-agents has no td3 agent for Pendulum-v1" in rlx2.error("enjoy", "--algo", "td3", "--env", "Pendulum-v1")


def test_where_an_error_comes_from_on_request(rlx2):
    with pytest.raises(ValueError, match="--env nothing-like-it is unknown"):
        rlx2("--traceback", "train", "--algo", "rlx2td3", "--env", "nothing-like-it")


def test_a_failure_in_training_shows_where(rlx2, monkeypatch):
    """It is no misuse, and may come after hours."""

    def fail(*args, **kwargs):
        raise ValueError("the robot fell over")

    monkeypatch.setattr(OffPolicyAlgorithm, "collect_rollouts", fail)
    output = rlx2("train", *TASK, *TINY, status=1)
    assert "Traceback" in output
    assert output.endswith("rlx2 train: error: the robot fell over")


def test_interrupted_training_is_saved(rlx2, monkeypatch):
    collect = OffPolicyAlgorithm.collect_rollouts
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    def interrupted(model, *args, **kwargs):
        if model.num_timesteps == 40:
            os.kill(os.getpid(), signal.SIGINT)
        return collect(model, *args, **kwargs)

    monkeypatch.setattr(OffPolicyAlgorithm, "collect_rollouts", interrupted)
    rlx2.train("rlx2td3", "-n", "100")
    assert RLx2TD3.load("logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip").num_timesteps in (40, 41)


def test_interrupted_elsewhere(rlx2, logs, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("sb3_rlx2.zoo.agents.find_agent", interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        assert "Traceback" not in rlx2(*arguments("enjoy"), status=130)
