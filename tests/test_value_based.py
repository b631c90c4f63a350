"""What RLx2 means for discrete actions, and what is particular to networks that give values of them."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_rlx2 import ConvExtractor, RLx2Callback, RLx2DQN, RLx2QRDQN, RLx2ReplayBuffer, SparseDQNPolicy
from sb3_rlx2.fast.adam import KernelAdam
from sb3_rlx2.policies import SparseDQNCnnPolicy
from tests.checks import assert_sound, pairs, sparse_mlps
from tests.envs import DriftEnv, PixelEnv
from tests.every import STOCK, VALUE_BASED, small

every = pytest.mark.parametrize("algorithm", VALUE_BASED)


def build(algorithm, env=None, policy="MlpPolicy", policy_kwargs=None, **kwargs):
    defaults = {
        "learning_starts": 20,
        "batch_size": 16,
        "buffer_size": 500,
        "buffer_min_size": 30,
        "train_freq": 1,
        "sparsity": 0.6,
        "update_interval": 10,
        "learning_rate": 1e-3,
        "seed": 0,
    }
    policy_kwargs = small(algorithm, **({"net_arch": [16, 16]} if policy_kwargs is None else policy_kwargs))
    return algorithm(policy, env or DriftEnv(n_actions=4), policy_kwargs=policy_kwargs, **defaults | kwargs)


def network(model):
    return model.policy.acting_network


# the distance


@pytest.mark.parametrize(
    ("n_actions", "now", "stored", "distance"),
    [
        (4, [0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 0, 2, 3, 0], 0.5),  # 3 of 8 changed; of random ones 6 would have
        (4, [1, 1], [1, 1], 0.0),
        (2, [0, 1], [1, 0], 2.0),  # each the other way is further than random
        (1, [0, 0, 0], [0, 0, 0], 0.0),
    ],
)
def test_distance_by_hand(n_actions, now, stored, distance):
    policy = build(RLx2DQN, DriftEnv(n_actions=n_actions)).policy
    assert policy.distance(np.array(now), np.array(stored)[:, None]) == pytest.approx(distance)


@every
def test_default_threshold(algorithm):
    """The class names a number, as ``help`` shows it; a callback takes the policy's."""
    assert build(algorithm).policy_distance_threshold == 0.9
    assert RLx2Callback().policy_distance_threshold is None
    for threshold, distance, shrinks in ((None, 0.91, True), (None, 0.89, False), (0.5, 0.89, True), (0.0, 0.0, False)):
        model = parts(algorithm)
        model.policy.distance = lambda now, stored, distance=distance: distance
        model.learn(60, callback=RLx2Callback(policy_distance_threshold=threshold, buffer_check_interval=40))
        assert (model.replay_buffer.size() < 60) == shrinks


def parts(algorithm, **kwargs):
    """SB3's own algorithm with our parts."""
    return STOCK[algorithm](
        algorithm.sparse_policy_class,
        DriftEnv(n_actions=4),
        learning_starts=20,
        train_freq=1,
        buffer_size=500,
        replay_buffer_class=RLx2ReplayBuffer,
        replay_buffer_kwargs={"n_steps": 3, "buffer_min_size": 10},
        policy_kwargs=small(algorithm, net_arch=[16], sparsity=0.5),
        seed=0,
        **kwargs,
    )


class Greedy(BaseCallback):
    """Computes by torch what the policy would have done at each step, before the network changes."""

    def _init_callback(self):
        self.actions = []

    def _on_step(self):
        obs = th.as_tensor(self.model._last_obs)
        with th.no_grad():
            self.actions.append(network(self.model)._predict(obs).numpy())
        return True


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n_envs", [1, 3])
@every
def test_greedy_actions_are_stored_beside_those_of_exploration(algorithm, n_envs, normalize):
    env = make_vec_env(DriftEnv, n_envs, env_kwargs={"n_actions": 4})
    exploration = {"exploration_fraction": 1.0, "exploration_initial_eps": 1.0, "exploration_final_eps": 0.0}
    model = build(algorithm, VecNormalize(env) if normalize else env, learning_starts=20 * n_envs, **exploration)
    greedy = Greedy()
    model.learn(120 * n_envs, callback=greedy)
    buffer = model.replay_buffer
    assert buffer.actions.dtype == buffer.policy_actions.dtype == np.int64
    rows = np.arange(120)
    np.testing.assert_array_equal(buffer.policy_actions[rows[20:], :, 0], np.array(greedy.actions)[20:])
    np.testing.assert_array_equal(buffer.policy_actions[rows[:20]], buffer.actions[rows[:20]])  # warm-up
    differing = (buffer.policy_actions[rows] != buffer.actions[rows]).any(axis=(1, 2))
    assert differing[20:70].mean() > 0.3
    assert not differing[115:].any()


