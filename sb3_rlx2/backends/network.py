"""What a backend sees of a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch as th
from torch import nn


@dataclass(frozen=True)
class LayerSpec:
    """
    Size of one sparse linear layer.

    :param in_features: number of inputs
    :param out_features: number of outputs
    :param nnz: number of live weights
    """

    in_features: int
    out_features: int
    nnz: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(out, in)`` of the dense weight matrix."""
        return self.out_features, self.in_features

    @property
    def size(self) -> int:
        """Number of weights of the dense layer."""
        return self.out_features * self.in_features


class SparseNetwork(Protocol):
    """What a backend computes: :class:`sb3_rlx2.sparse_mlp.SparseMLP`, where each name is explained."""

    layers: tuple[LayerSpec, ...]
    slices: list[slice]
    values: nn.Parameter
    bias: nn.Parameter
    hidden_activation: nn.Module
    output_activation: nn.Module
    norms: nn.ModuleList | None
    backend: str
    frozen_layers: int
    records_dense_gradient: bool
    compute_cache: Any
    _parameters: dict[str, nn.Parameter | None]
    _buffers: dict[str, th.Tensor | None]
    _modules: dict[str, nn.Module | None]

    @property
    def nnz(self) -> int:
        """Number of live weights."""

    @property
    def size(self) -> int:
        """Number of weights that the dense network has."""

    def dense_weights(self) -> Sequence[th.Tensor]:
        """Scatter the live weights into zeros."""

    def layer_index(self, layer: int) -> th.Tensor:
        """Positions of one layer's live weights."""

    def record_dense_gradient(self, layer: int, compute: Callable[[], th.Tensor]) -> None:
        """Receive the dense gradient of a layer, to be computed if asked for."""
