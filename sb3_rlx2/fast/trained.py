"""A network with the arrays that receive its gradients."""

import numpy as np
import torch as th

from sb3_rlx2.kernels.tiling import array
from sb3_rlx2.sparse_mlp import SparseMLP


class TrainedNetwork:
    """
    A network with the arrays that receive its gradients, one pair per thread.

    :param mlp: the network
    """

    def __init__(self, mlp: SparseMLP) -> None:
        self.mlp = mlp
        self.values, self.bias = mlp.values, mlp.bias
        self.gradients: list[tuple[th.Tensor, th.Tensor]] = []
        self.arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self.addresses: tuple[list[int], list[int]] = [], []

    def reserve(self, threads: int) -> None:
        """
        Make room for threads' gradients.

        :param threads: number of threads
        """
        for _ in range(len(self.gradients), threads):
            values, bias = th.zeros_like(self.values), th.zeros_like(self.bias)
            self.gradients.append((values, bias))
            self.arrays.append((array(values), array(bias)))
            for addresses, gradient in zip(self.addresses, (values, bias), strict=True):
                addresses.append(gradient.data_ptr())

    def publish_gradients(self) -> None:
        """Hand the optimizer the first thread's gradients."""
        if self.values.grad is not self.gradients[0][0]:
            self.values.grad, self.bias.grad = self.gradients[0]

    def add_gradients(self, threads: int) -> None:
        """
        Add up what the threads found.

        :param threads: number of threads that have worked
        """
        total = self.arrays[0]
        for values, bias in self.arrays[1:threads]:
            np.add(total[0], values, out=total[0])
            np.add(total[1], bias, out=total[1])
