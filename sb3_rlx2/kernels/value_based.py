"""What gradient steps of networks that value all discrete actions begin with: the part before the loss."""

from typing import NamedTuple

from sb3_rlx2.kernels.annotations import Numbers, Tiles, Vector
from sb3_rlx2.kernels.losses import greedy_bellman, take_actions
from sb3_rlx2.kernels.mlp import FIRST, half_forward, mlp_forward
from sb3_rlx2.kernels.network import Learner, Network
from sb3_rlx2.kernels.options import kernel

FIT = 0  # the one job


class ValueArrays(NamedTuple):
    """
    What one thread works on. Arrays of all tiles are shared by threads, which have scratch memory and gradients of their own.
    For each sample and action the network gives one value, or N quantiles of it.

    :param online: the network, with memory for the activations of all tiles
    :param behind: its target network
    :param behind_scratch: scratch memory for the layers of that, ``[1, sum of outs, lanes]``
    :param inputs: observations, and in the last row the number of the action, ``[tiles, D + 1, lanes]``
    :param next_inputs: next observations, likewise
    :param returns: returns, ``[batch]``
    :param terminated: 1 where the last step terminates, else 0, ``[batch]``
    :param discounts: discounts of the bootstrap, ``[batch]``
    :param outputs: memory for the output, and for the gradient by it, ``[tiles, N * A, lanes]``
    :param taken: memory for the values or quantiles of the taken actions, and for the gradient by them, ``[tiles, N, lanes]``
    :param target: memory for the target, likewise
    :param sums: receives the sum of the losses over the samples of the tiles; and the sum of all gradients, which is finite if
        they are, ``[3]``
    """

    online: Learner
    behind: Network
    behind_scratch: Tiles
    inputs: Tiles
    next_inputs: Tiles
    returns: Vector
    terminated: Vector
    discounts: Vector
    outputs: Tiles
    taken: Tiles
    target: Tiles
    sums: Numbers


@kernel
def forward(network, x, activations, outputs, batch, first, last):
    """Run a network, on half a tile where that holds the batch."""
    if 2 * batch <= outputs.shape[2]:
        half_forward(network, x, activations, outputs)
    else:
        mlp_forward(network, x, activations, outputs, FIRST, first, last)


@kernel
def value_forward(arrays, first, last):
    """Compute what the taken actions' values or quantiles are, and what they should be."""
    online, inputs, outputs, returns = arrays.online, arrays.inputs, arrays.outputs, arrays.returns
    forward(arrays.behind, arrays.next_inputs, arrays.behind_scratch, outputs, returns.size, first, last)
    greedy_bellman(outputs, returns, arrays.terminated, arrays.discounts, arrays.target, first, last)
    forward(online.network, inputs, online.activations, outputs, returns.size, first, last)
    take_actions(outputs, inputs, arrays.taken, first, last)
