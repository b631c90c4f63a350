"""Arrays and kernels take the place of SB3's modules only where nobody looks in between, and say why where they do not."""

import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from sb3_rlx2 import RLx2CrossQ, RLx2DQN, RLx2QRDQN, RLx2SAC, RLx2TD3, SparseMLP
from sb3_rlx2.fast.eligible import why_not
from tests.every import ALGORITHMS, is_discrete, sparsities

SMALL = {
    "learning_starts": 20,
    "batch_size": 8,
    "buffer_size": 200,
    "policy_kwargs": {"net_arch": [8]},
    "seed": 0,
    "topology": "static",
}
both = pytest.mark.parametrize("algorithm", [RLx2TD3, RLx2SAC])
every = pytest.mark.parametrize("algorithm", ALGORITHMS)
OBS = np.array([[0.1, -0.2, 0.3]], np.float32)


def build(algorithm, **kwargs):
    env = "CartPole-v1" if is_discrete(algorithm) else "Pendulum-v1"
    return algorithm("MlpPolicy", env, **deepcopy(SMALL | sparsities(algorithm, 0.3, 0.3) | kwargs))


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("part", ["features_extractor", "mu", "mu.hidden_activation"])
def test_a_hook_put_on_after_the_first_step_is_called(part):
    model = build(RLx2TD3).learn(30)
    calls = count_calls(model.actor.get_submodule(part))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.learn(30, reset_num_timesteps=False)
    assert calls


