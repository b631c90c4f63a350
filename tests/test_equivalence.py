"""At sparsity 0 and with RLx2 switched off, the guest computes what its host computes."""

import math

import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC, CrossQ
from sb3_contrib.common.torch_layers import BatchRenorm1d
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise

from sb3_rlx2 import RLx2CrossQ, RLx2DDPG, RLx2DQN, RLx2SAC, RLx2TD3, RLx2TQC, SparseMLP
from tests.envs import PixelEnv
from tests.every import STOCK, VALUE_BASED

# Rounding differences grow wherever Adam divides a gradient of almost zero by itself; how fast depends on the seed.
COMMON = {"seed": 0, "learning_starts": 100, "batch_size": 256, "buffer_size": 1000, "learning_rate": 3e-4}
OFF = {"actor_sparsity": 0, "critic_sparsity": 0, "n_steps": 1, "policy_distance_threshold": math.inf}
NETWORKS = ("actor", "critic", "critic_target", "q_net", "q_net_target", "quantile_net", "quantile_net_target")
# Targets are copied and epsilon falls. No gradient is so large that it is clipped, by a norm that rounding makes another.
VALUE_BASED_COMMON = {"batch_size": 32, "train_freq": 1, "target_update_interval": 30, "exploration_fraction": 0.5}
VALUE_BASED_OFF = {"sparsity": 0, "backend": "masked", "n_steps": 1, "policy_distance_threshold": math.inf}


def parameters(model):
    """Give all weights and biases, layer by layer, whatever holds them."""
    nets = [getattr(model.policy, name) for name in NETWORKS if hasattr(model.policy, name)]
    tensors = []
    for module in [module for net in nets for module in net.modules()]:
        if isinstance(module, SparseMLP):
            widths = [layer.out_features for layer in module.layers]
            for weight, bias in zip(module.dense_weights(), module.bias.split(widths), strict=True):
                tensors += [weight.detach(), bias.detach()]
        elif isinstance(module, th.nn.Linear | th.nn.Conv2d):
            tensors += [module.weight.detach(), module.bias.detach()]
    return tensors


def train(algorithm, steps, policy="MlpPolicy", env="Pendulum-v1", **kwargs):
    # One after the other: construction seeds the global generators, and training draws from them.
    model = algorithm(policy, env, **COMMON | kwargs)
    return model.learn(COMMON["learning_starts"] + steps)


def train_value_based(algorithm, steps, policy="MlpPolicy", env="CartPole-v1", **kwargs):
    return parameters(train(algorithm, steps, policy, env, **VALUE_BASED_COMMON | kwargs))


def with_noise(host, steps):
    noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))
    return train(host, steps, action_noise=noise, policy_kwargs={"net_arch": [256, 256]})


