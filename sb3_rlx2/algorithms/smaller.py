"""Takes what cannot matter out of an agent's sparse networks: they compute the same, in narrower layers with fewer links."""

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_rlx2.algorithms.policies import SparsePolicy
from sb3_rlx2.backends.network import LayerSpec
from sb3_rlx2.dead_units import HiddenUnits, folded, hidden_units
from sb3_rlx2.sparse_mlp import SparseMLP, sparse_mlps


class Cut:
    """
    What stays of a sparse network, and of the target network that shares its topology.

    :param mlp: the network
    """

    def __init__(self, mlp: SparseMLP) -> None:
        self.links = [_links(mlp, number) for number in range(len(mlp.layers))]
        units = hidden_units(self.links)
        if not all(alive.any() for alive in units.alive):  # no input makes a difference: it stays as it is
            units = HiddenUnits(*([np.ones_like(alive) for alive in units.alive] for _ in range(2)))
        self.units, inputs, outputs = units, mlp.layers[0].in_features, mlp.layers[-1].out_features
        self.ends = [np.ones(inputs, bool), *units.alive, np.ones(outputs, bool)]  # that the links which stay have
        self.keep = self.ends

    @property
    def widths(self) -> list[int]:
        """Number of units of each hidden layer that lie on a path."""
        return [int(alive.sum()) for alive in self.units.alive]

    def widen(self, widths: Sequence[int]) -> None:
        """
        Keep some units without links, because networks of one kind are of one shape.

        :param widths: number of units of each hidden layer
        """
        hidden = [alive.copy() for alive in self.units.alive]
        for alive, width in zip(hidden, widths, strict=True):
            alive[np.flatnonzero(~alive)[: width - alive.sum()]] = True
        self.keep = [self.ends[0], *hidden, self.ends[-1]]

    @property
    def _stay(self) -> list[np.ndarray]:
        """Where each layer has links that stay, bool, ``[out, in]`` each."""
        return [
            links & behind[:, None] & before for links, (before, behind) in zip(self.links, pairwise(self.ends), strict=True)
        ]

    def layers(self) -> list[LayerSpec]:
        """Give the sizes of what stays."""
        return [
            LayerSpec(int(before.sum()), int(behind.sum()), int(stay.sum()))
            for stay, (before, behind) in zip(self._stay, pairwise(self.keep), strict=True)
        ]

    def index(self) -> th.Tensor:
        """Give the positions of the links that stay, in the new layers, ``[new nnz]``."""
        small = [stay[behind][:, before] for stay, (before, behind) in zip(self._stay, pairwise(self.keep), strict=True)]
        return th.from_numpy(np.flatnonzero(np.concatenate([each.ravel() for each in small])))

    def masks(self, mlp: SparseMLP) -> dict[th.Tensor, th.Tensor]:
        """
        Say what stays of each parameter and buffer, bool, of their first dimension.

        :param mlp: the network, or its target
        """
        links = np.concatenate([stay[links] for stay, links in zip(self._stay, self.links, strict=True)])
        masks: dict[th.Tensor, np.ndarray] = {mlp.values: links, mlp.bias: np.concatenate(self.keep[1:])}
        for norm, keep in zip(mlp.norms or (), self.keep, strict=False):
            masks |= {each: keep for each in (*norm.parameters(), *norm.buffers()) if each.shape == keep.shape}
        return {tensor: th.from_numpy(mask).to(tensor.device) for tensor, mask in masks.items()}

    @th.no_grad()
    def parameters(self, mlp: SparseMLP) -> tuple[th.Tensor, th.Tensor]:
        """
        Give the smaller network's live weights, ``[new nnz]``, and biases.

        :param mlp: the network, or its target
        """
        masks = self.masks(mlp)
        biases = folded(
            [weight.double().cpu().numpy() for weight in mlp.dense_weights()],
            [bias.double().cpu().numpy() for bias in th.split(mlp.bias, [layer.out_features for layer in mlp.layers])],
            self.units,
            lambda number, bias, mask: _handed_on(mlp, number, bias)[mask],
        )
        bias = th.from_numpy(np.concatenate(biases)).to(mlp.bias)
        return mlp.values[masks[mlp.values]], bias[masks[mlp.bias]]

    def make(self, mlp: SparseMLP, values: th.Tensor, bias: th.Tensor) -> None:
        """
        Make a network smaller, in place.

        :param mlp: the network, or its target
        :param values: its live weights
        :param bias: its biases
        """
        for tensor, mask in self.masks(mlp).items():
            if tensor is not mlp.values and tensor is not mlp.bias:
                tensor.data = tensor.detach()[mask]
        for norm, keep in zip(mlp.norms or (), self.keep, strict=False):
            norm.num_features = int(keep.sum())  # type: ignore[assignment]  # of sb3-contrib's, a number
        mlp.set_layers(self.layers(), self.index(), values, bias)