@pytest.mark.parametrize("part", ["features_extractor", "qf0", "qf0.hidden_activation"])
def test_a_hook_on_a_critic_sends_training_to_the_host(part):
    model = build(RLx2TD3).learn(30)
    assert model._choose_steps() is not None
    model.critic.get_submodule(part).register_forward_hook(lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model._choose_steps() is None
    assert "has a hook" in why_not(model)


@both
@pytest.mark.parametrize("backend", ["csr", "masked"])
def test_predict_calls_hooks_of_the_features_extractor(algorithm, backend):
    model = build(algorithm, backend=backend)
    model.predict(OBS)
    calls = count_calls(model.actor.features_extractor)
    model.predict(OBS)
    assert len(calls) == 1


@pytest.mark.parametrize("begin", [0, 30])
def test_hooks_on_all_modules_are_called(begin):
    model = build(RLx2TD3)
    if begin:
        model.learn(begin)
    seen = set()
    handle = register_module_forward_hook(lambda module, *_: seen.add(type(module)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.learn(30, reset_num_timesteps=False)
        assert {type(model.actor), type(model.critic), SparseMLP} <= seen
        seen.clear()
        model.predict(OBS)
        assert SparseMLP in seen
    finally:
        handle.remove()


def test_hooks_on_all_optimizers_are_called():
    model = build(RLx2TD3).learn(30)
    steps = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: steps.append(optimizer))
    try:
        model.learn(30, reset_num_timesteps=False)
    finally:
        handle.remove()
    assert {*steps} == {model.actor.optimizer, model.critic.optimizer}


class Dropping(FlattenExtractor):
    """Hides half of each observation while it trains."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.flatten = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))


@both
def test_an_extractor_put_in_later_changes_its_mode(algorithm):
    model = build(algorithm)
    model.policy.set_training_mode(True)
    model.actor.features_extractor = Dropping(model.observation_space)
    model.policy.set_training_mode(False)
    assert not model.actor.features_extractor.flatten[1].training
    assert np.array_equal(model.predict(OBS, deterministic=True)[0], model.predict(OBS, deterministic=True)[0])


@both
def test_a_copy_notices_its_own_hooks(algorithm, tmp_path):
    model = build(algorithm).learn(30)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    loaded.predict(OBS)
    calls = count_calls(loaded.actor)
    loaded.predict(OBS)
    model.predict(OBS)
    assert len(calls) == 1


@every
def test_arrays_false_is_the_hosts_own(algorithm):
    model = build(algorithm, arrays=False)
    model.learn(30)
    assert model._steps is None
    assert model.logger.name_to_value["rlx2/arrays"] == 0


@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each is not RLx2CrossQ])
def test_arrays_true_takes_them(algorithm):
    model = build(algorithm, arrays=True)
    model.learn(30)
    assert model._steps is not None
    assert model.logger.name_to_value["rlx2/arrays"] == 1


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"backend": "masked"}, "backend='masked'"),
        (
            {"policy_kwargs": {"net_arch": [8], "activation_fn": nn.Tanh}},
            "'csr' has kernels for ReLU hidden layers, not for Tanh()",
        ),
        ({"policy_kwargs": {"net_arch": [8], "features_extractor_class": Dropping}}, "the features extractor is a Dropping"),
    ],
)
def test_arrays_true_says_what_is_in_the_way(kwargs, reason):
    with pytest.raises(ValueError, match="arrays=True cannot be served") as error:
        build(RLx2TD3, arrays=True, **kwargs)
    assert reason in str(error.value)


def test_arrays_true_says_it_during_training_too():
    model = build(RLx2TD3, arrays=True).learn(30)
    model.critic.qf0.values.requires_grad_(False)
    with pytest.raises(ValueError, match=r"arrays=True cannot be served: critic.qf0.values is frozen or has a hook"):
        model.learn(30, reset_num_timesteps=False)


def test_auto_says_why_once():
    model = build(RLx2TD3, policy_kwargs={"net_arch": [8], "features_extractor_class": Dropping})
    with pytest.warns(UserWarning, match="gradient steps are SB3's own, and not in arrays, because") as warned:
        model.learn(40)
    assert len([each for each in warned if "in this run of" not in str(each.message)]) == 1


@pytest.mark.parametrize("algorithm", [RLx2DQN, RLx2QRDQN])
def test_what_is_put_in_a_value_based_agent_later_is_noticed(algorithm):
    model, other = build(algorithm).learn(30), build(algorithm, seed=1)
    steps, name = model._choose_steps(), f"{next(iter(model.policy.networks))}_target"
    setattr(model.policy, name, getattr(other.policy, name))
    assert model._choose_steps() not in (None, steps)
    model.policy.acting_network.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="has a hook"):
        assert model._choose_steps() is None


@pytest.mark.parametrize("arrays", ["on", None, 2, 0, 1])
def test_another_value_is_refused(arrays):
    with pytest.raises(ValueError, match=f"arrays={arrays!r} must be 'auto', True or False"):
        build(RLx2TD3, arrays=arrays)


def test_several_environments_act_in_arrays():
    model = build(RLx2TD3, arrays=True)
    env = make_vec_env("Pendulum-v1", 2, seed=0)
    with th.no_grad():
        obs = env.reset()
        expected = model.actor(th.as_tensor(obs)).numpy()
    assert np.allclose(model.policy.act(obs), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["actor", "critic", "critic_target"])
def test_a_network_put_in_later_is_noticed(name):
    model, other = build(RLx2TD3).learn(30), build(RLx2TD3, seed=1)
    steps = model._choose_steps()
    setattr(model.policy, name, getattr(other.policy, name))
    assert model._choose_steps() is not steps
    with th.no_grad():
        expected = model.policy.actor(th.as_tensor(OBS)).numpy()
    assert np.allclose(model.policy.act(OBS), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["actor", "critic", "critic_target"])
def test_a_network_of_another_dtype_sends_training_to_the_host(name):
    model = build(RLx2TD3).learn(30)
    getattr(model.policy, name).double()
    with pytest.warns(UserWarning, match="and not in arrays, because"):
        assert model._choose_steps() is None


def test_arrays_switched_off_later():
    model = build(RLx2TD3).learn(30)
    model.arrays = False
    assert model._choose_steps() is None
    assert model._steps is None


@pytest.mark.parametrize("arrays", ["on", 0])
def test_load_refuses_another_value(arrays, tmp_path):
    build(RLx2TD3).save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"arrays={arrays!r} must be 'auto', True or False"):
        RLx2TD3.load(tmp_path / "model", arrays=arrays)


class OwnMLP(SparseMLP):
    """What a user may write."""

    def forward(self, x):
        return super().forward(x) * 2


def test_a_head_of_the_users_own_is_called():
    expected = 2 * build(RLx2TD3).policy.act(OBS)
    model = build(RLx2TD3)
    model.actor.mu.__class__ = OwnMLP
    assert np.allclose(model.policy.act(OBS), expected)


class Positional(RLx2TD3):
    """Users write their constructors as they like."""

    def __init__(self, policy, env, actor_sparsity=0.8, _init_setup_model=True):
        super().__init__(policy, env, actor_sparsity=actor_sparsity, buffer_size=10, _init_setup_model=_init_setup_model)


class Keywords(RLx2TD3):
    """As these do."""

    def __init__(self, *args, n_steps=5, topology="set", **kwargs):
        super().__init__(*args, n_steps=n_steps, topology=topology, **kwargs)


def test_users_subclasses():
    assert Positional("MlpPolicy", "Pendulum-v1").policy.actor_sparsity == 0.8
    assert Keywords("MlpPolicy", "Pendulum-v1", buffer_size=10).topology == "set"


def test_a_dense_policy_put_in_later_trains_as_the_hosts():
    model, dense = build(RLx2TD3, learning_starts=5).learn(10), TD3("MlpPolicy", "Pendulum-v1", buffer_size=10)
    model.policy = dense.policy
    assert why_not(model) == "the policy is a TD3Policy, which is not sparse"


class WithoutBias(FlattenExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.flatten = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))


def test_an_extractor_with_a_layer_without_bias():
    model = build(RLx2TD3, policy_kwargs={"net_arch": [8], "features_extractor_class": WithoutBias}, arrays=False)
    model.learn(30)
    assert model.predict(OBS)[0].shape == (1, 1)
