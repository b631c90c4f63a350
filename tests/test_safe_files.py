"""No code runs because a file is read: agents, buffers, statistics, settings."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from numpy._core.multiarray import _reconstruct
from numpy._core.numeric import _frombuffer
from numpy.random import _pickle as of_random
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.her import GoalSelectionStrategy, HerReplayBuffer
from torch._utils import _rebuild_parameter

from sb3_rlx2 import RLx2DQN, RLx2SAC, RLx2TD3, safe_pickle
from sb3_rlx2.checkpoint.archive import check_agent
from sb3_rlx2.commands.trust import PACKAGES, check_settings
from sb3_rlx2.safe_pickle import UnsafePickleError
from sb3_rlx2.saved_objects import PLAIN, read_objects
from sb3_rlx2.settings import read_settings
from tests.command import TINY_PARAMETERS
from tests.envs import GoalEnv
from tests.golden import make
from tests.hostile import Harm, harmful_pickles, mutations, watched, with_pickle

SAVED = Path(make.__file__).parent / "saved"
MUTATIONS = 1_500
CASES = ["a call", "an old call", "an instance", "an object", "eval", "inside a list", "a dotted name", "a module"]


def env():
    return gym.make("Pendulum-v1")


@pytest.mark.parametrize("case", CASES)
def test_a_harmful_pickle_is_refused(case, tmp_path):
    marker = tmp_path / "made"
    content = dict(harmful_pickles(marker))[case]
    with watched() as seen, pytest.raises(UnsafePickleError, match="is not made from a file, because that runs code"):
        safe_pickle.loads(content)
    assert not seen
    if case not in ("a dotted name", "a module"):  # which name what Python's reader finds, too, and harms by it
        pickle.loads(content)
        assert marker.exists()


class InStorage:
    """Has a pickle inside that is read as the memory of a tensor."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return th.storage._load_from_bytes, (self.content,)


def test_tensors_are_read_and_what_hides_in_their_memory_is_not(tmp_path):
    tensor = th.arange(6.0)[1:4]
    assert th.equal(safe_pickle.loads(pickle.dumps({"weights": tensor}))["weights"], tensor)
    marker = tmp_path / "made"
    for harmful in dict(harmful_pickles(marker)).values():
        with watched() as seen, pytest.raises(pickle.UnpicklingError):
            safe_pickle.loads(pickle.dumps(InStorage(harmful)))
        assert not seen
    assert not marker.exists()


class Rebuilt:
    """Unpickles to a call, and to a state of what that gives."""

    def __init__(self, *call_and_state):
        self.call = call_and_state

    def __reduce__(self):
        return self.call


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def numbers_of(name, state):
    return Rebuilt(np.dtype, (name, False, True), state)


