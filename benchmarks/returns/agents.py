"""Makes a cell's agent."""

import importlib
import inspect
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from sb3_contrib import QRDQN, TQC, CrossQ
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.returns.cells import INTERVALS, METHODS, MILLION, PAPER, Cell
from benchmarks.returns.interplay import AGENT, RUNS, UNITS, equal_parameters, links_of_a_unit
from benchmarks.returns.teacher import TaughtReplayBuffer
from sb3_rlx2 import ConvExtractor, RLx2DQN, metrics
from sb3_rlx2.algorithms.extractors import channels_first
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.distributions import erdos_renyi

HOSTS = {cls.__name__.lower(): cls for cls in (TD3, DDPG, SAC, TQC, CrossQ, DQN, QRDQN)}
WIDTH = 256  # of both hidden layers of the dense agent, in the paper
NOISE = 0.1
NOT_OF_THE_METHOD = ("stats_window_size", "tensorboard_log", "verbose", "seed", "device", "_init_setup_model")
ANEW = 1_000  # added to the seed of an agent whose weights are to be others than those that its links had
# Where SB3's TD3 has other defaults than the paper, which RLx2TD3 follows.
STOCK = {"learning_rate": 3e-4, "batch_size": 256, "policy_kwargs": {"net_arch": [WIDTH, WIDTH]}}


def agent_class(cell: Cell) -> type[OffPolicyAlgorithm]:
    """Give the class that trains a cell: the host's for ``dense``, ours for all others."""
    is_host = METHODS[cell.method].network == "dense" and cell.method not in RUNS
    return HOSTS[cell.algorithm] if is_host else ALGORITHMS[f"rlx2{cell.algorithm}"]


def arguments(cell: Cell, env: gym.Env) -> dict[str, Any]:
    """
    Give the arguments of the cell's class.

    :param cell: what to train
    :param env: its environment, whose dimensions decide the widths of a tiny network
    """
    own, network = cell.arguments, METHODS[cell.method].network
    if cell.method in RUNS:
        return _of_a_structure(own, network, env)
    if cell.algorithm not in PAPER:
        return _of_the_host(cell, own) if network == "dense" else own
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
    return INTERVALS | own


def _of_the_host(cell: Cell, own: dict[str, Any]) -> dict[str, Any]:
    """Give those arguments that the host has too, with room for no more than the cell's steps: SB3 takes it all at once."""
    known = inspect.signature(HOSTS[cell.algorithm]).parameters
    return {name: value for name, value in own.items() if name in known} | {
        "buffer_size": min(own.get("buffer_size", MILLION), cell.steps)
    }


def shape_of(env: gym.Env) -> tuple[int, ...]:
    """Give the shape of observations, of images with the channels last."""
    space = env.observation_space
    shape: tuple[int, ...] = space.shape
    return (*shape[1:], shape[0]) if len(shape) == 3 and channels_first(space) else shape


CONVOLUTIONS = [16, 3, 1], 128  # of the games' own network: filters, kernel and stride; the units behind


def _of_a_structure(own: dict[str, Any], network: str, env: gym.Env) -> dict[str, Any]:
    """Resolve what the Interplay suite says of a network and its optimizer, as far as JSON can hold it."""
    shape, outputs = shape_of(env), int(env.action_space.n)
    inputs, links = math.prod(shape), links_of_a_unit(shape)
    optimizer, bias = own.pop("optimizer"), own.pop("bias")
    widths = {"dense-p": equal_parameters(shape, outputs), "conv": CONVOLUTIONS[1]}
    kwargs: dict[str, Any] = {"net_arch": [widths.get(network, UNITS)], "optimizer_class": optimizer["class"]}
    kwargs["optimizer_kwargs"] = {name: value for name, value in optimizer.items() if name != "class"}
    if network == "conv":
        kwargs |= {
            "features_extractor_class": ConvExtractor.__name__,
            "features_extractor_kwargs": {"layers": CONVOLUTIONS[:1]},
        }
    # torch's initialisation, and the scaling to it, draw weights with a variance of a third over the number of links.
    deviation = 1 / math.sqrt(3 * (links if network == "sparse" else inputs))
    if network == "sparse":
        own["sparsity"] = round(1 - links / inputs, 6)
    return own | {"policy_kwargs": kwargs, "hidden_bias": bias * deviation}


def defaults(cell: Cell) -> dict[str, Any]:
    """
    Give the defaults of the cell's class, as JSON can hold them.

    :param cell: what to train
    """
    found: dict[str, Any] = {}
    for one in reversed(agent_class(cell).__mro__):
        if issubclass(one, tuple(HOSTS.values())):  # what is above them takes what they give it
            parameters = inspect.signature(one).parameters.values()
            found |= {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in NOT_OF_THE_METHOD}
    return _plain(found)


def all_arguments(cell: Cell, env: gym.Env) -> dict[str, Any]:
    """
    Give the arguments of the cell's class with its defaults, as JSON can hold them.

    :param cell: what to train
    :param env: see :func:`arguments`
    """
    return _plain(defaults(cell) | arguments(cell, env))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: "inf" if value == math.inf else value for name, value in values.items()}


def make(cell: Cell, env: VecEnv, agent: str | None = None) -> OffPolicyAlgorithm:
    """
    Make a cell's agent, untrained.

    :param cell: what to train
    :param env: its environment
    :param agent: file of the agent that comes first, for methods with one: it gives the bootstrap values, or the links
        (without it they are any)
    """
    own = arguments(cell, env.envs[0])
    if cell.method in RUNS:
        kwargs = own["policy_kwargs"]
        kwargs["optimizer_class"] = getattr(th.optim, kwargs["optimizer_class"])
        if "features_extractor_class" in kwargs:
            kwargs["features_extractor_class"] = ConvExtractor
        if own.get("init") == AGENT:
            own["init"] = agent
        return RLx2DQN("MlpPolicy", env, seed=cell.seed, device="cpu", **own)
    if isinstance(own.get("policy_kwargs"), str):
        own["policy_kwargs"] = eval(own["policy_kwargs"], {"importlib": importlib, "th": th})  # as the zoo does
    if METHODS[cell.method].network == "dense" and "action_noise" in own:
        shape = env.action_space.shape
        own["action_noise"] = NormalActionNoise(np.zeros(shape), own["action_noise"] * np.ones(shape))
    method = METHODS[cell.method]
    if method.taught and agent is not None:
        own |= {"replay_buffer_class": TaughtReplayBuffer, "replay_buffer_kwargs": {"teacher": agent}}
    if own.get("init") == AGENT:
        own["init"] = agent or "magnitude"
    seed = cell.seed + ANEW * method.anew
    return agent_class(cell)("MlpPolicy", env, seed=seed, device="cpu", **own)


def dense_reference(cell: Cell, env: VecEnv) -> OffPolicyAlgorithm:
    """Make the dense agent of a cell's environment, with all that training keeps of it in memory."""
    model = make(replace(cell, method="dense"), env)
    for network in metrics.trained_networks(model.policy).values():
        for parameter in network.parameters():
            parameter.grad = th.zeros_like(parameter)
        optimizer = getattr(network, "optimizer", None) or model.policy.optimizer
        optimizer.step()  # moves nothing; Adam makes its moments now
        optimizer.zero_grad()
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
