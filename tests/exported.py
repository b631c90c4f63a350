"""Agents to export, and what their exported policies are compared with."""

import copy
import functools
import warnings

import gymnasium as gym
import numpy as np
import torch as th
from sb3_contrib import QRDQN, TQC, CrossQ
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_rlx2 import RLx2CrossQ, RLx2SAC, RLx2TD3
from sb3_rlx2.export import describe
from sb3_rlx2.export.description import observations
from sb3_rlx2.export.evaluate import act_of_agent
from sb3_rlx2.export.rlx2_reader import Layer, Policy

F = np.float32
SPARSE = {"actor_sparsity": 0.9, "critic_sparsity": 0.9}
SMALL = {"net_arch": [64, 48]}
AGENTS = {
    "RLx2TD3": (RLx2TD3, SPARSE),
    "RLx2TD3 98 %": (RLx2TD3, SPARSE | {"actor_sparsity": 0.98, "policy_kwargs": {}}),
    "RLx2SAC": (RLx2SAC, SPARSE),
    "RLx2CrossQ": (RLx2CrossQ, SPARSE),
    "TD3": (TD3, {}),
    "DDPG": (DDPG, {}),
    "SAC": (SAC, {}),
    "TQC": (TQC, {}),
    "CrossQ": (CrossQ, {}),
    "PPO": (PPO, {"policy_kwargs": SMALL | {"activation_fn": th.nn.ELU}}),
    "PPO, discrete": (PPO, {"policy_kwargs": SMALL | {"activation_fn": th.nn.LeakyReLU}}),
    "DQN": (DQN, {}),
    "QRDQN": (QRDQN, {}),
}


def statistics(env, mean=(-2.0, 3.1), variance=(1e-12, 30.0)):
    """VecNormalize as after a training: means far from 0 and variances far from 1; the first observation hardly varies."""
    vecnormalize = VecNormalize(env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env]))
    inputs = vecnormalize.observation_space.shape[0]
    vecnormalize.obs_rms.mean = np.linspace(*mean, inputs) + 1 / 3
    vecnormalize.obs_rms.var = np.geomspace(*variance, inputs)
    return vecnormalize


@functools.cache
def agent(name):
    """Give an agent with normaliser, untrained but with biases, and with statistics where it has some."""
    algorithm, kwargs = AGENTS[name]
    env_id = "CartPole-v1" if algorithm in (DQN, QRDQN) or "discrete" in name else "Hopper-v5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kwargs = copy.deepcopy({"policy_kwargs": SMALL} | kwargs)  # SB3 writes into it
        model = algorithm("MlpPolicy", gym.make(env_id), seed=1, device="cpu", **kwargs)
    generator = th.Generator().manual_seed(2)
    with th.no_grad():
        for parameter in model.policy.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * th.randn(parameter.shape, generator=generator)
        for buffer in model.policy.buffers():
            if buffer.ndim == 1 and buffer.is_floating_point():
                buffer += th.rand(buffer.shape, generator=generator)
    return model, statistics(gym.make(env_id))


@functools.cache
def described(name):
    return describe(*agent(name))


@functools.cache
def exported(name, dtype="fp32"):
    return described(name).policy(dtype)


def expected(name, seen):
    return act_of_agent(*agent(name))(seen)


def some(name, count=2000, seed=3):
    return observations(described(name), count, np.random.default_rng(seed))


def by_hand(**changes):
    """A policy of two inputs, two units and an action that can be worked out by hand."""
    first = Layer(2, np.array([2.0, -1.0], F), np.array([1.0, 0.5], F), "relu", np.array([1, 1], "u1"), np.array([1, 0], "u1"))
    last = Layer(2, np.array([0.5, 0.25], F), np.array([-0.5], F), "identity")
    policy = {"layers": (first, last), "output": "clip", "low": np.array([-1.0], F), "high": np.array([2.0], F)}
    tests = {"test_observations": np.array([[3.0, 0.5]], F), "test_actions": np.array([[0.5]], F)}
    return Policy(**(policy | tests | changes))
