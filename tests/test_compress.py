"""`rlx2 compress` as a user runs it: real trainings, killed and interrupted ones, several workers, misuse."""

import csv
import importlib
import os
import re
import shlex
import signal
import time
import warnings
from argparse import Namespace
from collections import Counter

import numpy as np
import optuna
import pytest
import torch as th
import yaml
from huggingface_sb3 import EnvironmentName
from matplotlib.image import imread
from optuna.trial import TrialState
from rl_zoo3 import ALGOS
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import RLx2DQN, RLx2SAC, RLx2TD3, metrics, zoo
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.checkpoint import Checkpoints, Resumable
from sb3_rlx2.compress import training
from sb3_rlx2.compress.__main__ import dense_returns
from sb3_rlx2.compress.options import NOTHING_WITHIN_TOLERANCE
from sb3_rlx2.compress.search import FRESH_SEEDS
from sb3_rlx2.compress.training import Experiment, Sparsities, Task, random_returns
from sb3_rlx2.files import UNFINISHED
from sb3_rlx2.studies.storage import open_storage
from sb3_rlx2.studies.workers import run_trials
from sb3_rlx2.zoo import hub
from sb3_rlx2.zoo.dense_twin import dense_hyperparams
from sb3_rlx2.zoo.trials import trial_folder
from tests import apart
from tests.checks import assert_equal, learned, sparse_mlps
from tests.envs import PixelEnv

# A task that is learned in a moment: push as hard as possible. Random play returns -40, the best -20.
EASY = """
import gymnasium as gym
import numpy as np

class Easy(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), float(action[0]) - 2.0, False, False, {}

class Choice(Easy):
    action_space = gym.spaces.Discrete(3)

    def step(self, action):
        return super().step([int(action) - 1])

gym.register("Easy-v0", Easy, max_episode_steps=20)
gym.register("Choice-v0", Choice, max_episode_steps=20)
"""
LEARNING = ["learning_starts:100", "learning_rate:0.01", "gamma:0.5", "batch_size:32"]
PARAMS = ["-params", *LEARNING, "update_interval:50", "policy_kwargs:dict(net_arch=[16, 16])"]
BASE = ["--algo", "rlx2td3", "--env", "Easy-v0", "--gym-packages", "easy_envs", "-n", "400", "--num-threads", "1"]
RMSPROP = "__import__('torch').optim.RMSprop"
SMALL = ["--n-trials", "4", "--n-seeds", "2", "--n-evaluations", "4", "--eval-episodes", "2", "--min-density", "0.1"]
# Workers that count as dead after three seconds of silence, not 90, and that take Ctrl-C however the tests were started.
QUICK = """
import signal
from sb3_rlx2 import __main__
from sb3_rlx2.studies import timing
signal.signal(signal.SIGINT, signal.default_int_handler)
timing.HEARTBEAT_INTERVAL, timing.GRACE_PERIOD = 0.5, 3
__main__.main()
"""


# What a worker does first in each sparse training, ``{}``.
IN_SPARSE_TRAININGS = (
    """
import pathlib, time
from sb3_rlx2.compress import training
evaluation = training.Experiment.evaluation
def wait(self, trial):
    if self.zoo.algo.startswith("rlx2"):
        {}
    return evaluation(self, trial)
training.Experiment.evaluation = wait
"""
    + QUICK
)
# It hangs in the first of them until it is killed, and the other one leaves it one to hang in.
HANGING = IN_SPARSE_TRAININGS.format("pathlib.Path('hangs').touch(); time.sleep(600)")
UNTIL_IT_HANGS = IN_SPARSE_TRAININGS.format("while not pathlib.Path('hangs').exists(): time.sleep(0.05)")


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "easy_envs.py").write_text(EASY)
    monkeypatch.syspath_prepend(tmp_path)
    root = os.environ.get("PYTHONPATH", str(zoo.hyperparams_file("rlx2td3").parents[1]))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{root}")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def start(*arguments, code=QUICK):
    return apart.Process(code, *arguments, cwd=os.getcwd())


def finish(process, returncode=0):
    result = process.result()
    assert result.returncode == returncode, result.stdout + result.stderr
    return result.stdout + result.stderr


def trials(path, name):
    storage = open_storage(str(path))
    return optuna.load_study(storage=storage, study_name=f"rlx2td3-Easy-v0/{name}").trials


