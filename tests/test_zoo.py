"""RL Zoo with our algorithms (our command), and with SB3's own made sparse by a YAML file (the zoo's command)."""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import rl_zoo3
import yaml
from rl_zoo3 import exp_manager
from sb3_contrib import QRDQN, TQC, CrossQ
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback

from sb3_rlx2 import RLx2Callback, RLx2TD3, commands, metrics
from sb3_rlx2.algorithms.keywords import Evolution, names
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.plan import steps_of
from sb3_rlx2.zoo import agents
from sb3_rlx2.zoo.experiment import ExperimentManager, weight_report
from tests import apart

HYPERPARAMS = Path(__file__).parents[1] / "hyperparams"
STOCK = {cls.__name__.lower(): cls for cls in (TD3, DDPG, SAC, TQC, CrossQ, DQN, QRDQN)}
CLASSES = ALGORITHMS | STOCK
TABLE_2 = {  # of the paper: actor and critic sparsity
    "td3": {"HalfCheetah": (0.90, 0.85), "Hopper": (0.98, 0.95), "Walker2d": (0.97, 0.95), "Ant": (0.96, 0.88)},
    "sac": {"HalfCheetah": (0.90, 0.80), "Hopper": (0.98, 0.95), "Walker2d": (0.90, 0.90), "Ant": (0.90, 0.75)},
}
SHORT = ["-n", "2000", "--seed", "1", "--eval-freq", "1000", "--eval-episodes", "1", "--num-threads", "1", "-f", "logs"]
SHORT_OURS = ["learning_starts:500", "buffer_min_size:500", "buffer_check_interval:500", "update_interval:200"]
SHORT_STOCK = [
    "learning_starts:500",
    "replay_buffer_kwargs:dict(n_steps=3, buffer_min_size=500)",
    "callback:[{'sb3_rlx2.RLx2Callback': dict(buffer_check_interval=500, update_interval=200)}]",
]


SPARSE = {"actor_sparsity": 0.98, "critic_sparsity": 0.95}  # as in the files, whose `policy_kwargs` are replaced


def narrow(algo, **kwargs):
    """Give CrossQ, whose critics have layers of 1024, networks of the others' width, so that it takes as long as they do."""
    if not algo.endswith("crossq"):
        return []
    given = ", ".join(f"{name}={value}" for name, value in (kwargs | {"net_arch": "[256, 256]"}).items())
    return [f"policy_kwargs:dict({given})"]


