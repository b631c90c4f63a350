"""What an earlier version saved goes on to work, and what it computed is computed still (`golden/make.py` made the files)."""

import base64
import io
import json
import pickle
import pickletools
import re
import shutil
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import ConvExtractor, RLx2Callback, RLx2ReplayBuffer, RLx2SAC, RLx2TD3
from sb3_rlx2.algorithms.policies import SparsePolicy
from sb3_rlx2.checkpoint import Checkpoints, generations
from sb3_rlx2.patching import patched
from tests.checks import assert_sound
from tests.envs import DriftDictEnv, DriftEnv, PixelEnv
from tests.every import VALUE_BASED
from tests.golden import make
from tests.runs import CutAt, digest

FOLDER = Path(make.__file__).parent
SAVED = FOLDER / "saved"
KNOWN = np.load(SAVED / "known.npz")
# Of several kinds of machines, this one's if it is among them
TRAINING = min(
    (json.loads(path.read_text()) for path in sorted(FOLDER.glob("training_*.json"))),
    key=lambda training: training["machine"] != make.machine(),
)
ALGORITHMS = {"rlx2td3": RLx2TD3, "rlx2sac": RLx2SAC, "td3": TD3, "sac": SAC}
CHECKPOINT = SAVED / "checkpoint" / f"{make.CHECKPOINT}.zip"
FACES = {"sb3_rlx2.policies", "sb3_rlx2.buffers"}  # the modules that saved agents may know


def load(name):
    return ALGORITHMS[name].load(SAVED / f"{name}.zip", env=gym.make("Pendulum-v1"))


def go_on(model, steps):
    """Train on, with the parts where the algorithm does not bring them."""
    callback = RLx2Callback(**make.CALLBACK) if type(model) in (TD3, SAC) else None
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    updates = counters(model)
    model.learn(steps, callback, reset_num_timesteps=False)
    assert all(after[1] > earlier[1] for after, earlier in zip(counters(model), updates, strict=True))
    assert not any(th.equal(value, before[name]) for name, value in model.policy.named_parameters() if "target" not in name)
    assert_sound(model.policy)


def counters(model):
    """Give optimizer steps, topology updates and churn of actor and critic."""
    networks = model.policy.topology_updater.networks
    return [(networks[name].steps, networks[name].updates, networks[name].churn) for name in ("actor", "critic")]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_saved_agent_acts_and_trains_on(name):
    model = load(name)
    assert min(updates for _, updates, _ in counters(model)) > 0
    actions, _ = model.predict(KNOWN["observations"], deterministic=True)
    np.testing.assert_allclose(actions, KNOWN[f"{name}_actions"], atol=1e-5)
    go_on(model, 60)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_saved_buffer_is_trained_on(name):
    model = load(name)
    model.load_replay_buffer(SAVED / "replay_buffer.pkl")
    buffer, transitions = model.replay_buffer, len(KNOWN["oldest_actions"])
    assert type(buffer) is RLx2ReplayBuffer
    assert (buffer.size(), buffer.capacity, buffer.n_steps) == (transitions, 150, 3)
    observations, actions = buffer.oldest(transitions)
    np.testing.assert_array_equal(observations, KNOWN["oldest_observations"])
    np.testing.assert_array_equal(actions, KNOWN["oldest_actions"])
    go_on(model, 60)
    assert buffer is model.replay_buffer


def test_saved_statistics_normalise():
    env = VecNormalize.load(str(SAVED / "vecnormalize.pkl"), DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    np.testing.assert_allclose(env.normalize_obs(KNOWN["observations"]), KNOWN["normalized"], rtol=1e-6)
    np.testing.assert_allclose(env.normalize_reward(np.linspace(-9, 0, 20)), KNOWN["normalized_rewards"], rtol=1e-6)
    model = RLx2TD3("MlpPolicy", env, learning_starts=10, buffer_size=99, actor_sparsity=0.5, policy_kwargs={"net_arch": [16]})
    model.learn(20)
    assert env.obs_rms.count == pytest.approx(101 + 21)


@pytest.mark.filterwarnings("ignore")  # those of the zoo
def test_a_checkpoint_is_picked_up(rlx2):
    model = RLx2TD3.load(CHECKPOINT, buffer_size=1)
    actions, _ = model.predict(KNOWN["observations"], deterministic=True)
    np.testing.assert_allclose(actions, KNOWN["checkpoint_actions"], atol=1e-5)

    parameters = ["update_interval:10", "buffer_size:100", "normalize:True"]
    output = rlx2.train("rlx2td3", "-n", "40", "--save-freq", "40", "-i", CHECKPOINT, parameters=parameters)
    assert "goes on from 59 transitions, 0 steps of warm-up to do" in output
    run = Path("logs/rlx2td3/Pendulum-v1_1")
    later = RLx2TD3.load(run / "rl_model_40_steps.zip", buffer_size=1)
    (_, before), (_, after) = counters(model), counters(later)
    assert after[0] == before[0] + 39  # the checkpoint comes before the gradient step behind its environment step
    assert after[1] > before[1]
    env = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    counts = [
        VecNormalize.load(str(folder / f"rl_model_vecnormalize_{steps}_steps.pkl"), env).obs_rms.count
        for folder, steps in ((SAVED / "checkpoint", 60), (run, 40))
    ]
    assert counts[1] == pytest.approx(counts[0] + 41)


@pytest.mark.parametrize(("algorithm", "variant"), make.RUNS)
def test_training_comes_to_the_same(algorithm, variant):
    now, then = make.outcome(make.train(algorithm, variant)), TRAINING["runs"][f"{algorithm} {variant}"]
    assert now["counts"] == then["counts"]
    assert now["hashes"].keys() == then["hashes"].keys()
    # On any machine: kinds that were tried keep all links, and sums within 2e-5 of a tensor's norm. A link that rounding
    # decides otherwise changes a tensor or two by as much as 0.2, and half of them by less than 4e-4.
    for name, links in then["links"].items():
        assert len(set(links) & set(now["links"][name])) >= 0.98 * len(links), name
    deviations = {
        name: np.abs(np.subtract(now["sums"][name], sums)).max() / max(sums[1], 1e-6) for name, sums in then["sums"].items()
    }
    extent = np.max if now["links"] == then["links"] else np.median
    assert extent(list(deviations.values())) < 1e-3, deviations
    if make.machine() == TRAINING["machine"]:
        assert now["hashes"] == then["hashes"]


def modules_in(pickled):
    """Give the modules of this package that a pickle names."""
    texts = [argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)]
    return {found for text in texts for found in re.findall(r"\bsb3_rlx2(?:\.\w+)*", text)}


