"""The command line meets a user halfway: defaults, names without quotes, numbers that would mean something else."""

from argparse import Namespace

import pytest
from stable_baselines3 import TD3

import sb3_rlx2
from sb3_rlx2 import RLx2DQN, RLx2TD3
from sb3_rlx2.report.groups import Group, group
from sb3_rlx2.report.run_folder import read_run
from sb3_rlx2.report.twins import against_dense, dense_twins
from sb3_rlx2.zoo.prepare import _quoted, _said
from tests.command import TINY
from tests.envs import DriftEnv

pytestmark = pytest.mark.filterwarnings("ignore")  # the zoo's
SHORT = [
    *TINY,
    "-n",
    "60",
    "-params",
    "policy_kwargs:dict(net_arch=[16, 16])",
    "buffer_size:1000",
    "buffer_min_size:10",
    "learning_starts:50",
]


def test_version(rlx2):
    assert rlx2("--version").strip() == f"sb3_rlx2 {sb3_rlx2.__version__}"


def test_a_command_that_is_nearly_one(rlx2):
    assert "did you mean 'train'" in rlx2.error("trian", status=2)


@pytest.mark.parametrize(
    ("env", "algo", "actions"), [("Pendulum-v1", "rlx2td3", "Box"), ("CartPole-v1", "rlx2dqn", "Discrete")]
)
def test_the_algorithm_follows_the_actions(env, algo, actions, rlx2, tmp_path):
    output = rlx2("train", "--env", env, *SHORT, f"{'actor_' if algo == 'rlx2td3' else ''}sparsity:0.5", "train_freq:1")
    assert f"--algo {algo}, for the {actions} actions of {env}" in output
    assert (tmp_path / "logs" / algo / f"{env}_1").is_dir()


def test_what_was_asked_for_stays(monkeypatch):
    args = Namespace(algo="ppo", env="X", env_kwargs=None, log_folder="logs", hyperparams=None)
    for given, said in (
        (["--algo", "sac"], {"algo"}),
        (["--algo=sac"], {"algo"}),
        (["--alg", "sac"], {"algo"}),
        (["--env", "X"], {"env"}),
        (["--env-kwargs", "g:-1"], {"env_kwargs"}),
        (["-f", "here", "-params", "gamma:0.9", "--"], {"log_folder", "hyperparams"}),
    ):
        monkeypatch.setattr("sys.argv", ["rlx2 train", *given])
        assert _said(args) == said


@pytest.mark.parametrize("topology", ["set", "'set'", "rigl"])
def test_names_need_no_quotes(topology, rlx2, tmp_path):
    rlx2("train", "--algo", "rlx2td3", "--env", "Pendulum-v1", *SHORT, f"topology:{topology}", "actor_sparsity:0.5")
    agent = RLx2TD3.load(tmp_path / "logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip")
    assert agent.topology == topology.strip("'")


def test_what_is_quoted():
    assert _quoted("init:a/b.zip") == "init:'a/b.zip'"
    assert _quoted('topology:"set"') == 'topology:"set"'
    assert _quoted("learning_rate:1e-3") == "learning_rate:1e-3"
    assert _quoted("arrays:False") == "arrays:False"
    assert _quoted("arrays:auto") == "arrays:'auto'"
    assert _quoted("distribution:dict(actor=[9, 9])") == "distribution:dict(actor=[9, 9])"
    assert _quoted("nonsense") == "nonsense"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "0"], "--n-timesteps=0 must be an integer >= 1"),
        (["--eval-episodes", "0"], "--eval-episodes=0 must be an integer >= 1"),
        (["--log-interval", "0"], "--log-interval=0 must be an integer >= 1"),
    ],
)
def test_numbers_that_would_mean_something_else(arguments, message, rlx2):
    assert message in rlx2.error("train", "--algo", "rlx2td3", "--env", "Pendulum-v1", *arguments)