@every
def test_an_observation_that_is_written_over(algorithm):
    """As by an environment that gives the same array at each step; where exploration acts, nobody asks the policy."""
    policy, rng = build(algorithm).policy, np.random.default_rng(0)
    observation = rng.normal(size=(64, 3)).astype(np.float32)
    policy.predict(observation)
    policy.noise_free_action(observation)
    observation[:] = 9 * rng.normal(size=(64, 3))
    np.testing.assert_array_equal(policy.noise_free_action(observation), policy.act(observation.copy()))


# acting


SPACES = [
    (spaces.Box(-9, 9, (3,), np.float32), True),
    (spaces.Box(-9, 9, (3,), np.float64), True),
    (spaces.Box(-9, 9, (3,), np.int16), True),
    (spaces.Box(0, 255, (12,), np.uint8), True),
    (spaces.Box(0, 1, (4, 4, 2), bool), True),
    (spaces.Box(0, 255, (4, 4, 2), np.uint8), False),  # an image, which SB3 divides by 255
    (spaces.MultiBinary(6), True),
    (spaces.Discrete(5), False),
    (spaces.MultiDiscrete([3, 4]), False),
]


class OtherSpace(DriftEnv):
    def __init__(self, space):
        super().__init__(n_actions=4)
        self.observation_space = space

    def observe(self):
        self.observation_space.seed(int(self.np_random.integers(10**6)))
        return self.observation_space.sample()


@pytest.mark.parametrize(("space", "in_arrays"), SPACES)
@every
def test_acting_is_the_hosts(algorithm, space, in_arrays, monkeypatch):
    model = build(algorithm, OtherSpace(space), policy_distance_threshold=0.0, buffer_check_interval=10).learn(60)
    policy, given = model.policy, np.stack([model.observation_space.sample() for _ in range(50)])
    assert policy._acts_in_arrays(given) == in_arrays
    for observation in (given, given[0], given[:0]):
        actions, _ = policy.predict(observation)
        with monkeypatch.context() as patch:
            patch.setattr(policy, "_acts_in_arrays", lambda _: False)
            expected, _ = policy.predict(observation)
        np.testing.assert_array_equal(actions, expected)
        assert (type(actions), actions.shape, actions.dtype) == (type(expected), expected.shape, expected.dtype)
    assert model.replay_buffer.live < 60  # the policy distance was looked at, too
    assert_sound(policy)


def test_images_that_are_not_normalised_are_only_cast():
    env = OtherSpace(spaces.Box(0, 255, (4, 4, 2), np.uint8))
    model = build(RLx2DQN, env, policy_kwargs={"net_arch": [8], "normalize_images": False})
    given = np.stack([model.observation_space.sample() for _ in range(50)])
    assert model.policy._acts_in_arrays(given)
    with th.no_grad():
        expected = network(model)(th.as_tensor(given)).argmax(dim=1)
    np.testing.assert_array_equal(model.policy.act(given), expected)


# training


@pytest.mark.parametrize(("space", "in_arrays"), SPACES)
@every
def test_gradient_steps_in_arrays(algorithm, space, in_arrays):
    if in_arrays:
        assert build(algorithm, OtherSpace(space), arrays=True).learn(30).logger.name_to_value["rlx2/arrays"] == 1
        return
    reason = "are images, which SB3 divides by 255|are of a (Multi)?Discrete space, which SB3 encodes"
    with pytest.raises(ValueError, match=f"arrays=True cannot be served: observations ({reason})"):
        build(algorithm, OtherSpace(space), arrays=True)


def network_of_host(host):
    return host.q_net if isinstance(host, DQN) else host.quantile_net


@pytest.mark.parametrize(
    ("optimizer_class", "optimizer_kwargs"),
    [
        (th.optim.RMSprop, {"alpha": 0.95, "centered": True, "eps": 0.01}),
        (th.optim.Adam, {"eps": 1e-4}),
        (th.optim.SGD, {"momentum": 0.9}),
    ],
)
@every
def test_optimizers(algorithm, optimizer_class, optimizer_kwargs):
    """The policy has the one optimizer; its moments move with the links."""
    policy_kwargs = {"net_arch": [16, 16], "optimizer_class": optimizer_class, "optimizer_kwargs": optimizer_kwargs}
    model = build(algorithm, policy_kwargs=policy_kwargs)
    before = [mlp.index.clone() for _, mlp, _, _ in pairs(model.policy)]
    model.learn(60)
    optimizer = model.policy.optimizer
    assert type(optimizer) is (KernelAdam if optimizer_class is th.optim.Adam else optimizer_class)
    assert optimizer.param_groups[0].items() >= optimizer_kwargs.items()
    assert all(not th.equal(mlp.index, index) for (_, mlp, _, _), index in zip(pairs(model.policy), before, strict=True))
    assert_sound(model.policy)


