"""Makes a cell's agent."""

import inspect
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.returns.cells import METHODS, Cell
from benchmarks.returns.teacher import TaughtReplayBuffer
from sb3_rlx2 import RLx2SAC, RLx2TD3
from sb3_rlx2.distributions import erdos_renyi

CLASSES = {("td3", True): TD3, ("sac", True): SAC, ("td3", False): RLx2TD3, ("sac", False): RLx2SAC}
WIDTH = 256  # of both hidden layers of the dense agent, in the paper
NOISE = 0.1
NOT_OF_THE_METHOD = ("stats_window_size", "tensorboard_log", "verbose", "seed", "device", "_init_setup_model")
# Where SB3's TD3 has other defaults than the paper, which RLx2TD3 follows.
STOCK = {"learning_rate": 3e-4, "batch_size": 256, "policy_kwargs": {"net_arch": [WIDTH, WIDTH]}}


def agent_class(cell: Cell) -> type[OffPolicyAlgorithm]:
    """Give the class that trains a cell: stock SB3 for ``dense``, ours for all others."""
    return CLASSES[cell.algorithm, METHODS[cell.method].network == "dense"]


def arguments(cell: Cell, env: gym.Env) -> dict[str, Any]:
    """
    Give the arguments of the cell's class.

    :param cell: what to train
    :param env: its environment, whose dimensions decide the widths of a tiny network
    """
    own, network = cell.arguments, METHODS[cell.method].network
    if network == "dense":
        # SB3 writes into the policy_kwargs that it is given.
        own = deepcopy(STOCK) | {name: own[name] for name in ("learning_starts", "buffer_size") if name in own}
        return own | ({"action_noise": NOISE} if cell.algorithm == "td3" else {})
    if network == "tiny":
        shapes = dense_shapes(cell, env)
        net_arch = {
            key: [tiny_width(shapes[name], own[f"{name}_sparsity"])] * 2 for key, name in (("pi", "actor"), ("qf", "critic"))
        }
        own |= {"actor_sparsity": 0.0, "critic_sparsity": 0.0, "policy_kwargs": {"net_arch": net_arch}}
    return own


def all_arguments(cell: Cell, env: gym.Env) -> dict[str, Any]:
    """
    Give the arguments of the cell's class with its defaults, as JSON can hold them.

    :param cell: what to train
    :param env: see :func:`arguments`
    """
    defaults: dict[str, Any] = {}
    for one in reversed(agent_class(cell).__mro__):
        if issubclass(one, (TD3, SAC)):  # what is above them takes what they give it
            parameters = inspect.signature(one).parameters.values()
            defaults |= {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in NOT_OF_THE_METHOD}
    return {name: "inf" if value == math.inf else value for name, value in (defaults | arguments(cell, env)).items()}


def make(cell: Cell, env: VecEnv, teacher: str | None = None) -> OffPolicyAlgorithm:
    """
    Make a cell's agent, untrained.

    :param cell: what to train
    :param env: its environment
    :param teacher: file of the agent that gives the bootstrap values, for methods that are taught
    """
    own = arguments(cell, env.envs[0])
    if METHODS[cell.method].network == "dense" and "action_noise" in own:
        shape = env.action_space.shape
        own["action_noise"] = NormalActionNoise(np.zeros(shape), own["action_noise"] * np.ones(shape))
    if teacher is not None:
        own |= {"replay_buffer_class": TaughtReplayBuffer, "replay_buffer_kwargs": {"teacher": teacher}}
    return agent_class(cell)("MlpPolicy", env, seed=cell.seed, device="cpu", **own)


def dense_reference(cell: Cell, env: VecEnv) -> OffPolicyAlgorithm:
    """Make the dense agent of a cell's environment, with all that training keeps of it in memory."""
    model = make(replace(cell, method="dense"), env)
    for network in (model.policy.actor, model.policy.critic):
        for parameter in network.parameters():
            parameter.grad = th.zeros_like(parameter)
        network.optimizer.step()  # moves nothing; Adam makes its moments now
        network.optimizer.zero_grad()
    return model


def dense_shapes(cell: Cell, env: gym.Env) -> dict[str, list[tuple[int, int]]]:
    """Give the layers ``(out, in)`` of the dense actor and of one dense critic."""
    observations, actions = env.observation_space.shape[0], env.action_space.shape[0]
    outputs = actions if cell.algorithm == "td3" else 2 * actions
    return {
        "actor": [(WIDTH, observations), (WIDTH, WIDTH), (outputs, WIDTH)],
        "critic": [(WIDTH, observations + actions), (WIDTH, WIDTH), (1, WIDTH)],
    }


def tiny_width(shapes: Sequence[tuple[int, int]], sparsity: float) -> int:
    """
    Solve for the width at which two dense hidden layers hold as many weights as the sparse network does.

    :param shapes: layers ``(out, in)`` of the dense network that the sparse one is a part of
    :param sparsity: its sparsity
    """
    weights = sum(erdos_renyi(shapes, sparsity))
    ends = shapes[0][1] + shapes[-1][0]
    width = (math.sqrt(ends**2 + 4 * weights) - ends) / 2  # width^2 + ends * width = weights
    return max(min((math.floor(width), math.ceil(width)), key=lambda w: abs(w * w + ends * w - weights)), 1)
