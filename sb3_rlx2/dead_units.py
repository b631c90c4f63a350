"""
Hidden units that cannot matter: those without a path to an output, and those that no input reaches. The latter give the same
whatever the network reads, which goes into the biases behind them.

No torch here: :mod:`sb3_rlx2.export.description` and :mod:`sb3_rlx2.algorithms.smaller` bring arrays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HiddenUnits:
    """
    What the paths of a network are, for the units of each hidden layer.

    :param reaching: whether they have a path to an output, bool, ``[units]`` each
    :param reached: whether they have a path from an input, bool, ``[units]`` each
    """

    reaching: list[np.ndarray]
    reached: list[np.ndarray]

    @property
    def alive(self) -> list[np.ndarray]:
        """Whether they lie on a path from an input to an output, bool, ``[units]`` each."""
        return [behind & before for behind, before in zip(self.reaching, self.reached, strict=True)]

    @property
    def constant(self) -> list[np.ndarray]:
        """Whether they have a path to an output alone, bool, ``[units]`` each."""
        return [behind & ~before for behind, before in zip(self.reaching, self.reached, strict=True)]


def hidden_units(links: Sequence[np.ndarray]) -> HiddenUnits:
    """
    Follow the links of a network.

    :param links: where each layer has some, from input to output, bool, ``[outputs, inputs]`` each
    """
    reaching: list[np.ndarray] = [np.ones(len(links[-1]), bool)]
    for layer in reversed(links[1:]):
        reaching.insert(0, layer[reaching[0]].any(axis=0))
    reached: list[np.ndarray] = [np.ones(links[0].shape[1], bool)]
    for layer in links[:-1]:
        reached += [np.asarray(layer[:, reached[-1]].any(axis=1))]
    return HiddenUnits(reaching[:-1], reached[1:])


def folded(
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    units: HiddenUnits,
    outputs: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
) -> list[np.ndarray]:
    """
    Add to the biases of each layer what the constant units before it give.

    :param weights: of each layer, ``[outputs, inputs]``
    :param biases: of each layer, ``[outputs]``
    :param units: see :func:`hidden_units`
    :param outputs: gives, for the number of a layer, its biases and a mask of its units, what these hand on when they read
        nothing, ``[units of the mask]``
    :return: biases with which constant units may go
    """
    biases = list(biases)
    for number, constant in enumerate(units.constant):
        given = outputs(number, biases[number], constant)
        biases[number + 1] = biases[number + 1] + weights[number + 1][:, constant] @ given
    return biases