POINTERS = (3, "|", None, None, None, -1, -1, 0)  # says of a type of objects that it holds no pointers
MODULE = th.nn.BatchNorm1d  # stands for all classes that may be named
TWICE = (
    *(b"\x80\x02", named("stable_baselines3.common.utils", "ConstantSchedule"), b")\x81}U\x0c__setstate__"),
    *(named("torch.nn", "BatchNorm1d"), b"sbK\x07b."),
)
CUNNING = {
    "pointers of the file's own": Rebuilt(_frombuffer, (b"A" * 32, numbers_of("O", POINTERS), (4,), "C")),
    "a subclass of arrays": Rebuilt(_reconstruct, (np.ma.MaskedArray, (0,), b"b")),
    "fields": numbers_of("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
    "a type by an expression": Rebuilt(np.dtype, ("i4,O", False, True)),
    "a generator's class": Rebuilt(of_random.__generator_ctor, (7, MODULE)),
    "bits of another class": Rebuilt(of_random.__bit_generator_ctor, (MODULE,)),
    "an old generator's class": Rebuilt(of_random.__randomstate_ctor, (7, MODULE)),
}


@pytest.mark.parametrize("case", [*CUNNING, "a state's function"])
def test_what_builds_values_builds_nothing_else(case, monkeypatch):
    made = []
    monkeypatch.setattr(MODULE, "__init__", lambda module, *given: made.append(given))
    content = b"".join(TWICE) if case == "a state's function" else pickle.dumps(CUNNING[case])
    with suppress(UnsafePickleError, pickle.UnpicklingError):
        read = safe_pickle.loads(content)
        assert case == "a state's function"  # which is an attribute then
        assert vars(read)["__setstate__"] is MODULE
    assert not made


@pytest.mark.parametrize("dtype", ["<f4", ">i8", "?", "U5", "S3", "O", "c16"])
def test_types_of_numbers_are_read(dtype):
    array = np.array([1, 0]).astype(dtype)
    for value in (array, array[0], np.dtype(dtype)):
        for protocol in (4, 5):
            content = pickle.dumps(value, protocol)
            read, expected = safe_pickle.loads(content), pickle.loads(content)
            assert type(read) is type(expected)
            assert np.array_equal(read, expected)
            assert getattr(read, "dtype", read) == getattr(expected, "dtype", expected)
    assert np.dtype("f4").isnative


@pytest.mark.parametrize("bits", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_generators_are_read(bits):
    generator = np.random.Generator(getattr(np.random, bits)(3))
    for each in (generator, np.random.RandomState(getattr(np.random, bits)(3))):
        read = safe_pickle.loads(pickle.dumps(each))
        draw = "random" if each is generator else "random_sample"
        assert getattr(read, draw)() == getattr(each, draw)()


def test_hooks_of_tensors_are_left_behind():
    tensor = Rebuilt(_rebuild_parameter, (th.ones(3), True, OrderedDict(a=MODULE)))
    read = safe_pickle.loads(pickle.dumps(tensor))
    assert th.equal(read, th.ones(3))
    assert not read._backward_hooks


@pytest.mark.parametrize("key", ["policy_class", "observation_space", "learning_rate", "something"])
@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
def test_an_agent_runs_no_code(algorithm, key, tmp_path):
    marker, path = tmp_path / "made", tmp_path / "agent.zip"
    saved = SAVED / f"{algorithm.__name__.lower()}.zip"
    path.write_bytes(with_pickle(saved, key, dict(harmful_pickles(marker))["a call"]))
    with watched() as seen, pytest.raises(ValueError, match=rf"agent.zip: {key} of the saved agent: posix.mkdir is not made"):
        algorithm.load(path)
    assert not seen
    with pytest.raises(ValueError, match="allow_pickle=True"):
        algorithm.load(io.BytesIO(path.read_bytes()))
    assert not marker.exists()
    if key == "something":
        algorithm.load(path, something=None)  # it is replaced, so it is not read
        assert not marker.exists()
        algorithm.load(path, allow_pickle=True)
        assert marker.exists()


@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC, RLx2DQN])
def test_our_agents_are_read_without_their_pickles(algorithm, tmp_path, monkeypatch):
    discrete = algorithm is RLx2DQN
    nets = {"net_arch": [8], "optimizer_class": th.optim.AdamW}
    settings = {
        "buffer_size": 60,
        "learning_starts": 20,
        "policy_kwargs": nets,
        "seed": 0,
        "learning_rate": LinearSchedule(1e-3, 0, 1),
    }
    if algorithm is RLx2TD3:
        settings["action_noise"] = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1))
    model = algorithm("MlpPolicy", gym.make("CartPole-v1" if discrete else "Pendulum-v1"), **settings)
    model.learn(30).save(tmp_path / "agent.zip")
    unpickled = algorithm.load(tmp_path / "agent.zip", allow_pickle=True)
    monkeypatch.setattr(safe_pickle, "loads", lambda _: pytest.fail("unpickled"))
    loaded = algorithm.load(tmp_path / "agent.zip")
    assert loaded.__dict__.keys() == unpickled.__dict__.keys()
    for name in ("policy_class", "policy_kwargs", "replay_buffer_class", "observation_space", "action_space", "train_freq"):
        assert getattr(loaded, name) == getattr(unpickled, name) == getattr(model, name)
    assert [model.lr_schedule(x) for x in (1.0, 0.5)] == [loaded.lr_schedule(x) for x in (1.0, 0.5)]
    assert loaded.ep_info_buffer == unpickled.ep_info_buffer
    np.testing.assert_array_equal(loaded._last_obs, model._last_obs)
    assert repr(loaded.action_noise) == repr(model.action_noise)
    states = [each.action_space.np_random.bit_generator.state for each in (loaded, unpickled)]
    assert states[0] == states[1]