def run(module, *arguments, cwd):
    """Run a module in a process of its own, as a user would."""
    result = apart.run(module, *arguments, cwd=cwd, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


# The paper has no others; they take the sparsities of the one that they are built on.
SPARSITIES = TABLE_2 | {"ddpg": TABLE_2["td3"], "tqc": TABLE_2["sac"], "crossq": TABLE_2["sac"]}


@pytest.mark.parametrize(
    "algo",
    ["rlx2td3", "rlx2sac", "rlx2crossq", *(pytest.param(f"rlx2{algo}", marks=pytest.mark.slow) for algo in ("ddpg", "tqc"))],
)
def test_our_command(algo, tmp_path):
    trained = run(
        "sb3_rlx2", "train", "--algo", algo, "--env", "Hopper-v5", *SHORT, "-params", *SHORT_OURS, *narrow(algo), cwd=tmp_path
    )
    path = f"logs/{algo}/Hopper-v5_1/Hopper-v5.zip"
    assert f"Loading hyperparameters from: {HYPERPARAMS / algo}.yml" in trained.stdout
    assert f"Model: {path}" in trained.stdout
    assert "(2.0%)" in trained.stdout  # the actor's live weights
    check_trained(CLASSES[algo].load(tmp_path / path))
    play = ["--algo", algo, "--env", "Hopper-v5", "-f", "logs", "--no-render", "-n", "1001"]  # an episode or more
    assert "Mean reward" in run("sb3_rlx2", "enjoy", *play, cwd=tmp_path).stdout
    run("sb3_rlx2", "enjoy", *play, "--load-best", "--n-envs", "2", cwd=tmp_path)


@pytest.mark.parametrize(
    "algo", ["td3", "sac", "crossq", *(pytest.param(algo, marks=pytest.mark.slow) for algo in ("ddpg", "tqc"))]
)
def test_stock_command(algo, tmp_path):
    config = ["-conf", str(HYPERPARAMS / f"{algo}.yml"), "-params", *SHORT_STOCK, *narrow(algo, **SPARSE)]
    run("rl_zoo3.train", "--algo", algo, "--env", "Hopper-v5", *SHORT, *config, cwd=tmp_path)
    check_trained(CLASSES[algo].load(tmp_path / f"logs/{algo}/Hopper-v5_1/Hopper-v5.zip"))
    play = ["--algo", algo, "--env", "Hopper-v5", "-f", "logs", "--no-render", "-n", "1001"]  # an episode or more
    assert "Mean reward" in run("rl_zoo3.enjoy", *play, cwd=tmp_path).stdout


def check_trained(model):
    assert model.policy.topology_updater.networks["critic"].updates > 0
    assert metrics.density(model.actor) == pytest.approx(0.02, abs=1e-3)
    assert metrics.density(model.critic) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algo", ["rlx2dqn", "rlx2qrdqn", "dqn", "qrdqn"])
def test_value_based_commands(algo, rlx2):
    task, ours = ["--algo", algo, "--env", "CartPole-v1", "-f", "logs"], algo.startswith("rlx2")
    config = [] if ours else ["-conf", HYPERPARAMS / f"{algo}.yml"]
    short = ["learning_starts:300", "train_freq:4", "gradient_steps:1", *(SHORT_OURS if ours else SHORT_STOCK)[1:]]
    output = rlx2("train", *task, "-n", "1500", "--seed", "1", "--eval-freq", "700", *config, "-params", *short)
    name, (live, size) = ("quantile_net", (3_585, 71_680)) if "qr" in algo else ("q_net", (3_355, 67_072))
    assert f"{name}: {live:,} live weights of {size:,} (5.0%)" in output
    model = CLASSES[algo].load(f"logs/{algo}/CartPole-v1_1/CartPole-v1.zip", buffer_size=1)
    assert model.policy.topology_updater.networks[name].updates > 0
    assert "Mean reward" in rlx2("enjoy", *task, "--no-render", "-n", "100")
    assert "Mean reward" in rlx2("enjoy", *task, "--no-render", "-n", "100", "--load-best")


def test_own_hyperparameter_file(tmp_path):
    (tmp_path / "mine.yml").write_text(
        "Pendulum-v1: {n_timesteps: 110, policy: MlpPolicy, learning_starts: 100, buffer_size: 1000, actor_sparsity: 0.5}"
    )
    arguments = ["--algo", "rlx2sac", "--env", "Pendulum-v1", "-conf", "mine.yml", "--eval-freq", "-1", "-f", "logs"]
    trained = run("sb3_rlx2", "train", *arguments, "--vec-env", "subproc", cwd=tmp_path)
    assert "Loading hyperparameters from: mine.yml" in trained.stdout
    assert "(50.0%)" in trained.stdout


OWN_OPTIONS = {
    **dict.fromkeys(["record_video", "record_training", "push_to_hub"], "--gym-packages MODULE"),
    **dict.fromkeys(["plot_train", "all_plots", "plot_from_file"], "--save-figures FOLDER"),
}
ZOO_OPTIONS = {
    "train": "--optimize-hyperparameters",
    "enjoy": "--load-last-checkpoint",
    "record_video": "--load-last-checkpoint",
    "record_training": "--gif",
    "plot_train": "--episode-window",
    "all_plots": "--no-million",
    "plot_from_file": "--rliable",
    "load_from_hub": "--repo-name",
    "push_to_hub": "--commit-message",
    "compress": "--tolerance",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", ZOO_OPTIONS)
def test_help(command, rlx2):
    """The zoo's options, ours, and our algorithms where one is to be chosen."""
    text = rlx2(command, "--help")
    assert text.startswith(f"usage: rlx2 {command} [-h]")
    assert ZOO_OPTIONS[command] in text
    assert OWN_OPTIONS.get(command, "") in text
    assert "rlx2td3,rlx2ddpg,rlx2sac" in text or "plot" in command


def test_commands(rlx2):
    listed = " ".join(rlx2("--help").split())
    assert f"what to do: {', '.join(commands.COMMANDS)} " in listed
    assert set(ZOO_OPTIONS) <= commands.COMMANDS.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "rlx2: error: argument command: command='trian' is unknown"),
        (["trian"], "; did you mean 'train' or 'plot_train'?"),
        ([], "rlx2: error: the following arguments are required: command"),
        (["train", "--algo", "rlx2ppo"], "error: argument --algo: invalid choice: 'rlx2ppo' (choose from"),
        (["train", "--algo"], "error: argument --algo: expected one argument"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_wrong_arguments(arguments, message, rlx2):
    assert message in rlx2(*arguments, status=2)


def test_folders_with_brackets_count_their_runs(rlx2):
    for seed in (1, 2):
        output = rlx2.train("rlx2td3", "-n", "60", "-f", "runs [1]", "--checkpoint-every", "60", "--seed", seed)
        assert f"Saving to runs [1]/rlx2td3/Pendulum-v1_{seed}" in output
    play = ("enjoy", "--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "runs [1]", "--no-render", "-n", "10")
    assert "Pendulum-v1_2" in rlx2(*play)


def test_runs_that_begin_side_by_side_have_folders_of_their_own(rlx2, monkeypatch):
    rlx2.train("rlx2td3", "-n", "60")
    numbers = iter([0])  # as another one had begun in between
    monkeypatch.setattr(exp_manager, "get_latest_run_id", lambda *given: next(numbers))
    before = Path("logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip").read_bytes()
    assert "Saving to logs/rlx2td3/Pendulum-v1_2" in rlx2.train("rlx2td3", "-n", "60")
    assert Path("logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip").read_bytes() == before


def test_hyperparameters_may_be_given_in_parts(rlx2):
    output = rlx2.train("rlx2td3", "-n", "60", parameters=["gamma:0.9", "-params", "gamma:0.8", "tau:0.1"])
    assert all(f"('{name}', {value})" in output for name, value in {"gamma": 0.8, "tau": 0.1, "buffer_size": 1000}.items())


def test_an_evaluation_that_never_comes_is_named(rlx2):
    output = rlx2.train("rlx2td3", "--eval-freq", "70", parameters=["n_timesteps:60"])
    assert "--eval-freq 70 is beyond the 60 steps of training: nothing is evaluated" in output


def test_dense_agents_are_weighed_too(tmp_path):
    model = TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [4]})
    model.save(tmp_path / "dense.zip")
    assert weight_report(str(tmp_path / "dense.zip"), model).count("\n") == 0


def test_playing_takes_no_replay_memory(tmp_path):
    RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=1000).save(tmp_path / "agent.zip")
    assert agents.load_to_play(RLx2TD3, tmp_path / "agent.zip").replay_buffer.buffer_size == 1