def wait_for(condition, process, seconds=400):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.result()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_result_and_its_reproduction(folder, rlx2):
    """The chosen model, the page, the table and the plot; the YAML entry trains the same live weights again."""
    output = rlx2("compress", *BASE, *SMALL, "--tolerance", "0.3", *PARAMS)
    results = folder / "logs/compress/rlx2td3/Easy-v0"
    page = (results / "result.md").read_text()
    assert page in output
    assert "stays within 0.3 of dense" in page
    assert "95 % confidence interval" in page

    with open(results / "points.csv") as file:
        table = list(csv.DictReader(file))
    kinds = Counter(row["kind"] for row in table)
    assert kinds["dense"] == kinds["chosen"] == 1
    assert kinds["search"] + kinds["stopped"] == 4
    chosen = next(row for row in table if row["kind"] == "chosen")
    assert float(chosen["low"]) < float(chosen["score"]) < float(chosen["high"])
    assert float(chosen["score"]) >= 0.7
    picture = imread(results / "points.png")
    assert {len(np.unique(picture[..., channel])) > 20 for channel in range(3)} == {True}

    model = RLx2TD3.load(folder / "logs/compress/rlx2td3/Easy-v0.zip")
    assert model.actor_sparsity == float(chosen["actor_sparsity"])
    entry = yaml.safe_load((results / "rlx2td3.yml").read_text())["Easy-v0"]
    assert (entry["actor_sparsity"], entry["critic_sparsity"]) == (model.actor_sparsity, model.critic_sparsity)

    line = next(line for line in page.splitlines() if line.startswith("rlx2 train"))
    rlx2(*shlex.split(line)[1:], "-f", "again", "--eval-freq", "150")
    again = RLx2TD3.load(folder / "again/rlx2td3/Easy-v0_1/Easy-v0.zip")
    for name in ("actor", "critic", "actor_target", "critic_target"):
        for one, other in zip(sparse_mlps(getattr(model, name)), sparse_mlps(getattr(again, name)), strict=True):
            assert th.equal(one.index, other.index)
            assert th.equal(one.values, other.values)
            assert th.equal(one.bias, other.bias)
    enjoy = [
        "enjoy",
        "--algo",
        "rlx2td3",
        "--env",
        "Easy-v0",
        "-f",
        "logs/compress",
        "--exp-id",
        "-1",
        "--no-render",
        "-n",
        "50",
    ]
    assert "Mean reward" in rlx2(*enjoy, "--gym-packages", "easy_envs")
    found = results.parent
    hub.copy_run(folder, found / "Easy-v0.zip", found, Namespace(algo="rlx2td3", env=EnvironmentName("Easy-v0")))
    assert yaml.safe_load((folder / "args.yml").read_text())["env_kwargs"] is None


