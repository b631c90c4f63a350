"""
Pruning between two trainings: of an earlier agent's links those with the largest weights stay, layer by layer, and a ticket
keeps them. ``init`` then gives them to an agent that begins anew, see DENSE_FIRST.md.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from benchmarks.returns import agents
from benchmarks.returns.cells import Cell
from sb3_rlx2 import metrics
from sb3_rlx2.files import replacing


def write(cell: Cell, env: VecEnv, earlier: OffPolicyAlgorithm, path: Path) -> None:
    """
    Save an untrained agent with as many links as a cell has in each layer, those with the largest weights of an earlier agent.

    :param cell: whose links are chosen
    :param env: its environment
    :param earlier: a trained agent with more links, or a dense one
    :param path: the zip
    """
    model = agents.make(cell, env)
    mlps = chain.from_iterable(metrics.sparse_mlps(network) for network in metrics.trained_networks(model.policy).values())
    for mlp, weights in zip(mlps, dense_weights(earlier), strict=True):
        layers = zip(weights, mlp.layers, mlp.offsets, strict=False)  # the last offset is the end
        mlp.set_index(th.cat([largest(weight, layer.nnz) + offset for weight, layer, offset in layers]))
    with replacing(path) as unfinished:
        model.save(unfinished)


def largest(weight: th.Tensor, count: int) -> th.Tensor:
    """
    Choose the largest weights of a layer.

    :param weight: of the layer, 0 where it has no link, ``[out, in]``
    :param count: how many
    :return: their flat positions, sorted, ``[count]``
    """
    if int(weight.count_nonzero()) < count:
        raise ValueError(f"count={count} must be at most {int(weight.count_nonzero())}, the links that there are")
    return weight.abs().flatten().argsort(descending=True, stable=True)[:count].sort().values


def dense_weights(model: Any) -> Iterator[list[th.Tensor]]:
    """
    Give the weights of each network of an agent of TD3, ``[out, in]`` each, in the order of ``metrics.sparse_mlps``.

    :param model: the agent, sparse or SB3's own
    """
    for network in metrics.trained_networks(model.policy).values():
        sparse = metrics.sparse_mlps(network)
        if sparse:
            yield from ([weight.detach() for weight in mlp.dense_weights()] for mlp in sparse)
        else:
            for net in getattr(network, "q_networks", None) or [network.mu]:
                yield [layer.weight.detach() for layer in net if isinstance(layer, nn.Linear)]
