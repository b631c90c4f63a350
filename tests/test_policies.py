import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from torch import nn

from sb3_rlx2 import RLx2SAC, RLx2TD3, SparseMLP, backends
from sb3_rlx2.distributions import DISTRIBUTIONS
from sb3_rlx2.fast.adam import KernelAdam
from tests.checks import assert_equal, assert_sound, pairs, sparse_mlps
from tests.envs import DriftDictEnv, DriftEnv
from tests.every import ACTOR_CRITIC, WITH_DICTS, small

ALGORITHMS = [RLx2TD3, RLx2SAC]
WITH_EXTRACTORS = [algorithm for algorithm in ACTOR_CRITIC if algorithm in WITH_DICTS]
ADAMS = [
    (th.optim.Adam, {"betas": (0.8, 0.9), "amsgrad": True}),
    (th.optim.AdamW, {"weight_decay": 0.1}),
    (th.optim.Adamax, {}),
    (th.optim.NAdam, {}),
    (th.optim.RAdam, {}),
    (th.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    (th.optim.Adagrad, {}),
    (th.optim.SGD, {"momentum": 0.9}),
    (th.optim.SGD, {}),
]


def build(algorithm, env=None, policy="MlpPolicy", net_arch=(16, 16), policy_kwargs=None, **kwargs):
    own = {"net_arch": deepcopy(net_arch) if isinstance(net_arch, dict) else list(net_arch), **(policy_kwargs or {})}
    defaults = {
        "learning_starts": 20,
        "batch_size": 16,
        "buffer_size": 500,
        "buffer_min_size": 50,
        "actor_sparsity": 0.6,
        "critic_sparsity": 0.5,
        "update_interval": 10,
        "seed": 0,
    }
    return algorithm(policy, env or DriftEnv(), policy_kwargs=small(algorithm, **own), **defaults | kwargs)


def shapes(mlp):
    return [layer.shape for layer in mlp.layers]


def topologies(policy):
    return [mlp.index.clone() for _, mlp, _, _ in pairs(policy)]


def assert_evolved(model, before):
    """Every network has had topology updates, and they changed it."""
    assert all(network.updates > 0 for network in model.policy.topology_updater.networks.values())
    after = topologies(model.policy)
    for (_, mlp, _, _), old, new in zip(pairs(model.policy), before, after, strict=True):
        assert mlp.nnz == mlp.size or not th.equal(old, new)
    assert_sound(model.policy)


def learn(model, steps):
    before = topologies(model.policy)
    model.learn(steps)
    assert_evolved(model, before)
    return model


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("obs_shape", "action_shape"), [((3,), (1,)), ((2, 3), (2,)), ((5,), (2, 2))])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_box_spaces(algorithm, obs_shape, action_shape, n_envs):
    env = make_vec_env(DriftEnv, n_envs, env_kwargs={"obs_shape": obs_shape, "action_shape": action_shape})
    model = learn(build(algorithm, env), 20 + 60 * n_envs)
    n_obs, n_actions = int(np.prod(obs_shape)), int(np.prod(action_shape))
    head = 2 * n_actions if algorithm is RLx2SAC else n_actions
    assert shapes(sparse_mlps(model.actor)[0]) == [(16, n_obs), (16, 16), (head, 16)]
    assert shapes(sparse_mlps(model.critic)[0]) == [(16, n_obs + n_actions), (16, 16), (1, 16)]
    actions, _ = model.predict(env.reset(), deterministic=True)
    assert actions.shape == (n_envs, *action_shape)
    assert np.abs(actions).max() <= 2.0


@pytest.mark.parametrize("number", [0, 1, 0.25])
def test_action_noise_as_a_number(number):
    model = build(RLx2TD3, DriftEnv(action_shape=(2, 2)), action_noise=number)
    assert model.action_noise().shape == (2, 2)
    assert np.std([model.action_noise() for _ in range(500)]) == pytest.approx(number, rel=0.1)
    model.learn(30)


@pytest.mark.parametrize("algorithm", WITH_EXTRACTORS)
@pytest.mark.parametrize("share", [True, False])
def test_cnn_policy(algorithm, share):
    env = FakeImageEnv(screen_height=36, screen_width=36, discrete=False)
    kwargs = {"features_extractor_kwargs": {"features_dim": 12}, "share_features_extractor": share}
    model = build(algorithm, env, "CnnPolicy", policy_kwargs=kwargs)
    check_dense_extractor(model, NatureCNN, share)


