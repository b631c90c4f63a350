"""
Which links lie on a path. A link is *alive* if its source is reached from an input and its target reaches an output, over the
network's links; the others are *dead*: what they compute is read by nobody, or is the same for every input.
"""

from dataclasses import dataclass

import torch as th

from sb3_rlx2.backends.network import SparseNetwork


@dataclass(frozen=True)
class Paths:
    """
    What the paths of one network are.

    :param reached: for the inputs and the units of each layer, whether an input reaches them, bool, ``[units]`` each
    :param alive: for each layer, whether its links are alive, bool, ``[nnz of the layer]`` each
    :param units: number of inputs, of units of each hidden layer and of outputs that lie on a path
    """

    reached: list[th.Tensor]
    alive: list[th.Tensor]
    units: list[int]

    @property
    def dead(self) -> list[int]:
        """Number of dead links of each layer."""
        return [int((~alive).sum()) for alive in self.alive]


def find_paths(mlp: SparseNetwork) -> Paths:
    """
    Follow the links from the inputs on and from the outputs back. Weights do not matter, nor do biases: a unit without a
    link that an input reaches is a constant.

    :param mlp: the network
    """
    links = [_ends(mlp, number) for number in range(len(mlp.layers))]
    reached = [links[0][0].new_ones(mlp.layers[0].in_features, dtype=th.bool)]
    for layer, (targets, sources) in zip(mlp.layers, links, strict=True):
        reached.append(_marked(layer.out_features, targets[reached[-1][sources]]))
    reaching = [links[0][0].new_ones(mlp.layers[-1].out_features, dtype=th.bool)]
    for layer, (targets, sources) in zip(mlp.layers[::-1], links[::-1], strict=True):
        reaching.insert(0, _marked(layer.in_features, sources[reaching[0][targets]]))
    alive = [
        before[sources] & behind[targets]
        for before, behind, (targets, sources) in zip(reached[:-1], reaching[1:], links, strict=True)
    ]
    units = [int((before & behind).sum()) for before, behind in zip(reached, reaching, strict=True)]
    return Paths(reached, alive, units)


def dead_links(mlp: SparseNetwork) -> list[int]:
    """
    Count the links on no path from an input to an output.

    :param mlp: the network
    :return: number of them in each layer
    """
    return find_paths(mlp).dead


def architecture(mlp: SparseNetwork) -> str:
    """
    Say how large a network really is.

    :param mlp: the network
    :return: units on a path, all units, and links on none, as ``"11-105-88-3 of 11-256-256-3 units, 302 of 1,383 links idle"``
    """
    paths = find_paths(mlp)
    built = [mlp.layers[0].in_features, *(layer.out_features for layer in mlp.layers)]
    units, all_units = ("-".join(map(str, counts)) for counts in (paths.units, built))
    return f"{units} of {all_units} units, {sum(paths.dead):,} of {sum(layer.nnz for layer in mlp.layers):,} links idle"


def _ends(mlp: SparseNetwork, layer: int) -> tuple[th.Tensor, th.Tensor]:
    """Give the units that a layer's links lead to (rows) and those that they come from (columns)."""
    index, width = mlp.layer_index(layer), mlp.layers[layer].in_features
    return index // width, index % width


def _marked(units: int, numbers: th.Tensor) -> th.Tensor:
    marks = numbers.new_zeros(units, dtype=th.bool)
    marks[numbers] = True
    return marks