def pickles_in(agent):
    """Give the pickles in an agent's zip: those in its JSON, and those of torch."""
    with zipfile.ZipFile(agent) as archive:
        for entry in json.loads(archive.read("data")).values():
            if isinstance(entry, dict) and ":serialized:" in entry:
                yield base64.b64decode(entry[":serialized:"])
        for name in archive.namelist():
            if name.endswith(".pth"):
                with zipfile.ZipFile(io.BytesIO(archive.read(name))) as tensors:
                    yield from (tensors.read(part) for part in tensors.namelist() if part.endswith("data.pkl"))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("normalize", [False, True])
def test_saved_files_do_not_know_where_classes_live(name, normalize, tmp_path):
    model = load(name)
    if normalize:
        model.set_env(VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")])))
        model.get_env().save(str(tmp_path / "vecnormalize.pkl"))
    go_on(model, 60)
    model.save(tmp_path / "agent.zip")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    pickles = [*pickles_in(tmp_path / "agent.zip"), *(path.read_bytes() for path in tmp_path.glob("*.pkl"))]
    assert set().union(*map(modules_in, pickles)) == FACES


@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
def test_nor_do_those_of_dict_observations(algorithm, tmp_path):
    """Their buffer is SB3's."""
    algorithm("MultiInputPolicy", DriftDictEnv(), buffer_size=10, policy_kwargs=make.NETS.copy()).save(tmp_path / "agent.zip")
    assert set().union(*map(modules_in, pickles_in(tmp_path / "agent.zip"))) == {"sb3_rlx2.policies"}


@pytest.mark.parametrize("algorithm", VALUE_BASED)
def test_nor_do_those_of_value_based_agents(algorithm, tmp_path):
    env = gym.make("CartPole-v1")
    model = algorithm("MlpPolicy", env, buffer_size=10, sparsity=0.5, policy_kwargs={"net_arch": [8]})
    model.save(tmp_path / "agent.zip")
    assert set().union(*map(modules_in, pickles_in(tmp_path / "agent.zip"))) == FACES
    extractor = {"features_extractor_class": ConvExtractor}
    algorithm("CnnPolicy", PixelEnv(), buffer_size=10, policy_kwargs=extractor).save(tmp_path / "agent.zip")
    assert set().union(*map(modules_in, pickles_in(tmp_path / "agent.zip"))) == FACES


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_modules_are_found(protocol):
    """The tests above can fail."""
    pickled = pickle.dumps([RLx2Callback, RLx2Callback(), RLx2ReplayBuffer], protocol)
    assert modules_in(pickled) == {"sb3_rlx2.callbacks", "sb3_rlx2.buffers"}


RUN = SAVED / "run"  # what `train_run(RUN, cut=45)` left, with format 1 of checkpoints; never made again


def train_run(folder, cut=None):
    """Train a small agent with checkpoints, and end it early by an error if asked to."""
    settings = {"learning_starts": 20, "batch_size": 8, "buffer_size": 30, "buffer_min_size": 10, "seed": 0}
    env = VecNormalize(DummyVecEnv([DriftEnv]))
    with patched(SparsePolicy, check_connected=lambda _: None):  # it was so small when a run could still begin like this
        model = RLx2TD3("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, update_interval=5, **settings)
        model.learn(60, callback=[Checkpoints(folder, 20, keep=1), *([CutAt(cut)] if cut else [])])
    return model


@pytest.mark.filterwarnings("ignore:the run in .* goes on, but not to the last bit")  # on another machine than ours
def test_a_run_of_format_1_goes_on(tmp_path):
    shutil.copytree(RUN, tmp_path / "run")
    generation = generations.newest(tmp_path / "run")
    assert (generation.step, generation.manifest["format"]) == (40, 1)
    state = generation.read()
    assert state["counters"]["num_timesteps"] == 40
    assert state["counters"]["_n_updates"] == 20
    model = train_run(tmp_path / "run")
    assert (model.num_timesteps, model._n_updates) == (60, 40)
    assert_sound(model.policy)
    assert digest(state["parameters"]["modules"]["policy"]) == (RUN / "digest.txt").read_text()