def _links(mlp: SparseMLP, number: int) -> np.ndarray:
    layer = mlp.layers[number]
    links = np.zeros(layer.size, bool)
    links[mlp.layer_index(number).cpu().numpy()] = True
    return links.reshape(layer.shape)


def _handed_on(mlp: SparseMLP, number: int, bias: np.ndarray) -> np.ndarray:
    """Give what the units of a layer hand on to the next one, if they read nothing, ``[units]``."""
    x = mlp.hidden_activation(th.from_numpy(bias).to(mlp.bias)[None])
    if mlp.norms is not None:
        norm = mlp.norms[number + 1]
        mode = norm.training
        x = norm.eval()(x)
        norm.train(mode)
    return np.asarray(x[0].double().cpu())


def remove_dead_units(policy: SparsePolicy) -> dict[str, Any]:
    """
    Remove the units on no path from all sparse networks of a policy, in place.

    :param policy: the policy
    :return: its arguments that are other ones now
    :raises ValueError: if a network is still to lose links
    """
    heads = {name: _heads(policy, name) for name in policy.networks}
    for name, mlp in ((name, mlp) for name, mlps in heads.items() for mlp in mlps.values()):
        if mlp.nnz > sum(mlp.final_nnz):
            raise ValueError(
                f"the {name} has {mlp.nnz} links, of which {sum(mlp.final_nnz)} are to be left at prune_end: units can be "
                "removed after that"
            )
    widths = {name: _make_smaller(policy, name, list(mlps.values())) for name, mlps in heads.items()}
    links = {head: [layer.nnz for layer in mlp.layers] for mlps in heads.values() for head, mlp in mlps.items()}
    return policy.take_shape(widths, links)


def _heads(policy: SparsePolicy, name: str) -> dict[str, SparseMLP]:
    network: Any = policy._modules[name]
    return {head: mlp for head, mlp in network.named_modules(prefix=name) if isinstance(mlp, SparseMLP)}


def _make_smaller(policy: SparsePolicy, name: str, mlps: Sequence[SparseMLP]) -> list[int]:
    """Make the networks of one kind smaller, all of one shape; give the widths of their hidden layers."""
    cuts = [Cut(mlp) for mlp in mlps]
    widths = [max(each) for each in zip(*(cut.widths for cut in cuts), strict=True)]
    for mlp, cut in zip(mlps, cuts, strict=True):
        cut.widen(widths)
        _cut_moments(policy.optimizer_of(name), cut.masks(mlp))
    holders = [*zip((*mlps, *sparse_mlps(policy.target_of(name))), cycle(cuts), strict=False)]
    parameters = [cut.parameters(mlp) for mlp, cut in holders]  # of all first: a network shares its links with its target
    for (mlp, cut), own in zip(holders, parameters, strict=True):
        cut.make(mlp, *own)
    return widths


def _cut_moments(optimizer: th.optim.Optimizer, masks: Mapping[th.Tensor, th.Tensor]) -> None:
    for parameter, mask in masks.items():
        if isinstance(parameter, nn.Parameter) and parameter in optimizer.state:
            state = optimizer.state[parameter]
            state |= {
                name: each[mask] for name, each in state.items() if isinstance(each, th.Tensor) and each.shape == mask.shape
            }
