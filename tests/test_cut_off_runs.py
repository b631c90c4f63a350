"""What plays, shows and exports agents takes that of a run's newest whole checkpoint, where the run was cut off."""

import json
import pickle
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch as th
from huggingface_sb3 import EnvironmentName
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import RLx2DQN, RLx2SAC, RLx2TD3, safe_pickle
from sb3_rlx2.checkpoint import Checkpoints, generations
from sb3_rlx2.checkpoint.agent import as_zip, normalizer_of
from sb3_rlx2.checkpoint.archive import newer_checkpoint, why_no_agent
from sb3_rlx2.report.run_folder import agent_file, read_run
from sb3_rlx2.zoo import agents, hub
from tests.envs import DriftEnv, TinyEnv

pytestmark = pytest.mark.filterwarnings("ignore")
TASK = ["--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs"]
RUN = Path("logs/rlx2td3/Pendulum-v1_1")
ZIP, CHECKPOINTS = RUN / "Pendulum-v1.zip", RUN / "checkpoints"
SHORT = {"learning_starts": 10, "batch_size": 8, "buffer_size": 60, "seed": 0}


KEPT: dict = {}  # the run, made once


@pytest.fixture
def run(rlx2, tmp_path_factory):
    """Give a run of two checkpoints, 100 and 200, with an agent of step 100 as a kill may leave it; and its last agent."""
    if not KEPT:
        KEPT.update(agent=_train(rlx2), logs=shutil.copytree("logs", tmp_path_factory.mktemp("run") / "logs"))
    else:
        shutil.copytree(KEPT["logs"], "logs")
    return KEPT["agent"]


def _train(rlx2):
    parameters = ["normalize:True", "policy_distance_threshold:float('inf')"]
    rlx2.train("rlx2td3", "-n", "100", "--checkpoint-every", "100", parameters=parameters)
    kept = {path: path.read_bytes() for path in (ZIP, RUN / "Pendulum-v1/vecnormalize.pkl")}
    rlx2("train", "--resume", RUN, "-n", "200")
    agent = ZIP.read_bytes()
    for path, content in kept.items():
        path.write_bytes(content)
    assert generations.newest(CHECKPOINTS).step == 200
    return agent


def actions(output):
    """Give what tells that two agents play the same."""
    return [line for line in output.splitlines() if "reward" in line.lower() or "length" in line.lower()]


@pytest.mark.parametrize("left", ["an older agent", "a torn one", "none"])
def test_enjoy(left, run, rlx2, tmp_path):
    shutil.copytree(RUN, tmp_path / "whole/rlx2td3/Pendulum-v1_1")
    whole = tmp_path / "whole/rlx2td3/Pendulum-v1_1"
    (whole / "Pendulum-v1.zip").write_bytes(run)
    (whole / "Pendulum-v1/vecnormalize.pkl").write_bytes(_statistics(CHECKPOINTS))
    shutil.rmtree(whole / "checkpoints")
    leave(left)
    play = ["enjoy", *TASK[:-1], "logs", "--no-render", "-n", "200", "--seed", "3"]
    output = rlx2(*play)
    assert f"Loading {CHECKPOINTS}/" in output
    assert "_step_200" in output
    played = actions(output)
    assert len(played) >= 2
    assert played == actions(rlx2(*play[:5], "-f", "whole", *play[7:]))


def leave(left):
    if left == "none":
        ZIP.unlink()
    elif left == "a torn one":
        ZIP.write_bytes(ZIP.read_bytes()[:5000])


def _statistics(folder):
    return pickle.dumps(normalizer_of(generations.newest(folder).path))


@pytest.mark.parametrize("left", ["an older agent", "a torn one", "none"])
def test_export(left, run, rlx2, tmp_path):
    Path("whole.zip").write_bytes(run)
    Path("whole.pkl").write_bytes(_statistics(CHECKPOINTS))
    leave(left)
    newest = generations.newest(CHECKPOINTS).path
    output = rlx2("export", *TASK, "-o", "policy.c")
    assert f"{newest} (RLx2TD3)" in output
    rlx2("export", "whole.zip", "--vecnormalize", "whole.pkl", "-o", "whole.c")
    numbers = [Path(name).read_text().partition("TABLE")[2].replace("whole", "policy") for name in ("policy.c", "whole.c")]
    assert numbers[0] == numbers[1] != ""
    assert f"{newest} (RLx2TD3)" in rlx2("export", newest, "-o", "checkpoint.c")  # by its own name
    assert Path("checkpoint.c").read_text().partition("TABLE")[2].replace("checkpoint", "policy") == numbers[0]


@pytest.mark.parametrize("left", ["an older agent", "a torn one", "none"])
def test_report(left, run, rlx2):
    leave(left)
    found = read_run(RUN)
    assert found.agent.path == generations.newest(CHECKPOINTS).path
    assert (found.agent.steps, found.agent.is_sparse) == (200, True)
    page = Path("report.html")
    rlx2("report", RUN, "-o", page)
    assert "networks as in 000" in page.read_text()


