"""What is sampled from the replay buffer: as SB3 reads it, and as the kernels do."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Windows:
    """
    A sampled batch with n-step returns.

    :param rows: first row of each window, ``[batch]``
    :param environments: its environment, ``[batch]``
    :param obs: observation, ``[batch, ...]``
    :param actions: action in ``[-1, 1]``, ``[batch, A]``
    :param next_obs: next observation of the last step, ``[batch, ...]``
    :param returns: discounted sum of the rewards, ``[batch, 1]``
    :param terminated: 1 where the last step terminates, else 0, ``[batch, 1]``
    :param discounts: discount of the bootstrap, ``[batch, 1]``
    :param lengths: number of steps, ``[batch]``
    """

    rows: np.ndarray
    environments: np.ndarray
    obs: np.ndarray
    actions: np.ndarray
    next_obs: np.ndarray
    returns: np.ndarray
    terminated: np.ndarray
    discounts: np.ndarray
    lengths: np.ndarray


class Batch:
    """
    Memory for a batch as the kernels read it, with the networks' inputs in tiles of samples (see ``kernels/mlp.py``).

    :param inputs: observation and action, ``[tiles, D + A, lanes]``
    :param next_inputs: next observation of the last step, and room for an action, likewise
    :param size: number of samples; other attributes are as in :class:`Windows`, with no second axis
    """

    def __init__(self, inputs: np.ndarray, next_inputs: np.ndarray, size: int) -> None:
        self.inputs, self.next_inputs = inputs, next_inputs
        self.rows = self.environments = np.zeros(size, np.int64)
        self.returns, self.terminated, self.discounts = np.zeros((3, size), np.float32)
        self.lengths = np.zeros(size, np.int64)