def test_qrdqns_own_optimizer_arguments_go_through():
    model = build(RLx2QRDQN, batch_size=20)
    assert model.policy.optimizer.param_groups[0]["eps"] == 0.01 / 20


@every
def test_target_network_is_copied_link_by_link(algorithm):
    """Also when the topology has moved since the last copy."""
    model = build(algorithm, target_update_interval=25, update_interval=7)
    model.learn(50)
    name, mlp, target, _ = pairs(model.policy)[0]
    assert model.policy.topology_updater.networks[name].updates == 3
    assert not th.equal(target.values, mlp.values)  # a gradient step came after the latest copy
    for _ in range(25):
        model._on_step()
    assert all(th.equal(a, b) for a, b in zip(target.dense_weights(), mlp.dense_weights(), strict=True))


# actions that there are not


@every
def test_actions_must_be_numbered_from_0(algorithm):
    """SB3 explores with the space's numbers, takes those of the network's outputs otherwise, and ends at an index."""
    env = DriftEnv()
    env.action_space = spaces.Discrete(3, start=5)
    subject = r"action_space=Discrete\(3, start=5\)"
    with pytest.raises(ValueError, match=f"^env has {subject}, which must start at 0: {algorithm.__name__} numbers actions"):
        build(algorithm, env)
    policy = algorithm.sparse_policy_class
    with pytest.raises(ValueError, match=f"^{subject} must start at 0: {policy.__name__} numbers actions"):
        policy(env.observation_space, env.action_space, FloatSchedule(1e-3), sparsity=0.5)


@pytest.mark.parametrize("allow_pickle", [False, True])
@every
def test_a_replay_buffer_of_other_actions(algorithm, allow_pickle, tmp_path):
    build(algorithm, DriftEnv(n_actions=6)).learn(30).save_replay_buffer(tmp_path / "buffer")
    model = build(algorithm)
    own = model.replay_buffer
    message = r"another environment: .* actions of Discrete\(6\), .* where this one has .* actions of Discrete\(4\), "
    with pytest.raises(ValueError, match=message):
        model.load_replay_buffer(tmp_path / "buffer", allow_pickle=allow_pickle)
    assert model.replay_buffer is own


@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # `train` is called by hand
@pytest.mark.parametrize("action", [-1, 4])
@every
def test_a_step_for_an_action_that_there_is_not_is_not_taken(algorithm, action):
    """Whoever has put it there; the kernels write nothing elsewhere."""
    model = build(algorithm, arrays=True).learn(30)
    model.replay_buffer.actions[7] = action
    before = {name: parameter.clone() for name, parameter in model.policy.named_parameters()}
    with pytest.raises(ValueError, match=r"the gradient of the (q_net|quantile_net) holds NaN"):
        model.train(1, 500)
    assert all(th.equal(parameter, before[name]) for name, parameter in model.policy.named_parameters())


# images


@pytest.mark.parametrize("shape", [(36, 40, 3), (3, 40, 36)])
def test_cnn_policy_keeps_only_convolutions_dense(shape):
    model = build(RLx2DQN, PixelEnv(shape), "CnnPolicy", policy_kwargs={}, sparsity=0.9)
    (mlp,) = sparse_mlps(network(model))
    sizes = [layer.shape for layer in mlp.layers]
    assert sizes == [(512, 64), (3, 512)]  # 36 x 40 -> 8 x 9 -> 3 x 3 -> 1 x 1
    assert mlp.nnz == pytest.approx(0.1 * mlp.size, abs=1)
    assert not [module for module in model.policy.modules() if isinstance(module, nn.Linear)]
    model.learn(40)
    assert_sound(model.policy)


@every
def test_the_same_numbers_as_nature_cnn(algorithm):
    """From the same seed the same convolutions, the same wide layer, and the same values."""
    off = {"sparsity": 0.0, "backend": "masked"}
    ours = build(algorithm, PixelEnv(), "CnnPolicy", policy_kwargs={}, **off)
    stock = STOCK[algorithm]("CnnPolicy", PixelEnv(), seed=0, buffer_size=10, policy_kwargs=small(algorithm))
    assert stock.policy.features_extractor_class is NatureCNN
    images = th.from_numpy(np.random.default_rng(0).integers(0, 255, (5, 1, 36, 36), np.uint8))
    with th.no_grad():
        assert th.equal(network(ours)(images), network_of_host(stock)(images))