def test_what_stands_for_pickles_runs_no_code(tmp_path):
    path = tmp_path / "agent.zip"
    RLx2TD3("MlpPolicy", env(), buffer_size=10, policy_kwargs={"net_arch": [8]}).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def with_plain(text):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, text if name == PLAIN else content)
        return path

    for harmful in ({"$class": ["os", "system"]}, {"$object": ["subprocess", "Popen", {}]}):
        with watched() as seen, pytest.raises(ValueError, match="is not made from a file, because that runs code"):
            RLx2TD3.load(with_plain(json.dumps({"policy_class": harmful})))
        assert {event for event, _ in seen} <= {"compile"}  # numpy parses the header of an array
    with watched() as seen:
        for changed in mutations(members[PLAIN], 100):
            with suppress(ValueError), with_plain(changed).open("rb") as file:
                read_objects(file)
    assert {event for event, _ in seen} <= {"compile"}


def test_functions_of_ones_own_are_to_be_trusted(tmp_path):
    model = RLx2TD3("MlpPolicy", env(), buffer_size=10, learning_rate=lambda progress: 1e-3 * progress)
    model.save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=r"learning_rate of the saved agent: .* or give another learning_rate"):
        RLx2TD3.load(tmp_path / "agent.zip")
    assert RLx2TD3.load(tmp_path / "agent.zip", allow_pickle=True).learning_rate(1.0) == 1e-3
    constants = {"learning_rate": 1e-3, "lr_schedule": lambda _: 1e-3}
    assert RLx2TD3.load(tmp_path / "agent.zip", custom_objects=constants).learning_rate == 1e-3


def test_a_buffer_runs_no_code(tmp_path):
    marker, path = tmp_path / "made", tmp_path / "replay_buffer.pkl"
    model = RLx2TD3("MlpPolicy", env(), buffer_size=10)
    for content in dict(harmful_pickles(marker)).values():
        path.write_bytes(content)
        with watched() as seen, pytest.raises(UnsafePickleError, match=f"{path}: .* is not made from a file"):
            model.load_replay_buffer(path)
        assert not seen
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match=rf"{path} holds a list, and no replay buffer"):
        model.load_replay_buffer(path)


def test_tensors_are_read_without_what_may_be_inside(tmp_path):
    tensors = {"a": th.arange(5.0), "b": th.nn.Parameter(th.zeros(2, 3))}
    mine = safe_pickle.loads(pickle.dumps(tensors))
    assert all(th.equal(mine[name], value) for name, value in tensors.items())
    harmful = io.BytesIO()
    th.save(Harm(os.mkdir, str(tmp_path / "made")), harmful)
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        safe_pickle.loads(pickle.dumps(Harm(th.storage._load_from_bytes, harmful.getvalue())))
    assert not (tmp_path / "made").exists()


def names_of(name):
    return [SAVED / f"{name}.pkl", SAVED / f"checkpoint/rl_model_{name}_60_steps.pkl"]


@pytest.mark.parametrize("path", [*names_of("replay_buffer"), *names_of("vecnormalize")], ids=lambda path: path.name)
def test_what_is_read_is_what_pickle_reads(path):
    mine, theirs = safe_pickle.loads(path.read_bytes()), pickle.loads(path.read_bytes())
    assert type(mine) is type(theirs)
    for name, value in vars(theirs).items():
        own = getattr(mine, name)
        assert np.array_equal(own, value) if isinstance(value, np.ndarray) else type(own) is type(value)
        assert not isinstance(value, np.ndarray) or own.flags.writeable