@pytest.mark.parametrize("algorithm", WITH_EXTRACTORS)
@pytest.mark.parametrize("share", [True, False])
def test_multi_input_policy(algorithm, share):
    kwargs = {"features_extractor_kwargs": {"cnn_output_dim": 12}, "share_features_extractor": share}
    model = build(algorithm, DriftDictEnv(), "MultiInputPolicy", policy_kwargs=kwargs)
    with pytest.warns(UserWarning, match="only the topology evolves"):
        check_dense_extractor(model, CombinedExtractor, share)


def check_dense_extractor(model, extractor_class, share):
    extractors = [model.actor.features_extractor, model.critic.features_extractor]
    assert (extractors[0] is extractors[1]) == share
    before = [deepcopy(list(extractor.parameters())) for extractor in extractors]
    learn(model, 20 + 30)
    for extractor, old in zip(extractors, before, strict=True):
        assert type(extractor) is extractor_class
        assert not sparse_mlps(extractor)
        assert any(isinstance(module, nn.Conv2d) for module in extractor.modules())
        assert all(not th.equal(parameter, value) for parameter, value in zip(extractor.parameters(), old, strict=True))
    # all linear layers of the heads are sparse
    for network in (model.actor, model.critic):
        names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        assert all("features_extractor" in name for name in names)
    assert sparse_mlps(model.actor)[0].layers[0].in_features == extractors[0].features_dim


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("net_arch", "actor_hidden", "critic_hidden"),
    [((12,), [12], [12]), ({"pi": [10, 6], "qf": [8]}, [10, 6], [8]), ((), [], []), ({"pi": [], "qf": [9, 7]}, [], [9, 7])],
)
def test_net_arch(algorithm, net_arch, actor_hidden, critic_hidden):
    model = build(algorithm, net_arch=net_arch, actor_sparsity=0.3, critic_sparsity=0.3)
    for network, hidden, into, out in (
        (model.actor, actor_hidden, 3, 4 if algorithm is RLx2SAC else 2),
        (model.critic, critic_hidden, 5, 1),
    ):
        widths = [into, *hidden, out]
        assert shapes(sparse_mlps(network)[0]) == list(zip(widths[1:], widths, strict=False))
    model.learn(60)
    assert_sound(model.policy)
    assert model.policy.topology_updater.networks["critic"].updates > 0


def test_default_net_arch_is_the_papers():
    for algorithm in ALGORITHMS:
        model = algorithm("MlpPolicy", DriftEnv(), buffer_size=10)
        assert [layer.out_features for layer in sparse_mlps(model.critic)[0].layers] == [256, 256, 1]
    # mean and log standard deviation are one layer, as in the released code
    (head,) = sparse_mlps(model.actor)
    assert shapes(head)[-1] == (2 * 2, 256)
    nnz = DISTRIBUTIONS["erdos_renyi"]([(256, 3), (256, 256), (4, 256)], 0.9)
    assert [layer.nnz for layer in head.layers] == nnz


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("activation_fn", [nn.Tanh, nn.ELU])
def test_other_activations_are_masked_with_one_warning(algorithm, activation_fn, monkeypatch):
    monkeypatch.setattr(backends, "_warned", set())
    model = build(algorithm, policy_kwargs={"activation_fn": activation_fn})
    with pytest.warns(UserWarning, match="takes .masked.") as caught:
        learn(model, 60)
    (warning,) = (each for each in caught if "in this run of" not in str(each.message))
    assert "'auto' takes 'masked'" in str(warning.message)
    assert activation_fn.__name__ in str(warning.message)
    mlp = sparse_mlps(model.critic)[0]
    assert type(mlp.hidden_activation) is activation_fn
    x = th.randn(4, 5)
    weights, biases = mlp.dense_weights(), mlp.bias.split([16, 16, 1])
    h = activation_fn()(activation_fn()(x @ weights[0].T + biases[0]) @ weights[1].T + biases[1])
    np.testing.assert_allclose(mlp(x).detach(), (h @ weights[2].T + biases[2]).detach(), atol=1e-6)


def test_csr_with_an_activation_that_it_does_not_have():
    with pytest.raises(ValueError, match=r"backend='csr' cannot be used.*Tanh"):
        build(RLx2TD3, policy_kwargs={"activation_fn": nn.Tanh}, backend="csr")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("n_critics", [1, 2, 3])
