"""
Which links live: magnitude drop, then growth. A topology method answers one question, *how do I score growth?*

To add a method, write a frozen dataclass with ``grow_scores`` and give it a line in ``TOPOLOGIES``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch as th


def drop_and_grow(index: th.Tensor, magnitude: th.Tensor, grow_scores: th.Tensor, k: int) -> th.Tensor:
    """
    Drop the ``k`` live links of smallest magnitude, then grow the ``k`` best-scored links among all that are not kept.
    A link that was just dropped may grow back.

    :param index: sorted flat positions of one layer's live links, ``[nnz]``
    :param magnitude: absolute values of the live weights, ``[nnz]``
    :param grow_scores: score of every position of the layer, ``[out * in]``; higher grows first
    :param k: number of links to move, ``0 <= k <= nnz``
    :return: the new sorted index, ``[nnz]``
    """
    if not 0 <= k <= len(index):
        raise ValueError(f"k={k} must lie in [0, {len(index)}], the number of live links")
    kept = index[_largest(magnitude, th.ones_like(magnitude, dtype=th.bool), len(index) - k)]
    candidates = th.ones_like(grow_scores, dtype=th.bool)
    candidates[kept] = False
    return th.cat([kept, _largest(grow_scores, candidates, k)]).sort().values


def _largest(scores: th.Tensor, candidates: th.Tensor, k: int) -> th.Tensor:
    """
    Give the positions of the ``k`` largest scores among the candidates. Equal scores (such as two zeros) fall to the lower
    position, on every run; sorting all scores would do that too, but takes seconds for a wide layer.
    """
    if k == 0:
        return th.empty(0, dtype=th.int64, device=scores.device)
    scores = scores.masked_fill(~candidates, -th.inf)
    threshold = scores.topk(k).values[-1]
    above = (scores > threshold).nonzero().squeeze(1)
    # By mask and not by score: a candidate's own score may be -inf.
    ties = ((scores == threshold) & candidates).nonzero().squeeze(1)
    return th.cat([above, ties[: k - len(above)]])


class Topology(Protocol):
    """What the updater asks of a topology method."""

    evolves: ClassVar[bool]
    uses_gradient: ClassVar[bool]

    def grow_scores(self, size: int, dense_gradient: Callable[[], th.Tensor], generator: th.Generator) -> th.Tensor:
        """
        Score all positions of one layer for growth.

        :param size: number of positions, ``out * in``
        :param dense_gradient: gives the gradient of the network's own loss by the dense weight matrix, ``[out, in]``
        :param generator: CPU generator for random draws
        :return: scores, ``[size]``
        """
        ...


@dataclass(frozen=True)
class Static:
    """The initial topology stays."""

    evolves: ClassVar[bool] = False
    uses_gradient: ClassVar[bool] = False

    def grow_scores(self, size: int, dense_gradient: Callable[[], th.Tensor], generator: th.Generator) -> th.Tensor:
        """Never asked for: a static topology does not evolve."""
        raise NotImplementedError("a static topology grows no links")


@dataclass(frozen=True)
class SET:
    """Random growth (Mocanu et al., 2018)."""

    evolves: ClassVar[bool] = True
    uses_gradient: ClassVar[bool] = False

    def grow_scores(self, size: int, dense_gradient: Callable[[], th.Tensor], generator: th.Generator) -> th.Tensor:
        """Score every position at random."""
        return th.rand(size, generator=generator)


@dataclass(frozen=True)
class RigL:
    """Growth where the loss gradient is largest (Evci et al., 2020; RLx2, section 4.1)."""

    evolves: ClassVar[bool] = True
    uses_gradient: ClassVar[bool] = True

    def grow_scores(self, size: int, dense_gradient: Callable[[], th.Tensor], generator: th.Generator) -> th.Tensor:
        """Score every position by the magnitude of its gradient."""
        return dense_gradient().abs().flatten()


TOPOLOGIES: dict[str, Topology] = {"rigl": RigL(), "set": SET(), "static": Static()}