@pytest.mark.parametrize("name", ["vecnormalize.pkl", "replay_buffer.pkl"])
def test_files_of_chance_run_nothing(name, tmp_path):
    content = (SAVED / name).read_bytes()[:6_000]  # what is behind are numbers
    with watched() as seen:
        for changed in mutations(content, MUTATIONS):
            with suppress(ValueError, EOFError, pickle.UnpicklingError, MemoryError):
                safe_pickle.loads(changed)
    assert not seen


def test_archives_have_limits(tmp_path):
    path = tmp_path / "agent.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", b"0" * 2**28)
    with pytest.raises(ValueError, match=r"unpacks from 2\d\d,\d{3} to 268,435,456 bytes"):
        RLx2TD3.load(path)
    with pytest.raises(ValueError, match="unpacks from"):
        check_agent(path)
    for name in ("../agent", "/agent", "a/../../b", "..\\agent"):
        shutil.copy(SAVED / "rlx2td3.zip", path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"")
        with pytest.raises(ValueError, match="which leads out of its folder"):
            RLx2TD3.load(path)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    shutil.copy(SAVED / "rlx2td3.zip", path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="it holds 'link', which leads out of its folder"):
        RLx2TD3.load(path)


SETTINGS = [
    ("normalize: dict(norm_obs=True, norm_reward=False)", None),
    ("normalize: '{\"gamma\": 0.9}'", None),
    ("normalize: true", None),
    ("env_wrapper: [gymnasium.wrappers.TimeLimit: {max_episode_steps: 3}]", None),
    ("normalize: __import__('os').mkdir('made')", "normalize=.* would be run: rlx2 --trust does that"),
    ("normalize: dict(norm_obs=open('made', 'w'))", "normalize="),
    ("normalize: dict(**vars())", "normalize="),
    ("normalize: '{[]: 1}'", "normalize="),
    ("env_wrapper: os.mkdir", "env_wrapper=os.mkdir, which would be run"),
    ("env_wrapper: [{subprocess.run: {args: ls}}]", "env_wrapper=subprocess.run"),
    ("vec_env_wrapper: os.mkdir", "vec_env_wrapper=os.mkdir"),
]


@pytest.mark.parametrize(("text", "message"), SETTINGS)
def test_settings_run_no_code(text, message, tmp_path):
    path = tmp_path / "config.yml"
    path.write_text(text)
    if message is None:
        check_settings(path, PACKAGES)
    else:
        with pytest.raises(ValueError, match=message):
            check_settings(path, PACKAGES)


def test_settings_make_no_objects(tmp_path):
    path = tmp_path / "args.yml"
    path.write_text("!!python/object/apply:collections.OrderedDict\n- - - a\n    - !!python/tuple [1, 2]\n  - - b\n    - 3\n")
    assert read_settings(path, complete=True) == {"a": (1, 2), "b": 3}
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/made']\nb: !!python/name:os.mkdir\n")
    assert read_settings(path)["a"] == [f"{tmp_path}/made"]
    with pytest.raises(ValueError, match=r"args.yml holds Python objects"):
        read_settings(path, complete=True)
    assert not (tmp_path / "made").exists()


# The commands, each with a file of its own that would run code.
FIRST = Path("logs/rlx2td3/Pendulum-v1_1")
PLAY = ("--algo", "rlx2td3", "--env", "Pendulum-v1", "-f", "logs")
COMMANDS = {
    "enjoy": ("enjoy", *PLAY, "--no-render", "-n", "10"),
    "report": ("report", FIRST, "-o", "page.html"),
    "export": ("export", *PLAY, "-o", "out.c"),
    "train -i": ("train", *PLAY, "-n", "60", "-i", FIRST / "Pendulum-v1.zip", "-params", *TINY_PARAMETERS),
}