def test_registration_changes_nothing_else():
    code = """
from rl_zoo3 import ALGOS, exp_manager
algos, manager = dict(ALGOS), exp_manager.ExperimentManager
import sb3_rlx2
assert ALGOS == algos
import sb3_rlx2.zoo
assert ALGOS == algos | sb3_rlx2.zoo.ALGORITHMS
assert exp_manager.ExperimentManager is manager
"""
    subprocess.run([sys.executable, "-c", code], check=True)


ENTRIES = [(algo, entry) for algo in CLASSES for entry in yaml.safe_load((HYPERPARAMS / f"{algo}.yml").read_text())]


VALUE_BASED = [(algo, entry) for algo, entry in ENTRIES if algo.endswith("dqn")]
IS_THERE = {"atari": "ale_py", "LunarLander-v3": "Box2D"}  # what environments need that not everybody has
PLAYABLE = [(algo, entry) for algo, entry in VALUE_BASED if entry not in IS_THERE or find_spec(IS_THERE[entry])]


def env_of(algo, entry):
    """Give an environment that has the settings."""
    unlisted = "CliffWalking-v1" if algo.endswith("dqn") else "Reacher-v5"
    return {"default": unlisted, "atari": "ALE/Pong-v5"}.get(entry, entry)


def of_zoo(algo, entry):
    """Give the zoo's own hyper-parameters of SB3's algorithm."""
    path = Path(rl_zoo3.__file__).parent / f"hyperparams/{algo.removeprefix('rlx2')}.yml"
    return yaml.safe_load(path.read_text())[entry]