def test_other_extractors_keep_the_hosts_net_arch():
    kwargs = {"features_extractor_class": NatureCNN, "features_extractor_kwargs": {"features_dim": 12}}
    (mlp,) = sparse_mlps(network(build(RLx2DQN, PixelEnv(), "CnnPolicy", policy_kwargs=kwargs)))
    assert [layer.shape for layer in mlp.layers] == [(3, 12)]
    kwargs = {"features_extractor_class": ConvExtractor, "net_arch": [7]}
    (mlp,) = sparse_mlps(network(build(RLx2DQN, PixelEnv(), "MlpPolicy", policy_kwargs=kwargs)))
    assert [layer.shape for layer in mlp.layers] == [(7, 64), (3, 7)]


def test_convolutions_of_channels_that_come_last():
    """What SB3 takes for no image keeps its order, so that the extractor has to turn it."""
    kwargs = {
        "features_extractor_class": ConvExtractor,
        "features_extractor_kwargs": {"layers": [[16, 3, 1]]},
        "net_arch": [8],
    }
    model = build(RLx2DQN, PixelEnv((10, 10, 4), bool), policy_kwargs=kwargs)
    (mlp,) = sparse_mlps(network(model))
    assert mlp.layers[0].in_features == 16 * 8 * 8
    observations = np.random.default_rng(0).random((5, 10, 10, 4)) < 0.5
    convolution = network(model).features_extractor.cnn[0]
    with th.no_grad():
        expected = th.relu(convolution(th.as_tensor(observations).float().permute(0, 3, 1, 2))).flatten(1)
        actual = network(model).extract_features(th.as_tensor(observations), network(model).features_extractor)
    assert th.equal(actual, expected)
    model.learn(30)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 255, (3, 20, 36), np.uint8), r"layers=.* must leave something of images of 20x36"),
        (spaces.Box(0, 1, (12,)), "must be a Box of images to go through a ConvExtractor"),
        (spaces.Discrete(3), "must be a Box of images to go through a ConvExtractor"),
    ],
)
def test_what_has_no_convolutions(space, message):
    with pytest.raises(ValueError, match=message):
        ConvExtractor(space)


@every
def test_image_policy_alone_saved_and_loaded(algorithm, tmp_path):
    model = build(algorithm, PixelEnv(), "CnnPolicy", policy_kwargs={"net_arch": [24]}).learn(35)
    model.policy.save(tmp_path / "policy.pth")
    loaded = type(model.policy).load(tmp_path / "policy.pth")
    images = np.random.default_rng(0).integers(0, 255, (9, 1, 36, 36), np.uint8)
    np.testing.assert_array_equal(loaded.predict(images)[0], model.policy.predict(images)[0])
    assert_sound(loaded)


# names


def test_pickles_name_the_face():
    for cls in (SparseDQNPolicy, SparseDQNCnnPolicy, RLx2QRDQN.sparse_policy_class, ConvExtractor):
        assert cls.__module__ == "sb3_rlx2.policies"
        assert pickle.loads(pickle.dumps(cls)) is cls


def test_without_sb3_contrib():
    """All else works, and what needs it says so in one line."""
    code = """
import sys
sys.modules["sb3_contrib"] = None
import sb3_rlx2
sb3_rlx2.RLx2DQN("MlpPolicy", "CartPole-v1", buffer_size=10)
for name in ("RLx2QRDQN", "SparseQRDQNPolicy", "RLx2CrossQ", "SparseCrossQPolicy", "RLx2TQC", "SparseTQCPolicy"):
    try:
        exec(f"from sb3_rlx2 import {name}")
    except ImportError as error:
        print(error)
try:
    sb3_rlx2.RLx2QRDQM
except AttributeError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True).stdout
    missing = "needs sb3-contrib, which is not installed: pip install sb3-contrib"
    assert output.splitlines() == [
        f"RLx2QRDQN {missing}",
        f"SparseQRDQNPolicy {missing}",
        f"RLx2CrossQ {missing}",
        f"SparseCrossQPolicy {missing}",
        f"RLx2TQC {missing}",
        f"SparseTQCPolicy {missing}",
        "module 'sb3_rlx2' has no attribute 'RLx2QRDQM'",
    ]