@pytest.fixture
def played(rlx2):
    """A run whose files may be replaced by harmful ones."""
    rlx2.train("rlx2td3", "-n", "60", "--save-replay-buffer", parameters=["normalize:True"])
    return rlx2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_no_code(command, played, tmp_path):
    marker, agent = tmp_path / "made", FIRST / "Pendulum-v1.zip"
    harmful = dict(harmful_pickles(marker))["a call"]
    whole = agent.read_bytes()
    agent.write_bytes(with_pickle(agent, "policy_class", harmful))
    assert "is not made from a file" in played.error(*COMMANDS[command]).replace("could not be read", "")
    agent.write_bytes(whole)
    if command != "report":
        for path in (FIRST / "Pendulum-v1/vecnormalize.pkl", *([FIRST / "replay_buffer.pkl"] if "-i" in command else [])):
            content = path.read_bytes()
            path.write_bytes(harmful)
            assert "is not made from a file" in played.error(*COMMANDS[command])
            path.write_bytes(content)
    if command == "enjoy":
        config = FIRST / "Pendulum-v1/config.yml"
        config.write_text(config.read_text() + "  - - harmful\n    - !!python/object/apply:os.mkdir ['made']\n")
        played(*COMMANDS[command])
        config.write_text(f"normalize: __import__('os').mkdir('{marker}')")
        assert "would be run: rlx2 --trust does that" in played.error(*COMMANDS[command])
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore")
def test_trust(played, tmp_path):
    marker, statistics = tmp_path / "made", FIRST / "Pendulum-v1/vecnormalize.pkl"
    statistics.write_bytes(dict(harmful_pickles(marker))["a call"])
    played("--trust", *COMMANDS["enjoy"], status=1)
    assert marker.exists()


def test_statistics_of_the_host_are_read_by_the_command_only():
    """Whoever calls SB3 in a script gets SB3."""
    loaded = VecNormalize.load(str(SAVED / "vecnormalize.pkl"), DummyVecEnv([env]))
    assert loaded.obs_rms.count > 0


@pytest.mark.filterwarnings("ignore")  # Dict observations
@pytest.mark.parametrize("strategy", ["future", GoalSelectionStrategy.FINAL])
def test_goals_of_hindsight_are_read(strategy, tmp_path):
    """The pickle calls the class of the strategy."""
    settings = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"goal_selection_strategy": strategy}}
    small = {"policy_kwargs": {"net_arch": [16]}, "buffer_size": 100, "learning_starts": 20, "batch_size": 4}
    model = RLx2TD3("MultiInputPolicy", GoalEnv(), **settings, **small).learn(40)
    model.save(tmp_path / "agent")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = RLx2TD3.load(tmp_path / "agent", env=GoalEnv())
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.goal_selection_strategy is model.replay_buffer.goal_selection_strategy
    assert loaded.replay_buffer.size() == 40
    loaded.learn(20)


def test_a_flipped_bit_of_a_sealed_pickle_is_found(tmp_path):
    path = tmp_path / "replay_buffer.pkl"
    model = RLx2TD3("MlpPolicy", env(), buffer_size=20, learning_starts=5, batch_size=4, policy_kwargs={"net_arch": [4]})
    model.save_replay_buffer(path)
    content = path.read_bytes()
    pickle.loads(content)  # others look at no checksum
    for at in range(0, len(content) - 40, 97):
        changed = bytearray(content)
        changed[at] ^= 4
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=f"{path} is damaged: its checksum is another"):
            model.load_replay_buffer(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        model.load_replay_buffer(path)
    other = RLx2TD3("MlpPolicy", gym.make("MountainCarContinuous-v0"), buffer_size=20, policy_kwargs={"net_arch": [4]})
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"holds a replay buffer of another environment: observations of \(3,\)"):
        other.load_replay_buffer(path)