def is_minatar(entry):
    """Whether the zoo has no settings of its own: those are the suite's, of docs/structures.md."""
    return entry.startswith("MinAtar/")


@pytest.mark.parametrize(("algo", "entry"), [pair for pair in VALUE_BASED if not is_minatar(pair[1])])
def test_hyperparameters_of_value_based_agents_are_the_zoos(algo, entry):
    host = {name: value for name, value in of_zoo(algo, entry).items() if not name.startswith(("policy", "optimize_memory"))}
    own = yaml.safe_load((HYPERPARAMS / f"{algo}.yml").read_text())[entry]
    assert {name: own[name] for name in host} == host


@pytest.mark.parametrize(
    ("algo", "entry"), [pair for pair in VALUE_BASED if is_minatar(pair[1]) and pair[0].startswith("rlx2")]
)
def test_minatar_hyperparameters_are_those_of_the_part_in_the_stock_class(algo, entry):
    own, stock = (
        yaml.safe_load((HYPERPARAMS / f"{name}.yml").read_text())[entry] for name in (algo, algo.removeprefix("rlx2"))
    )
    shared = (own.keys() & stock.keys()) - {"policy", "policy_kwargs"}
    assert {"n_timesteps", "learning_rate", "batch_size", "train_freq", "exploration_fraction"} <= shared
    assert {name: own[name] for name in shared} == {name: stock[name] for name in shared}


@pytest.mark.parametrize(("algo", "entry"), PLAYABLE)
def test_hyperparameters_build_the_value_based_model(algo, entry, tmp_path):
    config = str(HYPERPARAMS / f"{algo}.yml")
    manager = exp_manager.ExperimentManager(
        argparse.Namespace(), algo, env_of(algo, entry), str(tmp_path), config=config, verbose=0, device="cpu"
    )
    model, _ = manager.setup_experiment()
    model.env.close()
    network = metrics.acting_network(model.policy)
    if is_minatar(entry):  # the hidden layer alone is sparse
        hidden, output = metrics.sparse_mlps(network)[0].layers
        assert 1 - hidden.nnz / hidden.size == pytest.approx(0.91, abs=1e-3)
        assert output.nnz == output.size
        assert manager.n_timesteps == 1_000_000
    else:
        sparsity = 0.95 if entry == "CartPole-v1" else 0.9
        assert 1 - metrics.density(network) == pytest.approx(sparsity, abs=1e-3)
        assert manager.n_timesteps == of_zoo(algo, entry)["n_timesteps"]
    assert model.replay_buffer.final_n_steps == 3


@pytest.mark.parametrize(("algo", "entry"), [pair for pair in ENTRIES if pair not in VALUE_BASED])
def test_hyperparameters_build_the_model(algo, entry, tmp_path):
    env_id = env_of(algo, entry)
    config = str(HYPERPARAMS / f"{algo}.yml")
    manager = exp_manager.ExperimentManager(
        argparse.Namespace(), algo, env_id, str(tmp_path), eval_freq=-1, config=config, verbose=0, device="cpu"
    )
    model, _ = manager.setup_experiment()
    small = {"Pendulum-v1": (0.8, 0.8), "InvertedPendulum-v5": (0.8, 0.8)}
    task = "HalfCheetah" if entry == "default" else entry.split("-")[0]
    sparsities = small.get(entry) or SPARSITIES[algo.removeprefix("rlx2")][task]
    assert (1 - metrics.density(model.actor), 1 - metrics.density(model.critic)) == pytest.approx(sparsities, abs=1e-3)
    assert manager.n_timesteps == {"Pendulum-v1": 20_000, "InvertedPendulum-v5": 50_000}.get(entry, 1_000_000)
    assert model.replay_buffer.final_n_steps == 3
    assert model.env is not None
    model.env.close()