def test_n_critics(algorithm, n_critics):
    model = learn(build(algorithm, policy_kwargs={"n_critics": n_critics}), 80)
    critics = sparse_mlps(model.critic)
    assert critics == list(model.critic.q_networks)
    assert len(critics) == len(sparse_mlps(model.critic_target)) == n_critics
    q_values = model.critic(th.zeros(4, 3), th.zeros(4, 2))
    assert [q.shape for q in q_values] == [(4, 1)] * n_critics
    assert th.equal(model.critic.q1_forward(th.zeros(4, 3), th.zeros(4, 2)), q_values[0])


@pytest.mark.filterwarnings("ignore:progress=1 since an earlier learn")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("init", ["magnitude", "random"])
def test_twin_critics_have_the_same_nnz_and_their_own_topology(algorithm, init):
    model = build(algorithm, init=init, policy_kwargs={"n_critics": 3})
    for _ in range(2):
        critics = sparse_mlps(model.critic)
        assert len({tuple(layer.nnz for layer in critic.layers) for critic in critics}) == 1
        for i, one in enumerate(critics):
            assert all(not th.equal(one.index, other.index) for other in critics[i + 1 :])
        model.learn(50)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("distribution", ["erdos_renyi", "erk", "uniform"])
@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.8])
def test_nnz_per_layer(algorithm, distribution, sparsity):
    kwargs = {"actor_sparsity": sparsity, "critic_sparsity": sparsity / 2, "distribution": distribution}
    model = build(algorithm, net_arch=(20, 12), **kwargs)
    share_out = DISTRIBUTIONS[distribution]
    head = 4 if algorithm is RLx2SAC else 2
    nnz = {
        "actor": share_out([(20, 3), (12, 20), (head, 12)], sparsity),
        "critic": share_out([(20, 5), (12, 20), (1, 12)], sparsity / 2),
    }
    assert_sound(model.policy, nnz)
    model.learn(45)
    assert_sound(model.policy, nnz)


@pytest.mark.parametrize(("algorithm", "stock"), [(RLx2TD3, TD3), (RLx2SAC, SAC)])
def test_sparsity_0_starts_as_the_dense_policy(algorithm, stock):
    model = build(algorithm, actor_sparsity=0, critic_sparsity=0.0)
    dense = stock("MlpPolicy", DriftEnv(), buffer_size=10, seed=0, policy_kwargs={"net_arch": [16, 16]})
    observations = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    for _, mlp, _, _ in pairs(model.policy):
        assert mlp.nnz == mlp.size
        assert mlp.index.tolist() == list(range(mlp.size))
    expected, _ = dense.predict(observations, deterministic=True)
    np.testing.assert_allclose(model.predict(observations, deterministic=True)[0], expected, atol=1e-6)
    obs, actions = th.as_tensor(observations), th.as_tensor(expected)
    for q, dense_q in zip(model.critic(obs, actions), dense.critic(obs, actions), strict=True):
        np.testing.assert_allclose(q.detach(), dense_q.detach(), atol=1e-6)
    model.learn(60)  # there is nothing to move, so every step is the optimizer's
    assert_sound(model.policy)
    assert model.policy.topology_updater.networks["critic"].updates == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("optimizer_class", "optimizer_kwargs"), ADAMS)
def test_optimizers(algorithm, optimizer_class, optimizer_kwargs):
    policy_kwargs = {"optimizer_class": optimizer_class, "optimizer_kwargs": optimizer_kwargs}
    model = learn(build(algorithm, policy_kwargs=policy_kwargs), 60)
    expected = KernelAdam if optimizer_class is th.optim.Adam else optimizer_class
    assert type(model.critic.optimizer) is type(model.actor.optimizer) is expected
    for name, value in optimizer_kwargs.items():
        assert model.critic.optimizer.param_groups[0][name] == value


def critic_steps(policy, count):
    for _ in range(count):
        policy.critic.optimizer.zero_grad()
        sum(q.pow(2).mean() for q in policy.critic(th.randn(16, 3), th.randn(16, 2))).backward()
        policy.critic.optimizer.step()


