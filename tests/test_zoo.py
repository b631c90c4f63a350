"""RL Zoo with our algorithms (our command), and with SB3's own made sparse by a YAML file (the zoo's command)."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rl_zoo3 import exp_manager
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback

from sb3_rlx2 import RLx2Callback, RLx2SAC, RLx2TD3, agents, metrics, zoo

HYPERPARAMS = Path(__file__).parents[1] / "hyperparams"
CLASSES = {"rlx2td3": RLx2TD3, "rlx2sac": RLx2SAC, "td3": TD3, "sac": SAC}
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


def run(*arguments, cwd, returncode=0):
    """Run a module with the interpreter of the tests, as a user would."""
    result = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert result.returncode == returncode, result.stdout + result.stderr
    return result


@pytest.mark.parametrize("algo", ["rlx2td3", "rlx2sac"])
def test_our_command(algo, tmp_path):
    trained = run("sb3_rlx2", "train", "--algo", algo, "--env", "Hopper-v5", *SHORT, "-params", *SHORT_OURS, cwd=tmp_path)
    path = f"logs/{algo}/Hopper-v5_1/Hopper-v5.zip"
    assert f"Loading hyperparameters from: {HYPERPARAMS / algo}.yml" in trained.stdout
    assert f"Model: {path}" in trained.stdout
    assert "(2.0%)" in trained.stdout  # the actor's live weights
    check_trained(CLASSES[algo].load(tmp_path / path))
    play = ["--algo", algo, "--env", "Hopper-v5", "-f", "logs", "--no-render", "-n", "200"]
    assert "Mean reward" in run("sb3_rlx2", "enjoy", *play, cwd=tmp_path).stdout
    run("sb3_rlx2", "enjoy", *play, "--load-best", "--n-envs", "2", cwd=tmp_path)


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_stock_command(algo, tmp_path):
    config = ["-conf", str(HYPERPARAMS / f"{algo}.yml"), "-params", *SHORT_STOCK]
    run("rl_zoo3.train", "--algo", algo, "--env", "Hopper-v5", *SHORT, *config, cwd=tmp_path)
    check_trained(CLASSES[algo].load(tmp_path / f"logs/{algo}/Hopper-v5_1/Hopper-v5.zip"))
    play = ["--algo", algo, "--env", "Hopper-v5", "-f", "logs", "--no-render", "-n", "200"]
    assert "Mean reward" in run("rl_zoo3.enjoy", *play, cwd=tmp_path).stdout


def check_trained(model):
    assert model.policy.topology_updater.networks["critic"].updates > 0
    assert metrics.density(model.actor) == pytest.approx(0.02, abs=1e-3)
    assert metrics.density(model.critic) == pytest.approx(0.05, abs=1e-3)


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
    assert "rlx2td3,rlx2sac" in text or "plot" in command


def test_commands(rlx2):
    assert "{train,enjoy,record_video,record_training,plot_train,all_plots,plot_from_file," in rlx2("--help")
    assert set(ZOO_OPTIONS) <= zoo.COMMANDS.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "rlx2: error: argument command: invalid choice: 'trian' (choose from"),
        ([], "rlx2: error: the following arguments are required: command"),
        (["train", "--algo", "rlx2ppo"], "error: argument --algo: invalid choice: 'rlx2ppo' (choose from"),
        (["train", "--algo"], "error: argument --algo: expected one argument"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_wrong_arguments(arguments, message, rlx2):
    assert message in rlx2(*arguments, status=2)


def test_dense_agents_are_weighed_too(tmp_path):
    model = TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [4]})
    model.save(tmp_path / "dense.zip")
    assert zoo.weight_report(str(tmp_path / "dense.zip"), model).count("\n") == 0


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


@pytest.mark.parametrize(("algo", "entry"), ENTRIES)
def test_hyperparameters_build_the_model(algo, entry, tmp_path):
    env_id = "Reacher-v5" if entry == "default" else entry
    config = str(HYPERPARAMS / f"{algo}.yml")
    manager = exp_manager.ExperimentManager(
        argparse.Namespace(), algo, env_id, str(tmp_path), eval_freq=-1, config=config, verbose=0, device="cpu"
    )
    model, _ = manager.setup_experiment()
    small = {"Pendulum-v1": (0.8, 0.8), "InvertedPendulum-v5": (0.8, 0.8)}
    task = "HalfCheetah" if entry == "default" else entry.split("-")[0]
    sparsities = small.get(entry) or TABLE_2[algo.removeprefix("rlx2")][task]
    assert (1 - metrics.density(model.actor), 1 - metrics.density(model.critic)) == pytest.approx(sparsities, abs=1e-3)
    assert manager.n_timesteps == {"Pendulum-v1": 20_000, "InvertedPendulum-v5": 50_000}.get(entry, 1_000_000)
    assert model.replay_buffer.final_n_steps == 3
    assert model.env is not None
    model.env.close()


@pytest.mark.parametrize(("own", "expected"), [({}, 1.0), ({"eval_env_kwargs": {"g": 2.0}}, 2.0)])
def test_evaluation_has_the_environment_arguments_of_the_file(own, expected, tmp_path):
    config = tmp_path / "own.yml"
    config.write_text("Pendulum-v1: {n_timesteps: 100, policy: MlpPolicy, env_kwargs: {g: 1.0}}")
    manager = zoo.ExperimentManager(
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


STOCK_PAIRS = [(algo, entry) for algo, entry in ENTRIES if algo in TABLE_2]


def settings(algo, entry, folder):
    """What a run by the zoo's command trains with."""
    env_id = "Reacher-v5" if entry == "default" else entry
    manager = exp_manager.ExperimentManager(
        argparse.Namespace(), algo, env_id, str(folder), config=str(HYPERPARAMS / f"{algo}.yml"), verbose=0, device="cpu"
    )
    model, _ = manager.setup_experiment()
    model.env.close()
    callback = next((one for one in manager.callbacks if isinstance(one, RLx2Callback)), None) or model._make_callback()
    names = ("batch_size", "tau", "gamma", "learning_starts", "train_freq", "gradient_steps", "buffer_size", "target_entropy")
    found = {name: getattr(model, name, None) for name in (*names, "policy_delay", "target_policy_noise", "target_noise_clip")}
    parts = {f"callback.{name}": value for name, value in vars(callback).items() if name in RLx2SAC.callback_keywords}
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


def test_every_paper_task_is_listed():
    for algo, table in TABLE_2.items():
        tasks = {f"{task}-{version}" for task in table for version in ("v4", "v5")}
        expected = tasks | {"default", "Pendulum-v1", "InvertedPendulum-v5"}
        assert {entry for name, entry in ENTRIES if name == algo} == expected
        assert {entry for name, entry in ENTRIES if name == f"rlx2{algo}"} == expected
