"""Networks as the kernels read them."""

from typing import NamedTuple

from sb3_rlx2.kernels.annotations import Index, Integers, Tiles, Vector

IDENTITY, RELU, TANH = 0, 1, 2


class Network(NamedTuple):
    """
    A network as the kernels read it: all layers' rows one after the other, and the same links by column.

    :param widths: number of inputs, then of outputs of each layer, ``[layers + 1]``
    :param row_pointers: where each row's links begin, ``[sum of out_features + 1]``
    :param columns: column of each link within its layer, ``[nnz]``
    :param values: the live weights; shares the parameter's memory, ``[nnz]``
    :param bias: the biases; shares the parameter's memory, ``[sum of out_features]``
    :param column_pointers: where each column's links begin in ``rows`` and ``order``, ``[sum of in_features + 1]``
    :param rows: row of each link within its layer, column by column, ``[nnz]``
    :param order: position of each such link in ``values``, ``[nnz]``
    :param output_activation: ``IDENTITY``, ``RELU`` or ``TANH``; hidden layers have ReLU
    :param frozen_layers: number of layers, from the first on, whose values and biases get a gradient of 0
    """

    widths: Integers
    row_pointers: Index
    columns: Index
    values: Vector
    bias: Vector
    column_pointers: Index
    rows: Index
    order: Index
    output_activation: int
    frozen_layers: int


class Learner(NamedTuple):
    """
    A network with memory to learn in.

    :param network: the network
    :param activations: for the outputs of all layers, ``[tiles or 1, sum of outs, lanes]``; one tile stays in cache
    :param gradients: for the gradients by them before the activation function, likewise
    :param by_column: for the weights column by column, ``[nnz]``
    :param grad_values: for the gradient by the values, ``[nnz]``
    :param grad_bias: for the gradient by the biases, ``[sum of outs]``
    """

    network: Network
    activations: Tiles
    gradients: Tiles
    by_column: Vector
    grad_values: Vector
    grad_bias: Vector
