"""Our algorithms override `train`: what it computes must be what SB3's computes, from the same random numbers."""

import math
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from numba import njit, typeof
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.td3.policies import Actor
from torch import nn

from sb3_rlx2 import (
    RLx2DDPG,
    RLx2DQN,
    RLx2QRDQN,
    RLx2ReplayBuffer,
    RLx2SAC,
    RLx2TD3,
    RLx2TQC,
    SparseMLP,
    SparseTD3Policy,
    backends,
    kernels,
)
from sb3_rlx2.backends import csr
from sb3_rlx2.fast import steps as gradient_steps
from sb3_rlx2.fast.eligible import why_not
from sb3_rlx2.kernels import tiling
from sb3_rlx2.kernels.gaussian import squash, squash_gradient
from sb3_rlx2.kernels.mlp import FIRST, half_forward, mlp_forward
from sb3_rlx2.kernels.signatures import numba_type
from tests.envs import DriftEnv, PixelEnv
from tests.every import ALGORITHMS, POLICIES, is_discrete, small, sparsities

VEC_NORMALIZE = Path(__file__).parent / "golden" / "saved" / "vecnormalize.pkl"
SETTINGS = {
    "seed": 0,
    "learning_starts": 300,
    "batch_size": 256,
    "buffer_size": 400,  # wraps around
    "buffer_min_size": 100,
    "buffer_check_interval": 5,
    "policy_distance_threshold": 0.0,
    "n_steps_delay": 0.3,
    "update_interval": 9,
    "policy_kwargs": {"net_arch": [64, 64]},
}
DISCRETE = {"train_freq": 1, "learning_rate": 1e-3, "target_update_interval": 10}


class Mirror(VecNormalize):
    """What a user may write."""

    def normalize_obs(self, obs):
        return -super().normalize_obs(obs)


def normalized(n_envs=1, cls=VecNormalize, **kwargs):
    return cls(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * n_envs), **kwargs)