def test_what_is_ignored_is_named(rlx2):
    ignored = ["--eval-freq", "500", "-tags", "one", "two", "--storage", "study.log"]
    output = rlx2("train", "--algo", "rlx2td3", "--env", "Pendulum-v1", *ignored, *SHORT[2:], "actor_sparsity:0.5")
    assert "--eval-freq 500 is beyond the 60 steps of training: nothing is evaluated" in output
    assert "--wandb-tags one two without --track: nothing is sent to Weights & Biases" in output
    assert "--storage without -optimize or --trial-id: nothing is searched" in output


def test_help_names_the_hyper_parameters(rlx2):
    text = " ".join(rlx2("train", "--help").split())
    assert "topology:rigl" in text
    assert "actor_sparsity" in text


@pytest.mark.parametrize(
    ("algorithm", "name", "near"),
    [(RLx2TD3, "actor_sparsty", "actor_sparsity"), (RLx2TD3, "gama", "gamma"), (RLx2DQN, "sparsty", "sparsity")],
)
def test_a_keyword_that_is_nearly_one(algorithm, name, near):
    env = DriftEnv(n_actions=3 if algorithm is RLx2DQN else 0)
    with pytest.raises(TypeError, match=rf"^{algorithm.__name__} has no argument {name}; did you mean {near}"):
        algorithm("MlpPolicy", env, buffer_size=10, **{name: 0.5})


def test_a_subclass_passes_on_what_the_class_takes():
    class Mine(RLx2TD3):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)

    assert Mine("MlpPolicy", DriftEnv(), buffer_size=10, gamma=0.9, topology="set").gamma == 0.9
    with pytest.raises(TypeError, match="has no argument gama; did you mean gamma"):
        Mine("MlpPolicy", DriftEnv(), buffer_size=10, gama=0.9)


def test_a_dense_twin(rlx2, tmp_path):
    evaluated = [*TINY[2:], "--eval-freq", "30", "--eval-episodes", "1", *SHORT[len(TINY) :]]
    sparse = ["train", "--algo", "rlx2td3", "--env", "Pendulum-v1", *evaluated, "learning_rate:2e-4", "actor_sparsity:0.5"]
    rlx2(*sparse)
    assert "--dense-twin: td3 with the hyper-parameters of rlx2td3" in rlx2(*sparse, "--dense-twin")
    twin = TD3.load(tmp_path / "logs/td3/Pendulum-v1_1/Pendulum-v1.zip")
    assert (twin.lr_schedule(1.0), twin.learning_starts, twin.policy_kwargs["net_arch"]) == (2e-4, 50, [16, 16])
    assert twin.action_noise._sigma.tolist() == [0.1]
    run, other = read_run(tmp_path / "logs/rlx2td3/Pendulum-v1_1"), read_run(tmp_path / "logs/td3/Pendulum-v1_1")
    assert [each.folder.parent.name for each in dense_twins(run)] == ["td3"]
    difference = run.evaluations.returns[-1].mean() - other.evaluations.returns[-1].mean()
    assert against_dense(Group("", 0, [run]))[0] == f"{difference:+,.4g}"
    assert against_dense(Group("", 0, [other])) is None
    rlx2(*sparse[:-2], "learning_rate:1e-4")  # with other hyper-parameters it has none
    assert dense_twins(read_run(tmp_path / "logs/rlx2td3/Pendulum-v1_2")) == []
    rlx2(*sparse, "--env-kwargs", "g:5.0", "--seed", "7")  # nor in another environment, where it is no seed of the first
    run = read_run(tmp_path / "logs/rlx2td3/Pendulum-v1_3")
    assert dense_twins(run) == []
    assert len(group([read_run(tmp_path / "logs/rlx2td3/Pendulum-v1_1"), run])) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "sac", "--dense-twin"], "--dense-twin is of a sparse algorithm: --algo sac must be one of rlx2"),
        (["--algo", "rlx2sac", "--dense-twin", "-optimize"], "--dense-twin is for a training, not for a study"),
    ],
)
def test_what_has_no_dense_twin(arguments, message, rlx2):
    assert message in rlx2.error("train", "--env", "Pendulum-v1", *arguments)