def test_what_goes_to_the_hub(run, rlx2, tmp_path):
    args = Namespace(folder="logs", algo="rlx2td3", env=EnvironmentName("Pendulum-v1"), exp_id=0)
    newest = agents.find_agent(Namespace(**vars(args), load_best=False, load_checkpoint=None, load_last_checkpoint=False))
    assert newest == generations.newest(CHECKPOINTS).path
    hub.copy_run(tmp_path, newest, RUN, args)
    assert RLx2TD3.load(tmp_path / "rlx2td3-Pendulum-v1.zip").num_timesteps == 200
    copied = safe_pickle.loads((tmp_path / hub.STATISTICS).read_bytes())
    assert np.array_equal(copied.obs_rms.mean, normalizer_of(newest).obs_rms.mean)


def test_a_finished_run_is_read_from_its_agent(run, rlx2):
    ZIP.write_bytes(run)
    assert agent_file(RUN) == ZIP
    assert "Loading logs/rlx2td3/Pendulum-v1_1/Pendulum-v1.zip" in rlx2("enjoy", *TASK, "--no-render", "-n", "10")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, rlx2):
    ZIP.unlink()
    state = generations.newest(CHECKPOINTS).path / "arrays.npz"
    state.write_bytes(state.read_bytes()[:-1])
    assert read_run(RUN).agent.steps == 100
    assert "_step_100" in rlx2("enjoy", *TASK, "--no-render", "-n", "10")
    for path in CHECKPOINTS.glob("*/manifest.json"):
        path.write_text("{}")
    assert "no checkpoint in " in rlx2.error("enjoy", *TASK, "--no-render", "-n", "10")
    assert "no checkpoint in " in rlx2.error("export", *TASK)
    ZIP.write_bytes(run)  # what is whole is taken
    assert agent_file(RUN) == ZIP


def test_an_agent_that_was_asked_for_is_taken(run, rlx2):
    assert newer_checkpoint(RUN, ZIP) is not None
    shutil.copy(ZIP, RUN / "best_model.zip")
    assert "Loading logs/rlx2td3/Pendulum-v1_1/best_model.zip" in rlx2(
        "enjoy", *TASK, "--no-render", "-n", "10", "--load-best"
    )


def test_a_folder_that_is_no_checkpoint(run, rlx2):
    assert rlx2.error("export", RUN).endswith(f"{RUN} is a folder, and no checkpoint of a run")


MODELS = {
    "RLx2TD3": lambda: RLx2TD3("MlpPolicy", DriftEnv(), policy_kwargs={"net_arch": [8]}, **SHORT),
    "RLx2SAC": lambda: RLx2SAC(
        "MlpPolicy", VecNormalize(DummyVecEnv([TinyEnv, TinyEnv])), policy_kwargs={"net_arch": [8]}, **SHORT
    ),
    "RLx2DQN": lambda: RLx2DQN("MlpPolicy", DriftEnv(n_actions=3), policy_kwargs={"net_arch": [8]}, **SHORT),
    "SAC": lambda: SAC(
        "MlpPolicy", DriftEnv(), learning_rate=lambda progress: 1e-3 * progress, policy_kwargs={"net_arch": [8]}, **SHORT
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_agent_of_a_checkpoint_is_the_one_that_was_trained(name, tmp_path):
    model = MODELS[name]().learn(40, callback=Checkpoints(tmp_path, 20))
    found = generations.newest(tmp_path).path
    assert why_no_agent(found) is None
    again = type(model).load(as_zip(found), device="cpu")
    assert again.num_timesteps == 40
    seen = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert np.array_equal(model.predict(seen, deterministic=True)[0], again.predict(seen, deterministic=True)[0])
    for one, other in zip(model.policy.state_dict().values(), again.policy.state_dict().values(), strict=True):
        assert not isinstance(one, th.Tensor) or th.equal(one, other)
    normalizer = normalizer_of(found)
    assert (normalizer is None) == (name != "RLx2SAC")
    if normalizer is not None:
        normalizer.set_venv(DummyVecEnv([TinyEnv]))
        assert np.array_equal(normalizer.obs_rms.mean, model.env.obs_rms.mean)
        assert np.array_equal(normalizer.normalize_obs(seen), model.env.normalize_obs(seen))


def test_a_checkpoint_holds_no_pickle(tmp_path):
    MODELS["RLx2SAC"]().learn(40, callback=Checkpoints(tmp_path, 20))
    folder = generations.newest(tmp_path).path
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json", ".npz"]
    json.loads((folder / "state.json").read_text())
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "biufcUS" for name in arrays.files)


class OwnActivation(th.nn.Tanh):
    """A user's class, which is not made from a file."""


def test_an_agent_with_a_class_of_the_users_own_says_what_is_missing(tmp_path):
    policy_kwargs = {"net_arch": [8], "activation_fn": OwnActivation}
    model = TD3("MlpPolicy", DummyVecEnv([TinyEnv]), buffer_size=60, learning_starts=20, policy_kwargs=policy_kwargs)
    model.learn(40, callback=Checkpoints(tmp_path, 20))
    with pytest.raises(ValueError, match=r"step_40 lacks policy_kwargs of its agent, with classes or functions of the user's"):
        as_zip(generations.newest(tmp_path).path)


def test_a_checkpoint_of_an_earlier_version(tmp_path):
    written = generations.write(tmp_path / "checkpoints", 7, {"parameters": {}}, [], {})
    with pytest.raises(ValueError, match="000001_step_7 holds no agent, as an earlier version wrote it"):
        as_zip(written.path)