def with_saved_statistics():
    env = VecNormalize.load(str(VEC_NORMALIZE), DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.training = False
    return env


def settings(algorithm):
    return deepcopy(SETTINGS) | sparsities(algorithm, 0.7, 0.6) | (DISCRETE if is_discrete(algorithm) else {})


def build(algorithm, arrays, env=None, **kwargs):
    env = (DriftEnv(n_actions=4) if is_discrete(algorithm) else "Pendulum-v1") if env is None else env()
    model = algorithm("MlpPolicy", env, backend="csr", **(settings(algorithm) | kwargs))
    if not arrays:
        model.arrays = False
    return model


def finish(model, steps=25):
    model.learn(model.learning_starts + steps)
    random = np.random.get_state()[1], th.get_rng_state()  # noqa: NPY002
    return dict(model.policy.named_parameters()), dict(model.policy.named_buffers()), random, model.logger.name_to_value


def assert_equal(a, b, atol=1e-5):
    for name, parameter in a[0].items():
        np.testing.assert_allclose(parameter.detach(), b[0][name].detach(), atol=atol, err_msg=name)
    assert all(th.equal(buffer, b[1][name]) for name, buffer in a[1].items())  # the same links, after the same updates
    assert all(np.array_equal(x, y) for x, y in zip(a[2], b[2], strict=True))


VARIANTS = [
    (RLx2TD3, {}),
    (RLx2TD3, {"policy_delay": 3, "gradient_steps": 2, "action_noise": None}),
    (RLx2TD3, {"policy_kwargs": {"net_arch": {"pi": [32], "qf": [32, 16, 8]}, "n_critics": 3}, "gamma": 0.9}),
    (RLx2TD3, {"target_policy_noise": 0.5, "target_noise_clip": 0.3, "tau": 0.1}),
    (RLx2SAC, {}),
    (RLx2SAC, {"soft_n_step": False}),
    (RLx2SAC, {"ent_coef": 0.2, "n_steps": 5}),
    (RLx2SAC, {"ent_coef": "auto_0.5", "target_entropy": -0.5, "target_update_interval": 2, "gradient_steps": 2}),
    (RLx2SAC, {"policy_kwargs": {"net_arch": {"pi": [32], "qf": [32, 16, 8]}, "n_critics": 1}}),
    *(
        (algorithm, {"env": env})
        for algorithm in (RLx2TD3, RLx2SAC)
        for env in (
            normalized,
            partial(normalized, n_envs=2, clip_obs=0.5, clip_reward=0.5),
            partial(normalized, norm_obs=False),
            partial(normalized, norm_reward=False),
            with_saved_statistics,
        )
    ),
    (RLx2DDPG, {}),
    (RLx2DDPG, {"policy_kwargs": {"net_arch": [32], "n_critics": 2}, "gradient_steps": 2}),
    (RLx2DDPG, {"env": partial(normalized, n_envs=2)}),
    (RLx2TQC, {}),
    (RLx2TQC, {"soft_n_step": False, "top_quantiles_to_drop_per_net": 5, "batch_size": 100}),
    (RLx2TQC, {"top_quantiles_to_drop_per_net": 0, "policy_kwargs": {"net_arch": [32], "n_critics": 5, "n_quantiles": 13}}),
    (RLx2TQC, {"ent_coef": 0.2, "policy_kwargs": {"net_arch": [32], "n_critics": 1}, "gradient_steps": 2}),
    (RLx2TQC, {"env": partial(normalized, n_envs=2), "target_update_interval": 2, "gradient_steps": 2}),
    (RLx2DQN, {"max_grad_norm": 0.01}),  # clips at each step
    (RLx2DQN, {"max_grad_norm": math.inf, "batch_size": 32, "gradient_steps": 2}),
    (RLx2DQN, {"policy_kwargs": {"net_arch": [32], "optimizer_class": th.optim.RMSprop}}),
    (RLx2DQN, {"env": partial(make_vec_env, partial(PixelEnv, (4, 4, 2), bool), 2)}),
    (RLx2DQN, {"env": partial(make_vec_env, partial(PixelEnv, (20,), np.uint8), 1)}),
    (RLx2DQN, {"env": lambda: VecNormalize(make_vec_env(partial(PixelEnv, (20,), bool), 2))}),
    (RLx2DQN, {"env": partial(DriftEnv, obs_shape=(2, 3), n_actions=2), "policy_kwargs": {"net_arch": []}}),
    (RLx2QRDQN, {"batch_size": 32}),
    (RLx2QRDQN, {"policy_kwargs": {"net_arch": [32], "n_quantiles": 5}, "max_grad_norm": 0.05}),
    (RLx2QRDQN, {"policy_kwargs": {"net_arch": [32], "n_quantiles": 1, "optimizer_class": th.optim.RMSprop}}),
    (RLx2QRDQN, {"env": partial(make_vec_env, partial(PixelEnv, (4, 4, 2), bool), 2), "policy_kwargs": {"n_quantiles": 11}}),
]


@pytest.mark.parametrize(("algorithm", "kwargs"), VARIANTS)
def test_train_equals_the_hosts(algorithm, kwargs):
    fast, slow = build(algorithm, True, **kwargs), build(algorithm, False, **kwargs)
    assert isinstance(fast._choose_steps(), gradient_steps.GradientSteps)
    runs = []
    for model in (fast, slow):
        model.set_random_seed(0)
        runs.append(finish(model, 20))
    assert_equal(*runs)


@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # `train` is called by hand
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_logs_equal_the_hosts(algorithm):
    logs = []
    for arrays in (True, False):
        model = build(algorithm, arrays)
        model.learn(310)
        model.train(gradient_steps=4, batch_size=256)
        logs.append({key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")})
    assert logs[0].keys() == logs[1].keys()
    for key, value in logs[0].items():
        np.testing.assert_allclose(value, logs[1][key], rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kwargs", [{"batch_size": 200}, {}, {"topology": "set"}])
def test_two_threads_equal_one(algorithm, kwargs):
    runs, kwargs = [], kwargs | {"policy_kwargs": small(algorithm, net_arch=[64, 64])}
    for threads in (1, 2, 2):
        th.set_num_threads(threads)
        runs.append(finish(build(algorithm, True, **kwargs), 20))
    assert_equal(runs[0], runs[1])
    assert_equal(runs[1], runs[2], atol=0)  # at fixed threads, sums have a fixed order


@pytest.mark.parametrize(
    ("algorithm", "critics"), [*product([RLx2TD3, RLx2DDPG, RLx2SAC, RLx2TQC], [1, 3]), (RLx2DQN, 0), (RLx2QRDQN, 0)]
)
def test_annotations_say_what_the_kernels_get(algorithm, critics):
    own = {"n_critics": critics} if critics else {}
    model = build(algorithm, True, policy_kwargs={"net_arch": [16]} | own)
    model.learn(310)
    steps = model._choose_steps()
    optimized = [each for adam in steps.adams.values() for each in adam._struct.arrays]
    for arrays in (*(struct.arrays for struct in steps.structs), *steps.moves.arrays, *optimized):
        assert typeof(arrays) == numba_type(type(arrays), "float32", critics)


@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # `train` is called by hand
def test_another_number_of_quantiles_to_drop():
    runs = []
    for arrays in (True, False):
        model = build(RLx2TQC, arrays).learn(305)
        model.top_quantiles_to_drop_per_net = 7
        model.train(1, 256)
        runs.append(dict(model.policy.named_parameters()))
    for name, parameter in runs[0].items():
        np.testing.assert_allclose(parameter.detach(), runs[1][name].detach(), atol=1e-5, err_msg=name)


def tiled(samples):
    tiles = np.zeros((2, samples.shape[1], 64), np.float32)
    kernels.load(".mlp:FORWARD").to_tiles(np.ascontiguousarray(samples, np.float32), tiles)
    return tiles


def untiled(tiles):
    return tiles.transpose(0, 2, 1).reshape(128, -1)[:100]


def test_half_a_tile_has_the_bits_of_a_whole_one():
    layers = [nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 3)]
    structure = csr.structure_of(SparseMLP.from_sequential(nn.Sequential(*layers), [300, 90], backend="csr"))
    x = tiling.tiled(1, 20, tiling.FLOAT)
    x[:, :, :32] = np.random.default_rng(0).normal(size=(20, 32))
    found = []
    for kernel, which in ((mlp_forward, (FIRST, FIRST, 1)), (half_forward, ())):
        activations, y = tiling.tiled(1, structure.outputs, tiling.FLOAT), np.full((1, 3, 64), 7, np.float32)
        njit(kernel.py_func)(structure.network, x, activations, y, *which)
        found.append((activations, y))
    (whole, outputs), (half, of_half) = found
    assert np.array_equal(whole[..., :32], half[..., :32])
    assert np.array_equal(outputs[..., :32], of_half[..., :32])
    assert not half[..., 32:].any()  # a backward pass multiplies it by 0
    assert (of_half[..., 32:] == 7).all()


def test_squashed_gaussian_against_autograd():
    th.manual_seed(0)
    raw = 0.5 * th.randn(100, 4)
    raw[:30, 2:] += 2.0  # beyond LOG_STD_MAX for some samples
    raw[30:60, 2:] -= 21.0  # and below LOG_STD_MIN
    raw.requires_grad_()
    noise = 0.1 * th.randn(100, 2)  # where tanh saturates, rounding decides about log(1 - a^2)
    mean, log_std = raw.chunk(2, dim=1)
    std = log_std.clamp(-20, 2).exp()
    gaussian = mean + std * noise
    actions = gaussian.tanh()
    density = -(noise**2) / 2 - log_std.clamp(-20, 2) - np.log(np.sqrt(2 * np.pi))
    log_prob = (density - th.log(1 - actions**2 + 1e-6)).sum(1)
    own_actions, own_log_prob, grad_raw = (np.ones((2, features, 64), np.float32) for features in (3, 1, 4))
    njit(squash.py_func)(tiled(raw.detach()), noise.numpy(), own_actions, 1, own_log_prob, 0, 2)
    np.testing.assert_allclose(untiled(own_actions)[:, 1:], actions.detach(), atol=1e-6)
    np.testing.assert_allclose(untiled(own_log_prob)[:, 0], log_prob.detach(), atol=1e-4)
    grad_actions = th.randn(100, 2)
    (expected,) = th.autograd.grad((grad_actions * actions).sum() + 0.3 * log_prob.sum(), [raw])
    njit(squash_gradient.py_func)(
        *(tiled(raw.detach()), noise.numpy(), own_actions, 1, tiled(grad_actions)),
        *(np.full((2, 1, 64), 0.3, np.float32), grad_raw, 0, 2),
    )  # fmt: skip
    np.testing.assert_allclose(untiled(grad_raw), expected, atol=1e-4)
    assert (grad_raw.transpose(0, 2, 1).reshape(128, -1)[100:] == 0).all()  # padding


def test_a_gradient_that_nobody_asks_for_is_not_written():
    """Threads share what lies behind the empty array."""
    mlp = SparseMLP.from_linears([th.nn.Linear(5, 8), th.nn.Linear(8, 2)], [20, 10], th.nn.ReLU(), backend="csr")
    structure, backward = csr.structure_of(mlp), kernels.load(".mlp:BACKWARD")
    x, activations, gradients, gy, shared = (tiling.tiled(2, rows, np.float32) + 1 for rows in (5, 10, 10, 2, 3))
    by_column, grad_values, grad_bias = np.zeros(30, np.float32), np.zeros(30, np.float32), np.zeros(10, np.float32)
    memory = x, activations, gradients, by_column, gy, grad_values, grad_bias
    backward.mlp_backward(structure.struct.address, *memory, shared[:0], 0, 0, 2)
    assert (shared == 1).all()
    assert grad_values.any()


def test_what_arrays_cannot_serve_goes_to_the_host():
    assert why_not(RLx2TD3("MlpPolicy", "Pendulum-v1", backend="masked", buffer_size=10)) == "backend='masked'"
    assert "Mirror" in why_not(RLx2TD3("MlpPolicy", normalized(cls=Mirror), backend="csr", buffer_size=10))
    for env in (normalized(), "Pendulum-v1"):
        assert why_not(RLx2TD3("MlpPolicy", env, backend="csr", buffer_size=10)) is None


@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
@pytest.mark.parametrize("deterministic", [True, False])
def test_predict_equals_the_hosts(algorithm, deterministic, monkeypatch):
    model = build(algorithm, True)
    policy = model.policy
    for obs in (np.ones(3, np.float32), np.random.default_rng(0).normal(size=(5, 3)), np.ones((1, 3))):
        th.manual_seed(1)
        fast, _ = model.predict(obs, deterministic=deterministic)
        after = th.get_rng_state()
        th.manual_seed(1)
        with monkeypatch.context() as patch:
            patch.setattr(policy, "_acts_in_arrays", lambda _: False)
            slow, _ = model.predict(obs, deterministic=deterministic)
        assert fast.shape == slow.shape
        assert fast.dtype == slow.dtype
        np.testing.assert_allclose(fast, slow, atol=1e-5)
        assert th.equal(after, th.get_rng_state())
    with pytest.raises(ValueError, match="Unexpected observation shape"):
        model.predict(np.ones(4, np.float32))


def test_array_steps_are_not_saved(tmp_path):
    model = build(RLx2TD3, True).learn(310)
    assert model._steps is not None
    model.save(tmp_path / "model")
    assert RLx2TD3.load(tmp_path / "model")._steps is None


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
def test_a_normalised_environment_set_later(algorithm):
    runs = []
    for arrays in (True, False):
        model = build(algorithm, arrays).learn(310)
        steps = model._choose_steps()
        model.set_env(normalized())
        model.set_random_seed(0)
        runs.append(finish(model, 10))
        assert model._choose_steps() is steps
    assert_equal(*runs)


@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # `train` is called by hand
def test_a_normaliser_with_ideas_of_its_own_is_asked_by_the_host():
    model = build(RLx2TD3, True, normalized).learn(310)
    assert model._choose_steps() is not None
    calls, env = [], model.get_vec_normalize_env()
    env.normalize_reward = lambda rewards: calls.append(1) or VecNormalize.normalize_reward(env, rewards)
    assert model._choose_steps() is None
    model.train(1)
    assert calls


def test_a_policy_made_float64_later_is_served_by_the_host():
    model = build(RLx2TD3, True).learn(310)
    assert model._choose_steps() is not None
    model.policy.double()
    assert model._choose_steps() is None


@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_a_loaded_buffer_waits_for_its_entropy_bonus(backend, tmp_path):
    model = RLx2SAC("MlpPolicy", "Pendulum-v1", backend=backend, **settings(RLx2SAC)).learn(310)
    model.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer")
    model.replay_buffer.n_steps = 3
    with pytest.raises(RuntimeError, match="nobody lends it"):
        model.train(1)


class ZeroPolicy(SparseTD3Policy):
    """What a user may write: a policy with an idea of its own."""

    def _predict(self, observation, deterministic=False):
        return super()._predict(observation, deterministic) * 0


class DenseActorPolicy(SparseTD3Policy):
    """Only the critics are sparse."""

    def make_actor(self, features_extractor=None):
        return Actor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)


def test_a_policy_with_an_actor_of_its_own_trains():
    model = RLx2TD3(DenseActorPolicy, "Pendulum-v1", backend="csr", **settings(RLx2TD3)).learn(320)
    assert model._choose_steps() is None
    assert model.policy.topology_updater.networks["critic"].updates == 2


class CountingBuffer(RLx2ReplayBuffer):
    samples = 0

    def sample(self, *args, **kwargs):
        CountingBuffer.samples += 1
        return super().sample(*args, **kwargs)


def test_overrides_are_not_bypassed():
    model = RLx2TD3(ZeroPolicy, "Pendulum-v1", backend="csr", **settings(RLx2TD3))
    assert model.predict(np.ones(3, np.float32))[0] == 0
    assert model._choose_steps() is None
    counting = build(RLx2TD3, True, replay_buffer_class=CountingBuffer).learn(310)
    assert counting._choose_steps() is None
    assert CountingBuffer.samples == 10
    hooked = build(RLx2TD3, True)
    hooked.actor.register_forward_hook(lambda module, inputs, output: output * 0)
    assert hooked.predict(np.ones(3, np.float32))[0] == 0
    assert hooked._choose_steps() is None


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
@pytest.mark.parametrize("topology", ["rigl", "set"])
@pytest.mark.parametrize("backend", ["csr", "masked"])
@pytest.mark.parametrize("early", [True, False])
def test_a_frozen_actor_stays(algorithm, topology, backend, early):
    model = algorithm("MlpPolicy", "Pendulum-v1", backend=backend, topology=topology, **settings(algorithm))
    if not early:
        model.learn(310)
    for parameter in model.actor.parameters():
        parameter.requires_grad_(False)
    before, critic = deepcopy(model.actor.state_dict()), deepcopy(model.critic.state_dict())
    model.learn(340)
    assert all(th.equal(each, model.actor.state_dict()[name]) for name, each in before.items() if "_extra" not in name)
    assert not th.equal(critic["qf0.values"], model.critic.qf0.values)


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn", "ignore:Full backward hook is firing")
@pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    "register",
    [
        lambda critic, hook: critic.qf0.values.register_hook(hook),
        lambda critic, hook: critic.qf0.bias.register_post_accumulate_grad_hook(hook),
        lambda critic, hook: critic.qf0.register_full_backward_hook(hook),
        lambda critic, hook: critic.register_full_backward_pre_hook(hook),
    ],
)
def test_hooks_on_gradients_are_called(algorithm, early, register):
    calls = []
    model = build(algorithm, True)
    if not early:
        model.learn(310)
    register(model.critic, lambda *arguments: calls.append(arguments))
    model.learn(310)
    assert len(calls) >= 10


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_copied_model_trains_as_the_original(algorithm):
    model = build(algorithm, True).learn(310)
    copied = deepcopy(model)
    runs = []
    for one in (model, copied):
        one.set_random_seed(1)
        runs.append(finish(one, 20))
    assert_equal(*runs, atol=0)


@pytest.mark.filterwarnings("ignore:no RLx2Callback")  # `train` is called by hand
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("algorithm", "network"), [(each, name) for each in ALGORITHMS for name in POLICIES[each].networks])
def test_a_broken_gradient_stops_before_the_step(algorithm, network, threads):
    th.set_num_threads(threads)
    model = build(algorithm, True, policy_delay=1) if algorithm is RLx2TD3 else build(algorithm, True)
    model.learn(305)
    maximum_entropy = algorithm in (RLx2SAC, RLx2TQC)
    with th.no_grad():
        getattr(model.policy, network).sparse_heads()[0].values[3] = float("nan")
    before = {name: value.clone() for name, value in model.policy.state_dict().items() if isinstance(value, th.Tensor)}
    entropy = model.log_ent_coef.detach().clone() if maximum_entropy else None
    culprit = "entropy coefficient" if maximum_entropy and network == "actor" else "|".join(POLICIES[algorithm].networks)
    with pytest.raises(ValueError, match=rf"the gradient of the ({culprit}) holds NaN"):
        model.train(gradient_steps=1, batch_size=256)
    after = model.policy.state_dict()
    for name, value in before.items():
        if (network in name or maximum_entropy) and ".norms." not in name:  # which a forward pass moves, as the host's does
            assert th.equal(after[name].nan_to_num(), value.nan_to_num()), name
    if entropy is not None and network == "actor":
        assert th.equal(model.log_ent_coef.detach(), entropy)


def test_workspaces_of_many_batch_sizes_are_shared():
    mlp = build(RLx2TD3, True).actor.mu
    csr.Workspace._free.clear()
    for batch in range(400, 500):
        backends.infer(mlp, np.zeros((batch, 3), np.float32))
        mlp(th.zeros(batch, 3)).sum().backward()
    assert sum(len(arrays) for arrays in csr.Workspace._free.values()) <= 6


def test_memory_follows_the_tiles_not_the_threads(monkeypatch):
    monkeypatch.setattr(gradient_steps, "usable_threads", lambda _: 64)
    steps = build(RLx2TD3, True, batch_size=128).learn(302)._steps
    assert [len(each.gradients) for each in (steps.actor, *steps.critics)] == [2, 2, 2]
    assert len(steps.team.helpers) == 1