@pytest.mark.parametrize(("optimizer_class", "optimizer_kwargs"), ADAMS)
def test_all_moments_move_with_the_links(optimizer_class, optimizer_kwargs):
    policy_kwargs = {"optimizer_class": optimizer_class, "optimizer_kwargs": optimizer_kwargs}
    policy = build(RLx2TD3, policy_kwargs=policy_kwargs).policy
    policy.topology_updater.configure("set", 0.5, update_interval=4)
    critic_steps(policy, 3)
    critics = sparse_mlps(policy.critic)
    before = [(mlp.index.tolist(), deepcopy(policy.critic.optimizer.state[mlp.values])) for mlp in critics]
    critic_steps(policy, 1)
    assert policy.topology_updater.networks["critic"].updates == 1
    for mlp, (index, state) in zip(critics, before, strict=True):
        assert mlp.index.tolist() != index
        for name, value in policy.critic.optimizer.state[mlp.values].items():
            if isinstance(value, th.Tensor) and value.numel() > 1:
                old = dict(zip(index, state[name].tolist(), strict=True))
                assert value.tolist() == [old.get(position, 0.0) for position in mlp.index.tolist()]
            else:
                assert value == state[name]
    critic_steps(policy, 1)
    assert_sound(policy)


class Hoarder(th.optim.Optimizer):
    """Keeps the latest gradients of each parameter, and those are no link's own."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @th.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    history = self.state[parameter].get("history", parameter.new_zeros(2, *parameter.shape))
                    self.state[parameter]["history"] = th.stack([history[1], parameter.grad])
                    parameter.sub_(group["lr"] * parameter.grad)


@pytest.mark.parametrize("topology", ["rigl", "set"])
def test_optimizer_that_is_not_element_wise_raises_before_anything_moves(topology):
    policy = build(RLx2TD3, policy_kwargs={"optimizer_class": Hoarder}).policy
    policy.topology_updater.configure(topology, 0.5, update_interval=4)
    critic_steps(policy, 3)
    state = policy.state_dict()
    del state["topology_updater._extra_state"]  # which counts the step
    weights = {name: value.clone() for name, value in state.items()}
    moments = deepcopy(policy.critic.optimizer.state_dict())
    with pytest.raises(ValueError, match=r"Hoarder keeps 'history'.*optimizer_class must be element-wise"):
        critic_steps(policy, 1)
    assert_equal({name: policy.state_dict()[name] for name in weights}, weights)
    assert_equal(policy.critic.optimizer.state_dict(), moments)


def test_optimizer_that_is_not_element_wise_trains_a_static_topology():
    model = build(RLx2TD3, topology="static", policy_kwargs={"optimizer_class": Hoarder})
    before, values = topologies(model.policy), model.critic.qf0.values.detach().clone()
    model.learn(60)
    assert all(th.equal(old, new) for old, new in zip(before, topologies(model.policy), strict=True))
    assert not th.equal(model.critic.qf0.values, values)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("net_arch", "policy_kwargs", "kwargs"),
    [
        ((16,), {}, {}),
        ((), {"n_critics": 3}, {"init": "random"}),
        (
            {"pi": [8], "qf": [12, 6]},
            {"activation_fn": nn.Tanh, "n_critics": 1},
            {"backend": "masked", "distribution": "uniform"},
        ),
        ((16,), {"optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.1}}, {"backend": "csr"}),
    ],
)
def test_policy_alone_saved_and_loaded(algorithm, net_arch, policy_kwargs, kwargs, tmp_path):
    model = build(algorithm, net_arch=net_arch, policy_kwargs=policy_kwargs, **kwargs).learn(60)
    loaded = check_policy_alone(model, np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), tmp_path)
    assert loaded.optimizer_class is model.policy.optimizer_class
    assert [mlp.backend for mlp in sparse_mlps(loaded)] == [mlp.backend for mlp in sparse_mlps(model.policy)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("share", [True, False])
def test_image_policy_alone_saved_and_loaded(algorithm, share, tmp_path):
    env = FakeImageEnv(screen_height=36, screen_width=36, discrete=False, n_channels=3, channel_first=True)
    kwargs = {"features_extractor_kwargs": {"features_dim": 12}, "share_features_extractor": share}
    model = build(algorithm, env, "CnnPolicy", policy_kwargs=kwargs).learn(35)
    loaded = check_policy_alone(model, np.random.default_rng(0).integers(0, 255, (4, 3, 36, 36), np.uint8), tmp_path)
    assert (loaded.critic.features_extractor is loaded.actor.features_extractor) == share


def check_policy_alone(model, observations, tmp_path):
    expected, _ = model.policy.predict(observations, deterministic=True)
    model.policy.save(tmp_path / "policy.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = type(model.policy).load(tmp_path / "policy.pth")
    actions, _ = loaded.predict(observations, deterministic=True)
    np.testing.assert_array_equal(actions, expected)
    assert_equal(loaded.state_dict(), model.policy.state_dict())
    assert_sound(loaded)
    return loaded


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_copied_policy_goes_on_evolving_on_its_own(algorithm):
    model = build(algorithm)
    model.learn(40)
    policy = model.policy
    copy = deepcopy(policy)
    assert_equal(copy.state_dict(), policy.state_dict())
    updater, others = copy.topology_updater, deepcopy(policy.state_dict())
    before = topologies(copy)
    steps = updater.networks["critic"].steps
    updater.progress = 0.0  # training is over, where an update would move nothing
    updater.configure("rigl", 0.5, update_interval=2)
    critic_steps(copy, 6)
    assert updater.networks["critic"].steps == steps + 6
    assert updater.networks["critic"].updates > policy.topology_updater.networks["critic"].updates
    assert any(not th.equal(old, new) for old, new in zip(before, topologies(copy), strict=True))
    assert_sound(copy)
    assert_equal(policy.state_dict(), others)


class OtherSpace(DriftEnv):
    """Its observations are of another space than of floats, and may come as floats all the same."""

    def __init__(self, space):
        super().__init__()
        self.observation_space = space

    def observe(self):
        self.observation_space.seed(int(1e6 * abs(self.state[0])))
        return self.observation_space.sample()


SPACES = [
    spaces.Discrete(5),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiBinary(4),
    spaces.Box(0, 255, (1, 8, 8), np.uint8),
    spaces.Box(-9, 9, (3,), np.int16),
    spaces.Box(-9, 9, (3,), np.float64),
]


@pytest.mark.parametrize("algorithm", ACTOR_CRITIC)
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_other_observation_spaces(algorithm, space):
    """They learn, with looks at the policy distance, and floats are understood as SB3 understands them."""
    models = [build(algorithm, OtherSpace(space), backend=backend, buffer_check_interval=10) for backend in ("csr", "masked")]
    observations = np.stack([space.sample() for _ in range(5)])
    for dtype in (space.dtype, np.float32):
        for given in (observations.astype(dtype), observations[0].astype(dtype)):
            ours, expected = (model.predict(given, deterministic=True)[0] for model in models)
            np.testing.assert_allclose(ours, expected, atol=1e-5)
    before = topologies(models[0].policy)
    assert_evolved(learn(models[0], 80), before)


def test_no_observations_give_no_actions():
    actions, _ = build(RLx2TD3).predict(np.zeros((0, 3), np.float32))
    assert actions.shape == (0, 2)


def test_loaded_and_asked_in_inference_mode(tmp_path):
    """torch counts no versions of tensors that are made there, so kernels cannot tell whether one has changed."""
    model = build(RLx2TD3)
    model.save(tmp_path / "model")
    other = build(RLx2TD3, seed=1).policy.state_dict()
    observation = np.ones(3, np.float32)
    with th.inference_mode():
        loaded = RLx2TD3.load(tmp_path / "model")
        np.testing.assert_array_equal(loaded.predict(observation)[0], model.predict(observation)[0])
        loaded.policy.load_state_dict(other)
        model.policy.load_state_dict(other)
        np.testing.assert_array_equal(loaded.predict(observation)[0], model.predict(observation)[0])


def test_policy_prints_its_sparsity():
    assert "nnz=" in repr(build(RLx2TD3).policy)
    assert "backend='auto' (csr)" in repr(build(RLx2TD3).policy)
    tanh = build(RLx2TD3, policy_kwargs={"net_arch": [8], "activation_fn": th.nn.Tanh}).policy
    assert "backend='auto' (masked)" in repr(tanh)
    assert all(isinstance(mlp, SparseMLP) for mlp in sparse_mlps(build(RLx2SAC).policy))


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"backend": "csr"}, True),
        ({"backend": "masked"}, None),
        ({"backend": "csr", "policy_kwargs": {"optimizer_kwargs": {"fused": False}}}, False),
        ({"backend": "csr", "policy_kwargs": {"optimizer_kwargs": {"foreach": True, "eps": 1e-5}}}, None),
    ],
)
def test_adam_is_fused_unless_bits_or_the_user_say_otherwise(kwargs, expected):
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, **kwargs)
    assert model.critic.optimizer.param_groups[0]["fused"] is expected