@pytest.mark.parametrize(("own", "expected"), [({}, 1.0), ({"eval_env_kwargs": {"g": 2.0}}, 2.0)])
def test_evaluation_has_the_environment_arguments_of_the_file(own, expected, tmp_path):
    config = tmp_path / "own.yml"
    config.write_text("Pendulum-v1: {n_timesteps: 100, policy: MlpPolicy, env_kwargs: {g: 1.0}}")
    manager = ExperimentManager(
        argparse.Namespace(), "rlx2td3", "Pendulum-v1", str(tmp_path), config=str(config), verbose=0, device="cpu", **own
    )
    model, _ = manager.setup_experiment()
    evaluation = next(one for one in manager.callbacks if isinstance(one, EvalCallback))
    gravity = [env.envs[0].unwrapped.g for env in (model.get_env(), evaluation.eval_env)]
    assert gravity == [1.0, expected]
    model.env.close()
    evaluation.eval_env.close()


def test_modules_in_the_current_folder(rlx2):
    """As with `python -m`."""
    place = "gymnasium.envs.classic_control.pendulum:PendulumEnv"
    Path("packages_of_mine.py").write_text(
        f"import gymnasium\ngymnasium.register('Mine-v0', entry_point={place!r}, max_episode_steps=50)"
    )
    parameters = ["n_timesteps:60", "policy:'MlpPolicy'"]
    output = rlx2.train("rlx2td3", "--gym-packages", "packages_of_mine", "-n", "60", env="Mine-v0", parameters=parameters)
    assert "live weights" in output


STOCK_PAIRS = [(algo, entry) for algo, entry in ENTRIES if algo in SPARSITIES]
STOCK_PAIRS += [(algo, entry) for algo, entry in PLAYABLE if not algo.startswith("rlx2")]


def settings(algo, entry, folder):
    """What a run by the zoo's command trains with."""
    config = str(HYPERPARAMS / f"{algo}.yml")
    manager = exp_manager.ExperimentManager(
        argparse.Namespace(), algo, env_of(algo, entry), str(folder), config=config, verbose=0, device="cpu"
    )
    model, _ = manager.setup_experiment()
    model.env.close()
    callback = next((one for one in manager.callbacks if isinstance(one, RLx2Callback)), None) or model._make_callback()
    shared = ("batch_size", "tau", "gamma", "learning_starts", "train_freq", "gradient_steps", "buffer_size")
    own = ("target_entropy", "policy_delay", "target_policy_noise", "target_noise_clip", "target_update_interval")
    exploration = ("exploration_fraction", "exploration_initial_eps", "exploration_final_eps", "max_grad_norm")
    found = {name: getattr(model, name, None) for name in (*shared, *own, *exploration)}
    found["learning_starts"] = steps_of("learning_starts", model.learning_starts, manager.n_timesteps)
    parts = {f"callback.{name}": getattr(callback, name) for name in (*names(Evolution), "soft_n_step")}
    if callback.policy_distance_threshold is None:
        parts["callback.policy_distance_threshold"] = model.policy.distance_threshold
    buffer = model.replay_buffer
    return (
        found
        | parts
        | {
            "learning_rate": model.lr_schedule(1.0),
            "entropy": str(getattr(model, "ent_coef", None)),
            "noise": str(model.action_noise),
            "buffer": (type(buffer), buffer.gamma, buffer.final_n_steps, buffer.buffer_min_size),
            "policy": str(model.policy),
            "timesteps": manager.n_timesteps,
        }
    )


@pytest.mark.parametrize(("algo", "entry"), STOCK_PAIRS)
def test_stock_command_trains_with_the_same_settings(algo, entry, tmp_path):
    assert settings(algo, entry, tmp_path) == settings(f"rlx2{algo}", entry, tmp_path)


@pytest.mark.parametrize("algo", ["dqn", "qrdqn"])
def test_every_classic_task_is_listed(algo):
    tasks = {"default", "CartPole-v1", "LunarLander-v3", "Acrobot-v1", "MountainCar-v0"}
    for name in (algo, f"rlx2{algo}"):
        assert {entry for own, entry in ENTRIES if own == name} >= tasks


def test_every_paper_task_is_listed():
    for algo, table in SPARSITIES.items():
        tasks = {f"{task}-{version}" for task in table for version in ("v4", "v5")}
        expected = tasks | {"default", "Pendulum-v1", "InvertedPendulum-v5"}
        assert {entry for name, entry in ENTRIES if name == algo} == expected
        assert {entry for name, entry in ENTRIES if name == f"rlx2{algo}"} == expected