@pytest.mark.parametrize(("algorithm", "host", "critics"), [(RLx2TD3, TD3, 2), (RLx2DDPG, DDPG, 1)])
def test_masked_is_bit_identical_after_200_steps(algorithm, host, critics):
    expected = parameters(with_noise(host, 200))
    actual = parameters(train(algorithm, 200, backend="masked", **OFF))
    assert len(actual) == len(expected) == 6 + 2 * critics * 6
    assert all(th.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize(("algorithm", "host"), [(RLx2TD3, TD3), (RLx2DDPG, DDPG)])
def test_csr_after_20_steps(algorithm, host):
    for a, b in zip(parameters(train(algorithm, 20, backend="csr", **OFF)), parameters(with_noise(host, 20)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("backend", ["masked", "csr"])
@pytest.mark.parametrize("soft_n_step", [True, False])
@pytest.mark.parametrize(("algorithm", "host"), [(RLx2SAC, SAC), (RLx2TQC, TQC)])
def test_maximum_entropy_after_20_steps(algorithm, host, backend, soft_n_step):
    expected = parameters(train(host, 20))
    rlx2 = parameters(train(algorithm, 20, backend=backend, soft_n_step=soft_n_step, **OFF))
    # SB3's actor ends in two layers, mean and log_std; ours in one that stacks them.
    mean, mean_bias, log_std, log_std_bias = expected[4:8]
    expected[4:8] = [th.cat([mean, log_std]), th.cat([mean_bias, log_std_bias])]
    for a, b in zip(rlx2, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def gradients(network):
    """Give the gradients of all weights, biases and normalisations, layer by layer; of layers that read the same, together."""
    found, norms = [], []
    for module in network.modules():
        if isinstance(module, SparseMLP):
            slices = [
                module.values.grad[part].view(layer.shape) for part, layer in zip(module.slices, module.layers, strict=True)
            ]
            biases = module.bias.grad.split([layer.out_features for layer in module.layers])
            found += [each for pair in zip(slices, biases, strict=True) for each in pair]
        elif isinstance(module, th.nn.Linear):
            found += [module.weight.grad, module.bias.grad]
        elif isinstance(module, BatchRenorm1d):
            norms += [module.scale.grad, module.bias.grad, module.ra_mean, module.ra_var]
    if hasattr(network, "log_std"):  # the host's actor ends in two layers, ours in one that stacks them
        found[-4:] = [th.cat(found[-4::2]), th.cat(found[-3::2])]
    return found + norms


def crossq_gradients(algorithm, steps, **kwargs):
    model = train(algorithm, steps, learning_rate=0.0, policy_delay=1, **kwargs)
    return gradients(model.actor) + gradients(model.critic)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("soft_n_step", [True, False])
@pytest.mark.parametrize(("backend", "tolerance", "ent_coef"), [("masked", 1e-6, "auto"), ("csr", 1e-5, 0.0)])
def test_crossqs_gradients_are_the_hosts(backend, tolerance, ent_coef, soft_n_step, steps):
    """
    Gradients and BatchRenorm's statistics, at a learning rate of 0: Adam's first steps have the size of the learning rate
    however small the gradient is, and where it is 0 but for rounding they go either way, so weights part after one step.

    Behind BatchRenorm a new actor's means and deviations are large, and many actions close to -1 and 1. The gradient of their
    entropy divides by how close, so it keeps few digits; csr, which rounds in other places, is compared without it.
    """
    policy_kwargs = {"net_arch": {"pi": [64, 32], "qf": [128, 64]}}
    expected = crossq_gradients(CrossQ, steps, ent_coef=ent_coef, policy_kwargs=policy_kwargs)
    own = {"backend": backend, "soft_n_step": soft_n_step, "policy_kwargs": policy_kwargs}
    actual = crossq_gradients(RLx2CrossQ, steps, ent_coef=ent_coef, **OFF, **own)
    assert len(actual) == len(expected) == 3 * (3 * 2 + 3 * 4)
    for a, b in zip(actual, expected, strict=True):
        assert b.abs().max() > 1e-6
        np.testing.assert_allclose(a, b, atol=tolerance)


def test_td3_n_steps_3_equals_the_hosts():
    """The host's own n-step buffer against ours, from the first step on."""
    expected = parameters(train(TD3, 50, n_steps=3, policy_kwargs={"net_arch": [32]}))
    off = OFF | {"n_steps": 3, "n_steps_delay": 0.0}
    actual = train(RLx2TD3, 50, backend="masked", action_noise=None, policy_kwargs={"net_arch": [32]}, **off)
    for a, b in zip(parameters(actual), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("algorithm", VALUE_BASED)
def test_value_based_masked_is_bit_identical_after_200_steps(algorithm):
    policy_kwargs = {"net_arch": [64, 32]} | ({} if algorithm is RLx2DQN else {"n_quantiles": 11})
    expected = train_value_based(STOCK[algorithm], 200, policy_kwargs=policy_kwargs)
    actual = train_value_based(algorithm, 200, policy_kwargs=policy_kwargs, **VALUE_BASED_OFF)
    assert len(actual) == len(expected) == 2 * 6
    assert all(th.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("algorithm", VALUE_BASED)
def test_value_based_csr_after_20_steps(algorithm):
    expected = train_value_based(STOCK[algorithm], 20)
    for a, b in zip(train_value_based(algorithm, 20, **VALUE_BASED_OFF | {"backend": "csr"}), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("algorithm", VALUE_BASED)
def test_images_are_bit_identical_with_the_wide_layer_in_the_network(algorithm):
    policy_kwargs = {} if algorithm is RLx2DQN else {"n_quantiles": 5}
    expected = train_value_based(STOCK[algorithm], 20, "CnnPolicy", PixelEnv(), policy_kwargs=policy_kwargs)
    off = VALUE_BASED_OFF | {"policy_kwargs": policy_kwargs}
    actual = train_value_based(algorithm, 20, "CnnPolicy", PixelEnv(), **off)
    assert len(actual) == len(expected) == 2 * (6 + 4)
    assert all(th.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_value_based_n_steps_3_equals_the_hosts():
    """The host's own n-step buffer against ours, from the first step on."""
    expected = train_value_based(DQN, 50, n_steps=3)
    actual = train_value_based(RLx2DQN, 50, **VALUE_BASED_OFF | {"n_steps": 3, "n_steps_delay": 0.0})
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
