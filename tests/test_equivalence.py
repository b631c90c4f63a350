"""At sparsity 0 and with RLx2 switched off, the guest computes what its host computes."""

import math

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise

from sb3_rlx2 import RLx2SAC, RLx2TD3, SparseMLP

# Rounding differences grow wherever Adam divides a gradient of almost zero by itself; how fast depends on the seed.
COMMON = {"seed": 0, "learning_starts": 100, "batch_size": 256, "buffer_size": 1000, "learning_rate": 3e-4}
OFF = {"actor_sparsity": 0, "critic_sparsity": 0, "n_steps": 1, "policy_distance_threshold": math.inf}


def parameters(model):
    """Give all weights and biases, layer by layer, whatever holds them."""
    nets = [model.policy.actor, model.policy.critic, model.policy.critic_target]
    tensors = []
    for module in [module for net in nets for module in net.modules()]:
        if isinstance(module, SparseMLP):
            widths = [layer.out_features for layer in module.layers]
            for weight, bias in zip(module.dense_weights(), module.bias.split(widths), strict=True):
                tensors += [weight.detach(), bias.detach()]
        elif isinstance(module, th.nn.Linear):
            tensors += [module.weight.detach(), module.bias.detach()]
    return tensors


def train(algorithm, steps, **kwargs):
    # One after the other: construction seeds the global generators, and training draws from them.
    model = algorithm("MlpPolicy", "Pendulum-v1", **COMMON, **kwargs)
    return model.learn(COMMON["learning_starts"] + steps)


def stock_td3(steps):
    noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))
    return train(TD3, steps, action_noise=noise, policy_kwargs={"net_arch": [256, 256]})


def test_td3_masked_is_bit_identical_after_200_steps():
    expected = parameters(stock_td3(200))
    actual = parameters(train(RLx2TD3, 200, backend="masked", **OFF))
    assert len(actual) == len(expected) == 3 * 6 + 2 * 6
    assert all(th.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_td3_csr_after_20_steps():
    for a, b in zip(parameters(train(RLx2TD3, 20, backend="csr", **OFF)), parameters(stock_td3(20)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("backend", ["masked", "csr"])
@pytest.mark.parametrize("soft_n_step", [True, False])
def test_sac_after_20_steps(backend, soft_n_step):
    sac = parameters(train(SAC, 20))
    rlx2 = parameters(train(RLx2SAC, 20, backend=backend, soft_n_step=soft_n_step, **OFF))
    # SB3's actor ends in two layers, mean and log_std; ours in one that stacks them.
    mean, mean_bias, log_std, log_std_bias = sac[4:8]
    sac[4:8] = [th.cat([mean, log_std]), th.cat([mean_bias, log_std_bias])]
    for a, b in zip(rlx2, sac, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_td3_n_steps_3_equals_the_hosts():
    """The host's own n-step buffer against ours, from the first step on."""
    expected = parameters(train(TD3, 50, n_steps=3, policy_kwargs={"net_arch": [32]}))
    off = OFF | {"n_steps": 3, "n_steps_delay": 0.0}
    actual = train(RLx2TD3, 50, backend="masked", action_noise=None, policy_kwargs={"net_arch": [32]}, **off)
    for a, b in zip(parameters(actual), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