def test_two_workers_one_is_killed(folder, rlx2):
    """The survivor trains what the dead one left, each training once; and when all is done, the command trains nothing."""
    arguments = ["compress", *BASE, *SMALL, "--tolerance", "0.3", "--storage", "shared.log", *PARAMS]
    dead, alive = start(*arguments, "-f", "a", code=HANGING), start(*arguments, "-f", "b", code=UNTIL_IT_HANGS)
    try:
        wait_for((folder / "hangs").exists, dead)
        dead.kill()
        dead.result()
        finish(alive)
    finally:
        for process in (dead, alive):
            process.kill()
            process.result()
    for name, total, first in (("dense", 2, 0), ("search", 4, FRESH_SEEDS)):
        ended = [trial for trial in trials("shared.log", name) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        assert sorted(trial.user_attrs["seed"] for trial in ended) == list(range(first, first + total))
    failed = [trial for trial in trials("shared.log", "search") if trial.state == TrialState.FAIL]
    assert len(failed) == 1
    before = len(trials("shared.log", "search"))
    output = rlx2(*arguments, "-f", "b")
    assert "score" in output
    assert "search 0" not in output
    assert "finalist 0" not in output
    assert len(trials("shared.log", "search")) == before


def _count(path, name, state):
    try:
        return sum(trial.state == state for trial in trials(path, name))
    except (KeyError, FileNotFoundError):
        return 0


def test_interrupted(folder, rlx2):
    arguments = ["compress", *BASE, *SMALL, "--dense-return", "-20", "--tolerance", "0.3", *PARAMS]
    journal = "logs/compress/rlx2td3/Easy-v0/search.log"
    process = start(*arguments)
    try:
        wait_for(lambda: os.path.exists(journal) and _count(journal, "search", TrialState.COMPLETE) >= 1, process)
        process.send_signal(signal.SIGINT)
        assert "The same command continues" in finish(process, 130)
    finally:
        process.kill()
        process.result()
    done = [trial.user_attrs for trial in trials(journal, "search") if trial.state == TrialState.COMPLETE]
    rlx2(*arguments)
    ended = [trial for trial in trials(journal, "search") if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert sorted(trial.user_attrs["seed"] for trial in ended) == list(range(FRESH_SEEDS, FRESH_SEEDS + 4))
    assert all(attributes in [trial.user_attrs for trial in ended] for attributes in done)


@pytest.mark.parametrize("vec_env", ["dummy", "subproc"])
def test_a_training_that_is_cut_ends_as_if_it_had_not(vec_env, folder, monkeypatch):
    """To the last bit: its retry goes on from the checkpoint of the attempt before. No folder of a run is left."""
    importlib.import_module("easy_envs")
    monkeypatch.chdir(folder)
    hyperparams = {"learning_starts": 100, "batch_size": 32, "update_interval": 50, "policy_kwargs": "dict(net_arch=[16])"}
    config = str(zoo.hyperparams_file("rlx2td3"))
    task = Task("rlx2td3", "Easy-v0", 390, 2, 4, config, hyperparams, vec_env=vec_env)
    sparsities, found = Sparsities.from_densities("rlx2td3", [0.5, 0.5]), {}
    written = Checkpoints._write

    def write_and_stop(callback):
        written(callback)
        if callback.model.num_timesteps == 194:  # in the middle of an episode
            monkeypatch.setattr(Checkpoints, "_write", written)
            raise KeyboardInterrupt

    for name in ("whole", "cut"):
        study = optuna.create_study(storage=open_storage(f"{folder}/{name}.log"), study_name="study", direction="maximize")

        def train(trial, name=name, study=study):
            place = trial_folder(folder / name, study, trial)
            return training.train(task, 3, sparsities, trial, folder / f"{name}.zip", place)

        if name == "cut":
            monkeypatch.setattr(Checkpoints, "_write", write_and_stop)
            with pytest.raises(KeyboardInterrupt):
                run_trials(study, train, 1)
        run_trials(study, train, 1)
        *failed, trial = study.trials
        assert [each.state for each in failed] == [TrialState.FAIL] * (name == "cut")
        learnt = learned(RLx2TD3.load(folder / f"{name}.zip"))
        found[name] = learnt, trial.value, list(trial.intermediate_values.values()), trial.user_attrs["size"]
    assert_equal(found["whole"], found["cut"])
    assert {path.name.partition(".")[0] for path in folder.iterdir()} - {"__pycache__"} == {"easy_envs", *found}


@pytest.mark.parametrize("sparsities", [None, Sparsities.from_densities("rlx2td3", [0.5, 0.5])])
def test_environments_in_processes_give_their_state(sparsities, folder):
    hyperparams = {"policy_kwargs": "dict(net_arch=[16])"}
    config = str(zoo.hyperparams_file("rlx2td3"))
    task = Task("rlx2td3", "Pendulum-v1", 400, 2, 4, config, hyperparams, vec_env="subproc")
    with Experiment(task, 0, sparsities).model() as model:
        assert model.get_env().env_is_wrapped(Resumable) == [True]


def test_what_killed_searches_left_is_swept(folder, rlx2, monkeypatch):
    results = folder / "logs/compress/rlx2td3/Easy-v0"
    old, new = results / f"{UNFINISHED}old", results.parent / f"{UNFINISHED}new"
    for path in (old, new):
        path.mkdir(parents=True)
        (path / "points.csv").touch()
    os.utime(old, (0, 0))
    monkeypatch.setattr("sb3_rlx2.compress.__main__.Search", lambda *_: 1 / 0)
    rlx2("compress", *BASE, *SMALL, *PARAMS, "--dense-return", "-20", status=1)
    assert (old.exists(), new.exists()) == (False, True)  # another worker may be writing the new one


def test_what_schedulers_send_ends_as_ctrl_c_does(folder, rlx2, monkeypatch):
    def killed(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("sb3_rlx2.compress.search.train", killed)
    output = rlx2("compress", *BASE, *SMALL, *PARAMS, "--dense-return", "-20", status=130)
    assert "The same command continues" in output


def test_nothing_within_tolerance_still_writes_the_results(folder, rlx2, monkeypatch):
    """Nor is the choice of a looser tolerance left among them, which otherwise stays, wherever the command runs again."""
    arguments = [*BASE, *SMALL, "--n-trials", "2", *PARAMS]
    loose = ["compress", *arguments, "--dense-return", "-39", "--tolerance", "0.99"]
    rlx2(*loose)
    model = folder / "logs/compress/rlx2td3/Easy-v0.zip"
    chosen = model.read_bytes()
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    for path in (None, *(model.with_suffix("") / "finalists").rglob("*.zip")):
        if path is not None:  # tidied up
            path.unlink()
        assert f": {model.relative_to(folder)}" in rlx2(*loose)
        assert model.read_bytes() == chosen
    output = rlx2("compress", *arguments, "--dense-return", "100", "90", status=NOTHING_WITHIN_TOLERANCE)
    assert "No agent of rlx2td3 on Easy-v0 was found within 0.03 of dense" in output
    results = model.with_suffix("")
    left = sorted(path.name for path in results.iterdir() if "log" not in path.name)
    assert left == ["finalists", "points.csv", "points.png", "result.md"]
    assert not model.exists()


def test_dense_returns_from_logs(folder):
    for seed, last in ((0, -21.0), (1, -23.0)):
        (folder / f"dense/td3/Easy-v0_{seed}").mkdir(parents=True)
        path = folder / f"dense/td3/Easy-v0_{seed}/evaluations.npz"
        np.savez(path, timesteps=[100, 400, 800], results=[[-30.0] * 2, [last - 1, last + 1], [0.0] * 2])
    assert dense_returns(folder / "dense", 400) == (-21.0, -23.0)
    with pytest.raises(ValueError, match="steps 100 to 800, and needs one in the last tenth of 600"):
        dense_returns(folder / "dense", 600)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--algo", "td3"], 2, "argument --algo: invalid choice: 'td3' (choose from"),
        (["--tolerance", "1.5"], 2, "argument --tolerance: value=1.5 must be a number in [0, 1)"),
        (["--n-seeds", "1"], 2, "argument --n-seeds: value=1 must be an integer in [2, 1000)"),
        (
            ["-params", "gamma:often"],
            2,
            "gamma:often must be name:value, where the value is a Python expression (name 'often' is not",
        ),
        (["--env", "Pendulun-v1"], 1, "--env Pendulun-v1 is unknown; did you mean Pendulum-v1?"),
        (["--gym-packages", "nowhere"], 1, "No module named 'nowhere'"),
        (["-conf", "nowhere.yml"], 1, "--conf-file nowhere.yml does not exist"),
        (["--min-density", "0.6"], 1, "--min-density 0.6 must be below --max-density 0.5"),
        (["-n", "50"], 1, "--n-timesteps 50 must be more than learning_starts=100"),
        (["-params", "lerning_rate:1"], 1, "lerning_rate=1 is no argument of RLx2TD3; did you mean learning_rate?"),
        (["-params", *LEARNING, f"policy_kwargs:dict(optimizer_class={RMSPROP})"], 1, "cannot be written to the YAML file"),
        (["--storage", "mysql://host/x"], 1, "must be postgresql://"),
        (["--max-bytes", "50"], 1, "--max-bytes 50 must be at least "),
        (["--max-bytes", "none"], 2, "argument --max-bytes: "),
        (["--dense-logs", "."], 1, "--dense-logs . holds no evaluations.npz"),
        (["--dense-return", "-50"], 1, "the dense agent's mean return is -50.00 and must lie above the random policy's"),
    ],
)
def test_misuse(arguments, code, message, folder, rlx2):
    defaults = [] if "-params" in arguments else PARAMS
    assert message in rlx2.error("compress", *BASE, *SMALL, *defaults, *arguments, status=code)
    assert not (folder / "logs/compress/rlx2td3/Easy-v0.zip").exists()


def test_a_study_of_another_task(folder, rlx2):
    command_line = [*BASE, *SMALL, *PARAMS, "--dense-return", "-50", "--storage", "x.log"]
    rlx2.error("compress", *command_line)
    for change, message in (
        (["-n", "500"], "n_timesteps=400 and not 500"),
        (["--algo", "rlx2sac", "--study-name", "rlx2td3-Easy-v0"], "algo='rlx2td3' and not 'rlx2sac'"),
        (["--eval-episodes", "3"], "eval_episodes=2 and not 3"),
    ):
        assert message in rlx2.error("compress", *command_line, *change)


@pytest.mark.parametrize("algo", ["rlx2td3", "rlx2sac"])
def test_dense_reference_is_stock_with_our_hyperparameters(algo, folder):
    config = str(zoo.hyperparams_file(algo))
    task = Task(algo, "Pendulum-v1", 0, 2, 4, config, {"policy_kwargs": "dict(net_arch=[24], n_critics=3, backend='auto')"})
    with (
        Experiment(task, 5, None).model() as dense,
        Experiment(task, 5, Sparsities.from_densities(algo, [0.5, 0.5])).model() as sparse,
    ):
        assert type(dense) is ALGOS[algo.removeprefix("rlx2")]
        assert type(sparse) is {"rlx2td3": RLx2TD3, "rlx2sac": RLx2SAC}[algo]
        for name in ("learning_rate", "buffer_size", "learning_starts", "batch_size", "gamma", "tau", "seed"):
            assert getattr(dense, name) == getattr(sparse, name) or name == "learning_rate"
        assert dense.lr_schedule(1.0) == sparse.lr_schedule(1.0) == 3e-4
        assert dense.learning_starts == 1000
        assert len(dense.critic.q_networks) == 3
        assert dense.actor.net_arch == [24]
        assert dense.n_steps == 1
        if algo == "rlx2td3":
            assert np.array_equal(dense.action_noise._sigma, sparse.action_noise._sigma)


def test_dense_reference_has_our_defaults():
    dense = dense_hyperparams("rlx2td3", {"policy": "MlpPolicy"}, 3_000_000)
    assert dense["policy_kwargs"] == {"net_arch": [256, 256]}
    assert (dense["noise_type"], dense["noise_std"]) == ("normal", 0.1)
    assert dense["learning_starts"] == 25_000
    assert not dense.keys() & {"topology", "n_steps", "actor_sparsity", "buffer_min_size", "action_noise"}


def test_normalised_and_several_environments(folder, rlx2):
    """Statistics of VecNormalize come with the model, and what counts are returns as the environment gave them."""
    normal = [*PARAMS, "normalize:True", "n_envs:2", "train_freq:2"]
    base = [*BASE, *SMALL, *normal, "--dense-return", "-21", "--tolerance", "0.6", "--n-trials", "2", "--max-density", "0.9"]
    rlx2("compress", *base)
    results = folder / "logs/compress/rlx2td3/Easy-v0"
    env = DummyVecEnv([lambda: __import__("gymnasium").make("Easy-v0")])
    env = VecNormalize.load(str(results / "vecnormalize.pkl"), env)
    env.training = env.norm_reward = False
    model = RLx2TD3.load(folder / "logs/compress/rlx2td3/Easy-v0.zip")
    mean, _ = evaluate_policy(model, env, 5, warn=False)
    assert mean > -40 + 0.4 * 19
    assert yaml.safe_load((results / "rlx2td3.yml").read_text())["Easy-v0"]["n_envs"] == 2


def test_random_policy(folder):
    __import__("easy_envs")
    task = Task("rlx2td3", "Easy-v0", 400, 2, 4, str(zoo.hyperparams_file("rlx2td3")))
    returns = random_returns(task, 3)
    assert len(returns) == 50
    assert np.mean(returns) == pytest.approx(-40, abs=1.5)
    assert np.std(returns) == pytest.approx(np.sqrt(20 / 3), rel=0.4)
    assert returns == random_returns(task, 3) != random_returns(task, 4)


@pytest.mark.parametrize("sparsities", [None, Sparsities.from_densities("rlx2td3", [0.5, 0.5])])
def test_the_speed_of_training_is_measured(sparsities, folder, monkeypatch):
    env = __import__("easy_envs")
    step = env.Easy.step
    monkeypatch.setattr(env.Easy, "step", lambda self, action: (time.sleep(0.01), step(self, action))[1])
    monkeypatch.setattr(training, "TIMED", 30)
    hyperparams = {"policy_kwargs": {"net_arch": [8]}}
    task = Task("rlx2td3", "Easy-v0", 400, 2, 4, str(zoo.hyperparams_file("rlx2td3")), hyperparams)
    assert 0.01 < training.step_seconds(task, sparsities) < 0.2


def test_the_actor_alone_may_be_what_is_weighed(folder, rlx2, monkeypatch):
    monkeypatch.setattr(training, "SILENCE", 0.0)
    options = [
        "--objective",
        "actor",
        "--max-bytes",
        "700",
        "--n-trials",
        "2",
        "--dense-return",
        "-30",
        "-32",
        *SMALL[2:],
        "--n-finalists",
        "1",
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*nothing is trained")  # the first step, which only looks for mistakes
        output = rlx2("compress", *BASE, *options, "--tolerance", "0.9", *PARAMS)
    estimate, *_ = output.splitlines()
    assert "At most 4 trainings of 400 steps: 0 dense, 2 of the search, 2 of finalists" in estimate
    assert re.search(r"\d\.\d hours without evaluations", estimate)
    assert re.search(r"\n  step 399 of 400, [\d,]+ steps/s, 0 min left\n", output)  # there is no terminal
    with open(folder / "logs/compress/rlx2td3/Easy-v0/points.csv") as file:
        chosen = next(row for row in csv.DictReader(file) if row["kind"] == "chosen")
    actor = RLx2TD3.load(folder / "logs/compress/rlx2td3/Easy-v0.zip").actor
    size, dense = metrics.parameter_bytes(actor)
    assert float(chosen["size"]) == pytest.approx(size / dense)
    assert size <= 700
    assert f" {size} bytes, of at most 700 bytes, " in output


def test_one_network_has_one_sparsity(folder, rlx2):
    task = ["--algo", "rlx2dqn", "--env", "Choice-v0", "--gym-packages", "easy_envs", "-n", "400", "--num-threads", "1"]
    rlx2("compress", *task, *SMALL, "--tolerance", "0.3", *PARAMS, "train_freq:1", "target_update_interval:20")
    results = folder / "logs/compress/rlx2dqn/Choice-v0"
    with open(results / "points.csv") as file:
        table = list(csv.DictReader(file))
    chosen = next(row for row in table if row["kind"] == "chosen")
    assert list(chosen)[:3] == ["kind", "sparsity", "size"]
    assert 0.5 <= float(chosen["sparsity"]) <= 0.9
    assert f"(sparsity {float(chosen['sparsity']):g})" in (results / "result.md").read_text()
    model = RLx2DQN.load(folder / "logs/compress/rlx2dqn/Choice-v0.zip")
    assert model.sparsity == float(chosen["sparsity"])
    assert yaml.safe_load((results / "rlx2dqn.yml").read_text())["Choice-v0"]["sparsity"] == model.sparsity


def test_dense_reference_of_crossq():
    """Its critics are as wide as the host's, and it has no `tau`."""
    dense = dense_hyperparams("rlx2crossq", {"policy": "MlpPolicy", "critic_sparsity": 0.9, "policy_delay": 2}, 3_000_000)
    assert dense["policy_kwargs"] == {}
    assert (dense["learning_rate"], dense["policy_delay"], dense["learning_starts"]) == (1e-3, 2, 25_000)
    assert not dense.keys() & {"actor_sparsity", "critic_sparsity", "soft_n_step", "tau"}


@pytest.mark.parametrize("algo", ["rlx2dqn", "rlx2qrdqn"])
def test_dense_reference_of_a_value_based_agent_has_the_hosts_net_arch(algo):
    """RLx2's default is the same there; it is another for TD3."""
    dense = dense_hyperparams(algo, {"policy": "MlpPolicy", "sparsity": 0.9, "train_freq": 2}, 3_000_000)
    assert dense["policy_kwargs"] == {}
    assert dense["learning_starts"] == 25_000
    assert dense["train_freq"] == 2
    assert not dense.keys() & {"topology", "sparsity", "policy_distance_threshold", "buffer_min_size"}


@pytest.mark.parametrize("algo", ["rlx2dqn", "rlx2qrdqn"])
@pytest.mark.parametrize("net_arch", [None, [512], [64, 32]])
def test_dense_reference_of_an_image_agent_has_its_layers(algo, net_arch):
    given = {} if net_arch is None else {"policy_kwargs": {"net_arch": net_arch}}
    dense = dense_hyperparams(algo, {"policy": "CnnPolicy", "sparsity": 0.9, **given}, 1_000)
    twin = ALGOS[algo.removeprefix("rlx2")]("CnnPolicy", PixelEnv(), buffer_size=10, policy_kwargs=dense["policy_kwargs"])
    sparse = ALGORITHMS[algo]("CnnPolicy", PixelEnv(), sparsity=0.9, buffer_size=10, **given)
    (head,) = metrics.heads(metrics.acting_network(twin.policy))
    (mlp,) = metrics.heads(metrics.acting_network(sparse.policy))
    assert [(layer.in_features, layer.out_features) for layer in head.layers] == [
        (layer.in_features, layer.out_features) for layer in mlp.layers
    ]
